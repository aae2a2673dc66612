"""How a command leaves."""

NORMAL, RETURN, BREAK, CONTINUE, EXIT, ABORT = "", "return", "break", "continue", "exit", "abort"
"""ABORT is back to the prompt of a shell on a terminal."""


class Leave(Exception):
    """An expansion or a builtin ends the shell, or returns to the prompt."""

    def __init__(self, flow: str) -> None:
        super().__init__(flow)
        self.flow = flow
