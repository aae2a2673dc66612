"""Problems with NVIDIA's kernel module: its build, its signature, and other drivers that hold the GPU."""
