"""The effect of a start-up file for sh, bash or zsh on the variables: abstract interpretation over `syntax`.

If a condition is unknown, both ways are followed, and every difference afterwards is unknown.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.shell import helpers, patterns
from dlhealth.shell.malformed import HARD_BLANK, LISTS, Problem, set_behind
from dlhealth.shell.sh.builtins import BUILTINS, DECLARATIONS, SPECIAL, run_builtin
from dlhealth.shell.sh.conditions import Conditional
from dlhealth.shell.sh.effects import QUIET, Effects, asks_for_success, invoked
from dlhealth.shell.sh.expansion import Expansion
from dlhealth.shell.sh.flow import ABORT, BREAK, CONTINUE, EXIT, NORMAL, RETURN, Leave
from dlhealth.shell.sh.syntax import (
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
    Output,
    Param,
    Pipeline,
    Script,
    Simple,
    Test,
    Text,
    While,
    Word,
    literal,
    parsed,
)
from dlhealth.shell.state import HARMLESS, Exhausted, Session, State, Unsure, Variable
from dlhealth.shell.values import (
    AFTER,
    BEFORE,
    UNKNOWN,
    elements,
    is_known,
    prepended,
    text_of,
    tidy,
    tokens,
)

_NAME = regex(r"[A-Za-z_][A-Za-z0-9_]*")
_DECLARED = regex(r"([A-Za-z_][A-Za-z0-9_]*)(\+?=)")
_OPENED = regex(r"\s*(?:export\s+)?(?:PATH|LD_LIBRARY_PATH)=(?:\"[^\"]*|'[^']*)$")
_PASTED = regex(rf"[{HARD_BLANK} ]*(?:export[{HARD_BLANK} ]+)?(PATH|LD_LIBRARY_PATH)[{HARD_BLANK} ]*=")
_ITEMS = 200
_ASSOCIATIVE = frozenset(
    ("aliases", "commands", "functions", "galiases", "nameddirs", "options", "parameters", "saliases", "userdirs")
)
"""Those that zsh has itself (zshmodules(1), zsh/parameter)."""


class Shell(Expansion):
    """A shell that reads start-up files one after the other. `dialect` is "sh" (dash), "bash" or "zsh"; `posix` is
    bash called as sh; `interactive` whether it has a prompt."""

    builtins = BUILTINS.keys()

    def __init__(self, session: Session, dialect: str, *, interactive: bool, posix: bool = False) -> None:
        super().__init__(session, dialect, interactive=interactive, posix=posix)
        self.line = 0
        self.conditions = 0
        self.forks = 0
        self.abandoned: list[list[State]] = []
        self.reading: list[str] = []
        self.calls = 0
        self.returned: list[list[State]] = [[]]
        self.looped: list[list[State]] = []
        self.locals: list[set[str]] = []
        self.unique: set[str] = set()

    # Files.
    def start(self, path: str) -> bool:
        """Read a start-up file; False if there is none. Leaves `ending` when the shell certainly ends in it."""
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
        self.reading.append(path)
        try:
            flow = self.script(parsed(text, self.dialect))
        except Exhausted as problem:
            self.session.forget(str(problem))
            flow = NORMAL
        except Unsure as problem:
            self.doubt(problem)
            flow = NORMAL
        except RecursionError:
            self.session.forget("cannot follow code that is nested so deeply")
            flow = NORMAL
        finally:
            self.session.depth -= 1
            self.reading.pop()
            self.looped = looped
            self.path, self.line = before
        return self.join_returns(flow)

    def join_returns(self, flow: str) -> str:
        """The states that left by `return` are merged with the one that did not."""
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
        if not any(script.lines):
            self.state.status = True  # nothing to do is done
        for nodes in script.lines:
            if flow := self.abandonable(nodes):
                return flow
        if script.problem is None:
            return NORMAL
        self.at(script.problem.line)
        if not script.problem.certain:
            raise Unsure(script.problem.text, ends=True)
        self.blame_line(script.problem.line, script.problem.text)
        if self.dialect == "sh" or self.posix:
            return self.end("syntax", script.problem.text)
        windows = self.lines()[script.problem.line - 1].endswith("\r")
        self.blame_unread(script.problem.line, "has a Windows line ending" if windows else "has a syntax error")
        self.state.status = False
        return NORMAL

    def abandonable(self, nodes: Sequence[Node]) -> str:
        """Run commands that a shell reads at once. After an error, bash continues with the next line, and zsh with the
        file that called this one."""
        self.abandoned.append([])
        flow = self.run(nodes)
        left = self.abandoned.pop()
        if self.dialect == "zsh":
            self.returned[-1] += left
            left = []
        if flow != ABORT or not (self.dialect == "zsh" or (self.dialect == "bash" and self.interactive)):
            for state in left:
                self.state.merge(state)
            return flow
        self.state.status = False
        if self.dialect == "zsh":
            self.blame_unread(self.failed, "has an error")
            return RETURN
        return NORMAL

    def blame_unread(self, line: int, how: str) -> None:
        """A shell reads no further than an error: report the variables that a later line would set."""
        if self.forks or not self.path.startswith("/"):
            return
        lines = self.lines()
        if found := set_behind(lines, line):
            self.at(found[0])
            text = f"the shell stops before it, at line {line}, which {how}"
            self.problem(found[1], "unread", text, lines[found[0] - 1].strip())
            self.at(line)

    def lines(self) -> list[str]:
        return (self.session.host.text(self.path) or "").split("\n")

    def blame_line(self, line: int, text: str) -> None:
        """A syntax error in a line about one of the variables."""
        lines = self.lines()[:line]
        kind = "open-quote" if "quote" in text else "unbalanced-braces" if "brace" in text else "syntax"
        if kind == "open-quote" and lines and not _OPENED.match(lines[-1]):
            # An open quote in an earlier line ends at the next quote, and the last quote of the file has no partner.
            ours = next((number for number, before in enumerate(lines, 1) if _OPENED.match(before)), line)
            self.at(ours)
            lines = lines[:ours]
        for name in LISTS:
            if lines and re.search(rf"\b{name}\b", lines[-1]):
                self.problem(name, kind, f"a syntax error: {text}", lines[-1].strip())
        self.at(line)

    def at(self, line: int) -> None:
        self.line = line
        self.session.source = Place(self.path, line)

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
            except Exhausted:
                raise
            except Unsure as problem:
                self.doubt(problem)
                flow = NORMAL
            if flow:
                return flow
        return NORMAL

    def doubt(self, problem: Unsure) -> None:
        """Continue after a command that may have done anything: the next assignments are known again."""
        self.session.forget(str(problem), stop=problem.ends)

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
        failed = self.state.status is False and not self.conditions and self.state.options.get("errexit")
        if flow or not failed or self.dialect == "zsh":  # zsh ignores the option while it starts
            return flow
        return self.end("set -e", "a command fails after set -e")

    def fork(self, ways: Sequence[Callable[[], str]]) -> str:
        """Follow every way from here, then continue with the merged state of all that return."""
        start, back, flows = self.state, [], []
        for way in ways:
            self.session.state = start.copy()
            self.forks += 1
            try:
                flow = way()
            except Leave as leave:
                flow = leave.flow
            finally:
                self.forks -= 1
            flows.append(flow)
            if flow == NORMAL:
                back.append(self.state)
            elif flow == RETURN:
                self.returned[-1].append(self.state)
            elif flow in (BREAK, CONTINUE) and self.looped:
                self.looped[-1].append(self.state)
            elif flow == ABORT and self.abandoned:
                self.abandoned[-1].append(self.state)
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
            return self.run_or_succeed(otherwise)
        condition, body = branches[0]
        if flow := self.condition(condition):
            return flow
        if self.state.status is None:
            return self.fork([lambda: self.run(body), lambda: self.branches(branches[1:], otherwise)])
        return self.run(body) if self.state.status else self.branches(branches[1:], otherwise)

    def for_(self, node: For) -> str:
        self.at(node.line)
        items: list[str] | None = self.state.arguments if node.words is None else self.fields(node.words)
        if items is None or len(items) > _ITEMS or not all(map(is_known, items)) or self.unsplit(node.words, items):
            return self.havoc((node,))
        left: list[State] = []
        flow = NORMAL
        if not items:
            self.state.status = True
        for item in items:
            self.session.set(node.name, item, "for")
            flow, ways = self.turn(node.body)
            left += [s.copy() for s in ways]
            if flow in (NORMAL, CONTINUE):
                for state in ways:
                    self.state.merge(state)
                flow = NORMAL
            else:
                break
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

    def unsplit(self, words: Sequence[Word] | None, items: list[str]) -> bool:
        """Whether zsh, which splits no variable, might split one of these because of an option that cannot be
        followed."""
        blank = any(len(item.split()) != 1 for item in items)
        return self.dialect == "zsh" and blank and any(isinstance(p, Param) for w in words or () for p in w)

    def while_(self, node: While) -> str:
        self.at(node.line)
        before = self.state.copy()
        if flow := self.condition(node.condition):
            return flow
        if self.state.status is node.until:
            self.state.status = True
            return NORMAL
        if self.state.status is None:
            self.session.state = before
            return self.havoc((node,))
        return self.unrolled(node)

    def unrolled(self, node: While) -> str:
        """A loop whose condition is known each time. The first test has been made."""
        for _ in range(_ITEMS):
            flow, ways = self.turn(node.body)
            if ways or flow not in (NORMAL, CONTINUE, BREAK):
                for state in ways:
                    self.state.merge(state)
                if flow not in (NORMAL, CONTINUE, BREAK):
                    return flow
                return self.havoc((node,))
            if flow == BREAK:
                return NORMAL
            if flow := self.condition(node.condition):
                return flow
            if self.state.status is node.until:
                self.state.status = True
                return NORMAL
            if self.state.status is None:
                return self.havoc((node,))
        raise Unsure("this loop does not end")

    def turn(self, body: Sequence[Node]) -> tuple[str, list[State]]:
        """One turn of a loop, and the states in which some ways left it early."""
        self.looped.append([])
        try:
            flow = self.run(body)
        finally:
            ways = self.looped.pop()
        return flow, ways

    def havoc(self, nodes: Iterable[Any]) -> str:
        """Commands that run an unknown number of times: the variables that they may set become unknown."""
        effects = Effects(self.state.functions, BUILTINS)
        # If nothing is left to shift, sh ends.
        if not effects.may_set(nodes) or (effects.shifts and self.dialect == "sh"):
            raise Unsure("cannot follow this loop")
        if effects.shifts:
            self.state.arguments = None
        self.state.foreign |= effects.defines
        for name in effects.names | effects.loose:
            self.session.set(self.tied.get(name, name), UNKNOWN, "loop")
        for name in effects.loose:
            self.state.variables[self.tied.get(name, name)] = Variable(UNKNOWN, None)
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
                return self.run_or_succeed(body)
            rest = arms[number + 1 :]
            return self.fork([lambda body=body: self.run_or_succeed(body), lambda rest=rest: self.arms(subject, rest)])  # type: ignore[misc]
        self.state.status = True
        return NORMAL

    def run_or_succeed(self, body: Sequence[Node]) -> str:
        """Until a command of the body has ended `$?` is that of the condition; a body without commands succeeds."""
        if not body:
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
        self.substituted.clear()
        if not node.words:
            for assignment in node.assignments:
                self.assign(assignment)
            return self.without_command()
        if (asked := asks_for_success(node.words)) is not None and self.state.status is not None:
            self.state.status = self.state.status is asked
            return NORMAL
        spelled = (literal(node.words[0]) or "").lstrip("\\")
        declares = spelled in (DECLARATIONS if self.dialect != "sh" else ("export", "readonly", "local"))
        first = self.fields(node.words[:1])
        if first == [] and len(node.words) == 1:
            return self.without_command()  # an empty expansion
        if first == [] and not node.assignments:
            return self.simple(node._replace(words=node.words[1:]))
        if not first or not is_known(first[0]):
            raise Unsure("cannot tell which command it runs")
        name = first[0]
        fields = first if declares else self.fields(node.words)
        if fields is None and name == "eval":
            fields = [name, UNKNOWN]  # into how many words its text falls is all the same: it puts them together again
        if fields is None:
            if name in (".", "source") and self.surrounded(self.value(node.words[1])):
                return NORMAL
            if name in self.state.functions:
                return self.call(name, None)
            if name in BUILTINS and name not in QUIET:
                raise Unsure(f"cannot tell what {name} sets")
            self.state.status = None
            return NORMAL
        self.misplaced_blank(node, name, fields)
        self.misplaced_semicolon(name)
        if node.assignments:
            return self.with_assignments(node, name, fields, declares)
        return self.declare(name, node.words[1:]) if declares else self.command(name, fields[1:], node)

    def without_command(self) -> str:
        """A line that runs no command ends as its last command substitution did."""
        self.state.status = self.substituted[-1] if self.substituted else True
        return NORMAL

    def with_assignments(self, node: Simple, name: str, fields: list[str], declares: bool) -> str:
        """`A=b command`: bash restores A afterwards; dash does not if the command is a special builtin of POSIX."""
        internal = declares or name in self.state.functions or name in BUILTINS
        if not internal:
            for assignment in node.assignments:
                self.value(assignment.word)  # for what an expansion like ${A:=b} sets
            return self.command(name, fields[1:], node)
        names = [a.name for a in node.assignments]
        if declares and any(n in "".join(literal(w) or UNKNOWN for w in node.words[1:]) for n in names):
            raise Unsure("cannot follow an assignment before an export of the same variable")
        before = {n: self.state.get(n) for n in names}
        for assignment in node.assignments:
            self.assign(assignment)
        flow = self.declare(name, node.words[1:]) if declares else self.command(name, fields[1:], node)
        if (self.dialect == "bash" and not self.posix) or (name not in SPECIAL and name not in self.state.functions):
            self.state.variables.update(before)
        else:
            for variable in names:
                known = self.state.get(variable)._replace(exported=self.state.get(variable).exported or None)
                # What a function leaves of it differs between versions of dash.
                same = name in SPECIAL or known.value == before[variable].value
                self.state.variables[variable] = known if same else Variable(UNKNOWN, known.exported)
        return flow

    def pasted_blank(self, text: str) -> None:
        pasted = _PASTED.match(text)
        if pasted and HARD_BLANK in pasted[0]:
            why = "a no-break space (U+00A0), as in web pages, is not a blank to the shell, so the line is not an assignment"
            self.problem(pasted[1], "hard-blank", why, text)

    def misplaced_blank(self, node: Simple, name: str, fields: list[str]) -> None:
        """`PATH = value`, and `PATH= value`: neither sets PATH."""
        self.pasted_blank(" ".join(fields))
        if name in LISTS and len(fields) > 1 and fields[1].startswith("="):
            self.problem(
                name,
                "space-around-equals",
                f"a space before the = makes {name} the name of a command",
                " ".join(fields),
            )
        elif len(node.assignments) == 1 and not node.assignments[0].word and (":" in name or name.startswith("$")):
            variable = node.assignments[0].name
            if variable in LISTS and not node.assignments[0].items:
                text = f"a space after the = gives {variable} an empty value, for one command only"
                self.problem(variable, "space-around-equals", text, f"{variable}= {name}")

    def misplaced_semicolon(self, name: str) -> None:
        """`PATH=/a;/b`: the second directory is a command."""
        settings = self.session.trace.settings
        last = settings[-1] if settings and settings[-1].source == self.session.source else None
        if last and last.variable in LISTS and name.startswith("/") and self.session.test_file("-d", name):
            text = f"a semicolon ends {last.variable} before {name}, which is then taken for a command"
            self.problem(last.variable, "wrong-separator", text, f";{name}")

    def command(self, name: str, arguments: list[str], node: Simple) -> str:
        if name in self.state.functions:
            return self.call(name, arguments)
        if name in BUILTINS and (
            self.dialect != "sh" or name not in ("source", "shopt", "let", "mapfile", "readarray", "autoload")
        ):
            return run_builtin(self, name, arguments, node)
        if self.absent(name):
            self.state.status = False
        elif name in helpers.CONDA_COMMAND:
            return self.conda(arguments)
        elif name in helpers.PREPENDING_COMMAND:
            return self.prepend(f"{name} changes PATH")
        elif name in helpers.UNKNOWN_COMMAND:
            self.session.forget(f"{name} changes the environment", stop=False)
            self.state.status = None
        else:
            self.state.status = None if self.dialect != "sh" or name != "source" else False
        return NORMAL

    def call(self, name: str, arguments: list[str] | None) -> str:
        body: Any = self.state.functions[name]
        if body is None:
            raise Unsure(f"{name} can be one of several functions", ends=True)
        if body is HARMLESS:
            self.state.status = None
            return NORMAL
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

    def hook(self, command: tuple[str, ...]) -> bool:
        """The output of a known hook is run; False if its effect is unknown."""
        program = command[0] if "/" in command[0] else self.session.find(command[0]) or ""
        path = self.state.get("PATH").value or ""
        if not all(map(is_known, (program, *command[1:]))):
            return False
        if program.endswith("/pyenv") and command[1:2] == ("init",):
            root = self.state.get("PYENV_ROOT").value or f"{self.session.account.home}/.pyenv"
            shims = f"{root}/shims"
            if shims in elements(path):
                return False
            self.session.set("PATH", tidy(f"{shims}:{path}" if path else shims), "pyenv init")
            return True
        prefix = program.removesuffix("/bin/conda")
        if prefix == program or "hook" not in command or self.state.get("CONDA_SHLVL").value is not None:
            return False
        there = [self.session.test_file("-e", f"{prefix}/{f}") for f in ("etc/profile.d/conda.sh", "bin/python")]
        settled = (f"{self.session.account.home}/.condarc", f"{prefix}/.condarc", "/etc/conda/.condarc")
        scripts = self.session.test_file("-d", f"{prefix}/etc/conda/activate.d")
        unsettled = any(self.session.test_file("-e", path) is not False for path in settled)
        if not all(there) or unsettled or scripts is not False:
            return False
        self.session.set("PATH", tidy(f"{prefix}/bin:{prefix}/condabin:{path}"), "conda hook", exported=True)
        for name, value in (("CONDA_SHLVL", "1"), ("CONDA_PREFIX", prefix), ("CONDA_DEFAULT_ENV", "base")):
            self.session.set(name, value, "conda hook", exported=True)
        self.state.status = True
        return True

    def conda(self, arguments: list[str]) -> str:
        if arguments[:1] not in (["activate"], ["deactivate"]):
            self.state.status = None
            return NORMAL
        self.prepend("conda activate changes PATH")
        self.blur("conda activate", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES")
        return NORMAL

    def surrounded(self, path: str) -> bool:
        """Whether this is a file that puts directories before and after those that PATH and LD_LIBRARY_PATH have, and
        may set other variables; that is then done."""
        files = helpers.SURROUNDING_FILE
        others = next((files[p] for p in files if re.fullmatch(p, path.replace(UNKNOWN, "x"))), None)
        if re.search(r"/(modules|lmod)/init/", path) and self.session.loads_no_modules():
            self.state.foreign = True
            self.state.status = None
            return True
        # What bash's has may end dash.
        if others is None or (self.dialect == "sh" and path.endswith(("bash", "zsh"))):
            return False
        how = f"{path.replace(UNKNOWN, '…')} sets variables"
        for name in LISTS:
            value = self.state.get(name).value
            if value:
                self.session.set(name, tidy(prepended(value) + AFTER), how)
            else:
                self.blur(how, name)
        self.blur(how, *others)
        self.session.trace.doubts[f"{self.session.source}: {how}"] = None
        self.state.status = None
        return True

    def blur(self, how: str, *names: str) -> None:
        """These variables may be set now, or not."""
        for name in names:
            self.session.set(name, UNKNOWN, how)
            self.state.variables[name] = Variable(UNKNOWN, None)

    # Variables.
    def assign(self, assignment: Assignment, how: str = "assignment", exported: bool = False) -> None:
        name = self.tied.get(assignment.name, assignment.name)
        if assignment.items is not None:
            self.assign_array(assignment)
            return
        if assignment.subscript and self.dialect == "zsh":
            self.subscript(assignment)
        value = self.value(assignment.word, assigned=True)
        programs = self.origin(assignment.word)
        if assignment.append:
            between = ":" if name != assignment.name and self.state.get(name).value else ""
            value = tidy((self.state.get(name).value or "") + between + value)
        self.session.set(name, self.without_repeats(assignment.name, value), how, exported, programs)

    def subscript(self, assignment: Assignment) -> None:
        """zsh computes a number from the subscript of an array that was not declared as associative. 0 and an unset
        variable are errors."""
        if self.state.options.get(f"associative {assignment.name}") or assignment.name in _ASSOCIATIVE:
            return
        if re.fullmatch(r"-?[1-9]\d*(,-?[1-9]\d*)?", assignment.subscript):
            return
        names = assignment.subscript.split("-")
        plain = all(map(_NAME.fullmatch, names)) and not self.state.lost and not self.state.foreign
        if plain and all(self.state.get(name).value is None for name in (assignment.name, *names)):
            text = f"{assignment.name} was not declared an associative array"
            raise Leave(self.end("error", text))
        self.abandoned[-1].append(self.state.copy())

    def assign_array(self, assignment: Assignment) -> None:
        """zsh has PATH also as the array `path`; of other arrays only the names are known."""
        name = self.tied.get(assignment.name, assignment.name)
        if name not in self.tied.values():
            self.ended(None)  # the items may be the output of programs
            self.session.set(name, UNKNOWN, "array")
            return
        before = self.state.get(name).value
        parts = tokens(before) if assignment.append and before else []
        for item in assignment.items or ():
            fields = self.fields((item,))
            if fields is None:
                self.ended(None)
            parts += [BEFORE] if fields is None else fields
        if parts[-1:] == [BEFORE]:
            parts[-1] = AFTER if len(parts) > 1 else UNKNOWN
        value = text_of(parts)
        self.session.set(name, self.without_repeats(assignment.name, value), "assignment")

    def without_repeats(self, name: str, value: str) -> str:
        """zsh's `typeset -U path`."""
        if name not in self.unique or not value:
            return value
        kept: list[str] = []
        for element in tokens(value):
            if element not in kept or not is_known(element):
                kept.append(element)
        return text_of(kept)

    def expanded(self, commands: Sequence[Node]) -> set[tuple[str, ...]]:
        """The words of each command, which runs in a subshell: its assignments and its end have no effect outside."""
        before, ending, substituted = self.state.copy(), self.ending, list(self.substituted)
        try:
            return {tuple(map(self.value, words)) or (UNKNOWN,) for words in invoked(commands)}
        except Leave:
            return {(UNKNOWN,)}
        finally:
            self.session.state, self.ending, self.substituted = before, ending, substituted

    def origin(self, word: Word) -> frozenset[tuple[str, ...]] | None:
        """The commands whose output the word is, and nothing else: with the words of each."""
        names: set[tuple[str, ...]] = set()
        for part in word:
            if isinstance(part, Output) and part.commands is not None:
                names |= self.expanded(part.commands)
            elif isinstance(part, Param) and (known := self.state.get(part.name).origin):
                names |= known
            elif isinstance(part, Text) and not part.text.strip():
                continue
            else:
                return None
        return frozenset(names) if names and all(is_known(name[0]) for name in names) else None

    def declare(self, name: str, words: Sequence[Word]) -> str:
        """export, readonly, declare, typeset, local."""
        options, bad = "", []
        named: list[str] = []
        words = self.braced(words) if self.dialect == "bash" else words
        # A shell expands all of them before it sets the first.
        meant = [self.value(word, assigned=True) for word in words] if len(words) > 1 else []
        for number, word in enumerate(words):
            first = word[0] if word else None
            match = _DECLARED.match(first.text) if isinstance(first, Text) and not first.quoted else None
            if match and isinstance(first, Text):
                rest: Word = (Text(first.text[match.end() :], False), *word[1:])
                if meant and self.value(word, assigned=True) != meant[number]:
                    rest = (Text(meant[number][match.end() :], True),)
                named.append(match[1])
                self.declared(name, options, Assignment(match[1], match[2] == "+=", rest, None))
                continue
            fields = self.fields((word,))
            if fields is None:
                raise Unsure(f"cannot tell what {name} sets")
            for field in fields:
                if field.startswith(("-", "+")) and not named and len(field) > 1:
                    options += field
                elif not is_known(field):
                    raise Unsure(f"cannot tell what {name} sets")
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
                    if self.dialect == "zsh" or (self.dialect == "sh" and name in ("export", "readonly")):
                        raise Leave(self.end("error", f"{name}: {field}: bad variable name"))
        if "T" in options and self.dialect == "zsh":
            self.tie(named, fields_given=len(words), unique="U" in options)
        self.state.status = not bad
        return NORMAL

    def tie(self, named: list[str], fields_given: int, unique: bool) -> None:
        """zsh's `typeset -T LD_LIBRARY_PATH ld_library_path`."""
        if len(named) != 2 or fields_given > 3:
            raise Unsure("cannot follow this use of typeset -T")
        scalar, array = named
        self.tied[array] = scalar
        if self.state.get(scalar).value is None:
            self.session.set(scalar, "", "typeset -T")
        if unique:
            self.unique.update(named)

    def blame_export(self, named: list[str], bad: list[str], words: Sequence[Word]) -> None:
        self.pasted_blank(bad[0])
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
        scalar = self.tied.get(name, name)
        if "A" in options:
            self.state.options[f"associative {name}"] = True
        if self.dialect == "zsh" and "U" in options and scalar in self.tied.values():
            self.unique.add(name)
            value = self.state.get(scalar).value
            if value:
                self.session.set(scalar, self.without_repeats(name, value), "typeset -U")
        if not isinstance(what, str):
            self.assign(what, command, exports and "-n" not in options)
        if exports and "f" not in options:
            self.session.export(name, "n" not in options and "+x" not in options)
