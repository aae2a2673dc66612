"""Problems that appear only while a GPU is in use."""
