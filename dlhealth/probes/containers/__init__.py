"""Docker, NVIDIA's container toolkit, and what a container gets."""
