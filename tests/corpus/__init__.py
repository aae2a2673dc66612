"""What is measured on files that are not part of the project."""
