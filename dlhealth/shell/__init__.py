"""Reads the start-up files of shells and finds their effect on a few variables, without running any of them.

It is abstract interpretation: a value that does not follow from the files alone stays unknown, and a known value is the
one that the real shell gives.
"""
