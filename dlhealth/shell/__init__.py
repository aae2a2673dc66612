"""Reads the start-up files of shells and says what they do to a few variables, without running anything of them.

It is abstract interpretation: what can't be told from the files alone stays unknown, and what is known is what the real
shell gives.
"""
