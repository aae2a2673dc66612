"""Parses fish's start-up files."""

import re
from collections.abc import Sequence

from dlhealth.lazy import regex
from dlhealth.records import NamedTuple
from dlhealth.shell.state import Unsure

_SPECIAL = " \t\n;&|<>()'\"\\$"
_DEEPEST = 30


class Refused(Exception):
    """fish itself reports an error of syntax, and runs nothing of the file."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


class Piece(NamedTuple):
    """Of a word: text, or a variable's name; `kind` is "text", "variable", "element" (of a list: its name and number),
    "output" (its text) or "other"."""

    kind: str
    text: str
    quoted: bool


Word = tuple[Piece, ...]


class Command(NamedTuple):
    """`joined` is "and" or "or" if it depends on the previous command; `piped` is the command whose output it reads."""

    line: int
    words: tuple[Word, ...]
    joined: str
    negated: bool
    piped: tuple[Word, ...] | None


class Block(NamedTuple):
    """if, for, while, switch, begin, function; "piped" where it reads a command's output. `parts` are the head and the
    commands of each branch."""

    line: int
    kind: str
    parts: "tuple[tuple[tuple[Command, ...] | tuple[Word, ...], tuple[Command | Block, ...]], ...]"
    joined: str
    negated: bool


class Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.i = 0
        self.line = 1
        self.depth = 0
        self.background = False

    def commands(self, stop: tuple[str, ...]) -> tuple[tuple[Command | Block, ...], str]:
        """Commands up to one of the words; with that word ("" at the end)."""
        self.depth += 1
        opened = self.line
        if self.depth > _DEEPEST:
            raise Unsure("cannot follow code that is nested so deeply")
        found: list[Command | Block] = []
        joined = ""
        while True:
            self.blank(newlines=True)
            if self.i >= len(self.text):
                if stop:
                    raise Refused(opened, "a block without an end")
                break
            line, start = self.line, self.i
            words = self.words()
            name = plain(words[0]) if words else None
            if name in stop and name:
                self.i, self.line = start, line
                self.depth -= 1
                return tuple(found), name
            if not words:
                if self.text[self.i : self.i + 1] not in ("|", "&", ";", "<", ">"):
                    raise Unsure("cannot follow this syntax")
                self.i += 1
                continue
            self.background = False
            statement = self.statement(line, words, joined)
            self.blank()
            if not self.background:
                found.append(statement)
            joined = {"&&": "and", "||": "or"}.get(self.text[self.i : self.i + 2], "")
            self.i += 2 if joined else 0
        self.depth -= 1
        return tuple(found), ""

    def statement(self, line: int, words: list[Word], joined: str) -> "Command | Block":
        negated = False
        while words and (first := plain(words[0])) in ("and", "or", "not", "!", "builtin", "time") and len(words) > 1:
            if first in ("and", "or"):
                joined = first
            elif first in ("not", "!"):
                negated = not negated
            words = words[1:]
        name = plain(words[0]) if words else None
        if name in ("if", "while", "for", "switch", "begin", "function"):
            return self.block(line, name, words[1:], joined, negated)
        piped: tuple[Word, ...] | None = None
        while self.at_pipe():
            piped = tuple(words)
            self.i += 1
            self.blank(newlines=True)
            words = self.words()
            kind = plain(words[0]) if words else None
            if kind in ("while", "begin", "for", "if", "switch"):
                return self.block(line, kind, words[1:], joined, negated)._replace(kind="piped")
        assigned = len(words) == 1 and words[0] and words[0][0].kind == "text" and not words[0][0].quoted
        if assigned and (match := regex(r"([A-Za-z_]\w*)=").match(words[0][0].text)):
            raise Refused(line, f"{match[0]}…, which fish writes as set {match[1]} …")
        return Command(line, tuple(words), joined, negated, piped)

    def at_pipe(self) -> bool:
        self.blank()
        return self.text[self.i : self.i + 1] == "|" and self.text[self.i : self.i + 2] != "||"

    def block(self, line: int, kind: str, head: list[Word], joined: str, negated: bool) -> Block:
        parts: list[tuple[tuple[Command, ...] | tuple[Word, ...], tuple[Command | Block, ...]]] = []
        if kind in ("if", "while"):
            condition = self.condition(line, head)
            body, ending = self.commands(("else", "end"))
            parts.append((condition, body))
            while ending == "else":
                words = self.words()[1:]
                otherwise = bool(words) and plain(words[0]) == "if"
                condition = self.condition(self.line, words[1:]) if otherwise else ()
                if words and not otherwise:
                    raise Unsure("cannot follow this else")
                body, ending = self.commands(("else", "end"))
                parts.append((condition, body))
        elif kind == "switch":
            _, ending = self.commands(("case", "end"))
            parts.append((tuple(head), ()))
            while ending == "case":
                patterns_ = tuple(self.words()[1:])
                body, ending = self.commands(("case", "end"))
                parts.append((patterns_, body))
        else:
            body, _ = self.commands(("end",))
            parts.append((tuple(head), body))
        self.words()  # end, with an optional redirection after it
        if self.at_pipe():
            self.i += 1
            self.blank(newlines=True)
            self.words()
            kind = "piped"
        return Block(line, kind, tuple(parts), joined, negated)

    def condition(self, line: int, words: list[Word]) -> tuple[Command, ...]:
        """The commands after if or while, with those that and, or, && and || add."""
        first = self.statement(line, words, "")
        found = [first]
        while True:
            self.blank()
            operator = {"&&": "and", "||": "or"}.get(self.text[self.i : self.i + 2], "")
            if operator:
                self.i += 2
                self.blank(newlines=True)
                found.append(self.statement(self.line, self.words(), operator))
                continue
            start, number = self.i, self.line
            while self.text[self.i : self.i + 1] in (";", "\n"):
                self.step()
                self.blank()
            words = self.words()
            if words and plain(words[0]) in ("and", "or"):
                found.append(self.statement(number, words, ""))
                continue
            self.i, self.line = start, number
            break
        commands = tuple(c for c in found if isinstance(c, Command))
        if len(commands) != len(found):
            raise Unsure("a block as a condition")
        return commands

    def step(self) -> None:
        self.line += self.text[self.i] == "\n"
        self.i += 1

    def blank(self, newlines: bool = False) -> None:
        while self.i < len(self.text):
            char = self.text[self.i]
            if char in " \t" or (newlines and char in "\n;"):
                self.step()
            elif char == "\\" and self.text[self.i + 1 : self.i + 2] == "\n":
                self.i += 1
                self.step()
            elif char == "#":
                while self.i < len(self.text) and self.text[self.i] != "\n":
                    self.i += 1
            else:
                return

    def words(self) -> list[Word]:
        words: list[Word] = []
        while True:
            self.blank()
            if self.i >= len(self.text) or self.text[self.i] in "\n;|":
                return words
            if self.text[self.i] == "&":
                if self.text[self.i + 1 : self.i + 2] in ("&", ">"):
                    if self.text[self.i + 1] == "&":
                        return words
                    self.i += 1
                else:
                    self.i += 1
                    self.background = True
                    return words
            redirection = regex(r"[0-9]*(>>?\??&?|<&?)[ \t]*").match(self.text, self.i)
            if redirection:
                self.i = redirection.end()
                self.word()
                continue
            word = self.word()
            if not word:
                raise Unsure("cannot follow this syntax")
            words.append(word)

    def word(self) -> Word:
        pieces: list[Piece] = []
        while self.i < len(self.text):
            char = self.text[self.i]
            if char == "(" or self.text.startswith("$(", self.i):
                self.i += 1 if char == "(" else 2
                pieces.append(Piece("output", self.parentheses(), False))
            elif char in " \t\n;&|<>)":
                break
            elif char == "'":
                match = regex(r"'((?:[^'\\]|\\.)*)'", re.DOTALL).match(self.text, self.i)
                if not match:
                    raise Refused(self.line, "a quote ' that is left open")
                self.skip(match.end())
                pieces.append(Piece("text", re.sub(r"\\(['\\])", r"\1", match[1]), True))
            elif char == '"':
                self.double(pieces)
            elif char == "\\":
                following = self.text[self.i + 1 : self.i + 2]
                pieces.append(
                    Piece("text", following, True)
                    if following not in "abefnrtvxXuUoc01234567"
                    else Piece("other", "", True)
                )
                self.skip(self.i + 2)
            elif char == "$":
                self.variable(pieces, False)
            else:
                match = regex(r"[^" + re.escape(_SPECIAL) + "]+").match(self.text, self.i)
                self.skip(match.end() if match else self.i + 1)
                text = match[0] if match else char
                pieces.append(Piece("other" if "{" in text else "text", text, False))
        return tuple(pieces)

    def skip(self, end: int) -> None:
        self.line += self.text.count("\n", self.i, end)
        self.i = min(end, len(self.text))

    def double(self, pieces: list[Piece]) -> None:
        self.i += 1
        opened = self.line
        pieces.append(Piece("text", "", True))
        while True:
            match = regex(r"[^\"\\$]+").match(self.text, self.i)
            if match:
                pieces.append(Piece("text", match[0], True))
                self.skip(match.end())
            if self.i >= len(self.text):
                raise Refused(opened, 'a quote " that is left open')
            char = self.text[self.i]
            if char == '"':
                self.i += 1
                return
            if self.text.startswith("$(", self.i):
                self.i += 2
                pieces.append(Piece("other", self.parentheses(), True))
            elif char == "$":
                self.variable(pieces, True)
            else:
                following = self.text[self.i + 1 : self.i + 2]
                if following != "\n":
                    pieces.append(Piece("text", following if following in '"$\\' else "\\" + following, True))
                self.skip(self.i + 2)

    def variable(self, pieces: list[Piece], quoted: bool) -> None:
        match = regex(r"\$+([A-Za-z_][A-Za-z0-9_]*)(\[[^\]\n]*\])?").match(self.text, self.i)
        if not match:
            raise Refused(self.line, "a $ without a variable's name, as fish has no ${NAME}")
        if match[0].startswith("$$"):
            self.i = match.end()
            pieces.append(Piece("other", match[1], quoted))
            return
        self.i = match.end()
        number = re.fullmatch(r"\[(-?[1-9]\d?)\]", match[2] or "")
        if number:
            pieces.append(Piece("element", f"{match[1]} {number[1]}", quoted))
        else:
            pieces.append(Piece("other" if match[2] else "variable", match[1], quoted))

    def parentheses(self) -> str:
        """The text up to the closing one."""
        start, depth, quote, opened = self.i, 1, "", self.line
        while self.i < len(self.text):
            char = self.text[self.i]
            if char == "\\":
                self.skip(self.i + 1)
            elif quote:
                quote = "" if char == quote else quote
            elif char in "'\"":
                quote = char
            elif char in "()":
                depth += 1 if char == "(" else -1
                if depth == 0:
                    self.i += 1
                    return self.text[start : self.i - 1]
            if self.i < len(self.text):
                self.step()
        raise Refused(opened, "a parenthesis that is left open")


def plain(word: Word) -> str | None:
    """The text of a word without expansion."""
    return "".join(p.text for p in word) if all(p.kind == "text" for p in word) else None


def spelled(word: Word) -> str:
    """A word as it may have been written."""
    return "".join(p.text if p.kind == "text" else f"${p.text.partition(' ')[0]}" for p in word)


def argument_names(head: Sequence[object]) -> tuple[str, ...]:
    """The names after -a of a function."""
    names: list[str] = []
    taken = False
    for word in (plain(w) or "-" for w in head if isinstance(w, tuple)):
        if word.startswith("-"):
            taken = word in ("-a", "--argument-names")
        elif taken:
            names.append(word)
    return tuple(names)
