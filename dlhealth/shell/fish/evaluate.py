"""Reads fish's start-up files.

Lists are kept as one string: with colons for the variables that fish itself joins so (their names end in PATH), with
blanks for others.
"""

import posixpath
import re
from collections.abc import Sequence
from itertools import islice

from dlhealth.host import Unreadable
from dlhealth.host.place import Place
from dlhealth.shell import helpers, patterns
from dlhealth.shell.fish.syntax import Block, Command, Parser, Piece, Refused, Word, argument_names, plain, spelled
from dlhealth.shell.malformed import LISTS, set_behind
from dlhealth.shell.reader import Left, Reader
from dlhealth.shell.state import WATCHED, Exhausted, Session, Unsure, Variable
from dlhealth.shell.values import UNKNOWN, Truth, is_empty, is_known, known_elements, text_of, tidy, tokens

_MOST_WORDS = 200
"""Words that one expansion may give; with more, their number counts as unknown."""
_MOST_BRACES = 16


class Missing(Exception):
    """The program of a command substitution is not installed."""


_BUILTINS = frozenset(
    [
        ".",
        ":",
        "[",
        "_",
        "abbr",
        "and",
        "argparse",
        "begin",
        "bg",
        "bind",
        "block",
        "break",
        "breakpoint",
        "builtin",
        "case",
        "cd",
        "command",
        "commandline",
        "complete",
        "contains",
        "continue",
        "count",
        "disown",
        "echo",
        "else",
        "emit",
        "end",
        "eval",
        "exec",
        "exit",
        "false",
        "fg",
        "for",
        "function",
        "functions",
        "history",
        "if",
        "jobs",
        "math",
        "not",
        "or",
        "path",
        "printf",
        "pwd",
        "random",
        "read",
        "realpath",
        "return",
        "set",
        "set_color",
        "source",
        "status",
        "string",
        "switch",
        "test",
        "time",
        "true",
        "type",
        "ulimit",
        "wait",
        "while",
        "alias",
        "export",
        "fish_add_path",
    ]
)


_QUIET = frozenset(
    [
        "[",
        "test",
        "contains",
        "not",
        "and",
        "or",
        "echo",
        "type",
        "command",
        "status",
        "string",
        "count",
        "printf",
        "true",
        "false",
        "math",
        "builtin",
    ]
)


class Fish(Reader):
    """`start` reads what fish reads at its start: conf.d, then config.fish of the system and of the user."""

    def __init__(self, session: Session, *, login: bool, interactive: bool) -> None:
        super().__init__(session, login=login, interactive=interactive)
        self.lists: set[str] = set()
        self.universals: set[str] = set()
        # What is inherited is global; a universal variable of that name has no effect.
        self.globals = {n for n, v in session.state.variables.items() if v.value is not None and v.exported}
        self.hidden: list[dict[str, Variable]] = []

    def start(self) -> None:
        home = self.session.account.home
        configuration = self.state.get("XDG_CONFIG_HOME").value
        own = posixpath.join(configuration if configuration and is_known(configuration) else f"{home}/.config", "fish")
        try:
            self.universal(f"{own}/fish_variables")
            names: dict[str, str] = {}
            for folder in (f"{own}/conf.d", "/etc/fish/conf.d", "/usr/share/fish/vendor_conf.d"):
                try:
                    for name in self.session.host.listdir(folder):
                        if name.endswith(".fish"):
                            names.setdefault(name, f"{folder}/{name}")
                except Unreadable as problem:
                    self.session.forget(str(problem))
            for _, path in sorted(names.items()):
                if path == helpers.MODULES_FOR_FISH and self.session.loads_no_modules():
                    self.state.foreign = True
                else:
                    self.read(path)
            for path in ("/etc/fish/config.fish", f"{own}/config.fish"):
                self.read(path)
        except Left as left:
            self.left = left.how

    def universal(self, path: str) -> None:
        """fish_variables: the universal variables. fish puts fish_user_paths in front of PATH."""
        try:
            text = self.session.text(path) or ""
        except Unsure as problem:
            self.session.forget(str(problem))
            return
        for number, line in enumerate(text.split("\n"), 1):
            match = re.match(r"SETUVAR ((?:--\w+ )*)([A-Za-z_]\w*):(.*)", line)
            if not match:
                continue
            if match[2] in self.globals:
                continue
            self.universals.add(match[2])
            if "--path" in match[1]:
                self.lists.add(match[2])
            self.session.source = Place(path, number)
            items = [re.sub(r"\\x([0-9a-f]{2})", lambda m: chr(int(m[1], 16)), i) for i in match[3].split("\\x1e")]
            if match[2] == "fish_user_paths":
                self.user_paths([i for i in items if i])
            elif not all(map(is_known, items)):
                continue
            else:
                self.session.set(match[2], self.joined(match[2], items), "universal", exported="--export" in match[1])

    def user_paths(self, items: list[str]) -> None:
        """Change fish_user_paths: fish removes its previous directories from PATH, and puts the new ones in front."""
        if not all(map(is_known, items)):
            raise Unsure("cannot tell the value of fish_user_paths")
        path = tokens(self.state.get("PATH").value or "")
        for item in (self.state.get("set added").value or "").split(":"):
            if item in path:
                path.remove(item)
        added = []
        for item in list(dict.fromkeys(items))[::-1]:
            if item in path:
                path.remove(item)
            else:
                added.append(item)
            path.insert(0, item)
        self.state.variables["set added"] = Variable(":".join(added), False)
        self.state.variables["fish_user_paths"] = Variable(":".join(dict.fromkeys(items)), False)
        self.session.set("PATH", text_of([e for e in path if e]), "fish_user_paths")

    def own_paths(self) -> list[str]:
        return [i for i in (self.state.get("fish_user_paths").value or "").split(":") if i]

    def run_text(self, text: str) -> None:
        try:
            commands, _ = Parser(text.replace("\r\n", "\n")).commands(())
        except Refused as refused:
            self.refused(text.split("\n"), refused)
            return
        self.run(commands)

    def refused(self, lines: list[str], refused: Refused) -> None:
        """Nothing of the file is run."""
        self.state.status = False
        own = set_behind(lines[: refused.line], refused.line - 1)
        found = own or set_behind(lines, 0)
        if found and not self.forks:
            self.session.source = Place(self.path, found[0])
            text = f"fish runs nothing in this file, because line {refused.line} has {refused}"
            self.problem(found[1], "syntax" if own else "unread", text, lines[found[0] - 1].strip())

    def run(self, commands: Sequence[Command | Block]) -> None:
        """A block, or a whole file: its local variables end with it."""
        self.hidden.append({})
        try:
            self.run_all(commands)
        finally:
            self.state.variables.update(self.hidden.pop())

    def run_all(self, commands: Sequence[Command | Block]) -> None:
        for command in commands:
            self.at(command.line)
            status = self.state.status
            try:
                self.joined_one(command, status)
            except (Exhausted, Refused):
                raise
            except Unsure as problem:
                self.session.forget(str(problem), stop=problem.ends)

    def joined_one(self, command: Command | Block, status: Truth) -> None:
        """Run a command, or skip it as `and` or `or` requires."""
        if command.joined and status is None:
            self.fork(None, (lambda: self.one(command), lambda: None))
            self.state.status = None
        elif not command.joined or status is (command.joined == "and"):
            self.one(command)

    def one(self, command: Command | Block) -> None:
        if isinstance(command, Block):
            self.block(command)
        else:
            self.command(command)
        if command.negated and self.state.status is not None:
            self.state.status = not self.state.status

    def block(self, block: Block) -> None:
        if block.kind == "if":
            self.branches(block.parts)
        elif block.kind == "begin":
            self.run(block.parts[0][1])
        elif block.kind == "function":
            head = block.parts[0][0]
            name = plain(head[0]) if head and not isinstance(head[0], (Command, Block)) else None
            if name:
                self.state.functions[name] = (argument_names(head[1:]), block.parts[0][1])
            self.state.status = True
        elif block.kind == "for":
            self.for_(block)
        elif block.kind == "switch":
            self.switch(block)
        else:
            raise Unsure("cannot follow a pipe into a block" if block.kind == "piped" else "cannot follow this loop")

    def branches(self, parts: Sequence[tuple[Sequence[object], Sequence[Command | Block]]]) -> None:
        if not parts:
            return
        condition, body = parts[0]
        commands = [c for c in condition if isinstance(c, Command)]
        if not commands:
            self.run(body)
            return
        self.run_all(commands)
        self.fork(self.state.status, (lambda: self.run(body), lambda: self.branches(parts[1:])))

    def for_(self, block: Block) -> None:
        head, body = block.parts[0]
        words = [w for w in head if not isinstance(w, (Command, Block))]
        name = plain(words[0]) if words else None
        items = self.fields(words[2:])
        if not name or items is None or len(items) > 100 or not all(map(is_known, items)):
            for variable in (name or "", *self.may_set(body)):
                self.session.set(variable, UNKNOWN, "loop")
            return
        for item in items:
            self.session.set(name, item, "for")
            self.run(body)

    def may_set(self, body: Sequence[Command | Block]) -> list[str]:
        """The variables that commands may set."""
        names: list[str] = []
        for command in body:
            if isinstance(command, Block):
                for head, inner in command.parts:
                    conditions = [c for c in head if isinstance(c, Command)]
                    names += self.may_set([*conditions, *inner])
                continue
            words = [plain(word) for word in command.words]
            first = words[0] if words else None
            if first == "set":
                names.append(self.named(words[1:]))
            elif first is None or first in self.state.functions or (first in _BUILTINS and first not in _QUIET):
                raise Unsure("cannot tell what this loop runs over")
        return names

    def named(self, words: Sequence[str | None]) -> str:
        """The variable that `set` sets."""
        name = next((w for w in words if w is None or not w.startswith("-")), None)
        if name is None or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise Unsure("cannot tell what set sets")
        return name

    def switch(self, block: Block) -> None:
        head = [w for w in block.parts[0][0] if not isinstance(w, (Command, Block))]
        subject = self.text(head[0]) if head else UNKNOWN

        def arms(number: int) -> None:
            if number >= len(block.parts):
                return
            words, body = block.parts[number]
            truths = []
            for word in words:
                pieces = (
                    [(p.text, False) for p in word if isinstance(p, Piece)]
                    if not isinstance(word, (Command, Block))
                    else []
                )
                truths.append(patterns.matches(patterns.parse(pieces), subject))
            truth: Truth = True if True in truths else None if None in truths else False
            self.fork(truth, (lambda: self.run(body), lambda: arms(number + 1)))

        arms(1)

    # Commands.
    def command(self, command: Command) -> None:
        words = list(command.words)
        try:
            self.called(command, words)
        except Missing:
            self.state.status = False  # fish does not run a command with the output of one that is not there

    def called(self, command: Command, words: list[Word]) -> None:
        first = self.fields(words[:1])
        if not first or len(first) != 1 or not is_known(first[0]):
            raise Unsure("cannot tell which command it runs")
        name = first[0]
        self.state.status = True
        if command.piped is not None:
            if name in ("source", "."):
                self.source_output([plain(word) for word in command.piped])
            self.state.status = None
            return
        if name in self.state.functions:
            self.call(name, self.fields(words[1:]))
            return
        if self.absent(name):
            self.state.status = False
            return
        if name in helpers.CONDA_COMMAND:
            if len(words) > 1 and plain(words[1]) in ("activate", "deactivate"):
                self.prepend("conda activate changes PATH")
                for variable in ("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES"):
                    self.session.set(variable, UNKNOWN, "conda activate")
            self.state.status = None
            return
        if name in helpers.UNKNOWN_COMMAND:
            raise Unsure(f"{name} changes the environment")
        if name in helpers.PREPENDING_COMMAND:
            self.prepend(f"{name} changes PATH")
            return
        builtin = (
            getattr(self, f"do_{name}", None)
            if name.isidentifier()
            else {"[": self.do_test, ".": self.do_source}.get(name)
        )
        if builtin is None:
            self.state.status = None
            return
        arguments = self.fields(words[1:])
        if arguments is None:
            if name in ("test", "contains", "type", "command", "status", "string"):
                self.state.status = None
                return
            if name == "set":
                self.session.set(self.named([plain(word) for word in words[1:]]), UNKNOWN, "set")
                return
            if name == "fish_add_path":
                self.prepend("cannot tell what fish_add_path sets", after=True)
                return
            raise Unsure(f"cannot tell what {name} sets")
        builtin(arguments, words[1:])

    def source_output(self, words: list[str | None]) -> None:
        """`program … | source`, or with `eval` before it."""
        while words and words[0] in ("eval", "command"):
            words = words[1:]
        program = (words[0] if words else None) or UNKNOWN
        if not self.absent(program):
            self.output_is_run(posixpath.basename(program))

    def absent(self, name: str) -> bool:
        """Whether there is certainly no command of this name."""
        if self.state.lost or name in self.state.functions or not is_known(name) or name in _BUILTINS:
            return False
        if hasattr(self, f"do_{name}"):
            return False
        if "/" in name:
            return self.session.complete and self.session.test_file("-e", name) is False
        known = name in helpers.QUIET_OUTPUT or name in helpers.PREPENDING_OUTPUT
        if self.state.foreign and not known:
            return False
        files = (f"{folder}/{name}.fish" for folder in self.function_folders())
        return all(self.session.test_file("-e", file) is False for file in files) and self.session.find(name) == ""

    def function_folders(self) -> tuple[str, ...]:
        home = self.session.account.home
        return (f"{home}/.config/fish/functions", "/etc/fish/functions", "/usr/share/fish/functions",
                "/usr/share/fish/vendor_functions.d", "/usr/local/share/fish/vendor_functions.d")  # fmt: skip

    def do_alias(self, arguments: list[str], words: Sequence[Word]) -> None:
        """A function that calls a command with other words."""
        name, equals, text = arguments[0].partition("=") if arguments else ("", "", "")
        text = text if equals else " ".join(arguments[1:])
        first = text.split()[0] if text.split() else ""
        if name and is_known(name) and name != first:
            risky = first in ("source", ".", "eval", "exec", "cd", "set", "exit") or not is_known(text)
            self.state.functions[name] = None if risky else ((), ())

    def call(self, name: str, arguments: list[str] | None) -> None:
        function = self.state.functions[name]
        if not isinstance(function, tuple):
            raise Unsure(f"{name} can be one of several functions")
        names, body = function
        plain = arguments is not None and all(is_known(a) and " " not in a for a in arguments)
        given = {n: Variable(UNKNOWN, False) for n in ("argv", *names)}
        if plain and arguments is not None:
            given["argv"] = Variable(" ".join(arguments) or None, False)
            for number, argument_name in enumerate(names):
                given[argument_name] = Variable(arguments[number] if number < len(arguments) else None, False)
        before = {n: self.state.get(n) for n in given}
        self.state.variables.update(given)
        self.session.enter()
        self.returned.append([])
        try:
            self.run(body)
        except Left as left:
            if left.how != "return":
                raise
        finally:
            self.session.depth -= 1
            for state in self.returned.pop():
                self.state.merge(state)
            self.state.variables.update(before)

    def do_set(self, arguments: list[str], words: Sequence[Word]) -> None:
        options = ""
        while arguments and arguments[0].startswith("-") and len(arguments[0]) > 1:
            option = arguments.pop(0)
            long = {"--export": "x", "--global": "g", "--universal": "U", "--local": "l", "--query": "q", "--erase": "e",
                    "--append": "a", "--prepend": "p", "--unexport": "u", "--path": "P", "--function": "f"}  # fmt: skip
            options += long.get(option, "?") if option.startswith("--") else option[1:]
        if not arguments:
            return
        name, items = arguments[0], arguments[1:]
        if name in LISTS and not items and (shown := [t for w in words if "$" in (t := spelled(w))]):
            text = f"fish drops a word with an unset variable, so {name} becomes empty"
            self.problem(name, "undefined-variable", text, shown[0])
        if "q" in options:
            value = self.state.get(name).value
            self.state.status = None if value == UNKNOWN else value is not None
            return
        if "?" in options or not is_known(name):
            raise Unsure("cannot follow this use of set")
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            if "[" in name:
                raise Unsure("cannot follow a set of a part of a list")
            return
        exported = self.state.get(name).exported is True or name == "fish_user_paths"
        if name in self.globals & self.universals and {"e", "u"} & set(options):
            raise Unsure(f"cannot follow a change of {name}, which is both global and universal")
        if "e" in options:
            self.globals.discard(name)
            self.session.unset(name)
            return
        if "U" in options:
            self.universals.add(name)
            if name in self.globals and not exported:
                raise Unsure(f"cannot follow a universal {name} beside a global one")
            if name in self.globals:
                return
        elif "g" in options or not ({"l", "f"} & set(options) or name in self.universals):
            self.globals.add(name)
        if name == "fish_user_paths":
            items = [i for item in items for i in item.split(":") if i]
            before = self.own_paths()
            self.user_paths([*before, *items] if "a" in options else [*items, *before] if "p" in options else items)
            return
        if "P" in options:
            self.lists.add(name)
        old = self.state.get(name).value
        if "a" in options and old:
            items = [old, *items]
        elif "p" in options and old:
            items = [*items, old]
        if "l" in options or "f" in options:
            if WATCHED.fullmatch(name):
                raise Unsure(f"cannot follow a local {name}")
            self.hidden[-1].setdefault(name, self.state.get(name))
            self.state.variables[name] = Variable(None, False)
        elif "g" in options or "U" in options:
            outer = [scope for scope in self.hidden if name in scope]
            if outer:
                kept = outer[0][name].exported is True and "u" not in options
                outer[0][name] = Variable(self.joined(name, items), "x" in options or kept)
                return
        self.session.set(name, self.joined(name, items), "set", exported="x" in options)
        self.state.options[f"empty {name}"] = not items
        if "u" in options:
            self.session.export(name, False)

    def joined(self, name: str, items: Sequence[str]) -> str:
        return tidy((":" if self.is_list(name) else " ").join(items))

    def is_list(self, name: str) -> bool:
        """Whether fish itself joins the variable with colons."""
        return name.endswith("PATH") or name in self.lists or name == "fish_user_paths"

    def do_export(self, arguments: list[str], words: Sequence[Word]) -> None:
        """fish's own function, for lines that were written for bash."""
        for argument in [a for word in words for a in self.definitions(word)]:
            name, equals, value = argument.partition("=")
            if not is_known(name):
                raise Unsure("cannot tell what export sets")
            if equals:
                self.do_set(["-gx", name, value], ())
            elif self.state.get(name).value is not None:
                self.session.export(name)

    def definitions(self, word: Word) -> list[str]:
        """The arguments that a word makes. `AA=(program)` may make several or none, so only the name is known."""
        if any(p.kind == "output" for p in word):
            return [self.text(word).partition("=")[0] + "=" + UNKNOWN]
        return self.fields((word,)) or []

    def do_fish_add_path(self, arguments: list[str], words: Sequence[Word]) -> None:
        """Puts directories that exist into fish_user_paths or, with -P, into PATH, unless they are there already; with
        -m they change their place."""
        long = {"--global": "g", "--universal": "U", "--path": "P", "--prepend": "p", "--append": "a", "--move": "m",
                "--verbose": "v"}  # fmt: skip
        options = "".join(long.get(a, a[1:]) for a in arguments if a.startswith("-"))
        if set(options) - set("gUPpamv"):
            raise Unsure("cannot follow the options of fish_add_path")
        direct, moves = "P" in options, "m" in options
        there = tokens(self.state.get("PATH").value or "") if direct else self.own_paths()
        new: list[str] = []
        for argument in (a for a in arguments if not a.startswith("-")):
            folder = self.session.absolute(argument)
            exists = self.session.test_file("-d", folder)
            if not is_known(folder) or exists is None:
                raise Unsure("cannot tell what fish_add_path sets")
            folder = posixpath.normpath(folder)
            if exists and folder not in new and (moves or folder not in there):
                new.append(folder)
        if not new:
            return
        there = [folder for folder in there if folder not in new]
        changed = [*there, *new] if "a" in options else [*new, *there]
        if direct:
            self.session.set("PATH", text_of(changed), "fish_add_path")
        else:
            self.user_paths(changed)

    def do_test(self, arguments: list[str], words: Sequence[Word]) -> None:
        if arguments[-1:] == ["]"]:
            arguments = arguments[:-1]
        self.state.status = self.truth(arguments)

    def truth(self, arguments: list[str]) -> Truth:
        if arguments[:1] == ["!"]:
            inner = self.truth(arguments[1:])
            return None if inner is None else not inner
        if len(arguments) == 1:
            empty = is_empty(arguments[0])
            return None if empty is None else not empty
        if len(arguments) == 2:
            if arguments[0] in ("-n", "-z"):
                empty = is_empty(arguments[1])
                return None if empty is None else empty is (arguments[0] == "-z")
            if arguments[0] in ("-e", "-f", "-d", "-r", "-x", "-s", "-L", "-h"):
                return self.session.test_file(*arguments)
        if len(arguments) == 3 and arguments[1] in ("=", "!=") and is_known(arguments[0] + arguments[2]):
            return (arguments[0] == arguments[2]) is (arguments[1] == "=")
        return None

    def do_contains(self, arguments: list[str], words: Sequence[Word]) -> None:
        arguments = [a for a in arguments if a != "--"]
        items = [e for a in arguments[1:] for e in known_elements(a)]
        unknown = not all(map(is_known, arguments))
        self.state.status = True if arguments and arguments[0] in items else None if unknown else False

    def do_status(self, arguments: list[str], words: Sequence[Word]) -> None:
        asked = "".join(arguments).lstrip("-")
        self.state.status = {"is-interactive": self.interactive, "is-login": self.login}.get(asked)

    def do_type(self, arguments: list[str], words: Sequence[Word]) -> None:
        names = [a for a in arguments if not a.startswith("-")]
        self.state.status = None
        if len(names) == 1 and is_known(names[0]):
            there = names[0] in _BUILTINS or names[0] in self.state.functions or self.session.find(names[0])
            self.state.status = True if there else False if self.absent(names[0]) else None

    def do_command(self, arguments: list[str], words: Sequence[Word]) -> None:
        self.do_type(arguments, words) if arguments[:1] in (["-v"], ["-q"], ["-s"], ["-sq"]) else None
        if arguments[:1] not in (["-v"], ["-q"], ["-s"], ["-sq"]):
            self.state.status = None

    def do_source(self, arguments: list[str], words: Sequence[Word]) -> None:
        path = arguments[0] if arguments else UNKNOWN
        output = next((p.text for w in words[:1] for p in w if p.kind == "output"), None)
        if not is_known(path):
            match = re.match(r"\s*(\S+).*\|\s*psub", output or "")
            if match:
                self.output_is_run(posixpath.basename(match[1]))
                return
            raise Unsure("cannot tell which file it sources")
        path = posixpath.normpath(self.session.absolute(path))
        if not self.known_file(posixpath.basename(path)):
            self.state.status = self.read(path)

    def do_eval(self, arguments: list[str], words: Sequence[Word]) -> None:
        if all(map(is_known, arguments)):
            self.run_text(" ".join(arguments))
            return
        output = next((p.text for w in words for p in w if p.kind in ("output", "other")), "")
        self.source_output([*output.split()])

    def do_return(self, arguments: list[str], words: Sequence[Word]) -> None:
        raise Left("return")

    def do_exit(self, arguments: list[str], words: Sequence[Word]) -> None:
        raise Left("exit")

    def do_exec(self, arguments: list[str], words: Sequence[Word]) -> None:
        self.replace(arguments)

    def do_read(self, arguments: list[str], words: Sequence[Word]) -> None:
        for name in arguments:
            if re.fullmatch(r"[A-Za-z_]\w*", name):
                self.session.set(name, UNKNOWN, "read")
        self.state.status = None

    # Expansion.
    def fields(self, words: Sequence[Word]) -> list[str] | None:
        """The words after expansion; an unset variable alone is no word. None if their number is unknown."""
        result: list[str] = []
        for word in words:
            if len(result) > _MOST_WORDS:
                return None
            variables = [p for p in word if p.kind == "variable" and not p.quoted]
            if len(word) == 1 and variables:
                value = self.state.get(word[0].text).value
                if value is None or self.is_empty(word[0].text):
                    continue
                if not is_known(value) and not self.is_list(word[0].text):
                    return None
                separator = ":" if self.is_list(word[0].text) else " "
                result += value.split(separator) if is_known(value) else [value]
                continue
            if any(p.kind == "output" for p in word):
                result.append(self.printed(word[0].text) if len(word) == 1 else UNKNOWN)
                continue
            if any(p.kind == "other" and not p.quoted for p in word):
                braced = self.braced(word)
                if braced is None:
                    return None
                fields = self.fields(braced)
                if fields is None:
                    return None
                result += fields
                continue
            found = self.products(word)
            if found is None:
                return None
            result += found
        return result

    def braced(self, word: Word) -> list[Word] | None:
        """The words of `/usr/{bin,sbin}`; None if that cannot be followed."""
        if sum(p.text.count("{") for p in word if p.kind == "other") > _MOST_BRACES:
            return None
        number = next(n for n, p in enumerate(word) if p.kind == "other" and not p.quoted)
        match = re.fullmatch(r"([^{}]*)\{([^{}]*,[^{}]*)\}(.*)", word[number].text, re.DOTALL)
        if not match:
            return None
        rest = Piece("other" if "{" in match[3] else "text", match[3], False)
        texts = (f"{match[1]}{choice}" for choice in match[2].split(","))
        return [(*word[:number], Piece("text", text, False), rest, *word[number + 1 :]) for text in texts]

    def is_empty(self, name: str) -> bool:
        """Whether a variable is set to a list without words."""
        return self.state.get(name).value == "" and self.state.options.get(f"empty {name}") is True

    def printed(self, command: str) -> str:
        """What a command substitution prints."""
        name, *arguments = command.split() or [""]
        if re.fullmatch(r"[\w./-]+", name) and "|" not in command and ";" not in command and self.absent(name):
            raise Missing
        return self.session.prints(posixpath.basename(name), arguments) or UNKNOWN

    def products(self, word: Word) -> list[str] | None:
        """A word that contains lists becomes one word for each combination of their elements."""
        combined = [""]
        for number, piece in enumerate(word):
            texts: list[str] = [self.text((piece,)) if number == 0 or piece.kind != "text" else piece.text]
            if piece.kind == "variable" and not piece.quoted:
                value = self.state.get(piece.text).value
                separator = ":" if self.is_list(piece.text) else " "
                texts = value.split(separator) if value or (value == "" and not self.is_empty(piece.text)) else []
                if not all(map(is_known, texts)):
                    return None
            elif piece.kind == "element":
                found = self.element(piece.text)
                if found is None:
                    return None
                texts = found
            if len(combined) * len(texts) > _MOST_WORDS:
                return None
            combined = [a + b for a in combined for b in texts]
        if any(c in p.text for p in word if p.kind == "text" and not p.quoted for c in "*?"):
            try:
                matches = (name for pattern in combined for name in self.session.host.glob(pattern))
                found = list(islice(matches, _MOST_WORDS + 1))
            except Unreadable:
                return None
            return found if len(found) <= _MOST_WORDS else None
        return [tidy(text) for text in combined]

    def element(self, which: str) -> list[str] | None:
        """One element of a list, or none; None if unknown."""
        name, number = which.split()
        value = self.state.get(name).value or ""
        items = value.split(":" if self.is_list(name) else " ") if value else []
        position = int(number) - 1 if int(number) > 0 else len(items) + int(number)
        return None if not is_known(value) else items[position : position + 1] if position >= 0 else []

    def text(self, word: Word) -> str:
        text = ""
        for number, piece in enumerate(word):
            if piece.kind == "text":
                part = piece.text
                if number == 0 and not piece.quoted and re.match(r"~(/|$)", part):
                    part = (self.state.get("HOME").value or UNKNOWN) + part[1:]
                text += part
            elif piece.kind == "variable":
                text += self.state.get(piece.text).value or ""
            elif piece.kind == "element":
                found = self.element(piece.text)
                text += UNKNOWN if found is None else "".join(found)
            else:
                text += UNKNOWN
        return tidy(text)
