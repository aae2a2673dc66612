"""The evaluator against the real shells: what it calls known is what the shell gives, on generated start-up files."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlhealth.host.account import Account
from dlhealth.host.root import RootHost
from dlhealth.shell.sh.evaluate import Shell
from dlhealth.shell.state import Session, Variable
from dlhealth.shell.values import known_elements

START = {"PATH": "/usr/bin:/bin", "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash"}
VARIABLES = ("PATH", "LD_LIBRARY_PATH", "A", "B")

value = st.sampled_from([
    "/a", "/a:/b", '"/a b:$PATH"', "$PATH:/c", "/d${PATH:+:${PATH}}", '"/e:$PATH"', "'/f:$PATH'", "${A}", '"${A:-/g}"',
    "$A:$B", "${A:+x}", "${A-unset}", "${A+set}", "${B:=/h}", "${PATH%:*}", "${PATH##*:}", "${PATH#/usr}", "${PATH%%:*}",
    "$HOME/bin:$PATH", "~/bin:~/x", '"~/bin"', r"/i\:x", r"\$PATH:/j", '"\\${PATH}"', '"\\\\$A"', "", '""', "a\\ b",
    "$(id -u)", "`id -un`", '"$(dirname /k/l)"', "$(/bin/echo /m)", "$(echo n)", "${LD_LIBRARY_PATH}", "$#", "$1", "${1:-none}",
    '"${A%"$B"}"', "${A#*/}", '"a"\'b\'c', "$UNSET:/o", "${UNSET:-$PATH}", "/p:$A::", "x$", "$(true)", "${#A}", "${A##*[a-d]}",
    "$?", "$(id -u)$?", '"$(true)$?"', "/q}", "${A:+:$A}/r", '"${A:+"$B"}"', "${A:-'q q'}", '"${A:-q q}"',
    '$(echo "${A//a/b}")', "`echo ${A[0]}`x", "$(echo ${NONE:?})", "$(false && echo a || echo b)", "$(builtin echo a && echo b)", "/{x,y}", "{/z,$A}",
])  # fmt: skip
name = st.sampled_from(VARIABLES)
simple = st.one_of(
    st.builds("{}={}".format, name, value),
    st.builds("export {}={}".format, name, value),
    st.builds("export {}".format, name),
    st.builds("unset {}".format, name),
    st.builds("{}={} {}={}".format, name, value, name, value),
    st.builds("{}={} {}".format, name, value, st.sampled_from(["true", ":", "/bin/true", "export B", "pathmunge /x", "eval 'B=$A'", "unset B"])),
    st.builds("set -- {}".format, value),
    st.builds(": ${{{}:={}}}".format, name, value),
    st.builds("eval '{}={}'".format, name, st.sampled_from(["/ev", '"$PATH:/ev"', "$A"])),
    st.builds("pathmunge {} {}".format, st.sampled_from(["/pm", "/a", "/usr/bin"]), st.sampled_from(["", "after"])),
    st.builds("export {} = {}".format, name, value),
    st.builds("{} = {}".format, name, value),
    st.builds("readonly_{}={}".format, name, value),
    st.builds("f() {{ local A={}; B=$A; }}; f; unset -f f".format, value),
    st.builds("{} || true".format, st.sampled_from(["false", "/bin/false", "[ -f /nonexistent ]"])),
    st.sampled_from([
        "true", "false", ":", "/bin/true", "/bin/false", "cd /", "shift", "return", "return 1", "set -a", "set +a", "exit",
        ". /nonexistent/file", "[ -f /nonexistent ] && . /nonexistent", "alias ll='ls -l'", "umask 022", "echo $A >/dev/null",
        "IFS=:", "unset IFS", "(PATH=/sub)", "PATH=/bg & wait", "echo x | read A", "export -n A 2>/dev/null", "command . /nonexistent",
        "a=(1 2)", 'B="${PATH//a/b}"', "set -e", "set +e", "exec 3>&1", "trap : EXIT", "test -n x -a -d /", "break",
        "! false", "export", "A+=x", "PATH+=:/app", "exec /bin/true", "hash -r", "type ls >/dev/null", "unset A B",
        'export A="unbalanced', "cat <<E >/dev/null\n$A ` '\nE", "A=1; B=2", "A=`", "if", "fi", "}", "function g { :; }", "g() { return; }; g",
        "source /nonexistent 2>/dev/null", "declare -x A=decl", "typeset B=t", "[[ -d / ]] && A=yes", "[[ $A == /a* ]] || B=no",
        "read A </dev/null", "printf -v A x", "let A=1", "((A=1))", "A=$((1+1))", "mapfile M </dev/null",
    ]),
)  # fmt: skip
condition = st.one_of(
    st.builds("[ -{} {} ]".format, st.sampled_from("dfexrsLhz"), st.sampled_from(["/", "/usr/bin", "/nonexistent", "$HOME", '"$A"', "/bin/sh"])),
    st.builds('[ "{}" {} "{}" ]'.format, st.sampled_from(["$A", "$B", "/a", "$PATH"]), st.sampled_from(["=", "!="]), st.sampled_from(["/a", "$B", ""])),
    st.builds('[ -{} "${}" ]'.format, st.sampled_from("nz"), name),
    st.builds("test {}".format, st.sampled_from(['"$A"', "-n", "! -d /", "a = a -a b = b", "a = b -o -d /", "", "! a = b", "1 -lt 2", '"$#" -gt 0'])),
    st.sampled_from(["true", "false", "/bin/true", "/bin/false", "! true", "command -v ls >/dev/null", "command -v nonexistent >/dev/null",
                     "[ -d / ] && [ -d /usr ]", "[ -d /nonexistent ] || [ -d /usr ]", "[ $A = $B ]", "[ -n $A ]", "grep -q x /dev/null"]),
)  # fmt: skip


def compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    block = st.lists(inner, min_size=1, max_size=3).map("\n".join)
    return st.one_of(
        st.builds("if {}; then\n{}\nfi".format, condition, block),
        st.builds("if {}; then\n{}\nelse\n{}\nfi".format, condition, block, block),
        st.builds("if {}; then\n{}\nelif {}; then\n{}\nelse\n{}\nfi".format, condition, block, condition, block, block),
        st.builds("{} && {{\n{}\n}}".format, condition, block),
        st.builds("{} || {{\n{}\n}}".format, condition, block),
        st.builds("{} && {} || {}".format, condition, simple, simple),
        st.builds("for i in {}; do\n{}\n{}=$i:${}\ndone".format, st.sampled_from(["x y", "/u /v", "", '"$@"', "$A", "$PATH", "/usr/b*n"]), block, name, name),
        st.builds("while {}; do\n{}\nbreak\ndone".format, condition, block),
        st.builds('case "{}" in\n{}) {} ;;\n*) {} ;;\nesac'.format, st.sampled_from(["$A", ":$PATH:", "$-", "x", "$(/bin/echo q)"]),
                  st.sampled_from(["*:/a:*", "*i*", "/a|/b", "[a-z]*", '*:"$A":*', "x", "?", "''"]), simple, simple),
        st.builds("fun() {{\n{}\n}}\nfun {}".format, block, value),
        st.builds("{{\n{}\n}} >/dev/null".format, block),
        st.builds("(\n{}\n)".format, block),
    )  # fmt: skip


line = st.recursive(simple, compound, max_leaves=6)
PATHMUNGE = """\
pathmunge () {
    case ":${PATH}:" in
        *:"$1":*) ;;
        *) if [ "$2" = "after" ] ; then PATH=$PATH:$1; else PATH=$1:$PATH; fi ;;
    esac
}
"""
text = st.lists(line, min_size=1, max_size=8).map(lambda lines: PATHMUNGE + "\n".join(lines) + "\n")


def evaluate(path: Path, dialect: str) -> Shell:
    session = Session(RootHost("/"), Account("root", 0, 0, (0,), "/root", "/bin/bash"), terminal=False)
    session.state.folder = os.fspath(path.parent)
    session.state.variables.update({n: Variable(v, True) for n, v in START.items()})
    if dialect == "bash":
        session.state.variables["BASH_VERSION"] = Variable("\0.", False)
    shell = Shell(session, dialect, interactive=False)
    shell.start(os.fspath(path))
    return shell


def real(argv: list[str], path: Path) -> dict[str, str] | None:
    """The environment after sourcing the file; None when the shell did not live to tell."""
    script = '. "$FILE" >/dev/null 2>&1 </dev/null; /usr/bin/env -0'
    done = subprocess.run(
        [*argv, "-c", script],
        check=False,
        env={**START, "FILE": os.fspath(path)},
        cwd=path.parent,
        capture_output=True,
        timeout=20,
    )
    pairs = [p.partition("=") for p in done.stdout.decode(errors="surrogateescape").split("\0") if p]
    return {n: v for n, _, v in pairs} or None


def agrees(shell: Shell, environment: dict[str, str]) -> None:
    for variable in VARIABLES:
        known = shell.state.get(variable)
        seen = environment.get(variable)
        if known.value is None:
            assert seen is None or known.exported is None, variable
        elif known.exported is False:
            assert seen is None, variable
        elif seen is None:
            assert known.exported is None or known.value == "\0", variable
        else:
            pattern = "".join(
                {"\0": ".*", "\1": "(?:.*:)?", "\2": "(?::.*)?"}.get(c) or re.escape(c) for c in known.value
            )
            assert re.fullmatch(pattern, seen, re.DOTALL), (variable, known.value, seen)
            assert set(known_elements(known.value)) <= set(seen.split(":"))


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.parametrize(
    ("dialect", "argv"), [("sh", ["/usr/bin/dash"]), ("bash", ["/usr/bin/bash", "--noprofile", "--norc"])]
)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=text)
def test_known_is_what_the_shell_gives(
    tmp_path_factory: pytest.TempPathFactory, dialect: str, argv: list[str], content: str
) -> None:
    path = tmp_path_factory.mktemp("d") / "profile"
    path.write_text(content)
    shell = evaluate(path, dialect)
    environment = real(argv, path)
    if environment is None:
        # It may have ended on a way that is unknown, but then something must be left open.
        assert shell.ending or shell.state.lost or shell.session.trace.steps
        return
    assert shell.ending is None, "the shell lives on"
    agrees(shell, environment)
