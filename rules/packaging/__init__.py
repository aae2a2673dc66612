"""Problems with dpkg, apt and the sources of the driver."""
