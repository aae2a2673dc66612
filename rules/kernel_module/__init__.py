"""Faults of the NVIDIA kernel module: its build, its signature, who else claims the GPU."""
