"""Posted outputs about a session: env, single variables, start-up files."""

import posixpath
import re
from collections.abc import Iterable

from dlhealth.host.base import Post, PostedEnvironment, PostedSymptom, Symptom
from dlhealth.host.posted.known import Output, Pieces
from dlhealth.host.posted.transcript import Command
from dlhealth.lazy import regex

_LINE = regex(r"^(?:declare -x |export )?(?P<name>[A-Z_][A-Z0-9_]*)=(?P<value>.*)$", re.MULTILINE)
_MARKS = ("PATH", "HOME", "PWD", "SHELL", "USER", "LOGNAME", "TERM", "LANG", "SHLVL")
"""Variables that every session has. A text with several of them, all with plain values, is the output of env."""
_ENOUGH = 4
_FILES = (".bashrc", ".profile", ".bash_profile", ".zshrc", ".zprofile", ".zshenv", ".xprofile", ".xsessionrc", ".cshrc",
          ".tcshrc", ".bash_aliases", ".pam_environment")  # fmt: skip
_START_UP = regex(r"^# (?:~/\.(?P<bash>bashrc|profile|bash_profile|zshrc)|\.(?P<other>bashrc)): ?", re.MULTILINE)
_FAILED = regex(
    r"(?:Error(?: response from daemon)?: .*(?:CUDA|nvidia|\bgpu\b|cudnn|GLIBCXX|_ARRAY_API|\blib(?:cu|nv|nccl)\w+\.so)"
    r"|no kernel image is available|driver on your system is too old|nvidia-container-cli: |\bNVML: Unknown Error"
    r"|\blib(?:cu|nv|nccl)\w+\.so[.\d]*: cannot open|(?:GLIBCXX|CXXABI)_[\d.]+\S? not found"
    r"|compiled using NumPy 1\.x cannot)",
    re.IGNORECASE,
)
"""What programs that use the GPU print when they fail."""
_COMPLAINT = regex(
    r"(?=.*(?:error|fail|can ?not|could not|couldn't|not found|mismatch|compatible|too old|unsupported|not supported"
    r"|no longer|undefined|not compiled|unable|invalid|insufficient|loaded runtime|not yet|not installed|don't match"
    r"|no such file|not a symbolic link|denied|falling back))"
    r"(?=.*(?:cuda|cudnn|nvidia|nvml|\bgpus?\b|torch|tensorflow|jax|onnxruntime|\blib(?:cu|nv|nccl)\w+\.so|GLIBCXX"
    r"|CXXABI|numpy|nvcc|gcc versions|\bshm\b|shared memory|pjrt|fabric manager|\bptx\b|system not yet|cgroup/devices"
    r"|\bcu(?:blas|fft|rand|solver|sparse)\w*\b))"
    # What apt, DKMS and the desktop say names no program that uses the GPU.
    r"|.*(?:graphical session is already|never registered|Depends: |Conflicts: |trying to overwrite |module build on kernel|error processing package|No module named '|'off'|kernel headers for |PREEMPT_RT|Nouveau kernel driver|Kernel module load error|authority|\bGLX\b"
    r"|supported by EGL|module not found: 'nvidia'|you have held broken|do not appear to have an NVIDIA GPU|is not included in the PATH environment|no version information available|CUDA Version: (?:ERR!|N/A)|\|ERR! {2,}ERR!)",
    re.IGNORECASE,
)
"""A line that may be, or begin, an error of such a program."""
_OF_THE_KERNEL = regex(r"^(?:<\d+>)?\[ *\d+\.\d{6}\]|(?<!on )\bkernel: |^NVRM: |^\[[A-Z][a-z]{2} [A-Z][a-z]{2} ")
_OF_A_SERVICE = regex(r"^(?:[A-Z][a-z]{2} +\d+ [\d:]{8} \S+ [\w.@/-]+(?:\[\d+\])?: |[\w.-]{1,40} +\| )")
"""What the journal and Docker Compose write before each line of a program."""
_FOLLOWING = 3
"""Lines after such a line that may belong to the same message."""
_LONGEST = 300
_LONGEST_LINE = 2000
_A_POST = 1 << 20
"""Characters. A longer text is a log of the system, which has its own readers."""
_A_MESSAGE = 200_000
"""Characters. Of a longer text only the errors are searched for what they prove: that takes its time."""
_SHELLS = {"z": "/bin/zsh", "c": "/bin/tcsh", "t": "/bin/tcsh"}
_SOMEBODY = "user"
_CONTAINERS = ("docker", "lxc", "lxc-libvirt", "openvz", "podman", "systemd-nspawn")


def environment(output: Output, pieces: Pieces) -> bool:
    """`env`, `printenv`, `export -p`."""
    found = {m["name"]: m["value"].strip("\"'") for m in _LINE.finditer(output.text)}
    marks = [name for name in _MARKS if name in found]
    if len(marks) < _ENOUGH or any("$" in found[name] for name in marks):
        return False
    know(pieces, found, output.source("env"), whole=True)
    return True


def shown(typed: Iterable[Command], output: Output, pieces: Pieces) -> bool:
    """`echo $VARIABLE`, `printenv VARIABLE`, `env | grep WORD` and `systemd-detect-virt`, typed into a terminal."""
    any_found = False
    for command in typed:
        single = re.fullmatch(r"echo \"?\$\{?(\w+)\}?\"?|printenv (\w+)", command.line)
        if single:
            value = command.output.strip().partition("\n")[0]
            know(pieces, {single[1] or single[2]: value}, output.source(command.line), whole=False, home=command.home)
            any_found = True
        elif re.match(r"(?:env|printenv|export)(?: -p)? *\| *e?grep", command.line):
            found = {m["name"]: m["value"] for m in _LINE.finditer(command.output)}
            know(pieces, found, output.source(command.line), whole=False, home=command.home)
            any_found = True
        elif (
            command.line == "systemd-detect-virt" and (kind := command.output.strip().partition("\n")[0]) in _CONTAINERS
        ):
            pieces.container(kind, output.source(command.line))
            any_found = True
    return any_found


def know(pieces: Pieces, variables: dict[str, str], source: str, *, whole: bool, home: str = "") -> None:
    """Add variables of the session of who posted this."""
    before = pieces.environment
    home = variables.get("HOME") or (before.home if before else "") or home
    user = (
        variables.get("USER") or variables.get("LOGNAME") or (before.user if before else "") or posixpath.basename(home)
    )
    shell = variables.get("SHELL") or (before.shell if before else "") or "/bin/bash"
    merged = {**variables, **(before.variables if before else {})}
    pieces.environment = PostedEnvironment(
        user or _SOMEBODY,
        home or f"/home/{_SOMEBODY}",
        shell,
        merged,
        before.source if before else source,
        whole or bool(before and before.whole),
    )


def start_up_file(output: Output, pieces: Pieces) -> bool:
    """A start-up file of a shell, by its name or by the comment that it begins with."""
    name = output.name if output.name in _FILES else f".{output.name}" if f".{output.name}" in _FILES else ""
    if not name:
        first = _START_UP.search(output.text[:400])
        name = f".{first['bash'] or first['other']}" if first else ""
    if not name:
        return False
    pieces.at_home(name, output.text, output.name)
    if pieces.environment is None and name[1] in _SHELLS:
        know(pieces, {"SHELL": _SHELLS[name[1]]}, output.name, whole=False)
    return True


def failed(output: Output, pieces: Pieces) -> bool:
    """The errors of programs that use the GPU."""
    lines = output.text.split("\n") if len(output.text) < _A_POST else []
    # Longer lines are no messages, and the patterns would take their time on them.
    lines = [line for line in lines if len(line) < _LONGEST_LINE and not _OF_THE_KERNEL.search(line)]
    lines = [_OF_A_SERVICE.sub("", line) for line in lines]
    found = next((line for line in lines if _FAILED.search(line)), "")
    if found:
        pieces.symptoms.append(PostedSymptom(Symptom.FAILED, found.strip()[:_LONGEST], output.name))
    near = {number + more for number, line in enumerate(lines) if _COMPLAINT.match(line) for more in range(_FOLLOWING)}
    if near:
        errors = "\n".join(lines[n] for n in sorted(near) if n < len(lines))
        whole = "\n".join(lines)
        pieces.posts.append(Post(whole if len(whole) < _A_MESSAGE else errors, errors, output.name))
    return bool(found or near)
