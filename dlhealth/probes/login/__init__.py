"""People, what a login gives them, and the login screen."""
