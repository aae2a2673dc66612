"""The built-in rules: one file per fault, in the folder of its layer."""
