"""Problems with cuDNN: its libraries, headers and links."""
