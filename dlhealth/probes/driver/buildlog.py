"""Why a build of a kernel module failed, by the make.log that DKMS keeps."""

import re
from collections.abc import Iterable
from enum import Enum

from dlhealth.lazy import regex
from dlhealth.records import NamedTuple

_LINE_LIMIT = 1000
"""Characters. Longer lines are commands with their flags, and prove nothing."""


class BuildFault(str, Enum):
    """What kept a module from being built."""

    DISK_FULL = "disk-full"
    MEMORY = "memory"
    COMPILER_CRASHED = "compiler-crashed"
    HEADERS = "headers"
    """The kernel's headers are not there, or not configured."""
    KBUILD = "kbuild"
    """The headers and their build tools (modpost, objtool) are there, but damaged or of two builds of the kernel."""
    COMPILER = "compiler"
    """There is no compiler, or one older than the kernel's."""
    NEWER_COMPILER = "newer-compiler"
    """A compiler newer than the kernel's, that refuses what the older one took."""
    GPL_SYMBOL = "gpl-symbol"
    KERNEL_TOO_NEW = "kernel-too-new"
    """The kernel's interfaces are not those that the source was written for."""
    SIGNING = "signing"
    REALTIME = "realtime"
    """The driver refuses to be built for a kernel with PREEMPT_RT."""
    UNKNOWN = "unknown"


class BuildLog(NamedTuple):
    """`kernel` is "" if the log does not name one, and so is `compiler`, which built that kernel. `error` is the first line
    that tells the fault, `line` its number (0 for an empty log)."""

    kernel: str
    fault: BuildFault
    error: str
    line: int
    compiler: str


# The compiler and make speak the language of whoever ran apt.
_ERROR = r"(?:error|Fehler|erreur|errore|erro|fout|błąd|ошибка|помилка|错误|錯誤|エラー|오류)"
_FATAL = rf"(?:(?:fatal|schwerwiegender|fatale|критическая|致命)? ?{_ERROR}(?: fatale?)?)"
_PLACE = r"^\s*\S+:\d+(?::\d+)?: "
_TREE = r"(?:(?:\./)*(?:include|arch)/|/usr/src/linux-|/(?:usr/)?lib/modules/[^/]+/(?:build|source)/)"
"""Where a file of the kernel's headers lies, as the compiler names it."""

# In the order in which they are looked for: the first that the log has is the cause of all that follows it.
_FAULTS = (
    (
        BuildFault.REALTIME,
        regex(r"Failed PREEMPT_RT sanity check|kernel you are installing for is a PREEMPT_RT kernel"),
    ),
    (BuildFault.DISK_FULL, regex(r"No space left on device|Disk quota exceeded")),
    (
        BuildFault.MEMORY,
        regex(
            r"Killed signal terminated program|internal compiler error: Killed|virtual memory exhausted"
            r"|out of memory allocating|Cannot allocate memory"
        ),
    ),
    (
        BuildFault.COMPILER_CRASHED,
        regex(
            r"internal compiler error|Please submit a full bug report"
            r"|(?:gcc|cc1|cc|clang)(?:-\d+)?: .*(?:Segmentation fault|signal terminated program|terminated with signal)"
        ),
    ),
    (
        BuildFault.HEADERS,
        regex(
            r"\*\*\* (?:/lib/modules/\S+/build: No such file or directory"
            r"|No rule to make target '(?:modules|scripts/[^']*|/usr/src/linux-headers-[^']*)')"
            r"|Unable to find the kernel source tree|kernel headers for kernel \S+ cannot be found"
            # Kernels before 5.19 show, in every log, the commands that would print this.
            r"|^[\s*]*(?:ERROR: Kernel configuration is invalid|include/generated/autoconf\.h .{,40} are missing)"
        ),
    ),
    (
        BuildFault.KBUILD,
        regex(
            r"^The Module\.symvers file is missing"
            rf"|^\s*{_TREE}\S*:\d+(?::\d+)?: \D*(?:asm|asm-generic|linux|generated|uapi|vdso|config)/\S+\.h: "
            rf"|{_PLACE}\D*(?:generated/\S+|linux/(?:version|kconfig|compiler-version))\.h: "
            r"|modpost: .*sizeof\(struct \w+\)=\d+ is not a modulo"
            r"|(?:scripts/\S+|tools/objtool/\S+|fixdep|modpost|objtool|genksyms|resolve_btfids): "
            r"(?:\d+: )?(?:not found|No such file|[Cc]annot execute|Exec format error|Permission denied"
            r"|Syntax error|error while loading shared libraries|version `?[A-Z]+_[\d.]+'? not found"
            r"|/\S+: version `?[A-Z]+_[\d.]+'? not found)"
            r"|: Exec format error$|cannot execute binary file"
            r"|(?:Cannot generate|Cannot use) \S+.*please install lib(?:elf|dw|ssl)"
        ),
    ),
    (
        BuildFault.COMPILER,
        regex(
            r"Failed CC (?:sanity|version) check|(?:unrecognized|unknown) (?:command[- ]line option|argument in option|argument:)"
            r"|(?:^|[\s/:-])(?:gcc|clang|cc)(?:-\d+)?: (?:[Cc]ommand not found|not found|No such file or directory)"
            r"|incompatible gcc/plugin versions|fail(?:ed)? to initialize plugin"
        ),
    ),
    (BuildFault.GPL_SYMBOL, regex(r"GPL-incompatible module \S+ uses GPL-only symbol")),
    # Only what a compiler or modpost says of a place: the bare word "error" is in every line of compiler flags.
    (
        BuildFault.KERNEL_TOO_NEW,
        regex(
            rf"{_PLACE}{_FATAL} ?[:：] ?|^\s*#\s*error |modpost: \"\w+\" \[\S+\] undefined!"
            r"|modpost: module \S+ uses symbol \S+ from namespace "
        ),
    ),
    (
        BuildFault.SIGNING,
        regex(r"sign-file: .*(?:[Nn]ot found|No such file)|^At main\.c:\d+:|kmodsign: |[Ss]igning .*failed"),
    ),
)
_ANY_ERROR = (
    regex(rf"^(?!make\b|.*\becho\b).*(?:\b(?:ERROR|FATAL|fatal)\b:?|\b{_FATAL} ?[:：])"),
    regex(r"^make(?:\[\d+\])?: \*\*\* |^\*\*\* "),
)
"""The next best lines, where none of the known ones is in a log."""
_OF_A_NEWER_COMPILER = regex(
    r"conflicting types for|redefinition of|redeclaration of|static declaration of|cannot use keyword"
    r"|expected identifier or|two or more data types|incompatible pointer type|from (?:integer|pointer) without a cast"
    r"|\[-W(?!error)[\w-]+=?\]\s*$|\[-Werror=(?!implicit-function-declaration)[\w-]+=?\]\s*$"
)
"""Errors that the same source has under a newer compiler only: old warnings, and tests for the kernel's interfaces that
no longer compile. What names a member or a function that is gone is the kernel's doing."""
_KERNEL = (
    regex(r"make\.log for \S+ for kernel:? (\S+)"),
    regex(r"/lib/modules/([^/\s\"']+)/(?:build|source)"),
    regex(r"KERNEL_UNAME=\"?([^\s\"]+)"),
    regex(r"/linux-headers-([^/\s\"']+(?<!-common))(?=[/\s\"'])"),
)
_KERNELS_COMPILER = regex(r"The kernel was built by: (.*)")
_THIS_COMPILER = regex(r"You are using: +(.*)")


def read_log(text: str) -> BuildLog:
    """What a make.log says."""
    named = (pattern.search(text[:20_000]) for pattern in _KERNEL)
    release = next((m[1] for m in named if m), "")
    built = _KERNELS_COMPILER.search(text)
    compiler = built[1].strip() if built else ""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if len(line) < _LINE_LIMIT]
    for fault, pattern in _FAULTS:
        if found := _first(pattern, lines):
            if fault is BuildFault.KERNEL_TOO_NEW and _newer_compiler(text) and _OF_A_NEWER_COMPILER.search(found[1]):
                fault = BuildFault.NEWER_COMPILER
            return BuildLog(release, fault, found[1], found[0], compiler)
    for pattern in _ANY_ERROR:
        if found := _first(pattern, lines):
            return BuildLog(release, BuildFault.UNKNOWN, found[1], found[0], compiler)
    last = next(((number, line.strip()[:300]) for number, line in reversed(lines) if line.strip()), (0, "an empty log"))
    return BuildLog(release, BuildFault.UNKNOWN, last[1], last[0], compiler)


def _first(pattern: re.Pattern[str], lines: Iterable[tuple[int, str]]) -> tuple[int, str] | None:
    """The first line that matches, and its number."""
    return next(((number, line.strip()[:300]) for number, line in lines if pattern.search(line)), None)


def _newer_compiler(text: str) -> bool:
    """Whether the log itself says that the compiler is of a newer major version than the kernel's."""
    kernels, this = _KERNELS_COMPILER.search(text), _THIS_COMPILER.search(text)
    if not kernels or not this:
        return False
    majors = compiler_major(kernels[1]), compiler_major(this[1])
    return all(m.isdigit() for m in majors) and int(majors[0]) < int(majors[1])


def compiler_major(words: str) -> str:
    """The major version of the gcc in a kernel's or a log's words, as "x86_64-linux-gnu-gcc-13 (Ubuntu 13.2.0) 13.2.0"
    or "cc (GCC) 11.2.0"; "" if they name none."""
    found = re.search(r"gcc-(\d+)|gcc version (\d+)|\bg?cc .*?\) (\d+)", words)
    return next((group for group in found.groups() if group), "") if found else ""
