"""The possible effects of commands, without following them: which programs they call, which variables they may set."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from dlhealth.shell import helpers
from dlhealth.shell.sh.syntax import (
    Chain,
    For,
    Function,
    Node,
    Opaque,
    Output,
    Param,
    Pipeline,
    Simple,
    Subshell,
    Text,
    Word,
    literal,
)
from dlhealth.shell.values import UNKNOWN, Truth

_NAMING = ("read", "printf", "mapfile", "getopts")
_DECLARING = ("export", "readonly", "declare", "typeset", "local", "unset")
QUIET = frozenset(
    ("[", "test", ":", "true", "false", "echo", "alias", "unalias", "umask", "trap", "type", "which", "hash", "continue", "break")
)  # fmt: skip
"""Builtins that leave the variables as they are."""


def invoked(nodes: Iterable[Node]) -> list[tuple[Word, ...]]:
    """The words of the programs that commands run; one without words if that is not clear."""
    found: list[tuple[Word, ...]] = []
    for node in nodes:
        if isinstance(node, Simple):
            found += [node.words] if node.words else []
        elif isinstance(node, Pipeline):
            found += invoked(node.commands[:1])
        elif isinstance(node, Chain):
            found += invoked((node.first, *(n for _, n in node.links)))
        else:
            found.append(())
    return found


class Effects:
    """Collects in `names` the variables that commands may set, and in `loose` those that they may also export or
    unset; `shifts` is whether they take arguments away, `defines` whether they make functions known. `functions` are known, `builtins` may do more than a program."""

    def __init__(self, functions: Collection[str], builtins: Collection[str]) -> None:
        self.functions = functions
        self.builtins = builtins
        self.names: set[str] = set()
        self.loose: set[str] = set()
        self.shifts = False
        self.defines = False

    def may_set(self, nodes: Iterable[Any]) -> bool:
        """Collect the effects of commands; False if they are unknown."""
        return all(self._node(node) for node in nodes if isinstance(node, tuple))

    def _node(self, node: Any) -> bool:
        if isinstance(node, Simple):
            return self._simple(node)
        if isinstance(node, (Subshell, Text, Output, Opaque)):
            return True
        if isinstance(node, Function):
            return False
        if isinstance(node, For):
            self.names.add(node.name)
        if isinstance(node, Param):
            if node.op[-1:] == "=":
                self.names.add(node.name)
            return self.may_set(node.word)
        return self.may_set(node)

    def _simple(self, node: Simple) -> bool:
        self.names.update(a.name for a in node.assignments)
        words = [w for a in node.assignments for w in (a.word, *(a.items or ()))]
        if not self.may_set((*words, *node.words)):
            return False
        if not node.words:
            return True
        name = literal(node.words[0])
        if name in _NAMING or name in _DECLARING:
            for word in node.words[1:]:
                text = "".join(p.text if isinstance(p, Text) else UNKNOWN for p in word).partition("=")[0]
                if UNKNOWN in text:
                    return False
                (self.loose if name in _DECLARING else self.names).add(text.rstrip("+").lstrip("-"))
            return True
        if name in helpers.PREPENDING_COMMAND:
            self.names.add("PATH")
        if name == "autoload":
            self.defines = True
            return True
        if name == "shift":
            self.shifts = True
            return True
        # A function, `.`, eval, cd, exit and the like; or a program, which is harmless.
        risky = name is None or name in self.functions or name in self.builtins or name in helpers.UNKNOWN_COMMAND
        return name in QUIET or not risky


def all_arguments(word: Word) -> bool:
    """Whether a word is "$@"."""
    parts = [p for p in word if p != Text("", True)]
    first = parts[0] if len(parts) == 1 else None
    return isinstance(first, Param) and first.name == "@" and first.op == "" and first.quoted


def asks_for_success(words: Sequence[Word]) -> Truth:
    """The result that `[ $? -eq 0 ]` and similar tests ask of `$?`; None for all other commands. A failure has an
    unknown number, which is not 0."""
    if len(words) != 5 or literal(words[0]) != "[" or literal(words[3]) != "0":
        return None
    status = next((p for p in words[1] if not (isinstance(p, Text) and not p.text)), None)
    if not isinstance(status, Param) or status[:2] != ("?", ""):
        return None
    return {"-eq": True, "=": True, "==": True, "-ne": False, "!=": False}.get(literal(words[2]) or "")
