"""A line that sets PATH or LD_LIBRARY_PATH is malformed.

What you see
    "ImportError: libcudnn.so.7: cannot open shared object file", although the file is in /usr/local/cuda/lib64.

    "nvcc: command not found", although its directory was just added to PATH.

    "bash: export: `=': not a valid identifier" when a terminal opens.
Why
    Such lines are copied from web pages and contain a mistake: a backslash before ${LD_LIBRARY_PATH} stops its
    expansion; a space beside the = turns the line into another command; a missing quote or brace ends the file
    early; Windows line endings become part of the last directory's name; a library directory is added to PATH.

    So the line exists, but does not do what it should.
Repair
    Correct that line. To make libraries available to everybody, /etc/ld.so.conf.d and ldconfig are the better
    place.
What the repair risks
    Only that line changes. Programs that are already running keep the old value.
By hand
    # a correct line, for ~/.bashrc
    d=/usr/local/cuda/lib64
    export LD_LIBRARY_PATH=$d${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}}
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    CudaToolkits,
    EditFile,
    Environments,
    Evidence,
    Finding,
    LoaderConfig,
    Machine,
    Place,
    Plan,
    Problem,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UserPaths,
)
from dlhealth.lazy import regex

_MILD = {
    "empty-element": Severity.WARNING,
    "export-keyword": Severity.WARNING,
    "open-quote": Severity.WARNING,
    "space": Severity.WARNING,
    "unread": Severity.WARNING,
    "wrong-separator": Severity.WARNING,
}
"""Kinds of mistakes that leave the variable working in part."""


class LdLibraryPathMalformed(Rule):
    id = "ld-library-path-malformed"
    title = "A line that sets PATH or LD_LIBRARY_PATH is malformed"
    stage = Stage.ENVIRONMENT
    severity = Severity.ERROR

    explains = ("login-loop-profile-script-error", "nvcc-not-in-path", "ldconfig-cuda-entry-missing")

    def detect(
        self,
        environments: Environments,
        paths: UserPaths | None,
        loader: LoaderConfig | None,
        toolkits: CudaToolkits | None,
    ) -> Iterator[Finding | Unknown]:
        # A PATH that stops sessions from starting is reported by another rule.
        known = {broken.source for broken in environments.broken_paths()}
        in_terminals = {broken.source for broken in environments.broken_paths(in_terminals=True)}
        seen: set[tuple[str, str]] = set()
        for login in environments.logins:
            # An empty element is often only an effect of the line's other mistake.
            for problem in sorted(login.problems, key=lambda p: p.kind == "empty-element"):
                key = (problem.source, problem.variable)
                if key in seen or (problem.variable == "PATH" and problem.source in known) or _usual(problem):
                    continue
                if problem.kind == "empty-element" and problem.variable == "PATH" and problem.source in in_terminals:
                    continue  # a PATH without /usr/bin is worse, and reported below
                seen.add(key)
                breaks = problem.variable == "PATH" and problem.source in in_terminals
                yield self._malformed(problem, environments, breaks)
        for broken in environments.broken_paths(in_terminals=True):
            if (broken.source, "PATH") not in seen:
                subject, about = environments.subject(broken.source)
                yield self.finding(
                    subject,
                    f"{broken.source} sets PATH without /usr/bin: a terminal finds no programs",
                    Evidence(broken.source, f"PATH={broken.value}"),
                    about=(*about, f"line:{broken.source}"),
                    source=broken.source,
                    line=broken.line,
                    correction=broken.completed,
                    advice=f"it must contain /usr/bin and /bin, as in {_form(broken.source, 'PATH')}",
                )
        yield from self._misplaced(environments, paths, loader)
        sources = {source for source, _ in seen}
        yield from (f for f in self._missing(environments, paths, toolkits) if f.detail["source"] not in sources)
        for login in environments.logins:
            if login.kind == "interactive":
                yield from (Unknown(stop, f"user:{login.account.name}") for stop in login.stops)

    def _malformed(self, problem: Problem, environments: Environments, breaks: bool) -> Finding:
        """`breaks`: the line leaves a terminal without /usr/bin."""
        subject, about = environments.subject(problem.source)
        severity = _MILD.get(problem.kind, Severity.ERROR)
        if problem.kind == "empty-element" and not _has_empty(problem.line or problem.shown):
            severity = Severity.NOTE  # a common way to write it, wrong only if the variable was not set before
        if problem.kind == "open-quote" and "syntax" in problem.text:
            severity = Severity.ERROR
        if breaks:
            severity = Severity.ERROR
        useful = not breaks or re.search(r"\$\{?PATH\b|\$path\b|(?<![\w.])(/usr)?/bin\b", problem.correction)
        hidden = problem.part not in problem.shown  # the mistake comes from another line or from a variable's value
        return self.finding(
            subject,
            f"{problem.source} ({problem.variable}): {problem.text}",
            Evidence(problem.source, problem.shown or problem.part),
            *[Evidence(f"{problem.variable} as {problem.source} sets it", problem.part)] * hidden,
            severity=severity,
            about=(*about, f"line:{problem.source}"),
            source=problem.source,
            line=problem.line,
            correction=problem.correction if useful else "",
            advice=f"{problem.text}; {_as_it_should_be(problem)}",
        )

    def _misplaced(
        self, environments: Environments, paths: UserPaths | None, loader: LoaderConfig | None
    ) -> Iterator[Finding]:
        """Report library directories of CUDA that are in PATH, but not known to the loader."""
        if not paths or not loader:
            return
        known = {d.real for d in paths.libraries()} | {d.real for d in loader.directories}
        for folder in paths.directories:
            library = re.search(r"cud(a|nn).*/lib(64)?(/x86_64-linux-gnu)?$", folder.path)
            if folder.variable == "PATH" and library and folder.real and folder.real not in known:
                subject, about = environments.subject(folder.source)
                yield self.finding(
                    subject,
                    f"{folder.source} adds the library directory {folder.path} to PATH, which the loader does not search",
                    Evidence(folder.source, f"{folder.path} in PATH"),
                    Evidence("LD_LIBRARY_PATH and /etc/ld.so.conf", f"do not name {folder.path}"),
                    severity=Severity.WARNING,
                    about=(*about, f"line:{folder.source}"),
                    source=folder.source,
                    advice=f"remove {folder.path} from PATH; to make its libraries available, run as root: "
                    f"echo {folder.path} > /etc/ld.so.conf.d/cuda-libraries.conf; ldconfig",
                )

    def _missing(
        self, environments: Environments, paths: UserPaths | None, toolkits: CudaToolkits | None
    ) -> Iterator[Finding]:
        """Report directories of CUDA in LD_LIBRARY_PATH that do not exist although a toolkit is installed; the loader
        skips them."""
        if not paths or not toolkits or not toolkits.toolkits:
            return
        # Behind a broken link, the link is wrong and not the line.
        dangling = tuple(f"{link.path}/" for link in toolkits.links if not link.real)
        for folder in paths.libraries():
            if folder.path.startswith(dangling):
                continue
            if not folder.real and re.match(r"/(usr/local|opt)/cuda", folder.path):
                subject, about = environments.subject(folder.source)
                yield self.finding(
                    subject,
                    f"{folder.source} adds {folder.path} to LD_LIBRARY_PATH, but that directory does not exist",
                    Evidence(folder.source, f"LD_LIBRARY_PATH has {folder.path}"),
                    Evidence(folder.path, "does not exist"),
                    severity=Severity.NOTE,
                    about=(*about, f"line:{folder.source}"),
                    source=folder.source,
                    advice=f"remove {folder.path} from LD_LIBRARY_PATH, or name the directory of an installed toolkit",
                )

    def remedies(self, finding: Finding, environments: Environments) -> Iterator[Plan]:
        source: Place = finding.detail["source"]
        line, correction = finding.detail.get("line", ""), finding.detail.get("correction", "")
        if source.line and correction and _is_understood(source.path, correction):
            edit = EditFile(source.path, ((source.line, line, correction),))
            yield Plan(f"Correct line {source.line} of {source.path}", Risk.LOW, (edit,))
            return
        text = f"Edit line {source.line} of {source.path}" if source.line else f"Edit {source.path}"
        yield Plan(f"Correct {source}", Risk.LOW, (ByHand(f"{text}: {finding.detail['advice']}"),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def bashrc(text: str) -> Machine:
            return Machine.debian12_gpu().append("/home/alice/.bashrc", text)

        cuda = "/usr/local/cuda/lib64"
        joined = f"export LD_LIBRARY_PATH={cuda}${{LD_LIBRARY_PATH:+:${{LD_LIBRARY_PATH}}}}"
        quoted = f'export LD_LIBRARY_PATH="{cuda}:$LD_LIBRARY_PATH"'
        path = "export PATH=/usr/local/cuda/bin:$PATH"
        whole = 'export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"'
        # The name, the wrong lines, and how the first of them must read.
        corrected = (
            ("an escaped expansion", joined.replace("$", "\\$", 1), joined),
            (
                "spaces around the =",
                f"export LD_LIBRARY_PATH = {cuda}:$LD_LIBRARY_PATH",
                f"export LD_LIBRARY_PATH={cuda}:$LD_LIBRARY_PATH",
            ),
            ("a space before the =", f"LD_LIBRARY_PATH ={cuda}", f"LD_LIBRARY_PATH={cuda}"),
            ("a missing brace", joined.removesuffix("}"), joined),
            ("an extra brace", joined + "}", joined),
            ("an unclosed quote", f'export LD_LIBRARY_PATH="{cuda}', f'export LD_LIBRARY_PATH="{cuda}"'),
            ("single quotes", quoted.replace('"', "'"), quoted),
            ("a Windows line ending", f"export LD_LIBRARY_PATH={cuda}\r", f"export LD_LIBRARY_PATH={cuda}"),
            (
                "an empty element",
                f"export LD_LIBRARY_PATH={cuda}::/opt/lib",
                f"export LD_LIBRARY_PATH={cuda}:/opt/lib",
            ),
            (
                "quotation marks from a web page",
                f"export LD_LIBRARY_PATH=\u201c{cuda}:$LD_LIBRARY_PATH\u201d",
                quoted,
            ),
            (
                "a semicolon between directories",
                f"export LD_LIBRARY_PATH={cuda};/usr/lib",
                f"export LD_LIBRARY_PATH={cuda}:/usr/lib",
            ),
            ("a PATH without /usr/bin in terminals", "export PATH=/usr/local/cuda/bin", whole),
            ("the same with an empty element", "export PATH=/usr/local/cuda/bin:", whole),
            ("a space after the colon, so that PATH ends there", "export PATH=/usr/local/cuda/bin: $PATH", path),
            ("no colon", "export PATH=/usr/local/cuda/bin$PATH", path),
            ("non-breaking spaces from a web page", path.replace(" ", "\u00a0"), path),
            (
                "an unclosed quote before a line with quotes",
                f'export PATH="{cuda}:$PATH\nalias ll="ls -l"',
                f'export PATH="{cuda}:$PATH"',
            ),
        )
        for name, lines, line in corrected:
            yield Scenario(
                name,
                bashrc(f"{lines}\n"),
                finds="user:alice",
                ladder=(("low", f"edit-file /home/alice/.bashrc 15: {line}"),),
            )
        # The name, the lines, and words of the advice.
        advised = (
            ("the name without a dollar", f"{path}:LD_LIBRARY_PATH", "LD_LIBRARY_PATH"),
            (
                "another variable instead of PATH",
                "export PATH=/usr/local/cuda/bin:$LD_LIBRARY_PATH",
                "/usr/bin /bin PATH=DIRECTORY${PATH:+:${PATH}}",
            ),
            (
                "the whole file has Windows line endings",
                f"if true; then\r\n  :\r\nfi\r\nexport PATH={cuda}:$PATH\r",
                "sed -i 's/\\r$//' /home/alice/.bashrc",
            ),
            ("a syntax error in an earlier line", f"alias x=(\necho )\nexport PATH={cuda}:$PATH", "syntax 15"),
        )
        for name, lines, words in advised:
            yield Scenario(
                name, bashrc(f"{lines}\n"), finds="user:alice", ladder=(("low", f"by-hand .bashrc {words}"),)
            )
        yield Scenario(
            "export in /etc/environment",
            Machine.debian12_gpu().file("/etc/environment", f"export LD_LIBRARY_PATH={cuda}\n"),
            finds="file:/etc/environment",
            ladder=(("low", "edit-file /etc/environment 1: LD_LIBRARY_PATH=/usr/local/cuda/lib64"),),
        )
        yield Scenario(
            "an expansion in /etc/environment",
            Machine.debian12_gpu().file("/etc/environment", f"LD_LIBRARY_PATH={cuda}:$LD_LIBRARY_PATH\n"),
            finds="file:/etc/environment",
        )
        yield Scenario(
            "a library directory in PATH",
            bashrc("export PATH=/opt/cudnn/lib64:$PATH\n").library("/opt/cudnn/lib64/libcudnn.so.8", "libcudnn.so.8"),
            finds="user:alice",
            alone=False,
            ladder=(
                ("low", "by-hand 15 /home/alice/.bashrc /opt/cudnn/lib64 /etc/ld.so.conf.d/cuda-libraries.conf"),
            ),  # other rules may report that the loader does not find this cuDNN
        )
        toolkit = Machine.ubuntu2404_gpu().cuda_toolkit("12.2")
        yield Scenario(
            "the directory of a removed toolkit",
            toolkit.append("/home/alice/.bashrc", "export LD_LIBRARY_PATH=/usr/local/cuda-8.0/lib64\n"),
            finds="user:alice",
            ladder=(("low", "by-hand 15 /home/alice/.bashrc /usr/local/cuda-8.0/lib64 LD_LIBRARY_PATH"),),
        )
        yield Scenario(
            "through /usr/local/cuda, which points to a removed toolkit",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .link("/usr/local/cuda", "/usr/local/cuda-11.8")
            .append("/home/alice/.bashrc", "export LD_LIBRARY_PATH=/usr/local/cuda/lib64\n"),
        )
        yield Scenario(
            "the loader misses CUDA's libraries because of it",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .remove("/etc/ld.so.conf.d/000_cuda.conf")
            .append("/home/alice/.bashrc", f"export PATH=/usr/local/cuda/bin:$PATH\nexport LD_LIBRARY_PATH = {cuda}\n"),
            finds="user:alice",
            ladder=(("low", "edit-file /home/alice/.bashrc 16: export LD_LIBRARY_PATH=/usr/local/cuda/lib64"),),
        )
        right = f"export LD_LIBRARY_PATH={cuda}${{LD_LIBRARY_PATH:+:${{LD_LIBRARY_PATH}}}}\n"
        yield Scenario("the line from CUDA's guide", bashrc(right))
        yield Scenario("quoted, with a comment", bashrc('export PATH="$HOME/bin:$PATH"  # don\'t = $X \\${Y}\n'))
        yield Scenario("a directory with a space in its name", bashrc('export PATH="$PATH:/mnt/c/Program Files/x"\n'))
        yield Scenario("not set before", bashrc("export LD_LIBRARY_PATH=/opt/lib:$LD_LIBRARY_PATH\n"))
        yield Scenario("in a comment", bashrc("# export PATH = /x\n#LD_LIBRARY_PATH='$X'\n"))
        yield Scenario("a command after a semicolon", bashrc('export PATH="$PATH:/x";/usr/bin/true\n'))
        yield Scenario("a broken line is not reached", bashrc("if false; then\n  export PATH = x\nfi\n"))
        yield Scenario("~/.bashrc is not readable", Machine.debian12_gpu().fifo("/home/alice/.bashrc"), unknown=True)


def _has_empty(line: str) -> bool:
    """Whether the line itself contains the empty element, not only the value."""
    text = re.sub(r"\$\{[^{}]*(\{[^{}]*\}[^{}]*)*\}|\$\w+", "X", line)
    return bool(re.search(r"=[\"']?:|::|:[\"']?\s*($|[;#&])", text))


def _usual(problem: Problem) -> bool:
    """Whether the line is `export X=/directory:$X` with X not set before, which is common and reported only for CUDA."""
    line = problem.line or problem.shown
    return problem.kind == "empty-element" and not _has_empty(line) and not re.search(r"cud(a|nn)|nvidia", line, re.I)


_FISH = regex(r"\.fish$|/fish/")
_CSH = regex(r"csh(rc|\.login)?$|\.login$|csh\.\w+$")


def _is_understood(path: str, correction: str) -> bool:
    """A correct form, for the shell that reads the file. fish and csh have their own syntax, and csh stops at a variable
    that is not set, as LD_LIBRARY_PATH often is."""
    if _CSH.search(path):
        return "${" not in correction and "$LD_LIBRARY_PATH" not in correction
    return "${" not in correction or not _FISH.search(path)


def _as_it_should_be(problem: Problem) -> str:
    name = problem.variable
    if problem.kind == "unread":
        return (
            f"run sed -i 's/\\r$//' {problem.source.path}" if problem.line.endswith("\r") else "correct that line first"
        )
    if problem.source.startswith("/etc/environment"):
        return f"no shell reads this file, so {name}=DIRECTORY:DIRECTORY must name every directory in full"
    return f"write it as in {_form(problem.source, name)}"


def _form(source: Place, name: str) -> str:
    """A line that adds a directory at the front."""
    if _FISH.search(source.path):
        return f"set -gx {name} DIRECTORY ${name}"
    if _CSH.search(source.path):
        return 'setenv PATH "DIRECTORY:$PATH"' if name == "PATH" else f"setenv {name} DIRECTORY"
    return f"export {name}=DIRECTORY${{{name}:+:${{{name}}}}}"
