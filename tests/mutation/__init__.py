"""Mutation tests: how many small defects in the repairs do the tests notice? See __main__.py."""
