"""A diagnosis as text or JSON, and an archive without secrets."""
