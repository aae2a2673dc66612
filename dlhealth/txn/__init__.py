"""Transactions: what was done to the machine, so that it can be finished or taken back whatever happens.

Standard library only (rescue core): `/usr/bin/python3 -I -S` runs it when dlhealth's own environment is broken.
"""
