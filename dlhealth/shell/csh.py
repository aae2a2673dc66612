"""Reads the start-up files of csh and tcsh."""

import posixpath
import re
from collections.abc import Callable, Iterator

from dlhealth.host import Unreadable
from dlhealth.lean import NamedTuple, regex
from dlhealth.shell import helpers, patterns
from dlhealth.shell.malformed import LISTS
from dlhealth.shell.reader import Left, Reader
from dlhealth.shell.state import Session, Unsure, Variable
from dlhealth.shell.values import UNKNOWN, Truth, is_known, tidy

_DEEPEST = 30


class Line(NamedTuple):
    """One command with its words as they are written."""

    number: int
    words: tuple[str, ...]


class Block(NamedTuple):
    """if, foreach, while, switch: (head, body) of each branch."""

    number: int
    kind: str
    parts: "tuple[tuple[tuple[str, ...], tuple[Line | Block, ...]], ...]"


class Undefined(Exception):
    """csh stops at a variable that is not set."""


_WORD = regex(
    r"""(?:'(?:[^'\n]|\\\n)*'|"(?:[^"\n\\]|\\.)*"|`[^`\n]*`|\\.|\$\{[^}\n]{0,200}\}|[^\s;&|<>()'"`\\])+""", re.DOTALL
)
_OPERATOR = regex(r"&&|\|\||>>&?!?|>&?!?|<<|\|&|[();&|<]")


def _lines(text: str) -> Iterator[Line]:
    """Commands: a line each, or several with semicolons between."""
    text = text.replace("\\\n", " \0")
    number = 1
    for raw in text.split("\n"):
        begin, number = number, number + 1 + raw.count("\0")
        words: list[str] = []
        position, raw = 0, raw.replace("\0", "")
        while position < len(raw):
            if raw[position].isspace():
                position += 1
            elif raw[position] == "#" and (position == 0 or raw[position - 1].isspace()):
                break
            elif match := _OPERATOR.match(raw, position):
                position = match.end()
                if match[0] == ";":
                    if words:
                        yield Line(begin, tuple(words))
                    words = []
                else:
                    words.append(match[0])
            elif match := _WORD.match(raw, position):
                words.append(match[0])
                position = match.end()
            else:
                raise Unsure(f"a quote is left open in line {begin}")
        if words:
            yield Line(begin, tuple(words))


def _blocks(lines: list[Line], stop: tuple[str, ...], depth: int = 0) -> tuple[tuple["Line | Block", ...], str]:
    """Nest the lines; with the word at which it stopped. Takes from the end of `lines`, which is reversed."""
    if depth > _DEEPEST:
        raise Unsure("nested too deeply")
    found: list[Line | Block] = []
    while lines:
        line = lines[-1]
        first = line.words[0]
        if first in stop or (first.endswith(":") and "default" in stop and first == "default:"):
            return tuple(found), first
        lines.pop()
        if first == "if" and line.words[-1] == "then":
            found.append(_if(line, lines, depth))
        elif first in ("foreach", "while"):
            body, ending = _blocks(lines, ("end",), depth + 1)
            if not ending:
                raise Unsure("the file ends within a block")
            lines.pop()
            found.append(Block(line.number, first, ((line.words[1:], body),)))
        elif first == "switch":
            found.append(_switch(line, lines, depth))
        else:
            found.append(line)
    return tuple(found), ""


def _if(line: Line, lines: list[Line], depth: int) -> Block:
    parts: list[tuple[tuple[str, ...], tuple[Line | Block, ...]]] = []
    head = line.words[1:-1]
    while True:
        body, ending = _blocks(lines, ("else", "endif"), depth + 1)
        if not ending:
            raise Unsure("the file ends within a block")
        parts.append((head, body))
        following = lines.pop()
        if ending == "endif":
            return Block(line.number, "if", tuple(parts))
        head = following.words[2:-1] if following.words[1:2] == ("if",) else ()


def _switch(line: Line, lines: list[Line], depth: int) -> Block:
    parts: list[tuple[tuple[str, ...], tuple[Line | Block, ...]]] = [(line.words[1:], ())]
    _, ending = _blocks(lines, ("case", "default", "endsw"), depth + 1)
    while ending != "endsw":
        if not ending:
            raise Unsure("the file ends within a block")
        head = lines.pop().words
        body, ending = _blocks(lines, ("case", "default", "endsw"), depth + 1)
        parts.append((head, body))
    lines.pop()
    return Block(line.number, "switch", tuple(parts))


class Csh(Reader):
    """`start` reads /etc/csh.cshrc, csh.login, ~/.tcshrc or ~/.cshrc, ~/.login (tcsh's manual page, Debian's order)."""

    def __init__(self, session: Session, *, tcsh: bool, login: bool, interactive: bool) -> None:
        super().__init__(session, login=login, interactive=interactive)
        own = {"home": session.account.home, "user": session.account.name, "shell": session.account.shell}
        own |= {"tcsh": UNKNOWN + "."} if tcsh else {}
        own |= {"prompt": UNKNOWN + "% "} if interactive else {}
        own |= {"loginsh": ""} if login else {}
        for name, value in own.items():
            self.keep(name, value)
        self.tcsh = tcsh

    def keep(self, name: str, value: str) -> None:
        """A variable of the shell itself; its name can't be one of the environment's."""
        self.state.variables[f"set {name}"] = Variable(value, False)

    def start(self) -> None:
        home = self.session.account.home
        try:
            self.read("/etc/csh.cshrc")
            if self.login:
                self.read("/etc/csh.login")
            if not (self.tcsh and self.read(f"{home}/.tcshrc")):
                self.read(f"{home}/.cshrc")
            if self.login:
                self.read(f"{home}/.login")
        except Left:
            pass  # an error ends all reading
        for state in self.errors:
            self.state.merge(state)

    def run_text(self, text: str) -> None:
        lines = list(_lines(text))[::-1]
        commands, ending = _blocks(lines, ())
        if ending or lines:
            raise Unsure("syntax that is not followed")
        self.run(commands)

    def run(self, commands: "tuple[Line | Block, ...]") -> None:
        for command in commands:
            if isinstance(command, Block):
                self.at(command.number)
                self.block(command)
            else:
                self.at(command.number)
                self.line(command.words)

    def block(self, block: Block) -> None:
        if block.kind == "if":
            self.branches(block.parts)
        elif block.kind == "foreach":
            head, body = block.parts[0]
            items = self.items(head[1:])
            if not head or items is None or len(items) > 100 or not all(map(is_known, items)):
                raise Unsure("a loop over what is not known")
            for item in items:
                self.keep(head[0], item)
                self.run(body)
        elif block.kind == "switch":
            self.switch(block)
        else:
            raise Unsure("a loop that is not followed")

    def branches(self, parts: "tuple[tuple[tuple[str, ...], tuple[Line | Block, ...]], ...]") -> None:
        if not parts:
            return
        head, body = parts[0]
        if not head:
            self.run(body)
            return
        self.fork(self.truth(head), (lambda: self.run(body), lambda: self.branches(parts[1:])))

    def switch(self, block: Block) -> None:
        subject = self.text("".join(w for w in block.parts[0][0] if w not in "()"))

        def arms(number: int) -> None:
            if number >= len(block.parts):
                return
            head, body = block.parts[number]
            ends = body and isinstance(body[-1], Line) and body[-1].words[0] in ("breaksw", "exit")
            if not ends and number < len(block.parts) - 1:
                raise Unsure("a case that goes on with the next")
            pattern = " ".join(head[1:]).rstrip(": ")
            truth: Truth = True
            if head[0] == "case":
                truth = patterns.matches(patterns.parse([(self.text(pattern), False)]), subject)
            self.fork(truth, (lambda: self.run(body), lambda: arms(number + 1)))

        arms(1)

    def line(self, words: tuple[str, ...]) -> None:
        name = words[0]
        if name == "if":
            self.if_(words)
            return
        if "|" in words or "|&" in words or "&" in words:
            return  # in a process of its own
        operator = next((w for w in words if w in ("&&", "||")), "")
        if operator:
            middle = words.index(operator)
            second = words[middle + 1 :]
            if not middle or not second:
                raise Unsure("a command that is missing beside && or ||")
            self.line(words[:middle])
            self.fork(None, (lambda: self.line(second), lambda: None))
            return
        if name == "(" or re.match(r"[`$]", name):
            raise Unsure("a command whose name is not known")
        try:
            self.command(self.text(name), tuple(_without_redirections(words[1:])))
        except Undefined as variable:
            wanted = words[1] if len(words) > 1 and words[1] in LISTS else ""
            if wanted:
                text = f"csh stops reading the file here: {variable} is not set"
                self.problem(wanted, "undefined-variable", text, f"${variable}")
            raise Left("error") from None

    def if_(self, words: tuple[str, ...]) -> None:
        """`if (…) command` on one line."""
        depth, end = 0, 1
        for word in words[1:]:
            depth += (word == "(") - (word == ")")
            end += 1
            if depth == 0:
                break
        rest = words[end:]
        if depth or not rest:
            raise Unsure("an if that is not followed")
        self.fork(self.truth(words[1:end]), (lambda: self.line(rest), lambda: None))

    def command(self, name: str, words: tuple[str, ...]) -> None:
        known: dict[str, Callable[[tuple[str, ...]], None]] = {
            "setenv": self.setenv, "set": self.set, "unsetenv": self.unsetenv, "unset": self.unset,
            "source": self.source, "eval": self.eval,
        }  # fmt: skip
        if name in known:
            known[name](words)
        elif name in ("exit", "exec", "logout"):
            raise Left("return" if name == "exit" else name)
        elif name in helpers.CONDA_COMMAND:
            if words[:1] == ("activate",):
                self.prepend("conda activate changes PATH")
                self.session.set("LD_LIBRARY_PATH", UNKNOWN, "conda activate")
        elif name in helpers.UNKNOWN_COMMAND:
            raise Unsure(f"{name} changes the environment")
        elif name in ("@", "goto", "onintr", "repeat"):
            if name != "onintr":
                raise Unsure(f"{name} is not followed")
        elif name in LISTS and words[:1] and words[0].startswith("="):
            self.problem(name, "space-around-equals", f"{name} is a command's name here", " ".join((name, *words)))

    def setenv(self, words: tuple[str, ...]) -> None:
        if not words:
            return
        name = self.text(words[0])
        if not is_known(name):
            raise Unsure("setenv of what is not known")
        if "=" in name or words[1:2] == ("=",):
            variable = name.partition("=")[0]
            if variable in LISTS:
                self.problem(variable, "space-around-equals", "setenv has no =", " ".join(("setenv", *words)))
            if "=" in name:
                return
        if len(words) > 2:
            if name in LISTS:
                self.problem(name, "space", "setenv takes one word: too many arguments", " ".join(("setenv", *words)))
            raise Left("error")
        self.session.set(name, self.text(words[1]) if len(words) > 1 else "", "setenv", exported=True)

    def set(self, words: tuple[str, ...]) -> None:
        text = " ".join(w for w in words if not re.fullmatch(r"-[rfl]+", w))
        match = re.match(r"(\w+)\s*=\s*(.*)|(\w+)$", text, re.DOTALL)
        if not match:
            return
        name, value = match[1] or match[3], match[2] or ""
        if value.startswith("("):
            items = self.items(tuple(word for line in _lines(value) for word in line.words))
            if name == "path":
                joined = UNKNOWN if items is None else tidy(":".join(items))
                self.session.set("PATH", joined, "set path", exported=True)
            else:
                self.keep(name, UNKNOWN if items is None else " ".join(items))
            return
        self.keep(name, self.text(value))
        if name == "path":
            self.session.set("PATH", self.text(value), "set path", exported=True)

    def items(self, words: tuple[str, ...]) -> list[str] | None:
        """The words in parentheses."""
        items: list[str] = []
        for word in words:
            if word in ("(", ")"):
                continue
            listing = re.fullmatch(r"`(?:/bin/|/usr/bin/)?ls ([^`\s-][^`\s]*)`", word)
            if listing:
                found = self.items((listing[1],))
                if found is None or not all(map(self.prints_itself, found)):
                    return None
                items += found
                continue
            if re.fullmatch(r"\$\{?path\}?", word):
                value = self.state.get("PATH").value or ""
                items += value.split(":") if is_known(value) else [value]
                continue
            text = self.text(word)
            if any(c in word for c in "*?[") and not word.startswith(("'", '"')):
                try:
                    found = list(self.session.host.glob(text)) if text.startswith("/") and is_known(text) else None
                except Unreadable:
                    found = None
                if found is None:
                    return None
                items += found
            elif not is_known(text) or "{" in text:
                return None
            elif re.fullmatch(r"\$\{?\w+\}?", word):
                items += text.split()
            else:
                items.append(text)
        return items

    def prints_itself(self, name: str) -> bool:
        """Whether `ls` of it certainly prints that one word: of a folder it prints what is in it."""
        return name.split() == [name] and self.session.test_file("-f", name) is True

    def unsetenv(self, words: tuple[str, ...]) -> None:
        for word in words:
            self.session.unset(self.text(word))

    def unset(self, words: tuple[str, ...]) -> None:
        for word in words:
            self.state.variables[f"set {word}"] = Variable(None, False)

    def source(self, words: tuple[str, ...]) -> None:
        names = [w for w in words if not w.startswith("-")]
        path = self.text(names[0]) if names else UNKNOWN
        if not is_known(path):
            raise Unsure("sources a file whose name is not known")
        path = posixpath.normpath(self.session.absolute(path))
        if not self.known_file(posixpath.basename(path)) and not self.read(path):
            raise Left("error")

    def eval(self, words: tuple[str, ...]) -> None:
        program = re.match(r"[\"`]*([^\s`\"]+)", words[0]) if words and "`" in words[0] else None
        self.output_is_run(posixpath.basename(program[1]) if program else UNKNOWN)

    # Expansion.
    def text(self, word: str) -> str:
        """A word after expansion."""
        result, i = "", 0
        while i < len(word):
            char = word[i]
            if char == "'":
                end = word.find("'", i + 1)
                end = len(word) if end < 0 else end
                result += word[i + 1 : end]
                i = end + 1
            elif char == '"':
                i += 1  # expansion is the same inside
            elif char == "\\":
                result += word[i + 1 : i + 2]
                i += 2
            elif char == "`":
                end = word.find("`", i + 1)
                result += UNKNOWN
                i = len(word) if end < 0 else end + 1
            elif char == "$":
                match = regex(r"\$(\??)(#?)(?:\{(\??)(\w+)([^}]*)\}|(\w+)((?::[a-z]+)|\[[^\]]*\])?)").match(word, i)
                if not match:
                    result += UNKNOWN
                    i += 1
                    continue
                i = match.end()
                name = match[4] or match[6]
                asked, modified = match[1] or match[3], match[2] or match[5] or match[7]
                result += UNKNOWN if modified else self.variable(name, bool(asked))
            elif char == "~" and i == 0:
                match = regex(r"~([\w.-]*)(?=/|$)").match(word)
                if not match:
                    return UNKNOWN  # the name itself is put together of parts
                account = self.session.account
                result += account.home if match[1] in ("", account.name) else UNKNOWN
                i = match.end()
            else:
                result += char
                i += 1
        return tidy(result)

    def variable(self, name: str, asked: bool) -> str:
        value = self.state.get(f"set {name}").value
        if name == "path":
            value = (self.state.get("PATH").value or "").replace(":", " ")
            value = value if is_known(value) else UNKNOWN
        if value is None:
            value = self.state.get(name).value
        if asked:
            return UNKNOWN if value == UNKNOWN else "0" if value is None else "1"
        if value is None:
            raise Undefined(name)
        return value

    # Conditions.
    def truth(self, words: tuple[str, ...]) -> Truth:
        try:
            tokens = list(_split_operators(words))
            result, rest = self.either(tokens)
        except (Undefined, IndexError):
            return None
        return result if not rest else None

    def either(self, tokens: list[str]) -> tuple[Truth, list[str]]:
        result, tokens = self.both(tokens)
        while tokens[:1] == ["||"]:
            other, tokens = self.both(tokens[1:])
            result = True if True in (result, other) else None if None in (result, other) else False
        return result, tokens

    def both(self, tokens: list[str]) -> tuple[Truth, list[str]]:
        result, tokens = self.one(tokens)
        while tokens[:1] == ["&&"]:
            other, tokens = self.one(tokens[1:])
            result = False if False in (result, other) else None if None in (result, other) else True
        return result, tokens

    def one(self, tokens: list[str]) -> tuple[Truth, list[str]]:
        if tokens[0] == "!":
            inner, rest = self.one(tokens[1:])
            return (None if inner is None else not inner), rest
        if tokens[0] == "(":
            inner, rest = self.either(tokens[1:])
            return inner, rest[1:]
        if tokens[0] == "{":
            return None, tokens[tokens.index("}") + 1 :] if "}" in tokens else []
        if re.fullmatch("-[a-zA-Z]+", tokens[0]):
            operator = "-" + tokens[0][1] if tokens[0][1] != "l" else "-h"
            known = operator in ("-e", "-f", "-d", "-r", "-x", "-h")
            return (self.session.test_file(operator, self.text(tokens[1])) if known else None), tokens[2:]
        left = self.text(tokens[0])
        if tokens[1:2] and tokens[1] in ("==", "!=", "=~", "!~"):
            right = self.text(tokens[2])
            rest = tokens[3:]
            if not (is_known(left) and is_known(right)):
                return None, rest
            if tokens[1] in ("=~", "!~"):
                found = patterns.matches(patterns.parse([(right, False)]), left)
                return (None if found is None else found is (tokens[1] == "=~")), rest
            return (left == right) is (tokens[1] == "=="), rest
        if tokens[1:2] and tokens[1] not in ("&&", "||", ")"):
            return None, []
        return (None if not left.isdecimal() else left != "0"), tokens[1:]


def _without_redirections(words: tuple[str, ...]) -> Iterator[str]:
    skip = False
    for word in words:
        if skip:
            skip = False
        elif re.fullmatch(r">>?&?!?|<", word):
            skip = True
        else:
            yield word


def _split_operators(words: tuple[str, ...]) -> Iterator[str]:
    """`!` and comparisons may stand without blanks."""
    for word in words:
        if word.startswith("!") and len(word) > 1 and word[:2] not in ("!=", "!~"):
            yield "!"
            word = word[1:]
        pieces = re.split(r"(==|!=|=~|!~)", word) if not re.match(r"['\"]", word) else [word]
        yield from (p for p in pieces if p)
