"""The builtins that matter: each gets the arguments after expansion, leaves a status, and says how it leaves."""

import posixpath
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from dlhealth.lazy import regex
from dlhealth.shell import helpers
from dlhealth.shell.sh.conditions import test
from dlhealth.shell.sh.flow import BREAK, CONTINUE, EXIT, NORMAL, RETURN
from dlhealth.shell.sh.names import OWN_COMMANDS
from dlhealth.shell.sh.syntax import Node, Output, Simple, Subshell, literal, parsed
from dlhealth.shell.state import HARMLESS, SHELLS, Successor, Unsure
from dlhealth.shell.values import AFTER, UNKNOWN, is_known, prepended, tidy

if TYPE_CHECKING:
    from dlhealth.shell.sh.evaluate import Shell

DECLARATIONS = ("export", "readonly", "declare", "typeset", "local")
_NAME = regex(r"[A-Za-z_][A-Za-z0-9_]*")


def _test(shell: "Shell", arguments: list[str], node: Simple) -> str:
    bracket = literal(node.words[0]) == "["
    if bracket and arguments[-1:] != ["]"]:
        shell.state.status = False
    else:
        shell.state.status = test(shell, arguments[:-1] if bracket else arguments)
    return NORMAL


def _true(shell: "Shell", arguments: list[str], node: Simple) -> str:
    return NORMAL


def _false(shell: "Shell", arguments: list[str], node: Simple) -> str:
    shell.state.status = False
    return NORMAL


def _unset(shell: "Shell", arguments: list[str], node: Simple) -> str:
    for name in arguments:
        if name.startswith("-"):
            continue
        if not is_known(name):
            raise Unsure("cannot tell what unset removes")
        if "-f" in arguments:
            shell.state.functions.pop(name, None)
        elif _NAME.fullmatch(name):
            shell.session.unset(name)
            if name == "PATH" and shell.dialect == "sh":
                shell.session.export(name)  # dash remembers that of its own variables
        elif shell.dialect == "sh":
            return shell.end("error", f"unset: {name}: bad variable name")
    return NORMAL


def _source(shell: "Shell", arguments: list[str], node: Simple) -> str:
    if not arguments:
        shell.state.status = None  # an error, but not to dash
        return NORMAL
    path = arguments[0]
    words = node.words[1:]
    if not is_known(path):
        process = words[0][0] if words and words[0] else None
        if isinstance(process, Output) and process.process and process.commands:
            run = shell.origin((process._replace(process=False),))
            return _outcome(shell, run or frozenset(((UNKNOWN,),)), "source")
        origin = shell.origin(words[0]) if words else None
        if origin and all(posixpath.basename(command[0]) in helpers.QUIET_OUTPUT for command in origin):
            shell.state.status = None
            return NORMAL
        name = posixpath.basename(path).replace("-" + UNKNOWN, "")  # a part that says whose it is
        if "/" in path and (outcome := _known_file(shell, name)):
            return outcome[0]
        if shell.surrounded(path):
            return NORMAL
        return _one_of(shell, shell.session.candidates(path), arguments, node)
    if "/" not in path:
        found = shell.session.find(path)
        if found == "" and shell.dialect == "bash" and not shell.posix:
            found = shell.session.absolute(path)
        if found is None:
            raise Unsure(f"cannot tell which {path} of PATH it sources")
        path = found or path
    path = posixpath.normpath(shell.session.absolute(path))
    if not is_known(path):
        raise Unsure("cannot tell which file it sources")
    text = _text_of(shell, path)
    if text is not None and (outcome := _known_file(shell, posixpath.basename(path), path)):
        return outcome[0]
    if text is None:
        shell.state.status = False
        special = literal(node.words[0]) == "." and (shell.dialect == "sh" or shell.posix)
        return shell.end("missing", f"sources {path}, which cannot be read") if special else NORMAL
    if shell.surrounded(path):
        return NORMAL
    if shell.reading.count(path) > 2 and not shell.forks and shell.dialect != "zsh":
        return shell.end("recursion", f"{path} sources itself without end, so the shell crashes")
    before = shell.state.arguments
    if len(arguments) > 1 and shell.dialect != "sh":
        shell.state.arguments = arguments[1:]
    line = shell.line
    flow = shell.read(path, text)
    shell.at(line)
    if flow == EXIT and shell.ending and shell.dialect == "sh" and path.endswith((".bash", ".zsh")):
        # The file is right; to source it here is not.
        shell.ending = shell.ending._replace(
            source=shell.session.source, how="error", text=f"{path} is not for sh: {shell.ending.text}"
        )
    shell.state.arguments = before
    return flow


def _one_of(shell: "Shell", paths: list[str] | None, arguments: list[str], node: Simple) -> str:
    """Source one of these files, or none."""
    ends = shell.dialect == "sh" or shell.posix
    if paths is None:
        raise Unsure("cannot tell which file it sources", ends=ends)

    def missing() -> str:
        shell.state.status = False
        return NORMAL

    def sourced(path: str) -> Callable[[], str]:
        return lambda: _source(shell, [path, *arguments[1:]], node)

    if ends:
        shell.session.trace.stops[f"{shell.session.source}: cannot tell which file it sources"] = None
    return shell.fork([missing, *map(sourced, paths)])


def _text_of(shell: "Shell", path: str) -> str | None:
    known = posixpath.basename(path) in (*helpers.QUIET_FILE, *helpers.PREPENDING_FILE)
    if known:
        return "" if shell.session.test_file("-r", path) else None
    if path.startswith(("/proc/", "/dev/")):
        raise Unsure(f"cannot read {path}, which it sources")
    return shell.session.text(path)


def _known_file(shell: "Shell", name: str, path: str = "") -> tuple[str] | None:
    if name in helpers.QUIET_FILE:
        shell.state.status = None
        return (NORMAL,)
    if name in helpers.PREPENDING_FILE:
        shell.state.foreign = True
        value = shell.state.get("PATH").value
        if value is not None:
            shell.session.set("PATH", tidy(prepended(value) + AFTER), f"{name} adds to PATH")
        shell.session.trace.doubts[f"{shell.session.source}: {name} adds to PATH"] = None
        shell.state.status = None
        return (NORMAL,)
    return None


def _eval(shell: "Shell", arguments: list[str], node: Simple) -> str:
    if all(map(is_known, arguments)):
        path, line = shell.path, shell.line
        text = " ".join(arguments)
        script = parsed(text, shell.dialect)
        if script.problem and not script.problem.certain:
            raise Unsure("cannot follow the text that eval runs")
        shell.session.enter()
        if not any(script.lines):
            shell.state.status = True  # nothing to do is done
        try:
            # The lines of the text are not lines of the file.
            for nodes in script.lines:
                if flow := shell.abandonable(_relined(nodes, line)):
                    return NORMAL if flow == RETURN and shell.dialect == "zsh" else flow
        finally:
            shell.session.depth -= 1
            shell.path = path
            shell.at(line)
        if script.problem and (shell.dialect == "sh" or shell.posix):
            return shell.end("syntax", f"eval: {script.problem.text}")
        return NORMAL
    names: set[tuple[str, ...]] = set()
    for word in node.words[1:]:
        origin = shell.origin(word)
        if origin is None:
            raise Unsure("cannot tell which text eval runs")
        names |= origin
    return _outcome(shell, frozenset(names), "eval")


def _relined(nodes: tuple[Node, ...], line: int) -> tuple[Node, ...]:
    return tuple(n._replace(line=line) for n in nodes)


def _outcome(shell: "Shell", commands: frozenset[tuple[str, ...]], how: str) -> str:
    """The output of well-known programs is run."""
    shell.state.status = None
    commands = frozenset(command for command in commands if not shell.absent(command[0]))
    programs = {posixpath.basename(command[0]) for command in commands}
    if programs <= helpers.QUIET_OUTPUT | {"echo", "true", "cat"}:
        return NORMAL
    shell.state.foreign = True
    if len(commands) == 1 and shell.hook(next(iter(commands))):
        return NORMAL
    if programs <= helpers.QUIET_OUTPUT | helpers.PREPENDING_OUTPUT:
        return shell.prepend(f"{how} of the output of {', '.join(sorted(programs))} changes PATH")
    raise Unsure(f"{how} of the output of {', '.join(sorted(programs)) or 'a program'}".replace(UNKNOWN, "a program"))


def _command(shell: "Shell", arguments: list[str], node: Simple) -> str:
    """`command` and `builtin`."""
    if arguments[:1] and arguments[0] in ("-v", "-V"):
        return _type(shell, arguments[1:], node)
    if not arguments or arguments[0].startswith("-") or not is_known(arguments[0]):
        shell.state.status = None
        return NORMAL
    if arguments[0] in DECLARATIONS:
        return shell.declare(arguments[0], node.words[2:])
    if arguments[0] not in BUILTINS:
        shell.state.status = None
        return NORMAL
    flow = run_builtin(shell, arguments[0], arguments[1:], node._replace(words=node.words[1:]))
    if flow == EXIT and shell.ending and shell.ending.how in ("missing", "error"):
        shell.state.status = False
        return NORMAL
    return flow


def _type(shell: "Shell", arguments: list[str], node: Simple) -> str:
    """`command -v`, `type`, `which`, `hash`: whether there is such a command."""
    names = [a for a in arguments if not a.startswith("-")]
    shell.state.status = None
    if len(names) == 1 and is_known(names[0]):
        name = names[0]
        if name in shell.state.functions or name in OWN_COMMANDS[shell.dialect]:
            shell.state.status = True
        elif "/" not in name and not shell.state.lost:
            found = shell.session.find(name)
            shell.state.status = True if found else False if shell.absent(name) else None
    return NORMAL


def _exec(shell: "Shell", arguments: list[str], node: Simple) -> str:
    words = [a for a in arguments if a not in ("-l", "-c", "--")]
    if not words:
        return NORMAL  # only redirections
    if words[0].startswith("-") or words[:1] == ["-a"]:
        raise Unsure("cannot follow exec with options")
    name = words[0]
    if shell.absent(name):
        if shell.state.options.get("execfail"):
            shell.state.status = False
            return NORMAL
        return shell.end("exec missing", f"exec {name} ends the shell, because {name} is not installed")
    if shell.interactive and posixpath.basename(name) in SHELLS and set(words[1:]) <= {"-l", "--login", "-i"}:
        login = bool({"-l", "--login"} & set(arguments))
        shell.session.successors.append(Successor(shell.state.copy(), name, login))
    return shell.end("exec", f"exec {name.replace(UNKNOWN, '…')} replaces the shell that starts the session")


def _exit(shell: "Shell", arguments: list[str], node: Simple) -> str:
    return shell.end("exit", "exit ends the shell that starts the session")


def _return(shell: "Shell", arguments: list[str], node: Simple) -> str:
    if arguments:
        shell.state.status = {"0": True}.get(arguments[0], False if arguments[0].isdecimal() else None)
    return RETURN


def _break(shell: "Shell", arguments: list[str], node: Simple) -> str:
    if not shell.looped:
        return NORMAL
    if arguments not in ([], ["1"]):
        raise Unsure("cannot follow a jump out of several loops")
    return BREAK


def _continue(shell: "Shell", arguments: list[str], node: Simple) -> str:
    if not shell.looped:
        return NORMAL
    if arguments not in ([], ["1"]):
        raise Unsure("cannot follow a jump out of several loops")
    return CONTINUE


def _setopt(shell: "Shell", arguments: list[str], node: Simple) -> str:
    """zsh's options, by names without case and underscores."""
    on = literal(node.words[0]) == "setopt"
    for argument in arguments:
        name = argument.lower().replace("_", "")
        negated = name.startswith("no") and name not in ("nomatch", "notify")
        shell.state.options[name[2:] if negated else name] = on is not negated
    return NORMAL


_LETTERS = {"e": "errexit", "a": "allexport", "f": "noglob", "u": "nounset", "n": "noexec"}


def _emulate(shell: "Shell", arguments: list[str], node: Simple) -> str:
    """zsh behaves like another shell."""
    if shell.dialect == "zsh" and arguments not in (["zsh"], ["-L", "zsh"]):
        raise Unsure("cannot follow emulate")
    shell.state.status = None
    return NORMAL


def _set(shell: "Shell", arguments: list[str], node: Simple) -> str:
    i = 0
    while i < len(arguments):
        argument = arguments[i]
        i += 1
        if not is_known(argument):
            raise Unsure("cannot tell the options of set")
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
        raise Unsure("cannot follow set -n")
    return NORMAL


_SH_OPTIONS = (
    "errexit", "noglob", "ignoreeof", "interactive", "monitor", "noexec", "stdin", "xtrace", "verbose", "vi", "emacs",
    "noclobber", "allexport", "notify", "nounset", "nolog", "debug", "privileged", "pipefail",
)  # fmt: skip


def _shopt(shell: "Shell", arguments: list[str], node: Simple) -> str:
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


def _shift(shell: "Shell", arguments: list[str], node: Simple) -> str:
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


def _cd(shell: "Shell", arguments: list[str], node: Simple) -> str:
    target = arguments[0] if len(arguments) == 1 else shell.session.account.home if not arguments else UNKNOWN
    target = posixpath.normpath(shell.session.absolute(target)) if target != "-" else UNKNOWN
    there = shell.session.test_file("-d", target)
    shell.state.status = there
    if there is not False:
        shell.state.folder = target if there else UNKNOWN
        shell.session.set("PWD", shell.state.folder, "cd")
    return NORMAL


def _autoload(shell: "Shell", arguments: list[str], node: Simple) -> str:
    """zsh finds the function later in fpath."""
    for name in arguments:
        if is_known(name) and name[:1] not in "-+":
            shell.state.functions.setdefault(posixpath.basename(name), HARMLESS)
    return NORMAL


def _alias(shell: "Shell", arguments: list[str], node: Simple) -> str:
    """An alias replaces a command in the lines that follow, in bash only at a prompt."""
    for argument in arguments:
        name, equals, text = argument.partition("=")
        first = text.split()[0] if text.split() else ""
        if equals and is_known(name) and (shell.interactive or shell.dialect != "bash") and first != name:
            changes = (
                first in _KEEPERS or first in ("cd", "exec", "exit", "export", "set", "unset") or not is_known(text)
            )
            shell.state.functions[name] = None if changes else Subshell(node.line, ())
    return NORMAL


def _unalias(shell: "Shell", arguments: list[str], node: Simple) -> str:
    for name in arguments:
        if isinstance(shell.state.functions.get(name, node), Subshell | None):
            shell.state.functions.pop(name, None)
    shell.state.status = None
    return NORMAL


def _sets_names(shell: "Shell", arguments: list[str], node: Simple) -> str:
    """read, mapfile, getopts, let, printf -v: the variables that they name become unknown."""
    printing = literal(node.words[0]) == "printf"
    if printing and arguments[:1] != ["-v"]:
        shell.state.status = None
        return NORMAL
    for argument in arguments:
        for name in [n[0] for n in _NAME.finditer(argument.replace(UNKNOWN, " "))]:
            shell.session.set(name, UNKNOWN, "read")
    shell.state.status = None
    return NORMAL


_Builtin = Callable[["Shell", list[str], Simple], str]
BUILTINS: dict[str, _Builtin] = {
    "[": _test, "test": _test, ":": _true, "true": _true, "false": _false, "unset": _unset, ".": _source,
    "source": _source, "eval": _eval, "command": _command, "builtin": _command, "type": _type, "which": _type,
    "hash": _type, "exec": _exec, "exit": _exit, "logout": _exit, "return": _return, "break": _break,
    "continue": _continue, "set": _set, "shopt": _shopt, "shift": _shift, "cd": _cd, "pushd": _cd, "read": _sets_names,
    "mapfile": _sets_names, "readarray": _sets_names, "getopts": _sets_names, "let": _sets_names,
    "printf": _sets_names, "echo": _true, "emulate": _emulate, "setopt": _setopt, "unsetopt": _setopt, "autoload": _autoload, "alias": _alias, "unalias": _unalias, "umask": _true, "trap": _true,
}  # fmt: skip
_KEEPERS = ("eval", ".", "source", "return", "command", "builtin")


def run_builtin(shell: "Shell", name: str, arguments: list[str], node: Simple) -> str:
    """A builtin succeeds unless it says otherwise; but the code that some of them run or leave still sees the previous
    `$?`."""
    if name not in _KEEPERS:
        shell.state.status = True
    return BUILTINS[name](shell, arguments, node)


SPECIAL = (
    ":",
    ".",
    "eval",
    "exec",
    "exit",
    "export",
    "readonly",
    "return",
    "set",
    "shift",
    "trap",
    "unset",
    "break",
    "continue",
)
