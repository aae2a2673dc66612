"""Where these tests work."""

from tests.memory import tmp_path

__all__ = ["tmp_path"]
