"""Where something is written: a line of a file."""


class Place(str):
    """A file and a line in it. As text "path:LINE", or the path alone where no line is known.

    `line` counts from 1. What no file gives, as the default of a program, is named by its text alone.
    """

    __slots__ = ("line", "path")
    path: str
    line: int | None

    def __new__(cls, path: str, line: int | None = None) -> "Place":
        place = super().__new__(cls, path if line is None else f"{path}:{line}")
        place.path, place.line = path, line
        return place
