"""What a start-up file for sh, bash or zsh does to the variables: abstract interpretation over `syntax`.

Where a condition can't be told both ways are gone, and what differs afterwards is unknown.
"""

import posixpath
import re
from collections.abc import Callable, Container, Iterable, Sequence
from functools import cache
from typing import Any

from dlhealth.data import load
from dlhealth.host import Unreadable
from dlhealth.probes.shell import patterns
from dlhealth.probes.shell.malformed import LISTS, Problem
from dlhealth.probes.shell.state import Ending, Session, State, Unsure, Variable
from dlhealth.probes.shell.syntax import (
    Arithmetic,
    Assignment,
    Background,
    Case,
    Chain,
    For,
    Function,
    Group,
    If,
    Node,
    Opaque,
    Output,
    Param,
    Pipeline,
    Script,
    Simple,
    Subshell,
    Test,
    Text,
    While,
    Word,
    literal,
    parse,
)
from dlhealth.probes.shell.values import (
    AFTER,
    UNKNOWN,
    Truth,
    is_empty,
    is_known,
    join,
    known_elements,
    prepended,
    tidy,
)

NORMAL, RETURN, BREAK, CONTINUE, EXIT, ABORT = "", "return", "break", "continue", "exit", "abort"
"""How a command leaves: ABORT is back to the prompt of a shell on a terminal."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DECLARED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?=)")
_DECLARATIONS = ("export", "readonly", "declare", "typeset", "local")
_ITEMS = 200


class Leave(Exception):
    """An expansion or a builtin ends the shell, or goes back to the prompt."""

    def __init__(self, flow: str) -> None:
        super().__init__(flow)
        self.flow = flow


@cache
def parsed(text: str, dialect: str) -> Script:
    """Homes often hold copies of the same skeleton."""
    return parse(text, dialect)


def helpers(kind: str) -> Sequence[str]:
    """Names of well-known programs and files by what they do to the environment."""
    return load("shell_helpers")[kind]  # type: ignore[no-any-return]


class Shell:
    """A shell that reads start-up files one after the other. `dialect` is "sh" (dash), "bash" or "zsh"; `posix` is
    bash called as sh; `interactive` whether it has a prompt."""

    def __init__(self, session: Session, dialect: str, *, interactive: bool, posix: bool = False) -> None:
        self.session = session
        self.dialect = dialect
        self.posix = posix
        self.interactive = interactive
        self.path = ""
        self.line = 0
        self.ending: Ending | None = None
        self.conditions = 0
        self.calls = 0
        self.returned: list[list[State]] = [[]]
        self.looped: list[list[State]] = []
        self.locals: list[set[str]] = []
        self.unique = False

    @property
    def state(self) -> State:
        return self.session.state

    # Files.
    def start(self, path: str) -> bool:
        """Read a start-up file; False where there is none. Leaves `ending` when the shell certainly ends in it."""
        try:
            text = self.session.text(path)
        except Unsure as problem:
            self.session.forget(str(problem))
            return True
        if text is None:
            return False
        flow = self.read(path, text)
        if flow not in (EXIT,):
            self.ending = None
        return True

    def read(self, path: str, text: str) -> str:
        """Run a text as `.` does."""
        before = self.path, self.line
        self.session.enter()
        self.path = path
        self.returned.append([])
        looped, self.looped = self.looped, []
        try:
            flow = self.script(parsed(text, self.dialect))
        except Unsure as problem:
            self.session.forget(str(problem))
            flow = NORMAL
        except RecursionError:
            self.session.forget("nested too deeply")
            flow = NORMAL
        finally:
            self.session.depth -= 1
            self.looped = looped
            self.path, self.line = before
        return self.join_returns(flow)

    def join_returns(self, flow: str) -> str:
        """The ways that left by `return` come together again with the one that did not."""
        left = self.returned.pop()
        if flow in (NORMAL, RETURN, BREAK, CONTINUE):
            flow = NORMAL
        elif left:
            self.session.state = left.pop()
            flow = NORMAL
        for state in left:
            self.state.merge(state)
        return flow

    def script(self, script: Script) -> str:
        for nodes in script.lines:
            if flow := self.run(nodes):
                return flow
        if script.problem is None:
            return NORMAL
        self.at(script.problem.line)
        if not script.problem.certain:
            raise Unsure(script.problem.text)
        self.blame_line(script.problem.line, script.problem.text)
        if self.dialect == "sh" or self.posix:
            return self.end("syntax", script.problem.text)
        self.state.status = False
        return NORMAL

    def blame_line(self, line: int, text: str) -> None:
        """A syntax error in a line about one of the variables."""
        shown = (self.session.host.text(self.path) or "").splitlines()[line - 1 : line]
        for name in LISTS:
            if shown and re.search(rf"\b{name}\b", shown[0]):
                kind = "open-quote" if "quote" in text else "unbalanced-braces" if "brace" in text else "syntax"
                self.problem(name, kind, f"a syntax error: {text}", shown[0].strip())

    def at(self, line: int) -> None:
        self.line = line
        self.session.source = f"{self.path}:{line}"

    def end(self, how: str, text: str) -> str:
        """The shell ends here, unless a person sits before it."""
        if self.interactive and how not in ("exit", "exec"):
            return ABORT
        self.ending = Ending(self.session.source, how, text)
        return EXIT

    def problem(self, name: str, kind: str, text: str, shows: str) -> None:
        self.session.trace.problems[Problem(self.session.source, name, kind, shows, text)] = None

    # Commands.
    def run(self, nodes: Iterable[Node]) -> str:
        for node in nodes:
            self.session.trace.step()
            try:
                flow = self.node(node)
            except Leave as leave:
                flow = leave.flow
            if flow:
                return flow
        return NORMAL

    def node(self, node: Node) -> str:
        if isinstance(node, Simple):
            return self.errexit(self.simple(node))
        if isinstance(node, Chain):
            return self.chain(node)
        if isinstance(node, If):
            return self.if_(node)
        if isinstance(node, For):
            return self.for_(node)
        if isinstance(node, Case):
            return self.case(node)
        if isinstance(node, Group):
            return self.run(node.body)
        if isinstance(node, Function):
            self.state.functions[node.name] = node.body
            self.state.status = True
            return NORMAL
        if isinstance(node, Test):
            self.at(node.line)
            self.state.status = Conditional(self, node.tokens).truth()
            return self.errexit(NORMAL)
        if isinstance(node, While):
            return self.while_(node)
        if isinstance(node, Pipeline):
            return self.pipeline(node)
        if isinstance(node, Arithmetic):
            for name in node.names:
                self.session.set(name, UNKNOWN, "arithmetic")
        self.state.status = True if isinstance(node, Background) else None
        return NORMAL  # a subshell or a background job leaves the variables as they are

    def errexit(self, flow: str) -> str:
        if flow or self.state.status is not False or self.conditions or not self.state.options.get("errexit"):
            return flow
        return self.end("set -e", "a command fails after set -e")

    def fork(self, ways: Sequence[Callable[[], str]]) -> str:
        """Go every way from here, then go on with what covers all that come back."""
        start, back, flows = self.state, [], []
        for way in ways:
            self.session.state = start.copy()
            try:
                flow = way()
            except Leave as leave:
                flow = leave.flow
            flows.append(flow)
            if flow == NORMAL:
                back.append(self.state)
            elif flow == RETURN:
                self.returned[-1].append(self.state)
            elif flow in (BREAK, CONTINUE) and self.looped:
                self.looped[-1].append(self.state)
        if back:
            self.session.state = back[0]
            for state in back[1:]:
                self.state.merge(state)
            return NORMAL
        if len(set(flows)) == 1:
            if flows[0] == RETURN:
                for _ in flows:
                    state = self.returned[-1].pop()
                    self.state.merge(state)
            return flows[0]
        if RETURN in flows:
            self.session.state = self.returned[-1].pop()
            return RETURN
        if self.looped and self.looped[-1]:
            self.session.state = self.looped[-1].pop()
            return BREAK if BREAK in flows else CONTINUE
        return ABORT

    def condition(self, nodes: Iterable[Node]) -> str:
        self.conditions += 1
        try:
            return self.run(nodes)
        finally:
            self.conditions -= 1

    def chain(self, node: Chain) -> str:
        self.conditions += 1
        try:
            if flow := self.run((node.first,)):
                return flow
            for number, (operator, following) in enumerate(node.links):
                if number == len(node.links) - 1:
                    self.conditions -= 1
                try:
                    flow = self.link(operator, following)
                finally:
                    if number == len(node.links) - 1:
                        self.conditions += 1
                if flow:
                    return flow
        finally:
            self.conditions -= 1
        return NORMAL

    def link(self, operator: str, node: Node) -> str:
        wanted = operator == "&&"
        if self.state.status is None:

            def skip() -> str:
                self.state.status = not wanted
                return NORMAL

            return self.fork([lambda: self.run((node,)), skip])
        return self.run((node,)) if self.state.status is wanted else NORMAL

    def if_(self, node: If) -> str:
        return self.branches(node.branches, node.otherwise)

    def branches(self, branches: Sequence[tuple[Sequence[Node], Sequence[Node]]], otherwise: Sequence[Node]) -> str:
        if not branches:
            self.state.status = True
            return self.run(otherwise)
        condition, body = branches[0]
        if flow := self.condition(condition):
            return flow
        if self.state.status is None:
            return self.fork([lambda: self.run(body), lambda: self.branches(branches[1:], otherwise)])
        return self.run(body) if self.state.status else self.branches(branches[1:], otherwise)

    def for_(self, node: For) -> str:
        self.at(node.line)
        items: list[str] | None = self.state.arguments if node.words is None else self.fields(node.words)
        if items is None or len(items) > _ITEMS or not all(map(is_known, items)) or self.unsplit(node.words):
            return self.havoc((node,))
        self.looped.append([])
        left: list[State] = []
        flow = NORMAL
        for item in items:
            self.session.set(node.name, item, "for")
            flow = self.run(node.body)
            ways = self.looped[-1]
            self.looped[-1] = []
            left += [s.copy() for s in ways]
            if flow in (NORMAL, CONTINUE):
                for state in ways:
                    self.state.merge(state)
                flow = NORMAL
            else:
                break
        self.looped.pop()
        if flow in (NORMAL, BREAK):
            for state in left:
                self.state.merge(state)
            flow = NORMAL
        elif left:
            self.session.state = left[0]
            for state in left[1:]:
                self.state.merge(state)
            flow = NORMAL
        return flow

    def unsplit(self, words: Sequence[Word] | None) -> bool:
        """Whether zsh, which splits no variable, might do so by an option that is not followed here."""
        return self.dialect == "zsh" and any(isinstance(p, Param) for w in words or () for p in w)

    def while_(self, node: While) -> str:
        self.at(node.line)
        before = self.state.copy()
        if flow := self.condition(node.condition):
            return flow
        if self.state.status is node.until:
            return NORMAL
        self.session.state = before
        return self.havoc((node,))

    def havoc(self, nodes: Iterable[Any]) -> str:
        """Commands that run some unknown number of times: what they may set is unknown."""
        names: set[str] = set()
        if not _may_set(nodes, names, self.state.functions):
            raise Unsure("a loop that is not followed")
        for name in names:
            self.session.set(name.lstrip("-"), UNKNOWN, "loop")
            if name.startswith("-"):
                self.state.variables[name[1:]] = Variable(UNKNOWN, None)
        self.state.status = None
        return NORMAL

    def case(self, node: Case) -> str:
        self.at(node.line)
        subject = self.value(node.word)
        return self.arms(subject, node.arms)

    def arms(self, subject: str, arms: Sequence[tuple[tuple[Word, ...], tuple[Node, ...], str]]) -> str:
        for number, (words, body, ending) in enumerate(arms):
            truths = [patterns.matches(self.pattern(word), subject) for word in words]
            if not any(t is not False for t in truths):
                continue
            if ending != ";;":
                raise Unsure(f"a case that goes on with {ending}")
            if True in truths:
                return self.arm(body)
            rest = arms[number + 1 :]
            return self.fork([lambda body=body: self.arm(body), lambda rest=rest: self.arms(subject, rest)])  # type: ignore[misc]
        self.state.status = True
        return NORMAL

    def arm(self, body: Sequence[Node]) -> str:
        self.state.status = True
        return self.run(body)

    def pipeline(self, node: Pipeline) -> str:
        if len(node.commands) != 1:
            # Each part runs in a subshell of its own; zsh runs the last one itself.
            if self.dialect == "zsh" and node.commands:
                return self.havoc((node.commands[-1],))
            self.state.status = None
            return NORMAL
        flow = self.condition(node.commands) if node.negated else self.run(node.commands)
        if node.negated and self.state.status is not None:
            self.state.status = not self.state.status
        return flow

    def simple(self, node: Simple) -> str:
        self.at(node.line)
        if not node.words:
            self.state.status = True
            for assignment in node.assignments:
                self.assign(assignment)
            return NORMAL
        spelled = (literal(node.words[0]) or "").lstrip("\\")
        declares = spelled in (_DECLARATIONS if self.dialect != "sh" else ("export", "readonly", "local"))
        first = self.fields(node.words[:1])
        if first == [] and len(node.words) == 1:
            self.state.status = True  # an empty expansion
            return NORMAL
        if not first or not is_known(first[0]):
            raise Unsure("a command whose name is not known")
        name = first[0]
        fields = first if declares else self.fields(node.words)
        if fields is None:
            if name in self.state.functions or (name in _BUILTINS and name not in _QUIET):
                raise Unsure(f"{name} of what is not known")
            self.state.status = None
            return NORMAL
        self.misplaced_blank(node, name, fields)
        if declares:
            return self.declare(name, node.words[1:])
        if node.assignments and (name in self.state.functions or name in (".", "source", "eval", "command", "builtin")):
            return self.with_assignments(node, name, fields)
        return self.command(name, fields[1:], node)

    def with_assignments(self, node: Simple, name: str, fields: list[str]) -> str:
        """`A=b . file`: bash takes A back afterwards, dash does not."""
        before = {a.name: self.state.get(a.name) for a in node.assignments}
        for assignment in node.assignments:
            self.assign(assignment)
        flow = self.command(name, fields[1:], node)
        if self.dialect == "bash" and not self.posix:
            self.state.variables.update(before)
        elif any(name in LISTS for name in before):
            raise Unsure("an assignment before a builtin")
        return flow

    def misplaced_blank(self, node: Simple, name: str, fields: list[str]) -> None:
        """`PATH = value`, and `PATH= value`: neither sets PATH."""
        if name in LISTS and len(fields) > 1 and fields[1].startswith("="):
            self.problem(
                name, "space-around-equals", f"a space before the = makes {name} a command's name", " ".join(fields)
            )
        elif len(node.assignments) == 1 and not node.assignments[0].word and (":" in name or name.startswith("$")):
            variable = node.assignments[0].name
            if variable in LISTS and not node.assignments[0].items:
                text = f"a space after the = gives {variable} an empty value, for one command only"
                self.problem(variable, "space-around-equals", text, f"{variable}= {name}")

    def command(self, name: str, arguments: list[str], node: Simple) -> str:
        if name in helpers("conda_command"):
            return self.conda(arguments)
        if name in helpers("prepending_command"):
            return self.prepend(f"{name} changes PATH")
        if name in helpers("unknown_command"):
            self.session.forget(f"{name} changes the environment")
            self.state.status = None
            return NORMAL
        if name in self.state.functions:
            return self.call(name, arguments)
        builtin = _BUILTINS.get(name)
        if builtin is None or (self.dialect == "sh" and name in ("source", "shopt", "let", "mapfile", "readarray")):
            self.state.status = None if self.dialect != "sh" or name != "source" else False
            return NORMAL
        self.state.status = True
        return builtin(self, arguments, node)

    def call(self, name: str, arguments: list[str]) -> str:
        body: Any = self.state.functions[name]
        if body is None:
            raise Unsure(f"{name} is not always the same function")
        saved = dict(self.state.variables)
        before, self.state.arguments = self.state.arguments, arguments
        self.session.enter()
        self.returned.append([])
        self.locals.append(set())
        looped, self.looped = self.looped, []
        try:
            flow = self.join_returns(self.run((body,)))
        except BaseException:
            self.returned.pop()
            raise
        finally:
            self.session.depth -= 1
            self.looped = looped
            names = self.locals.pop()
        self.state.arguments = before
        for local in names:
            self.state.variables[local] = saved.get(local, Variable(None, False))
        return flow

    def prepend(self, how: str) -> str:
        path = self.state.get("PATH").value
        self.session.set("PATH", prepended(path or ""), how)
        self.session.trace.doubts[f"{self.session.source}: {how}"] = None
        self.state.status = None
        return NORMAL

    def conda(self, arguments: list[str]) -> str:
        if arguments[:1] not in (["activate"], ["deactivate"]):
            self.state.status = None
            return NORMAL
        self.prepend("conda activate changes PATH")
        for name in ("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES"):
            self.session.set(name, UNKNOWN, "conda activate")
        return NORMAL

    # Variables.
    def assign(self, assignment: Assignment, how: str = "assignment", exported: bool = False) -> None:
        name = assignment.name
        if assignment.items is not None:
            self.assign_array(assignment)
            return
        value = self.value(assignment.word, assigned=True)
        programs = self.origin(assignment.word)
        if assignment.append:
            value = tidy((self.state.get(name).value or "") + value)
        self.session.set(name, self.without_repeats(name, value), how, exported, programs)

    def assign_array(self, assignment: Assignment) -> None:
        name = assignment.name
        if self.dialect != "zsh" or name not in ("path", "PATH"):
            self.session.set(name, UNKNOWN, "array")
            return
        items = self.fields(assignment.items or ())
        value = UNKNOWN if items is None else tidy(":".join(items))
        if assignment.append:
            value = tidy(":".join(v for v in (self.state.get("PATH").value or "", value) if v))
        self.session.set("PATH", self.without_repeats("PATH", value), "assignment")

    def without_repeats(self, name: str, value: str) -> str:
        """zsh's `typeset -U path`."""
        if name != "PATH" or not self.unique or not is_known(value):
            return value
        return ":".join(dict.fromkeys(value.split(":")))

    def origin(self, word: Word) -> frozenset[str] | None:
        """The programs whose output the word is, and nothing else."""
        names: set[str] = set()
        for part in word:
            if isinstance(part, Output) and part.commands is not None:
                names |= _programs(part.commands)
            elif isinstance(part, Param) and (known := self.state.get(part.name).origin):
                names |= known
            elif isinstance(part, Text) and not part.text.strip():
                continue
            else:
                return None
        return frozenset(names) if names and UNKNOWN not in names else None

    def declare(self, name: str, words: Sequence[Word]) -> str:
        """export, readonly, declare, typeset, local."""
        self.state.status = True
        options, bad = "", []
        named: list[str] = []
        for word in words:
            first = word[0] if word else None
            match = _DECLARED.match(first.text) if isinstance(first, Text) and not first.quoted else None
            if match and isinstance(first, Text):
                rest: Word = (Text(first.text[match.end() :], False), *word[1:])
                named.append(match[1])
                self.declared(name, options, Assignment(match[1], match[2] == "+=", rest, None))
                continue
            fields = self.fields((word,))
            if fields is None:
                raise Unsure(f"{name} of what is not known")
            for field in fields:
                if field.startswith(("-", "+")) and not named and len(field) > 1:
                    options += field
                elif not is_known(field):
                    raise Unsure(f"{name} of what is not known")
                elif match := _DECLARED.match(field):
                    named.append(match[1])
                    plain: Word = (Text(field[match.end() :], True),)
                    self.declared(name, options, Assignment(match[1], match[2] == "+=", plain, None))
                elif _NAME.fullmatch(field):
                    named.append(field)
                    self.declared(name, options, field)
                else:
                    bad.append(field)
                    self.blame_export(named, bad, words)
                    if self.dialect == "sh" and name in ("export", "readonly"):
                        raise Leave(self.end("error", f"{name}: {field}: bad variable name"))
                    self.state.status = False
        return NORMAL

    def blame_export(self, named: list[str], bad: list[str], words: Sequence[Word]) -> None:
        for variable in LISTS:
            if variable in named:
                shows = f"{variable} {bad[0]}"
                text = f"a space beside the =: {bad[0]!r} is taken for the name of a variable, and {variable} is not set as meant"
                self.problem(variable, "space-around-equals", text, shows)

    def declared(self, command: str, options: str, what: Assignment | str) -> None:
        name = what if isinstance(what, str) else what.name
        exports = command == "export" or "x" in options
        if command == "local" or (command in ("declare", "typeset") and self.locals and "g" not in options):
            if not self.locals:
                if self.dialect == "sh":
                    raise Leave(self.end("error", "local: not in a function"))
                return
            self.locals[-1].add(name)
            if isinstance(what, str):
                self.session.state.variables[name] = Variable(None, False)
        if self.dialect == "zsh" and "U" in options and name in ("path", "PATH"):
            self.unique = True
            value = self.state.get("PATH").value
            if value:
                self.session.set("PATH", self.without_repeats("PATH", value), "typeset -U")
        if not isinstance(what, str):
            self.assign(what, command, exports and "-n" not in options)
        if exports and "f" not in options:
            self.session.export(name, "n" not in options and "+x" not in options)

    # Expansion.
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
                result.append((UNKNOWN, part.quoted, not part.quoted))
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
        if part.op == "":
            return [("" if plain is None else plain, part.quoted, split)]
        if part.op == "length":
            return [(str(len(plain or "")) if plain is None or is_known(plain) else UNKNOWN, part.quoted, split)]
        if part.op == "other":
            if self.dialect == "sh":
                raise Leave(self.end("error", "Bad substitution (not known to sh)"))
            if part.name == "BASH_SOURCE" and self.dialect == "bash":
                return [(self.path or UNKNOWN, part.quoted, split)]
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
            return arguments[int(name) - 1] if int(name[:6]) <= len(arguments) else None
        if name in ("0", "$", "!", "_"):
            return UNKNOWN
        if name == "path" and self.dialect == "zsh":
            name = "PATH"
        return self.state.get(name).value

    def output(self, part: Output) -> str:
        """What a command substitution prints, for the few commands whose output is known."""
        commands = part.commands
        if commands is None or len(commands) != 1 or not isinstance(commands[0], Simple) or commands[0].assignments:
            self.state.status = None
            return UNKNOWN
        before = self.state.copy()
        fields = self.fields(commands[0].words)
        self.session.state = before
        self.state.status = None
        if not fields or not all(map(is_known, fields)) or fields[0] in self.state.functions:
            return UNKNOWN
        path = self.state.get("PATH").value or ""
        if "/" not in fields[0] and fields[0] != "echo" and not {"/usr/bin", "/bin"} & set(known_elements(path)):
            return UNKNOWN
        account = self.session.account
        name, arguments = posixpath.basename(fields[0]), fields[1:]
        fixed = {
            ("id", "-u"): str(account.uid), ("id", "-un"): account.name, ("id", "-ru"): str(account.uid),
            ("id", "-g"): str(account.gid), ("whoami",): account.name, ("logname",): account.name,
            ("uname",): "Linux", ("uname", "-s"): "Linux",
        }  # fmt: skip
        known = fixed.get((name, *arguments))
        if known is None and len(arguments) == 1 and not arguments[0].startswith("-"):
            if name == "dirname":
                known = posixpath.dirname(arguments[0].rstrip("/") or "/") or "."
            elif name == "basename":
                known = posixpath.basename(arguments[0].rstrip("/")) or "/"
            elif name == "echo" and "\\" not in arguments[0]:
                known = arguments[0].rstrip("\n")
        if known is None:
            return UNKNOWN
        self.state.status = True
        return known

    def fields(self, words: Sequence[Word]) -> list[str] | None:
        """The words after expansion, splitting and globbing; None where their number can't be told."""
        result: list[str] = []
        for word in words:
            if len(word) == 1 and isinstance(word[0], Text):
                part = word[0]
                if part.quoted or not any(c in part.text for c in "*?[{~"):
                    result.append(part.text)
                    continue
            if _all_arguments(word):
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
        if self.dialect != "sh" and any("{" in t and ("," in t or ".." in t) for t, quoted in pieces if not quoted):
            return None  # braces
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


def _all_arguments(word: Word) -> bool:
    """Whether it is "$@"."""
    parts = [p for p in word if p != Text("", True)]
    return (
        len(parts) == 1
        and isinstance(parts[0], Param)
        and parts[0].name == "@"
        and parts[0].op == ""
        and parts[0].quoted
    )


def _programs(nodes: Iterable[Node]) -> set[str]:
    """The names of the programs that commands run; with UNKNOWN where not all are plain."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, Simple):
            if node.words:
                name = literal(node.words[0])
                names.add(posixpath.basename(name) if name else UNKNOWN)
        elif isinstance(node, Pipeline):
            names |= _programs(node.commands[:1])
        elif isinstance(node, Chain):
            names |= _programs((node.first, *(n for _, n in node.links)))
        else:
            names.add(UNKNOWN)
    return names


def _may_set(nodes: Iterable[Any], names: set[str], functions: Container[str]) -> bool:
    """Collect the variables that commands may set, with a "-" before them where they may also be exported or unset;
    False where that can't be told."""
    for node in nodes:
        if isinstance(node, Simple):
            names.update(a.name for a in node.assignments)
            if any(a.name == "path" for a in node.assignments):
                names.add("PATH")
            if not node.words:
                continue
            name = literal(node.words[0])
            if name in (
                "read",
                "export",
                "readonly",
                "declare",
                "typeset",
                "local",
                "unset",
                "printf",
                "mapfile",
                "getopts",
            ):
                for word in node.words[1:]:
                    text = "".join(p.text if isinstance(p, Text) else UNKNOWN for p in word)
                    mark = "" if name in ("read", "printf", "mapfile", "getopts") else "-"
                    names.add(mark + text.partition("=")[0].rstrip("+").lstrip("-"))
                if any(UNKNOWN in n for n in names):
                    return False
            elif name not in _QUIET:
                # A function, `.`, eval, cd, exit … or a program, which is harmless; what is not plain is not.
                if name is None or name in functions or name in _BUILTINS or name in helpers("unknown_command"):
                    return False
                names.add("PATH") if name in helpers("prepending_command") else None
        elif isinstance(node, tuple):
            if isinstance(node, For):
                names.add(node.name)
            if isinstance(node, Function):
                return False
            leaf = isinstance(node, (Subshell, Text, Param, Output, Opaque))
            if not leaf and not _may_set(node, names, functions):
                return False
    return True


class Conditional:
    """`[[ … ]]`: tokens to a truth."""

    def __init__(self, shell: Shell, tokens: Sequence[Word | str]) -> None:
        self.shell = shell
        self.tokens = list(tokens)
        self.i = 0

    def truth(self) -> Truth:
        result = self.either()
        return result if self.i == len(self.tokens) else None

    def next(self, *texts: str) -> bool:
        if self.i < len(self.tokens) and self.tokens[self.i] in texts and isinstance(self.tokens[self.i], str):
            self.i += 1
            return True
        return False

    def either(self) -> Truth:
        result = self.both()
        while self.next("||"):
            other = self.both()
            result = True if True in (result, other) else None if None in (result, other) else False
        return result

    def both(self) -> Truth:
        result = self.one()
        while self.next("&&"):
            other = self.one()
            result = False if False in (result, other) else None if None in (result, other) else True
        return result

    def one(self) -> Truth:
        if self.next("!"):
            inner = self.one()
            return None if inner is None else not inner
        if self.next("("):
            result = self.either()
            return result if self.next(")") else None
        if self.i >= len(self.tokens) or isinstance(self.tokens[self.i], str):
            self.i = len(self.tokens) + 1
            return None
        left = self.tokens[self.i]
        self.i += 1
        if isinstance(left, str):
            return None
        operator = literal(left) or ""
        following = self.tokens[self.i] if self.i < len(self.tokens) else ""
        if len(operator) == 2 and operator[0] == "-" and not isinstance(following, str):
            self.i += 1
            return unary(self.shell, operator, self.shell.value(following))
        return self.binary(self.shell.value(left), following)

    def binary(self, left: str, following: Word | str) -> Truth:
        operator = following if isinstance(following, str) else literal(following) or ""
        if operator not in ("=", "==", "!=", "=~", "<", ">") and not re.fullmatch(r"-[a-z]{2}", operator):
            empty = is_empty(left)
            return None if empty is None else not empty
        self.i += 1
        right = self.tokens[self.i] if self.i < len(self.tokens) else ""
        self.i += 1
        if isinstance(right, str):
            return None
        if operator in ("=", "==", "!="):
            result = patterns.matches(self.shell.pattern(right), left)
            return None if result is None else result is (operator != "!=")
        return compare(operator, left, self.shell.value(right))


def unary(shell: Shell, operator: str, value: str) -> Truth:
    """The tests with one operand."""
    if operator in ("-n", "-z"):
        empty = is_empty(value)
        return None if empty is None else empty is (operator == "-z")
    if operator == "-t":
        return shell.session.terminal
    if operator == "-v" and is_known(value):
        known = shell.state.get(value).value
        return None if known == UNKNOWN else known is not None
    if operator in ("-O", "-G", "-N", "-w", "-u", "-g", "-k", "-o", "-R", "-v"):
        return None
    return shell.session.test_file(operator, value)


def compare(operator: str, left: str, right: str) -> Truth:
    """The tests with two operands, but for patterns."""
    if not (is_known(left) and is_known(right)):
        return None
    if operator in ("=", "=="):
        return left == right
    if operator == "!=":
        return left != right
    numbers = {
        "-eq": int.__eq__,
        "-ne": int.__ne__,
        "-lt": int.__lt__,
        "-le": int.__le__,
        "-gt": int.__gt__,
        "-ge": int.__ge__,
    }
    if operator in numbers and all(re.fullmatch(r"-?\d{1,15}", text) for text in (left, right)):
        return bool(numbers[operator](int(left), int(right)))
    return None


def test(shell: Shell, arguments: list[str]) -> Truth:
    """`test` as POSIX defines it by the number of arguments; -a and -o from left to right."""
    count = len(arguments)
    if count == 0:
        return False
    if count == 1:
        empty = is_empty(arguments[0])
        return None if empty is None else not empty
    if count == 3 and arguments[1] in ("=", "==", "!=", "-eq", "-ne", "-lt", "-le", "-gt", "-ge"):
        if arguments[1] == "==" and shell.dialect == "zsh":
            return None
        if arguments[1] == "==" and shell.dialect == "sh":
            return False  # dash: unexpected operator
        return compare(arguments[1], arguments[0], arguments[2])
    if arguments[0] == "!":
        inner = test(shell, arguments[1:])
        return None if inner is None else not inner
    if count == 2:
        return unary(shell, *arguments) if re.fullmatch("-[a-zA-Z]", arguments[0]) else None
    for operator in ("-o", "-a"):
        if operator in arguments[1:-1]:
            middle = arguments.index(operator, 1)
            left, right = test(shell, arguments[:middle]), test(shell, arguments[middle + 1 :])
            decisive = operator == "-o"
            if decisive in (left, right):
                return decisive
            return None if None in (left, right) else not decisive
    return None


# Builtins: each gets the arguments after expansion, and leaves a status.
def _test(shell: Shell, arguments: list[str], node: Simple) -> str:
    bracket = literal(node.words[0]) == "["
    if bracket and arguments[-1:] != ["]"]:
        shell.state.status = False
    else:
        shell.state.status = test(shell, arguments[:-1] if bracket else arguments)
    return NORMAL


def _true(shell: Shell, arguments: list[str], node: Simple) -> str:
    return NORMAL


def _false(shell: Shell, arguments: list[str], node: Simple) -> str:
    shell.state.status = False
    return NORMAL


def _unset(shell: Shell, arguments: list[str], node: Simple) -> str:
    for name in arguments:
        if name.startswith("-"):
            continue
        if not is_known(name):
            raise Unsure("unset of what is not known")
        if "-f" in arguments:
            shell.state.functions.pop(name, None)
        elif _NAME.fullmatch(name):
            shell.session.unset(name)
            if name == "PATH" and shell.dialect == "sh":
                shell.session.export(name)  # dash remembers that of its own variables
        elif shell.dialect == "sh":
            return shell.end("error", f"unset: {name}: bad variable name")
    return NORMAL


def _source(shell: Shell, arguments: list[str], node: Simple) -> str:
    if not arguments:
        return NORMAL
    path = arguments[0]
    words = node.words[1:]
    if not is_known(path):
        process = words[0][0] if words and words[0] else None
        if isinstance(process, Output) and process.process and process.commands:
            return _outcome(shell, frozenset(_programs(process.commands)), "source")
        name = posixpath.basename(path.rpartition(UNKNOWN)[2])
        if "/" in path and (outcome := _known_file(shell, name)):
            return outcome[0]
        raise Unsure("sources a file whose name is not known")
    if "/" not in path:
        found = shell.session.find(path)
        if found == "" and shell.dialect == "bash" and not shell.posix:
            found = shell.session.absolute(path)
        if found is None:
            raise Unsure(f"sources {path} from PATH")
        path = found or path
    path = posixpath.normpath(shell.session.absolute(path))
    if not is_known(path):
        raise Unsure("sources a file whose name is not known")
    text = _text_of(shell, path)
    if text is not None and (outcome := _known_file(shell, posixpath.basename(path), path)):
        return outcome[0]
    if text is None:
        shell.state.status = False
        special = literal(node.words[0]) == "." and (shell.dialect == "sh" or shell.posix)
        return shell.end("missing", f"sources {path}, which can't be read") if special else NORMAL
    before = shell.state.arguments
    if len(arguments) > 1 and shell.dialect != "sh":
        shell.state.arguments = arguments[1:]
    line = shell.line
    flow = shell.read(path, text)
    shell.at(line)
    shell.state.arguments = before
    return flow


def _text_of(shell: Shell, path: str) -> str | None:
    known = posixpath.basename(path) in (*helpers("quiet_file"), *helpers("prepending_file"))
    if known:
        return "" if shell.session.test_file("-r", path) else None
    if path.startswith(("/proc/", "/dev/")):
        raise Unsure(f"sources {path}")
    return shell.session.text(path)


def _known_file(shell: Shell, name: str, path: str = "") -> tuple[str] | None:
    if name in helpers("quiet_file"):
        shell.state.status = None
        return (NORMAL,)
    if name in helpers("prepending_file"):
        value = shell.state.get("PATH").value
        if value is not None:
            shell.session.set("PATH", tidy(prepended(value) + AFTER), f"{name} adds to PATH")
        shell.session.trace.doubts[f"{shell.session.source}: {name} adds to PATH"] = None
        shell.state.status = None
        return (NORMAL,)
    return None


def _eval(shell: Shell, arguments: list[str], node: Simple) -> str:
    if all(map(is_known, arguments)):
        path, line = shell.path, shell.line
        text = " ".join(arguments)
        script = parsed(text, shell.dialect)
        if script.problem and not script.problem.certain:
            raise Unsure("eval of what is not followed")
        shell.session.enter()
        try:
            # The lines of the text are not lines of the file.
            for nodes in script.lines:
                if flow := shell.run(_relined(nodes, line)):
                    return flow
        finally:
            shell.session.depth -= 1
            shell.path = path
            shell.at(line)
        if script.problem and (shell.dialect == "sh" or shell.posix):
            return shell.end("syntax", f"eval: {script.problem.text}")
        return NORMAL
    names: set[str] = set()
    for word in node.words[1:]:
        origin = shell.origin(word)
        if origin is None:
            raise Unsure("eval of text that is not known")
        names |= origin
    return _outcome(shell, frozenset(names), "eval")


def _relined(nodes: tuple[Node, ...], line: int) -> tuple[Node, ...]:
    return tuple(n._replace(line=line) for n in nodes)


def _outcome(shell: Shell, programs: frozenset[str], how: str) -> str:
    """The output of well-known programs is run."""
    shell.state.status = None
    if programs <= set(helpers("quiet_output")) | {"echo", "true", "cat"}:
        return NORMAL
    if programs <= set(helpers("quiet_output")) | set(helpers("prepending_output")):
        return shell.prepend(f"{how} of the output of {', '.join(sorted(programs))} changes PATH")
    raise Unsure(f"{how} of the output of {', '.join(sorted(programs)) or 'a program'}".replace(UNKNOWN, "a program"))


def _command(shell: Shell, arguments: list[str], node: Simple) -> str:
    """`command` and `builtin`."""
    if arguments[:1] and arguments[0] in ("-v", "-V"):
        return _type(shell, arguments[1:], node)
    if not arguments or arguments[0].startswith("-") or not is_known(arguments[0]):
        shell.state.status = None
        return NORMAL
    if arguments[0] in _DECLARATIONS:
        return shell.declare(arguments[0], node.words[2:])
    inner = _BUILTINS.get(arguments[0])
    if inner is None:
        shell.state.status = None
        return NORMAL
    flow = inner(shell, arguments[1:], node._replace(words=node.words[1:]))
    if flow == EXIT and shell.ending and shell.ending.how in ("missing", "error"):
        shell.state.status = False
        return NORMAL
    return flow


def _type(shell: Shell, arguments: list[str], node: Simple) -> str:
    """`command -v`, `type`, `which`, `hash`: whether there is such a command."""
    names = [a for a in arguments if not a.startswith("-")]
    shell.state.status = None
    if len(names) == 1 and is_known(names[0]):
        name = names[0]
        if name in shell.state.functions or name in _BUILTINS or name in _DECLARATIONS:
            shell.state.status = True
        elif "/" not in name and not shell.state.lost:
            found = shell.session.find(name)
            shell.state.status = None if found is None else bool(found)
    return NORMAL


def _exec(shell: Shell, arguments: list[str], node: Simple) -> str:
    words = [a for a in arguments if a not in ("-l", "-c", "--")]
    if not words:
        return NORMAL  # only redirections
    if words[0].startswith("-") or words[:1] == ["-a"]:
        raise Unsure("exec with options")
    name = words[0]
    if shell.interactive:
        found = shell.session.find(name) if "/" not in name else name
        if not found:
            raise Unsure(f"exec of {name.replace(UNKNOWN, 'a program')}")
    return shell.end("exec", f"exec {name.replace(UNKNOWN, '…')} replaces the shell that starts the session")


def _exit(shell: Shell, arguments: list[str], node: Simple) -> str:
    return shell.end("exit", "exit ends the shell that starts the session")


def _return(shell: Shell, arguments: list[str], node: Simple) -> str:
    if arguments:
        shell.state.status = {"0": True}.get(arguments[0], False if arguments[0].isdecimal() else None)
    return RETURN


def _break(shell: Shell, arguments: list[str], node: Simple) -> str:
    if not shell.looped:
        return NORMAL
    if arguments not in ([], ["1"]):
        raise Unsure("leaves more than one loop")
    return BREAK


def _continue(shell: Shell, arguments: list[str], node: Simple) -> str:
    if not shell.looped:
        return NORMAL
    if arguments not in ([], ["1"]):
        raise Unsure("leaves more than one loop")
    return CONTINUE


_LETTERS = {"e": "errexit", "a": "allexport", "f": "noglob", "u": "nounset", "n": "noexec"}


def _set(shell: Shell, arguments: list[str], node: Simple) -> str:
    i = 0
    while i < len(arguments):
        argument = arguments[i]
        i += 1
        if not is_known(argument):
            raise Unsure("set with options that are not known")
        if argument in ("-o", "+o"):
            name = arguments[i] if i < len(arguments) else ""
            i += 1
            if shell.dialect == "sh" and name and name not in _SH_OPTIONS:
                return shell.end("error", f"set: Illegal option -o {name}")
            shell.state.options[name] = argument == "-o"
        elif argument[:1] in ("-", "+") and argument not in ("-", "--"):
            for letter in argument[1:]:
                if letter in _LETTERS:
                    shell.state.options[_LETTERS[letter]] = argument[0] == "-"
                elif letter == "o":
                    name = arguments[i] if i < len(arguments) else ""
                    i += 1
                    shell.state.options[name] = argument[0] == "-"
        else:
            shell.state.arguments = arguments[i:] if argument == "--" else arguments[i - 1 :]
            break
    if any(shell.state.options.get(o) is not False for o in ("noexec",) if o in shell.state.options):
        raise Unsure("set -n")
    return NORMAL


_SH_OPTIONS = (
    "errexit", "noglob", "ignoreeof", "interactive", "monitor", "noexec", "stdin", "xtrace", "verbose", "vi", "emacs",
    "noclobber", "allexport", "notify", "nounset", "nolog", "debug", "privileged", "pipefail",
)  # fmt: skip


def _shopt(shell: Shell, arguments: list[str], node: Simple) -> str:
    names = [a for a in arguments if not a.startswith("-")]
    if any(a.startswith("-") and "q" in a for a in arguments):
        shell.state.status = None
        if names == ["login_shell"]:
            shell.state.status = shell.state.options.get("login_shell", None)
        elif "posix" in names:
            shell.state.status = shell.posix
    elif "-s" in arguments:
        for name in names:
            shell.state.options[name] = True
    elif "-u" in arguments:
        for name in names:
            shell.state.options.pop(name, None)
    return NORMAL


def _shift(shell: Shell, arguments: list[str], node: Simple) -> str:
    known = shell.state.arguments
    count = int(arguments[0]) if arguments and re.fullmatch(r"\d{1,4}", arguments[0]) else 1
    if known is None or (arguments and not re.fullmatch(r"\d{1,4}", arguments[0])):
        shell.state.arguments = None
        shell.state.status = None
    elif count <= len(known):
        shell.state.arguments = known[count:]
    elif shell.dialect == "sh":
        return shell.end("error", "shift: can't shift that many")
    else:
        shell.state.status = False
    return NORMAL


def _cd(shell: Shell, arguments: list[str], node: Simple) -> str:
    target = arguments[0] if len(arguments) == 1 else shell.session.account.home if not arguments else UNKNOWN
    target = posixpath.normpath(shell.session.absolute(target)) if target != "-" else UNKNOWN
    there = shell.session.test_file("-d", target)
    shell.state.status = there
    if there is not False:
        shell.state.folder = target if there else UNKNOWN
        shell.session.set("PWD", shell.state.folder, "cd")
    return NORMAL


def _sets_names(shell: Shell, arguments: list[str], node: Simple) -> str:
    """read, mapfile, getopts, let, printf -v: what they name becomes unknown."""
    printing = literal(node.words[0]) == "printf"
    if printing and arguments[:1] != ["-v"]:
        shell.state.status = None
        return NORMAL
    for argument in arguments:
        for name in [n[0] for n in _NAME.finditer(argument.replace(UNKNOWN, " "))]:
            shell.session.set(name, UNKNOWN, "read")
    shell.state.status = None
    return NORMAL


_Builtin = Callable[[Shell, list[str], Simple], str]
_BUILTINS: dict[str, _Builtin] = {
    "[": _test, "test": _test, ":": _true, "true": _true, "false": _false, "unset": _unset, ".": _source,
    "source": _source, "eval": _eval, "command": _command, "builtin": _command, "type": _type, "which": _type,
    "hash": _type, "exec": _exec, "exit": _exit, "logout": _exit, "return": _return, "break": _break,
    "continue": _continue, "set": _set, "shopt": _shopt, "shift": _shift, "cd": _cd, "pushd": _cd, "read": _sets_names,
    "mapfile": _sets_names, "readarray": _sets_names, "getopts": _sets_names, "let": _sets_names,
    "printf": _sets_names, "echo": _true, "alias": _true, "unalias": _true, "umask": _true, "trap": _true,
}  # fmt: skip
_QUIET = frozenset(
    (
        "[",
        "test",
        ":",
        "true",
        "false",
        "echo",
        "alias",
        "unalias",
        "umask",
        "trap",
        "type",
        "which",
        "hash",
        "continue",
        "break",
    )
)
