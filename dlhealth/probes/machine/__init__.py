"""The machine and its kernels: which system it is, what starts, what the logs and disks say."""
