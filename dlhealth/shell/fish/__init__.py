"""The reader of fish."""
