"""What apt, dpkg, alternatives and NVIDIA's installer have done."""
