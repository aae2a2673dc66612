"""Problems with PATH, LD_LIBRARY_PATH and other variables that a login sets."""
