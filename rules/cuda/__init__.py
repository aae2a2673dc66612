"""Problems with CUDA toolkits."""
