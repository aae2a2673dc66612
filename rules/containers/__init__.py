"""Problems with GPUs in containers."""
