"""Faults of PyTorch and TensorFlow in Python environments."""
