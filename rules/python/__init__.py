"""Problems with PyTorch, TensorFlow and other GPU programs in Python environments."""
