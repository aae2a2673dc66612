"""Transactions: records of each change, so that it can be finished or undone whatever happens.

Standard library only (rescue core): `/usr/bin/python3 -I -S` runs it when dlhealth's own environment is broken.
"""
