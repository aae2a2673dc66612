"""Plans that several rules offer: another driver branch, a directory out of the loader's path, packages of Python."""
