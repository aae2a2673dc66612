"""Expansion of words as sh, bash and zsh do it: variables, command substitutions, splitting, globbing."""

import posixpath
import re
from collections.abc import Collection, Sequence

from dlhealth.host import Unreadable
from dlhealth.shell import patterns
from dlhealth.shell.sh.braces import expanded
from dlhealth.shell.sh.effects import all_arguments
from dlhealth.shell.sh.flow import ABORT, EXIT, Leave
from dlhealth.shell.sh.syntax import Chain, Node, Opaque, Output, Param, Qualifier, Simple, Text, Word
from dlhealth.shell.state import Ending, Session, State
from dlhealth.shell.values import UNKNOWN, Truth, is_empty, is_known, join, known_elements, tidy

_ITEMS = 200


class Expansion:
    """What a shell makes of the words of a command. `builtins` are the commands that are no programs."""

    builtins: Collection[str] = ()

    def __init__(self, session: Session, dialect: str, *, interactive: bool, posix: bool) -> None:
        self.session = session
        self.dialect = dialect
        self.posix = posix
        self.interactive = interactive
        self.path = ""
        self.ending: Ending | None = None
        self.tied = {"path": "PATH"} if dialect == "zsh" else {}
        self.substituted: list[Truth] = []

    @property
    def state(self) -> State:
        return self.session.state

    def end(self, how: str, text: str) -> str:
        """The shell ends here, unless a person sits before it, whom it spares what is no wish of a file."""
        if self.interactive and how not in ("exit", "exec", "set -e"):
            return ABORT
        self.ending = Ending(self.session.source, how, text)
        return EXIT

    def value(self, word: Word, assigned: bool = False) -> str:
        """The text of a word without splitting."""
        return tidy("".join(text for text, _, _ in self.segments(word, assigned)))

    def pattern(self, word: Word) -> patterns.Pattern | None:
        return patterns.parse([(text, quoted) for text, quoted, _ in self.segments(word)])

    def segments(self, word: Word, assigned: bool = False) -> list[tuple[str, bool, bool]]:
        """Pieces of (text, quoted, to be split)."""
        result: list[tuple[str, bool, bool]] = []
        for number, part in enumerate(word):
            if isinstance(part, Text):
                text = part.text
                if not part.quoted and "~" in text:
                    text = self.tilde(text, number == 0, number == len(word) - 1, assigned)
                result.append((text, part.quoted, False))
            elif isinstance(part, Param):
                result += self.param(part)
            elif isinstance(part, Output):
                text = UNKNOWN if part.process else self.output(part)
                result.append((text, part.quoted, not part.quoted and self.dialect != "zsh"))
            elif isinstance(part, Opaque):
                self.ended(None)  # there may be a command substitution in it
                result.append((UNKNOWN, part.quoted, not part.quoted))
            elif isinstance(part, Qualifier):
                result.append((UNKNOWN, False, False))
        return result

    def tilde(self, text: str, first: bool, last: bool, assigned: bool) -> str:
        pieces = text.split(":") if assigned else [text]
        for number, piece in enumerate(pieces):
            if not piece.startswith("~") or (number == 0 and not first):
                continue
            user, slash, rest = piece[1:].partition("/")
            if not slash and number == len(pieces) - 1 and not last:
                continue  # goes on with something quoted or expanded
            home = self.state.get("HOME").value if not user else self.home(user)
            pieces[number] = UNKNOWN if home is None else home + slash + rest
        return ":".join(pieces)

    def home(self, user: str) -> str | None:
        return self.session.account.home if user == self.session.account.name else None

    def param(self, part: Param) -> list[tuple[str, bool, bool]]:
        split = not part.quoted and self.dialect != "zsh"
        plain = self.plain(part.name)
        if part.name in self.tied and not part.quoted and plain and is_known(plain):
            plain = ":".join(filter(None, plain.split(":")))  # an array leaves its empty elements out
        if part.op == "":
            return [("" if plain is None else plain, part.quoted, split)]
        if part.op == "length":
            return [(str(len(plain or "")) if plain is None or is_known(plain) else UNKNOWN, part.quoted, split)]
        if part.op == "other":
            if self.dialect == "sh":
                raise Leave(self.end("error", "Bad substitution (not known to sh)"))
            if part.name == "BASH_SOURCE" and self.dialect == "bash":
                return [(self.path or UNKNOWN, part.quoted, split)]
            self.ended(None)  # there may be a command substitution in it
            return [(UNKNOWN, part.quoted, split)]
        if part.op[0] in "#%":
            stripped = patterns.strip(plain or "", self.pattern(part.word), part.op)
            return [(UNKNOWN if stripped is None else stripped, part.quoted, split)]
        return self.alternative(part, plain, split)

    def alternative(self, part: Param, plain: str | None, split: bool) -> list[tuple[str, bool, bool]]:
        """The operators - = ? +, with or without a colon."""
        there: Truth = plain is not None
        if plain is not None and part.op[0] == ":":
            empty = is_empty(plain)
            there = None if empty is None else not empty
        elif plain == UNKNOWN:
            there = None
        value = plain or ""
        operator = part.op[-1]
        if operator == "?":
            if there is False:
                raise Leave(self.end("error", f"{part.name}: parameter not set"))
            return [(value, part.quoted, split)]
        if operator == "+":
            if there is False:
                return [("", part.quoted, False)]
            word = self.segments(part.word)
            if there:
                return [(text, quoted, part_split or (split and not quoted)) for text, quoted, part_split in word]
            return [(join("", self.value(part.word)), part.quoted, split)]
        if there:
            return [(value, part.quoted, split)]
        word = self.segments(part.word)
        text = tidy("".join(t for t, _, _ in word))
        if operator == "=":
            self.session.set(part.name, text if there is False else join(value, text), "default")
        if there is False:
            return [(t, quoted, part_split or (split and not quoted)) for t, quoted, part_split in word]
        return [(join(value, text), part.quoted, split)]

    def plain(self, name: str) -> str | None:
        """The value of a variable or special parameter; None where it is not set."""
        if name == "-":
            return (
                ("himBHs" if self.dialect == "bash" else "im")
                if self.interactive
                else ("hB" if self.dialect == "bash" else "")
            )
        if name == "?":
            status = self.state.status
            return UNKNOWN if not status else "0"
        if name == "#":
            return UNKNOWN if self.state.arguments is None else str(len(self.state.arguments))
        if name in "@*":
            arguments = self.state.arguments
            return UNKNOWN if arguments is None else " ".join(arguments)
        if name.isdecimal() and name != "0":
            arguments = self.state.arguments
            if arguments is None:
                return UNKNOWN
            return arguments[int(name) - 1] if len(name) < 7 and int(name) <= len(arguments) else None
        if name in ("0", "$", "!", "_"):
            return UNKNOWN
        return self.state.get(self.tied.get(name, name)).value

    def output(self, part: Output) -> str:
        """What a command substitution prints, for the few commands whose output is known."""
        text, status = self.printed(part.commands)
        self.ended(status)
        return text

    def ended(self, status: Truth) -> None:
        """A command substitution ended so: from then on that is `$?`, to dash only when the line is done."""
        self.substituted.append(status)
        if self.dialect != "sh":
            self.state.status = status

    def printed(self, commands: Sequence[Node] | None) -> tuple[str, Truth]:
        """Output and status."""
        if commands is not None and len(commands) == 1 and isinstance(commands[0], Chain):
            return self.printed_by_chain(commands[0])
        if commands is None or len(commands) != 1 or not isinstance(commands[0], Simple) or commands[0].assignments:
            return UNKNOWN, None
        before, ending = self.state.copy(), self.ending
        try:
            fields = self.fields(commands[0].words)
        except Leave:  # only the subshell
            self.ending = ending
            return "", False
        finally:
            self.session.state = before
        if fields and fields[0] == "builtin" and self.dialect == "sh":
            return "", False  # bash's, and not found
        if not fields or not all(map(is_known, fields)) or fields[0] in self.state.functions:
            return UNKNOWN, None
        if fields[0] in self.builtins and fields[0] != "echo":
            return UNKNOWN, None
        path = self.state.get("PATH").value or ""
        if "/" not in fields[0] and fields[0] != "echo" and not {"/usr/bin", "/bin"} & set(known_elements(path)):
            if self.session.find(fields[0]) == "":
                return "", False  # not found: it prints nothing
            return UNKNOWN, None
        name, arguments = posixpath.basename(fields[0]), fields[1:]
        known = self.session.prints(name, arguments)
        if known is None and len(arguments) == 1 and not arguments[0].startswith("-"):
            if name == "dirname":
                known = posixpath.dirname(arguments[0].rstrip("/") or "/") or "."
            elif name == "basename":
                known = posixpath.basename(arguments[0].rstrip("/")) or "/"
            elif name == "echo" and "\\" not in arguments[0]:
                known = arguments[0].rstrip("\n")
        if known is None:
            return UNKNOWN, None
        return known, True

    def printed_by_chain(self, chain: Chain) -> tuple[str, Truth]:
        """Of commands joined by && and ||; what a `cd` among them changes is not known."""
        text, status = self.printed((chain.first,))
        texts = [text]
        for operator, node in chain.links:
            if status is None:
                return UNKNOWN, None
            if status is (operator == "&&"):
                text, status = self.printed((node,))
                texts.append(text)
        return tidy("\n".join(filter(None, texts))), status

    def fields(self, words: Sequence[Word]) -> list[str] | None:
        """The words after expansion, splitting and globbing; None where their number can't be told."""
        result: list[str] = []
        for word in self.braced(words):
            if len(word) == 1 and isinstance(word[0], Text):
                part = word[0]
                if part.quoted or part.text == "[" or not any(c in part.text for c in "*?[~"):
                    result.append(part.text)
                    continue
            if word and isinstance(word[-1], Qualifier):
                names = self.qualified(self.value(word[:-1]), word[-1].flags)
                if names is None:
                    return None
                result += names
                continue
            if all_arguments(word):
                if self.state.arguments is None:
                    return None
                result += self.state.arguments
                continue
            found = self.split(self.segments(word))
            if found is None:
                return None
            for pieces in found:
                names = self.glob(pieces)
                if names is None:
                    return None
                result += names
        return result

    def braced(self, words: Sequence[Word]) -> list[Word]:
        """The words after brace expansion, which dash does not know."""
        if self.dialect == "sh":
            return list(words)
        result: list[Word] = []
        for word in words:
            result += expanded(word) or [(Opaque(False),)]
        return result

    def qualified(self, path: str, flags: str) -> list[str] | None:
        """zsh's `folder(N-/)`: the folder where there is one, else nothing."""
        if set(flags) - set("N-/.") or "N" not in flags or any(c in path for c in "*?[") or not is_known(path):
            return None
        there = self.session.test_file("-d" if "/" in flags else "-f" if "." in flags else "-e", path)
        if there and "-" not in flags and flags != "N":
            link = self.session.test_file("-h", path)
            there = None if link is None else not link
        return None if there is None else [path] if there else []

    def split(self, segments: list[tuple[str, bool, bool]]) -> list[list[tuple[str, bool]]] | None:
        """Fields as pieces of (text, quoted)."""
        blanks = self.state.get("IFS").value
        separators = " \t\n" if blanks is None else blanks
        fields: list[list[tuple[str, bool]]] = [[]]
        for text, quoted, split in segments:
            if not split:
                if text or quoted:
                    fields[-1].append((text, quoted))
                continue
            if not (is_known(separators) and is_known(text)):
                return None
            if separators.strip(" \t\n"):
                pieces = re.split("[" + re.escape(separators) + "]", text) if text else []
                if pieces and not pieces[-1]:
                    pieces.pop()
            else:
                pieces = re.split("[" + re.escape(separators) + "]+", text) if separators else [text]
            for number, piece in enumerate(pieces):
                if number:
                    fields.append([])
                if piece or (separators.strip(" \t\n") and len(pieces) > 1):
                    fields[-1].append((piece, False))
        return [pieces for pieces in fields if pieces]

    def glob(self, pieces: list[tuple[str, bool]]) -> list[str] | None:
        text = tidy("".join(t for t, _ in pieces))
        active = any(c in t for t, quoted in pieces if not quoted for c in "*?[")
        if not active:
            return [text]
        path = self.session.absolute(text)
        if (
            self.dialect == "zsh"
            or not is_known(path)
            or any(c in t for t, quoted in pieces if quoted for c in "*?[]\\")
        ):
            return None
        if any(
            option in self.state.options
            for option in ("nullglob", "failglob", "dotglob", "extglob", "noglob", "globstar")
        ):
            return None
        try:
            found = [name for name, _ in zip(self.session.host.glob(path), range(_ITEMS + 1), strict=False)]
        except Unreadable:
            return None
        if not text.startswith("/"):
            found = [name[len(path) - len(text) :] for name in found]
        return found or [text]
