"""Reads the start-up files of csh and tcsh."""

import posixpath
import re
from collections.abc import Callable, Iterator

from dlhealth.host import Unreadable
from dlhealth.lazy import regex
from dlhealth.records import NamedTuple
from dlhealth.shell import helpers, patterns
from dlhealth.shell.malformed import LISTS
from dlhealth.shell.reader import Left, Reader
from dlhealth.shell.state import Exhausted, Session, Unsure, Variable
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


_OPEN = ("an open quote",)
"""The words of a line that csh cannot read. csh notices that only when it reaches the line."""
_BUILTINS = frozenset(
    [
        ":",
        "@",
        "alias",
        "alloc",
        "bg",
        "bindkey",
        "breaksw",
        "builtins",
        "cd",
        "chdir",
        "complete",
        "default",
        "dirs",
        "echo",
        "echotc",
        "end",
        "endif",
        "eval",
        "exec",
        "exit",
        "fg",
        "filetest",
        "glob",
        "hashstat",
        "history",
        "hup",
        "jobs",
        "kill",
        "limit",
        "log",
        "login",
        "logout",
        "ls-F",
        "nice",
        "nohup",
        "notify",
        "onintr",
        "popd",
        "printenv",
        "pushd",
        "rehash",
        "repeat",
        "sched",
        "set",
        "setenv",
        "settc",
        "setty",
        "shift",
        "source",
        "stop",
        "suspend",
        "telltc",
        "termname",
        "time",
        "umask",
        "unalias",
        "uncomplete",
        "unhash",
        "unlimit",
        "unset",
        "unsetenv",
        "wait",
        "where",
        "which",
        "else",
    ]
)
_NUMBERS = ("history", "savehist", "autologout", "tperiod")
_TURNS = 100


_WORD = regex(
    r"""(?:'(?:[^'\n]|\\\n)*'|"(?:[^"\n\\]|\\.)*"|`[^`\n]*`|\\.|\$\{[^}\n]{0,200}\}|[^ \t\n;&|<>()'"`\\])+""", re.DOTALL
)
_OPERATOR = regex(r"&&|\|\||>>&?!?|>&?!?|<<|\|&|[();&|<]")


def _lines(text: str) -> Iterator[Line]:
    """Commands: a line each, or several with semicolons between. A backslash at the end of a line continues it, also
    behind a comment, which ends there."""
    text = text.replace("\\\n", " \0")
    number = 1
    for raw in text.split("\n"):
        begin, number = number, number + 1 + raw.count("\0")
        words: list[str] = []
        position = 0
        while position < len(raw):
            if raw[position] in " \t\0":
                position += 1
            elif raw[position] == "#" and (position == 0 or raw[position - 1] in " \t;\0"):
                position = raw.find("\0", position)
                if position < 0:
                    break
            elif match := _OPERATOR.match(raw, position):
                position = match.end()
                if match[0] != ";":
                    words.append(match[0])
                    continue
                if words:
                    yield Line(begin, tuple(words))
                words = []
            elif match := _WORD.match(raw, position):
                if not words:  # it may stand behind a comment that was continued
                    begin = number - 1 - raw.count("\0", position)
                words.append(match[0].replace("\0", ""))
                position = match.end()
            else:
                words = list(_OPEN)
                break
        if words:
            yield Line(begin, tuple(words))


def _blocks(lines: list[Line], stop: tuple[str, ...], depth: int = 0) -> tuple[tuple["Line | Block", ...], str]:
    """Nest the lines; with the word at which it stopped. Removes them from the end of `lines`, which is reversed."""
    if depth > _DEEPEST:
        raise Unsure("cannot follow code that is nested so deeply")
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
                raise Unsure("the file ends within a loop", ends=True)
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
        parts.append((head, body))
        if not ending:  # the removed lines reach to the end of the file
            return Block(line.number, "if", tuple(parts))
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
        own |= dict.fromkeys(("argv", "status", "cwd"), UNKNOWN)
        if tcsh:
            own |= dict.fromkeys(
                [
                    "addsuffix",
                    "argv",
                    "autologout",
                    "dirstack",
                    "echo_style",
                    "edit",
                    "euser",
                    "gid",
                    "group",
                    "killring",
                    "owd",
                    "shlvl",
                    "term",
                    "tty",
                    "version",
                ],
                UNKNOWN,
            )
            own |= {"uid": str(session.account.uid), "euid": str(session.account.uid)}
            exported = {"OSTYPE": "linux", "VENDOR": "unknown", "HOST": session.hostname() or UNKNOWN}
            exported |= dict.fromkeys(("HOSTTYPE", "MACHTYPE", "GROUP", "SHLVL"), UNKNOWN)
            for name, value in exported.items():
                self.state.variables[name] = Variable(value, True)
        for name, value in own.items():
            self.keep(name, value)
        self.tcsh = tcsh
        self.failing = 0

    def keep(self, name: str, value: str, words: int = 1) -> None:
        """A variable of the shell itself, a list of so many words; its name can't be one of the environment's."""
        self.state.variables[f"set {name}"] = Variable(value, False)
        self.state.options[f"list {name}"] = words > 1

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
        except Left as left:
            self.left = left.how  # an error, too, ends all reading
        for state in self.errors:
            self.state.merge(state)

    def run_text(self, text: str) -> None:
        lines = list(_lines(text))[::-1]
        commands, ending = _blocks(lines, ())
        if ending or lines:
            raise Unsure("cannot follow this syntax", ends=True)
        self.run(commands)

    def run(self, commands: "tuple[Line | Block, ...]") -> None:
        """Run commands in their order. After an error csh runs the rest of the line, and then reads no more."""
        for command in commands:
            if self.failing and command.number != self.failing:
                break
            self.at(command.number)
            try:
                if isinstance(command, Block):
                    self.block(command)
                else:
                    self.line(command.words)
            except Undefined as variable:
                self.undefined(command, str(variable))
            except Exhausted:
                raise
            except Unsure as problem:
                self.session.forget(str(problem), stop=problem.ends)
        if self.failing:
            self.failing = 0
            raise Left("error")

    def undefined(self, command: "Line | Block", variable: str) -> None:
        words = command.words if isinstance(command, Line) else ()
        wanted = words[1] if len(words) > 1 and words[1] in LISTS else ""
        if wanted:
            text = f"csh stops reading the file here: {variable} is not set"
            self.problem(wanted, "undefined-variable", text, f"${variable}")
        self.blame_unread(f"uses {variable}, which is not set")
        raise Left("error")

    def fail(self, why: str) -> None:
        """A builtin reports an error."""
        self.failing = self.line_number
        self.blame_unread(why)

    def block(self, block: Block) -> None:
        if block.kind == "if":
            self.branches(block.parts)
        elif block.kind == "foreach":
            head, body = block.parts[0]
            items = self.items(head[1:])
            if not head or items is None or len(items) > _TURNS or not all(map(is_known, items)):
                raise Unsure("cannot tell what this loop runs over")
            for item in items:
                self.keep(head[0], item)
                if not self.turn(body):
                    break
        elif block.kind == "switch":
            self.switch(block)
        else:
            self.while_(block)

    def turn(self, body: "tuple[Line | Block, ...]") -> bool:
        """One turn of a loop; whether another one may follow."""
        try:
            self.run(body)
        except Left as left:
            if left.how not in ("break", "continue"):
                raise
            return left.how == "continue"
        return True

    def while_(self, block: Block) -> None:
        head, body = block.parts[0]
        for _ in range(_TURNS):
            truth = self.truth(head)
            if truth is None:
                raise Unsure("cannot follow this loop")
            if not truth or not self.turn(body):
                return
        raise Unsure("this loop does not end")

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
            head = block.parts[number][0]
            pattern = " ".join(head[1:]).rstrip(": ")
            truth: Truth = True
            if head[0] == "case":
                truth = patterns.matches(patterns.parse([(self.text(pattern), False)]), subject)
            self.fork(truth, (lambda: self.arm(block, number), lambda: arms(number + 1)))

        arms(1)

    def arm(self, block: Block, number: int) -> None:
        """From one case on to the next breaksw."""
        try:
            for _, body in block.parts[number:]:
                self.run(body)
        except Left as left:
            if left.how != "breaksw":
                raise

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
                raise Unsure("cannot follow && or || without a command beside it")
            self.state.status = None
            self.line(words[:middle])
            status = self.state.status
            truth = status if operator == "&&" or status is None else not status
            self.fork(truth, (lambda: self.line(second), lambda: None))
            return
        if name == "(":
            return  # in a process of its own
        if words == _OPEN:
            self.blame_unread("has an open quote")
            raise Left("error")
        command = self.text(name)
        if not is_known(command) or not command:
            raise Unsure("cannot tell which command it runs")
        self.command(command, tuple(_without_redirections(words[1:])))

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
            raise Unsure("cannot follow this if")
        self.fork(self.truth(words[1:end]), (lambda: self.line(rest), lambda: None))

    def command(self, name: str, words: tuple[str, ...]) -> None:
        known: dict[str, Callable[[tuple[str, ...]], None]] = {
            "setenv": self.setenv, "set": self.set, "unsetenv": self.unsetenv, "unset": self.unset,
            "source": self.source, "eval": self.eval, "alias": self.alias, "cd": self.cd, "chdir": self.cd,
            "exec": self.exec, "@": self.count,
        }  # fmt: skip
        if name in known:
            self.state.status = True
            known[name](words)
        elif name in ("exit", "logout", "break", "continue", "breaksw"):
            raise Left("return" if name == "exit" else name)
        elif name in ("test", "["):
            arguments = [self.text(w) for w in words]
            self.state.status = self.tested(arguments[:-1] if name == "[" else arguments)
        elif name in LISTS and words[:1] and words[0].startswith("="):
            self.problem(
                name,
                "space-around-equals",
                f"a space before the = makes {name} the name of a command",
                " ".join((name, *words)),
            )
        elif name in ("goto", "repeat"):
            raise Unsure(f"cannot follow {name}", ends=name == "goto")
        elif name not in _BUILTINS and self.absent(name):
            self.state.status = False
        elif name in helpers.CONDA_COMMAND:
            if words[:1] == ("activate",):
                self.prepend("conda activate changes PATH")
                self.session.set("LD_LIBRARY_PATH", UNKNOWN, "conda activate")
        elif name in helpers.UNKNOWN_COMMAND:
            raise Unsure(f"{name} changes the environment")
        elif name not in _BUILTINS:
            for word in words:
                self.text(word)  # for the variables that are not set

    def tested(self, arguments: list[str]) -> Truth:
        """The program `test`."""
        if len(arguments) == 2 and arguments[0] in ("-d", "-e", "-f", "-r", "-x", "-s", "-h", "-L"):
            return self.session.test_file(*arguments)
        return None

    def absent(self, name: str) -> bool:
        """Whether there is certainly no program of this name."""
        if self.state.lost or f"alias {name}" in self.state.functions or not is_known(name):
            return False
        if "/" in name:
            return self.session.complete and self.session.test_file("-e", name) is False
        return self.session.find(name) == ""

    def alias(self, words: tuple[str, ...]) -> None:
        if len(words) > 1:
            self.state.functions[f"alias {words[0]}"] = words[1:]

    def cd(self, words: tuple[str, ...]) -> None:
        items = self.items(tuple(w for w in words if not w.startswith("-"))) if words else [self.session.account.home]
        target = items[0] if items and len(items) == 1 else UNKNOWN
        there = self.session.test_file("-d", target)
        if there is False:
            self.fail(f"changes to {target}, which does not exist")
            return
        self.state.folder = posixpath.normpath(self.session.absolute(target)) if there else UNKNOWN

    def exec(self, words: tuple[str, ...]) -> None:
        arguments = [self.text(word) for word in words]
        if arguments and self.absent(arguments[0]):
            self.fail(f"calls {arguments[0]}, which is not installed")
            return
        self.replace(arguments)

    def count(self, words: tuple[str, ...]) -> None:
        """`@ name = expression`."""
        if match := re.match(r"([A-Za-z_]\w*)", words[0] if words else ""):
            self.keep(match[1], UNKNOWN)

    def setenv(self, words: tuple[str, ...]) -> None:
        if not words:
            return
        name = self.text(words[0])
        if not is_known(name):
            raise Unsure("cannot tell what setenv sets")
        if "=" in name or words[1:2] == ("=",):
            variable = name.partition("=")[0]
            if variable in LISTS:
                self.problem(variable, "space-around-equals", "setenv takes no =", " ".join(("setenv", *words)))
            if "=" in name:
                return
        if len(words) > 2:
            if name in LISTS:
                self.problem(name, "space", "setenv takes one word: too many arguments", " ".join(("setenv", *words)))
            self.fail("passes too many words to setenv")
            return
        value = self.one_word(words[1]) if len(words) > 1 else ""
        if value is not None:
            self.session.set(name, value, "setenv", exported=True)

    def one_word(self, word: str) -> str | None:
        """The value that setenv gets; None after an error."""
        variable = re.fullmatch(r"\$\{?(\w+)\}?", word)
        if variable and self.state.options.get(f"list {variable[1]}"):
            self.fail("passes too many words to setenv")
            return None
        if variable or not any(
            c in re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\$\{[^}]*\}|\$\?\w+|\\.", "", word) for c in "*?[{"
        ):
            return self.text(word)
        items = None if "{" in word else self.items((word,))
        if items is not None and len(items) > 1:
            self.fail("passes too many words to setenv")
            return None
        return UNKNOWN if items is None else "".join(items)

    def set(self, words: tuple[str, ...]) -> None:
        """`set`, with as many `name`, `name = word` and `name = (words)` as follow."""
        left = list(words)
        options = ""
        while left and re.fullmatch(r"-[rfl]+", left[0]):
            options += left.pop(0)
        while left:
            match = re.fullmatch(r"([A-Za-z_]\w*)(\[[^\]]*\])?(?:(=)(.*))?", left.pop(0), re.DOTALL)
            if not match:
                self.fail("passes a word to set that it does not accept")
                return
            name, index, equals, value = match[1], match[2], match[3], match[4] or ""
            if not equals and left and left[0].startswith("="):
                equals, value = "=", left.pop(0)[1:]
            if equals and not value and left[:1] == ["("]:
                end = left.index(")") if ")" in left else len(left)
                self.set_list(name, tuple(left[1:end]), options)
                left = left[end + 1 :]
                continue
            if equals and not value and left:
                value = left.pop(0)
            if index:
                raise Unsure("cannot follow a set of a part of a list")
            self.set_word(name, value)

    def set_word(self, name: str, word: str) -> None:
        value = self.one_word(word) if word else ""
        if value is None:
            return
        if name in _NUMBERS and is_known(value) and not re.fullmatch(r"\d*|\(.*", value):
            self.fail(f"gives {name} a value that is not a number")
            return
        self.keep(name, value)
        if name == "path":
            self.session.set("PATH", value, "set path", exported=True)

    def set_list(self, name: str, words: tuple[str, ...], options: str) -> None:
        items = self.items(words)
        if items is not None and ("f" in options or "l" in options) and all(map(is_known, items)):
            ordered = items if "f" in options else items[::-1]
            unique = list(dict.fromkeys(ordered))
            items = unique if "f" in options else unique[::-1]
        if name == "path":
            joined = UNKNOWN if items is None else tidy(":".join(items))
            self.session.set("PATH", joined, "set path", exported=True)
        else:
            self.keep(name, UNKNOWN if items is None else " ".join(items), 1 if items is None else len(items))

    def items(self, words: tuple[str, ...]) -> list[str] | None:
        """The words in parentheses. It is an error if there are patterns and none matches."""
        items: list[str] = []
        failed = fitted = False
        globs = self.state.get("set noglob").value is None and self.state.get("set nonomatch").value is None
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
                if found is None or "{" in text or not globs:
                    return None
                items += found
                fitted |= bool(found)
                failed |= not found
            elif not is_known(text) or ("{" in text and not word.startswith(("'", '"'))):
                return None
            elif re.fullmatch(r"\$\{?\w+\}?", word):
                items += text.split()
            else:
                items.append(text)
        if failed and not fitted:
            self.blame_unread("has a pattern that matches no file")
            raise Left("error")
        return items

    def prints_itself(self, name: str) -> bool:
        """Whether `ls` of it certainly prints only that word: of a directory it prints the content."""
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
            raise Unsure("cannot tell which file it sources")
        path = posixpath.normpath(self.session.absolute(path))
        if not self.known_file(posixpath.basename(path)) and not self.read(path):
            self.fail(f"sources {path}, which cannot be read")

    def eval(self, words: tuple[str, ...]) -> None:
        program = re.match(r"[\"`]*([^\s`\"]+)", words[0]) if words and "`" in words[0] else None
        if program and self.absent(program[1]):
            return
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
                result += self.printed(word[i + 1 : end if end > 0 else len(word)])
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

    def printed(self, command: str) -> str:
        """The output of a command, for the few commands that have a known one."""
        if re.search(r"[|;&<>`'\"\\*?\[]", command):
            return UNKNOWN
        name, *arguments = map(self.text, command.split() or [""])
        if posixpath.basename(name) == "ls" and len(arguments) == 1 and not arguments[0].startswith("-"):
            return self.listed(arguments[0])
        if self.absent(name) and name not in _BUILTINS:
            return ""
        return self.session.prints(posixpath.basename(name), arguments) or UNKNOWN

    def listed(self, path: str) -> str:
        """What `ls` of one directory prints."""
        if self.session.test_file("-d", path) is not True:
            return "" if self.session.test_file("-e", path) is False else UNKNOWN
        try:
            names = self.session.host.listdir(self.session.absolute(path))
        except Unreadable:
            return UNKNOWN
        return " ".join(sorted(name for name in names if not name.startswith(".")))

    def variable(self, name: str, asked: bool) -> str:
        if name == "cwd" and self.tcsh:
            return "1" if asked else self.state.folder
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
        if value == UNKNOWN and self.state.lost and self.state.get(name).exported is None:
            self.perhaps_undefined()
        return value

    def perhaps_undefined(self) -> None:
        """A variable may not be set: then csh stops here."""
        if self.errors:
            self.errors[0].merge(self.state)
        else:
            self.errors.append(self.state.copy())

    # Conditions.
    def truth(self, words: tuple[str, ...]) -> Truth:
        try:
            tokens = list(_split_operators(words))
            result, rest = self.either(tokens)
        except IndexError:
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
