"""Problems with the login screen and graphical sessions."""
