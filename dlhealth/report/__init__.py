"""A diagnosis as text or JSON, and a bundle without secrets."""
