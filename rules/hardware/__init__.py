"""Problems with the GPUs themselves and their bus."""
