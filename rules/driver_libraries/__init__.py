"""Problems with the libraries of the driver and the order in which programs find them."""
