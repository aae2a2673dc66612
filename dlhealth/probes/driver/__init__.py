"""GPUs, and the driver's modules, libraries, devices and settings."""
