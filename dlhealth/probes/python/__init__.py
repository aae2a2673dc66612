"""Python environments, and what the frameworks in them need."""
