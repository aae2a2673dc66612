"""A line that sets PATH or LD_LIBRARY_PATH is malformed.

What you see
    "ImportError: libcudnn.so.7: cannot open shared object file" although the file is in /usr/local/cuda/lib64;
    "nvcc: command not found" although it was just added; "bash: export: `=': not a valid identifier" when a terminal
    opens.
Why
    Lines are copied from web pages. A backslash before ${LD_LIBRARY_PATH} keeps it from being expanded, a space beside
    the = makes it another command, a missing quote or brace ends the file early, Windows' line ends become part of the
    last folder's name, a library folder is put into PATH. The line is there, and does not do what it says.
Repair
    Correct that line. Libraries for everybody are better named in /etc/ld.so.conf.d, followed by ldconfig.
What the repair risks
    Only that line changes. Programs that were started before keep the old value.
By hand
    export LD_LIBRARY_PATH=/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}}
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

_MILD = {
    "empty-element": Severity.WARNING,
    "export-keyword": Severity.WARNING,
    "open-quote": Severity.WARNING,
    "space": Severity.WARNING,
    "unread": Severity.WARNING,
    "wrong-separator": Severity.WARNING,
}
"""What still sets the variable to something that works in part."""


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
        # A PATH that keeps sessions from starting is the other rule's.
        known = {broken.source for broken in environments.broken_paths()}
        in_terminals = {broken.source for broken in environments.broken_paths(in_terminals=True)}
        seen: set[tuple[str, str]] = set()
        for login in environments.logins:
            # An empty element is often only what the other mistake of a line leaves.
            for problem in sorted(login.problems, key=lambda p: p.kind == "empty-element"):
                key = (problem.source, problem.variable)
                if key in seen or (problem.variable == "PATH" and problem.source in known) or _usual(problem):
                    continue
                if problem.kind == "empty-element" and problem.variable == "PATH" and problem.source in in_terminals:
                    continue  # a PATH without /usr/bin is worse, and told below
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
                    advice=f"put /usr/bin and /bin back, as in {_form(broken.source, 'PATH')}",
                )
        yield from self._misplaced(environments, paths, loader)
        sources = {source for source, _ in seen}
        yield from (f for f in self._missing(environments, paths, toolkits) if f.detail["source"] not in sources)
        for login in environments.logins:
            if login.kind == "interactive":
                yield from (Unknown(stop, f"user:{login.account.name}") for stop in login.stops)

    def _malformed(self, problem: Problem, environments: Environments, breaks: bool) -> Finding:
        """`breaks` says that the line leaves a terminal without /usr/bin."""
        subject, about = environments.subject(problem.source)
        severity = _MILD.get(problem.kind, Severity.ERROR)
        if problem.kind == "empty-element" and not _has_empty(problem.line or problem.shown):
            severity = Severity.NOTE  # only because the variable was not set before: a common way to write it
        if problem.kind == "open-quote" and "syntax" in problem.text:
            severity = Severity.ERROR
        if breaks:
            severity = Severity.ERROR
        useful = not breaks or re.search(r"\$\{?PATH\b|\$path\b|(?<![\w.])(/usr)?/bin\b", problem.correction)
        hidden = problem.part not in problem.shown  # what is wrong comes from another line, or from a variable's value
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
        """Library folders of CUDA in PATH, that the loader does not know."""
        if not paths or not loader:
            return
        known = {d.real for d in paths.libraries()} | {d.real for d in loader.directories}
        for folder in paths.directories:
            library = re.search(r"cud(a|nn).*/lib(64)?(/x86_64-linux-gnu)?$", folder.path)
            if folder.variable == "PATH" and library and folder.real and folder.real not in known:
                subject, about = environments.subject(folder.source)
                yield self.finding(
                    subject,
                    f"{folder.source} puts the library folder {folder.path} into PATH, where the loader does not look",
                    Evidence(folder.source, f"{folder.path} in PATH"),
                    Evidence("LD_LIBRARY_PATH and /etc/ld.so.conf", f"no {folder.path}"),
                    severity=Severity.WARNING,
                    about=(*about, f"line:{folder.source}"),
                    source=folder.source,
                    advice=f"take {folder.path} out of PATH; programs find the libraries in it after: "
                    f"echo {folder.path} > /etc/ld.so.conf.d/cuda-libraries.conf; ldconfig",
                )

    def _missing(
        self, environments: Environments, paths: UserPaths | None, toolkits: CudaToolkits | None
    ) -> Iterator[Finding]:
        """Folders of CUDA that are not there, while others are. The loader passes over them."""
        if not paths or not toolkits or not toolkits.toolkits:
            return
        # Behind a link that leads nowhere it is the link that is wrong, not the line.
        dangling = tuple(f"{link.path}/" for link in toolkits.links if not link.real)
        for folder in paths.libraries():
            if folder.path.startswith(dangling):
                continue
            if not folder.real and re.match(r"/(usr/local|opt)/cuda", folder.path):
                subject, about = environments.subject(folder.source)
                yield self.finding(
                    subject,
                    f"{folder.source} names {folder.path} in LD_LIBRARY_PATH, which does not exist",
                    Evidence(folder.source, f"LD_LIBRARY_PATH has {folder.path}"),
                    Evidence(folder.path, "does not exist"),
                    severity=Severity.NOTE,
                    about=(*about, f"line:{folder.source}"),
                    source=folder.source,
                    advice=f"take {folder.path} out of LD_LIBRARY_PATH, or name the folder of a toolkit that is there",
                )

    def remedies(self, finding: Finding, environments: Environments) -> Iterator[Plan]:
        source = finding.detail["source"]
        path, _, number = source.rpartition(":")
        line, correction = finding.detail.get("line", ""), finding.detail.get("correction", "")
        if number.isdecimal() and correction and _is_understood(path, correction):
            yield Plan(
                f"Correct line {number} of {path}", Risk.LOW, (EditFile(path, ((int(number), line, correction),)),)
            )
            return
        text = f"edit line {number} of {path}" if number.isdecimal() else f"edit {path}"
        yield Plan(f"Correct {source}", Risk.LOW, (ByHand(f"{text}: {finding.detail['advice']}"),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def bashrc(text: str) -> Machine:
            return Machine.debian12_gpu().append("/home/alice/.bashrc", text)

        cuda = "/usr/local/cuda/lib64"
        wrong = {
            "an escaped expansion": f"export LD_LIBRARY_PATH={cuda}\\${{LD_LIBRARY_PATH:+:${{LD_LIBRARY_PATH}}}}\n",
            "blanks beside the =": f"export LD_LIBRARY_PATH = {cuda}:$LD_LIBRARY_PATH\n",
            "a blank before the =": f"LD_LIBRARY_PATH ={cuda}\n",
            "a brace too few": f"export LD_LIBRARY_PATH={cuda}${{LD_LIBRARY_PATH:+:${{LD_LIBRARY_PATH}}\n",
            "a brace too many": f"export LD_LIBRARY_PATH={cuda}${{LD_LIBRARY_PATH:+:${{LD_LIBRARY_PATH}}}}}}\n",
            "a quote left open": f'export LD_LIBRARY_PATH="{cuda}\n',
            "single quotes": f"export LD_LIBRARY_PATH='{cuda}:$LD_LIBRARY_PATH'\n",
            "the name without a dollar": "export PATH=/usr/local/cuda/bin:$PATH:LD_LIBRARY_PATH\n",
            "Windows' line end": f"export LD_LIBRARY_PATH={cuda}\r\n",
            "an empty element": f"export LD_LIBRARY_PATH={cuda}::/opt/lib\n",
            "quotation marks of a web page": f"export LD_LIBRARY_PATH=\u201c{cuda}:$LD_LIBRARY_PATH\u201d\n",
            "a semicolon between folders": f"export LD_LIBRARY_PATH={cuda};/usr/lib\n",
            "a PATH for terminals without /usr/bin": "export PATH=/usr/local/cuda/bin\n",
            "the same with an empty element": "export PATH=/usr/local/cuda/bin:\n",
            "a blank behind the colon, so that PATH ends there": "export PATH=/usr/local/cuda/bin: $PATH\n",
            "another variable than PATH": "export PATH=/usr/local/cuda/bin:$LD_LIBRARY_PATH\n",
            "the whole file from an editor on Windows": f"if true; then\r\n  :\r\nfi\r\nexport PATH={cuda}:$PATH\r\n",
            "a line with wrong syntax before it": f"alias x=(\necho )\nexport PATH={cuda}:$PATH\n",
            "no colon": "export PATH=/usr/local/cuda/bin$PATH\n",
            "blanks of a web page": "export\u00a0PATH=/usr/local/cuda/bin:$PATH\n",
            "a quote left open before a line with others": f'export PATH="{cuda}:$PATH\nalias ll="ls -l"\n',
        }
        for name, text in wrong.items():
            yield Scenario(name, bashrc(text), finds="user:alice")
        yield Scenario(
            "export in /etc/environment",
            Machine.debian12_gpu().file("/etc/environment", f"export LD_LIBRARY_PATH={cuda}\n"),
            finds="file:/etc/environment",
            ladder=(
                (
                    "low",
                    "edit-file /etc/environment 1: LD_LIBRARY_PATH=/usr/local/cuda/lib64",
                ),
            ),
        )
        yield Scenario(
            "an expansion in /etc/environment",
            Machine.debian12_gpu().file("/etc/environment", f"LD_LIBRARY_PATH={cuda}:$LD_LIBRARY_PATH\n"),
            finds="file:/etc/environment",
        )
        yield Scenario(
            "a library folder in PATH",
            bashrc("export PATH=/opt/cudnn/lib64:$PATH\n").library("/opt/cudnn/lib64/libcudnn.so.8", "libcudnn.so.8"),
            finds="user:alice",
            alone=False,  # cuDNN where the loader does not look may be found by other rules
        )
        toolkit = Machine.ubuntu2404_gpu().cuda_toolkit("12.2")
        yield Scenario(
            "the folder of a removed toolkit",
            toolkit.append("/home/alice/.bashrc", "export LD_LIBRARY_PATH=/usr/local/cuda-8.0/lib64\n"),
            finds="user:alice",
            ladder=(
                (
                    "low",
                    "by-hand 15 /home/alice/.bashrc /usr/local/cuda-8.0/lib64 LD_LIBRARY_PATH",
                ),
            ),
        )
        yield Scenario(
            "behind /usr/local/cuda, which leads to a removed toolkit",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .link("/usr/local/cuda", "/usr/local/cuda-11.8")
            .append("/home/alice/.bashrc", "export LD_LIBRARY_PATH=/usr/local/cuda/lib64\n"),
        )
        yield Scenario(
            "it keeps the loader from CUDA's libraries",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .remove("/etc/ld.so.conf.d/000_cuda.conf")
            .append("/home/alice/.bashrc", f"export PATH=/usr/local/cuda/bin:$PATH\nexport LD_LIBRARY_PATH = {cuda}\n"),
            finds="user:alice",
        )
        right = f"export LD_LIBRARY_PATH={cuda}${{LD_LIBRARY_PATH:+:${{LD_LIBRARY_PATH}}}}\n"
        yield Scenario("as CUDA's guide has it", bashrc(right))
        yield Scenario("quoted, with a comment", bashrc('export PATH="$HOME/bin:$PATH"  # don\'t = $X \\${Y}\n'))
        yield Scenario("a folder with a blank", bashrc('export PATH="$PATH:/mnt/c/Program Files/x"\n'))
        yield Scenario("not set before", bashrc("export LD_LIBRARY_PATH=/opt/lib:$LD_LIBRARY_PATH\n"))
        yield Scenario("in a comment", bashrc("# export PATH = /x\n#LD_LIBRARY_PATH='$X'\n"))
        yield Scenario("a command after a semicolon", bashrc('export PATH="$PATH:/x";/usr/bin/true\n'))
        yield Scenario("a broken line is not reached", bashrc("if false; then\n  export PATH = x\nfi\n"))
        yield Scenario("~/.bashrc can't be read", Machine.debian12_gpu().fifo("/home/alice/.bashrc"), unknown=True)


def _has_empty(line: str) -> bool:
    """Whether the line itself has an empty element, and not only the value."""
    text = re.sub(r"\$\{[^{}]*(\{[^{}]*\}[^{}]*)*\}|\$\w+", "X", line)
    return bool(re.search(r"=[\"']?:|::|:[\"']?\s*($|[;#&])", text))


def _usual(problem: Problem) -> bool:
    """`export X=/folder:$X` with X not set before: many write it so. Worth a word only where it is about CUDA."""
    line = problem.line or problem.shown
    return problem.kind == "empty-element" and not _has_empty(line) and not re.search(r"cud(a|nn)|nvidia", line, re.I)


_FISH = re.compile(r"\.fish$|/fish/")
_CSH = re.compile(r"csh(rc|\.login)?$|\.login$|csh\.\w+$")


def _is_understood(path: str, correction: str) -> bool:
    """By the shell that reads the file: fish and csh have other expansions, and csh stops at a variable that is not set,
    as LD_LIBRARY_PATH often is not."""
    if _CSH.search(path):
        return "${" not in correction and "$LD_LIBRARY_PATH" not in correction
    return "${" not in correction or not _FISH.search(path)


def _as_it_should_be(problem: Problem) -> str:
    name = problem.variable
    if problem.kind == "unread":
        path = problem.source.rpartition(":")[0]
        return f"sed -i 's/\\r$//' {path}" if problem.line.endswith("\r") else "correct that line first"
    if problem.source.startswith("/etc/environment"):
        return f"no shell reads this file, so {name}=FOLDER:FOLDER has to name every folder itself"
    return f"as in {_form(problem.source, name)}"


def _form(source: str, name: str) -> str:
    """A line that puts a folder in front."""
    path = source.rpartition(":")[0]
    if _FISH.search(path):
        return f"set -gx {name} FOLDER ${name}"
    if _CSH.search(path):
        return 'setenv PATH "FOLDER:$PATH"' if name == "PATH" else f"setenv {name} FOLDER"
    return f"export {name}=FOLDER${{{name}:+:${{{name}}}}}"
