"""Expansion of words as sh, bash and zsh do it: variables, command substitutions, splitting, globbing."""

import posixpath
import re
from collections.abc import Collection, Sequence

from dlhealth.host import Unreadable
from dlhealth.shell import helpers, patterns
from dlhealth.shell.sh.braces import expanded
from dlhealth.shell.sh.effects import all_arguments
from dlhealth.shell.sh.flow import ABORT, EXIT, Leave
from dlhealth.shell.sh.names import OWN_COMMANDS
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
        self.failed = 0
        self.ending: Ending | None = None
        self.tied = {"path": "PATH"} if dialect == "zsh" else {}
        self.substituted: list[Truth] = []

    @property
    def state(self) -> State:
        return self.session.state

    def absent(self, name: str) -> bool:
        """Whether there is certainly no command of this name."""
        state = self.state
        hooked = name in helpers.QUIET_OUTPUT or name in helpers.PREPENDING_OUTPUT
        if state.lost or name in state.functions or name in OWN_COMMANDS[self.dialect] or not is_known(name):
            return False
        if "/" in name:
            return self.session.complete and self.session.test_file("-e", name) is False
        return (hooked or not state.foreign) and self.session.find(name) == ""

    def end(self, how: str, text: str) -> str:
        """The shell ends here. For an error it does not where a person sits before it, nor does bash at its start: what
        it reads is then given up."""
        spared = self.interactive or (self.dialect == "bash" and not self.posix) or self.dialect == "zsh"
        if spared and how in ("error", "syntax", "missing"):
            self.failed = self.session.source.line or 0
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
                pieces = self.param(part)
                # zsh makes no patterns of a variable's value.
                result += pieces if self.dialect != "zsh" else [(t, q or bool(t), s) for t, q, s in pieces]
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
                continue  # continues with something quoted or expanded
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
        if (
            plain is None
            and part.op[:1] not in tuple(":-=?+")
            and part.op != "other"
            and self.unset_is_error(part.name)
        ):
            raise Leave(self.end("error", f"{part.name}: parameter not set, after set -u"))
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
        if part.op[0] == "/":
            return [(self.replaced(plain or "", part), part.quoted, split)]
        if part.op[0] in "#%":
            stripped = patterns.strip(plain or "", self.pattern(part.word), part.op)
            return [(UNKNOWN if stripped is None else stripped, part.quoted, split)]
        return self.alternative(part, plain, split)

    def replaced(self, text: str, part: Param) -> str:
        """`${name/pattern/text}`, where the pattern has no wildcards; all of them with `//`."""
        cut = next((n for n, p in enumerate(part.word) if isinstance(p, Text) and not p.quoted and "/" in p.text), None)
        old_words, new_words = part.word, part.word[:0]
        if cut is not None:
            head, _, tail = self.value(part.word[cut : cut + 1]).partition("/")
            old_words = (*part.word[:cut], Text(head, False))
            new_words = (Text(tail, True), *part.word[cut + 1 :])
        pattern = [(t, q) for t, q, _ in self.segments(old_words)]
        old, new = self.value(old_words), self.value(new_words)
        special = any(c in t for t, q in pattern if not q for c in "*?[\\(~^#%&")
        if special or not old or "&" in new or not all(map(is_known, (text, old, new))):
            return UNKNOWN
        return text.replace(old, new, -1 if part.op == "//" else 1)

    def unset_is_error(self, name: str) -> bool:
        return self.state.options.get("nounset") is True and name not in ("@", "*")

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
                how = "exit" if self.dialect == "zsh" else "error"
                raise Leave(self.end(how, f"{part.name}: parameter not set"))
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
        """The value of a variable or special parameter; None if it is not set."""
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
        if self.absent(fields[0]):
            return "", False
        if fields[0] in ("command", "type", "which") and len(fields) in (2, 3) and fields[-1][:1] not in ("", "-"):
            return self.located(fields)
        if fields[0] in self.builtins and fields[0] != "echo":
            return UNKNOWN, None
        path = self.state.get("PATH").value or ""
        if "/" not in fields[0] and fields[0] != "echo" and not {"/usr/bin", "/bin"} & set(known_elements(path)):
            return UNKNOWN, None
        name, arguments = posixpath.basename(fields[0]), fields[1:]
        known = self.session.prints(name, arguments)
        if name == "run-parts":
            known = self.run_parts(arguments)
        elif name == "echo" and arguments[:1] != ["-e"] and "\\" not in "".join(arguments):
            words = arguments[1:] if arguments[:1] == ["-n"] else arguments
            known = None if words[:1] and words[0].startswith("-") else " ".join(words).rstrip("\n")
        elif known is None and len(arguments) == 1 and not arguments[0].startswith("-"):
            if name == "dirname":
                known = posixpath.dirname(arguments[0].rstrip("/") or "/") or "."
            elif name == "basename":
                known = posixpath.basename(arguments[0].rstrip("/")) or "/"
        if known is None:
            return UNKNOWN, None
        return known, True

    def located(self, fields: list[str]) -> tuple[str, Truth]:
        """Of `command -v`, `type -p` and `which`."""
        name, option = fields[-1], fields[1:-1]
        if fields[0] == "which" and self.dialect == "zsh":
            return UNKNOWN, None
        if option not in {"command": (["-v"],), "type": (["-p"], ["-P"]), "which": ([],)}[fields[0]]:
            return UNKNOWN, None
        if "/" in name or name in self.state.functions or name in OWN_COMMANDS[self.dialect] or self.state.foreign:
            return UNKNOWN, None
        found = self.session.find(name)
        return (UNKNOWN, None) if found is None else (found, bool(found))

    def run_parts(self, arguments: list[str]) -> str | None:
        """The files that `run-parts --list` names (its manual page, and Debian's /etc/profile)."""
        pattern, folders = r"[a-zA-Z0-9_-]+", []
        options = iter(arguments)
        for argument in options:
            if argument.startswith("--regex"):
                pattern = argument.partition("=")[2] or next(options, "")
            elif not argument.startswith("-"):
                folders.append(argument.rstrip("/"))
            elif argument != "--list":
                return None
        if "--list" not in arguments or len(folders) != 1 or not re.fullmatch(r"[][\w^$.*+\\-]+", pattern):
            return None
        try:
            names = [n for n in sorted(self.session.host.listdir(folders[0])) if re.search(pattern, n)]
        except (Unreadable, re.error):
            return None
        if pattern == r"[a-zA-Z0-9_-]+":
            names = [n for n in names if re.fullmatch(pattern, n)]
        return "\n".join(p for p in (f"{folders[0]}/{n}" for n in names) if self.session.test_file("-f", p))

    def printed_by_chain(self, chain: Chain) -> tuple[str, Truth]:
        """Commands joined by && and ||; the effect of a `cd` among them is unknown."""
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
        """The words after expansion, splitting and globbing; None if their number is unknown."""
        result: list[str] = []
        for word in self.braced(words):
            if self.dialect == "zsh" and word and isinstance(word[0], Text) and word[0].text[:1] == "=":
                located = self.equals(word)
                if located is None:
                    return None
                result.append(located)
                continue
            if len(word) == 1 and isinstance(word[0], Text):
                part = word[0]
                if part.quoted or part.text == "[" or not any(c in part.text for c in "*?[~"):
                    result.append(part.text)
                    continue
            if word and isinstance(word[-1], Qualifier):
                names = self.qualified(word[:-1], word[-1].flags)
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
        """The words after brace expansion, which dash does not have."""
        if self.dialect == "sh":
            return list(words)
        result: list[Word] = []
        for word in words:
            result += expanded(word) or [(Opaque(False),)]
        return result

    def equals(self, word: Word) -> str | None:
        """zsh puts the path of a program in the place of `=program`."""
        first = word[0]
        text = self.value(word)
        if not isinstance(first, Text) or first.quoted or text == "=" or self.state.options.get("equals") is False:
            return text
        found = self.session.find(text[1:]) if is_known(text) and "/" not in text else None
        if text[1:] == "=" or found == "":
            raise Leave(self.end("error", f"{text[1:]} not found: zsh takes {text} for the path of a program"))
        return found

    def qualified(self, word: Word, flags: str) -> list[str] | None:
        """zsh's `folder(N-/)`: those of the files that are directories, or nothing."""
        if set(flags) - set("N-/.@"):
            return None
        names = self.glob([(text, quoted) for text, quoted, _ in self.segments(word)], wanted=True, empty="N" in flags)
        if names is None:
            return None
        found = []
        for name in names:
            path = self.session.absolute(name)
            there = self.session.test_file("-d" if "/" in flags else "-f" if "." in flags else "-e", path)
            if there and "-" not in flags and set(flags) & set("/.@"):
                link = self.session.test_file("-h", path)
                there = None if link is None else link is ("@" in flags)
            if there is None:
                return None
            found += [name] if there else []
        if not found and "N" not in flags:
            raise Leave(self.end("error", f"no matches found: {self.value(word)}"))
        return found

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

    def glob(self, pieces: list[tuple[str, bool]], wanted: bool = False, empty: bool = False) -> list[str] | None:
        """The files that fit; the word itself where none does and the shell lets that pass. `wanted`: a pattern also
        without wildcards; `empty`: none is no error."""
        text = tidy("".join(t for t, _ in pieces))
        active = any(c in t for t, quoted in pieces if not quoted for c in "*?[")
        if not active and not wanted:
            return [text]
        path = self.session.absolute(text)
        zsh = self.dialect == "zsh"
        if not is_known(path) or any(c in t for t, quoted in pieces if quoted for c in "*?[]\\"):
            return None
        if zsh and (
            any(c in text for c in "()<>|")
            or "**" in text
            or (set("^#~") & set(text.lstrip("~")) and self.state.options.get("extendedglob", False))
        ):
            return None
        if self.state.options.get("noglob") or (zsh and self.state.options.get("glob") is False):
            return [text]
        if any(
            self.state.options.get(option)
            for option in ("failglob", "dotglob", "globdots", "extglob", "globstar", "ksharrays")
        ):
            return None
        try:
            found = [name for name, _ in zip(self.session.host.glob(path), range(_ITEMS + 1), strict=False)]
        except Unreadable:
            return None
        if not text.startswith("/"):
            found = [name[len(path) - len(text) :] for name in found]
        if found or empty or self.state.options.get("nullglob"):
            return found
        if zsh and self.state.options.get("nomatch") is not False:
            raise Leave(self.end("error", f"no matches found: {text}"))
        return [text]
