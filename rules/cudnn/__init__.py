"""Faults of cuDNN: its libraries, headers and links."""
