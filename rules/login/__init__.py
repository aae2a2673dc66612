"""Faults of the login screen and graphical sessions."""
