"""The built-in rules: one file per fault, in the directory of its layer."""
