"""CUDA toolkits, cuDNN and OpenCL."""
