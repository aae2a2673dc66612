"""What the readers of fish and csh share: blocks, forks, and files that read each other."""

import posixpath
from collections.abc import Callable, Sequence

from dlhealth.host.place import Place
from dlhealth.shell import helpers
from dlhealth.shell.malformed import Problem, set_behind
from dlhealth.shell.state import SHELLS, Session, State, Successor, Unsure
from dlhealth.shell.values import AFTER, UNKNOWN, Truth, prepended, tidy


class Left(Exception):
    """Leaves the file or function ("return"), all start-up files ("error"), or the shell ("exit", "exec")."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Reader:
    """Reads start-up files into a session."""

    def __init__(self, session: Session, *, login: bool, interactive: bool) -> None:
        self.session = session
        self.login = login
        self.interactive = interactive
        self.path = ""
        self.base = 0
        self.returned: list[list[State]] = [[]]
        self.errors: list[State] = []
        self.left = ""
        self.line_number = 0
        self.forks = 0

    def blame_unread(self, how: str) -> None:
        """Report variables that a later line would set: the shell stops before it."""
        at = self.session.source
        if self.forks or at.line is None:
            return
        lines = (self.session.host.text(at.path) or "").split("\n")
        if found := set_behind(lines, at.line):
            text = f"the shell stops before it, at line {at.line}, which {how}"
            self.session.trace.problems[
                Problem(Place(at.path, found[0]), found[1], "unread", lines[found[0] - 1].strip(), text)
            ] = None

    def start(self) -> None:
        """Read what the shell reads at its start; `left` then says how it left, if it did."""
        raise NotImplementedError

    @property
    def state(self) -> State:
        return self.session.state

    def replace(self, arguments: Sequence[str]) -> None:
        """`exec`: another shell reads its own files then."""
        program = next((a for a in arguments if not a.startswith("-")), "")
        options = [a for a in arguments if a != program]
        if posixpath.basename(program) in SHELLS and set(options) <= {"-l", "--login", "-i"}:
            login = bool({"-l", "--login"} & set(options))
            self.session.successors.append(Successor(self.state.copy(), program, login))
        raise Left("exec")

    def run_text(self, text: str) -> None:
        """Parse and run."""
        raise NotImplementedError

    def read(self, path: str) -> bool:
        """Run a file if it is there."""
        before, line = self.path, self.line_number
        self.session.source = Place(path)
        try:
            text = self.session.text(path)
            if text is None:
                return False
            self.session.enter()
        except Unsure as problem:
            self.session.forget(str(problem))
            return True
        self.path = path
        self.returned.append([])
        try:
            self.run_text(text)
        except Left as left:
            if left.how != "return":
                raise
        except Unsure as problem:
            self.session.forget(str(problem))
        except RecursionError:
            self.session.forget("cannot follow code that is nested so deeply")
        finally:
            self.session.depth -= 1
            self.path = before
            self.line_number = line
            self.session.source = Place(before, line)
            for state in self.returned.pop():
                self.state.merge(state)
        return True

    def at(self, line: int) -> None:
        self.line_number = line
        self.session.trace.step()
        self.session.source = Place(self.path, line)

    def problem(self, name: str, kind: str, text: str, shows: str) -> None:
        self.session.trace.problems[Problem(self.session.source, name, kind, shows, text)] = None

    def fork(self, condition: Truth, ways: Sequence[Callable[[], None]]) -> None:
        """Follow the first way if the condition holds, the second if it does not, and both if it is unknown."""
        if condition is not None:
            ways[0 if condition else 1]()
            return
        start, back, left = self.state, [], None
        for way in ways:
            self.session.state = start.copy()
            self.forks += 1
            try:
                way()
                back.append(self.state)
            except Left as leaving:
                left = leaving
                if leaving.how in ("break", "continue", "breaksw"):
                    raise Unsure("cannot tell when this loop ends") from None
                if leaving.how == "return":
                    self.returned[-1].append(self.state)
                elif leaving.how == "error":
                    self.errors.append(self.state)
            finally:
                self.forks -= 1
        if not back:
            raise left or Left("exit")
        self.session.state = back[0]
        for state in back[1:]:
            self.state.merge(state)

    def output_is_run(self, program: str) -> None:
        """The output of a program is run, as by `eval (brew shellenv)`."""
        if program in helpers.QUIET_OUTPUT:
            return
        self.state.foreign = True
        if program in helpers.PREPENDING_OUTPUT:
            self.prepend(f"the output of {program} changes PATH")
            return
        raise Unsure(f"runs the output of {program or 'a program'}".replace(UNKNOWN, "a program"))

    def known_file(self, name: str) -> bool:
        """Whether it is a well-known file that need not be read."""
        if name in helpers.PREPENDING_FILE:
            self.state.foreign = True
            self.prepend(f"{name} adds to PATH", after=True)
            return True
        return name in helpers.QUIET_FILE

    def prepend(self, why: str, after: bool = False) -> None:
        value = prepended(self.state.get("PATH").value or "")
        self.session.set("PATH", tidy(value + AFTER) if after else value, why)
        self.session.trace.doubts[f"{self.session.source}: {why}"] = None
