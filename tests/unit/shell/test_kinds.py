"""What real shells do with start-up files that go wrong, or that are not what they seem; the same is told of them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dlhealth.host.account import Account
from dlhealth.host.root import RootHost
from dlhealth.probes.login.environment import Environments, LoginEnvironment
from dlhealth.probes.login.users import Users
from dlhealth.shell.start import Starter
from dlhealth.shell.state import Session, Variable
from dlhealth.shell.values import is_known
from dlhealth.testing import Machine

CUDA = "/usr/local/cuda/lib64"
FILES = {"bash": ".bashrc", "zsh": ".zshrc", "fish": ".config/fish/config.fish", "tcsh": ".tcshrc"}

# shell, text
SHAPES = [
    # tcsh sets some variables itself.
    ("tcsh", f"switch ($OSTYPE)\ncase linux:\n  setenv LD_LIBRARY_PATH {CUDA}\n  breaksw\nendsw\n"),
    ("tcsh", "setenv LD_LIBRARY_PATH $cwd/lib\n"),
    ("tcsh", f"setenv PATH ${{HOME}}/bin/${{VENDOR}}-${{OSTYPE}}:${{PATH}}\nsetenv LD_LIBRARY_PATH {CUDA}\n"),
    ("tcsh", "if ( $uid == 0 ) setenv LD_LIBRARY_PATH /root\necho $tty $term $version > /dev/null\n"),
    ("tcsh", "set path = (\\\n /a\\\n# /b\\\n /c # d \\\n $path)\n# e \\\nsetenv LD_LIBRARY_PATH /x\n"),
    # An error ends the reading, in some shells only of the line.
    ("tcsh", f"set cdpath = ( ~/nowhere/* )\nsetenv LD_LIBRARY_PATH {CUDA}\n"),
    ("tcsh", f"if ( $MYSITE == lab ) then\n  echo\nendif\nsetenv LD_LIBRARY_PATH {CUDA}\n"),
    ("tcsh", f"if ( $?MYSITE && $MYSITE == x ) echo\nsetenv LD_LIBRARY_PATH {CUDA}\n"),
    ("tcsh", f"setenv A 1 2; setenv LD_LIBRARY_PATH {CUDA}\nsetenv PATH /no:$PATH\n"),
    ("tcsh", f"cd /nowhere; setenv LD_LIBRARY_PATH {CUDA}\nsetenv PATH /no:$PATH\n"),
    ("tcsh", f"setenv A \"open\nsetenv LD_LIBRARY_PATH {CUDA}\n"),
    ("tcsh", f"ls /nowhere*\nsetenv LD_LIBRARY_PATH {CUDA}\n"),
    ("tcsh", f"nosuchprogram && setenv PATH /no:$PATH\nexec nosuchprogram\nsetenv LD_LIBRARY_PATH {CUDA}\n"),
    ("zsh", f"if [ \"$USER\" == lab ]; then\n  echo lab\nfi\nexport LD_LIBRARY_PATH={CUDA}\n"),
    ("zsh", f"f() {{ echo /nowhere*; }}\nf\nexport LD_LIBRARY_PATH={CUDA}\n"),
    ("zsh", f"eval 'echo /nowhere*'\nexport LD_LIBRARY_PATH={CUDA}\n"),
    ("zsh", f"export X = 1\nexport LD_LIBRARY_PATH={CUDA}\n"),
    ("zsh", "for f in /nowhere*(N) /us*; do export LD_LIBRARY_PATH=$f; done; path=(/nowhere*(N) $path)\n"),
    ("zsh", f"set -u\nexport X=$NOTHING\nexport LD_LIBRARY_PATH={CUDA}\n"),
    ("zsh", "set -e\nexport PATH=/x:$PATH\nfalse\nexport PATH=/y:$PATH\n"),
    ("bash", f"set -u\nf() {{ X=$NOTHING; export LD_LIBRARY_PATH=/no; }}\nf; PATH=/no:$PATH\nset +u\nexport LD_LIBRARY_PATH={CUDA}\n"),
    ("bash", f"X=${{NOTHING:?}}; PATH=/no:$PATH\nexport LD_LIBRARY_PATH={CUDA}\n"),
    # A subscript of what was not declared is a number to zsh, and 0 is an error.
    ("zsh", f"STYLES[unknown-token]=none\nexport LD_LIBRARY_PATH={CUDA}\n"),
    ("zsh", f"STYLES[1]=none\nexport LD_LIBRARY_PATH={CUDA}\n"),
    ("zsh", f"typeset -A STYLES\nSTYLES[alias]=none\nexport LD_LIBRARY_PATH={CUDA}\n"),
    ("zsh", f"commands[nosuch]=/x\nexport LD_LIBRARY_PATH={CUDA}\n"),
    ("zsh", f"if [[ -e /nowhere ]] {{ echo /nowhere* }}\nexport LD_LIBRARY_PATH={CUDA}\n"),
    # A brace that nothing opened closes a group for zsh at the end of a word, and is a character elsewhere.
    ("zsh", f"echo }}a >/dev/null\n{{ export PATH=/a}}b:$PATH\nexport LD_LIBRARY_PATH={CUDA}}}:/x\n}}\n"),
    ("zsh", f"{{ echo a}} >/dev/null\n{{ echo a}}}}>/dev/null\nexport LD_LIBRARY_PATH={CUDA}\n"),
    ("zsh", f"{{ X=a}} ; echo $X\n}}\nexport LD_LIBRARY_PATH={CUDA}}}\n"),
    # What zsh loads later, whether or not a condition holds.
    ("zsh", f"if (( $#DISPLAY )); then\n  autoload -U compinit\nfi\nautoload -U compinit\ncompinit\nexport LD_LIBRARY_PATH={CUDA}\n"),
    ("zsh", f"for folder in $fpath; do\n  autoload $folder/nosuch*(N:t)\ndone\nexport LD_LIBRARY_PATH={CUDA}\n"),
    ("zsh", f"$NOTHING echo\nfor name in $NOTHING; do source /nowhere/$name; done\nexport LD_LIBRARY_PATH={CUDA}\n"),
    # Forms that only zsh has.
    ("zsh", f"function a b {{\n  export LD_LIBRARY_PATH={CUDA}\n}}\nb\n"),
    ("zsh", "for name in /x /y; path=($name $path)\nf() {print -P \"a\"}\nexport LD_LIBRARY_PATH={/a,/b}/lib\n"),
    ("zsh", f"case $USER in\n  x|(a|b)lice|c) echo;;\nesac\nexport LD_LIBRARY_PATH={CUDA}\n"),
    ("zsh", f"case /usr in\n  (/usr) export LD_LIBRARY_PATH={CUDA};;\nesac\n"),
    # Line ends of Windows are each shell's own affair.
    ("fish", f"set -gx LD_LIBRARY_PATH {CUDA}\r\nset -gx PATH /usr/local/cuda/bin $PATH\r\n"),
    ("tcsh", f"if ( $?prompt ) then\r\n  set history = 1000\r\nendif\r\nsetenv LD_LIBRARY_PATH {CUDA}\r\n"),
    ("tcsh", f"set path = ( /usr/bin /bin )\r\nsetenv LD_LIBRARY_PATH {CUDA}\n"),
    # Lists.
    ("fish", f"set -l dirs\nset dirs $dirs {CUDA}\nset dirs $dirs /opt/x\nset -gx LD_LIBRARY_PATH $dirs\n"),
    ("fish", f"set -gx LD_LIBRARY_PATH {{{CUDA},/opt}}/x \"\"\n"),
    ("tcsh", "set -f path = ( $path /usr/bin /x /x )\n"),
    ("tcsh", "set -l path = ( $path /usr/bin /x /x )\n"),
    ("tcsh", "set p = ( /a /b )\nsetenv PATH $p\nsetenv LD_LIBRARY_PATH /no\n"),
    ("bash", 'p() {\n  PATH=":$PATH:"\n  PATH="${PATH//:$1:/:}"\n  PATH="${PATH#:}"\n  PATH="$1:${PATH%:}"\n}\np /usr/local/cuda/bin\np /bin\nexport PATH\n'),
    # A syntax error of fish: nothing of the file runs.
    ("fish", f"set -gx LD_LIBRARY_PATH {CUDA}\nexport PATH=/usr/local/cuda/bin${{PATH:+:${{PATH}}}}\n"),
    ("fish", f"set -gx LD_LIBRARY_PATH {CUDA}\nif [ -f ~/.x ]; then\n  echo\nfi\n"),
    ("fish", f"set -gx LD_LIBRARY_PATH {CUDA}\nPATH=/x:$PATH\n"),
    # Another shell takes over.
    ("bash", f"if [ \"$TERM\" = dumb ]; then\n    :\nelse\n    command -v zsh > /dev/null && exec zsh\nfi\nexport LD_LIBRARY_PATH={CUDA}\n"),
    ("bash", "exec fish\n"),
    # What is not installed does nothing.
    ("bash", f'eval "$(nosuchhook init -)"\n. "$(nosuchhook --prefix)/x"\nexport LD_LIBRARY_PATH={CUDA}\n'),
    ("bash", '__conda_setup="$(/opt/nosuch/bin/conda shell.bash hook 2> /dev/null)"\nif [ $? -eq 0 ]; then\n eval "$__conda_setup"\nelse\n export PATH=/opt/nosuch/bin:$PATH\nfi\n'),
    ("fish", f"nosuchhook init - | source\nset -gx X (nosuchhook)\nset -gx LD_LIBRARY_PATH {CUDA}\n"),
    # Grammar of zsh.
    ("zsh", f"notes() {{cd /tmp; true;}}\nfor i in a b; do;\n  X=$i\ndone\nif [[ -d /usr ]] {{\n  export LD_LIBRARY_PATH={CUDA}\n}}\n"),
    ("zsh", f"() {{ path+=($1) }} /anonymous\n{{ true }} always {{ export LD_LIBRARY_PATH={CUDA} }}\nfor x (/a /b) path+=$x\n"),
]  # fmt: skip


def environment(home: Path, program: str) -> dict[str, str]:
    return {"HOME": str(home), "USER": "root", "LOGNAME": "root", "SHELL": program, "TERM": "linux",
            "PATH": "/usr/bin:/bin"}  # fmt: skip


def evaluated(home: Path, shell: str) -> dict[str, str | None]:
    """What is known of an interactive shell, as a terminal starts it; None if unknown."""
    program = shutil.which(shell) or pytest.skip(f"{shell} is not installed")
    session = Session(RootHost("/"), Account("root", 0, 0, (0,), str(home), program), terminal=True)
    session.state.variables.update({n: Variable(v, True) for n, v in environment(home, program).items()})
    Starter(session.host).begin(session, program, login=False, interactive=True)
    found = {name: session.state.get(name) for name in ("PATH", "LD_LIBRARY_PATH")}
    return {n: (v.value or "") if v.value is None or is_known(v.value) else None for n, v in found.items()}


def started(home: Path, shell: str) -> dict[str, str]:
    """The environment of an interactive shell, as a terminal starts it."""
    program = shutil.which(shell) or ""
    done = subprocess.run(
        [program, "-i"], check=False, cwd=home, env=environment(home, program), capture_output=True, timeout=30,
        input=b"/usr/bin/env -0\nexit\nexit\n",
    )  # fmt: skip
    text = done.stdout.decode(errors="surrogateescape")
    pairs = (p.rpartition("\n")[2].partition("=") if "\n" in p else p.partition("=") for p in text.split("\0"))
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize(("shell", "text"), SHAPES, ids=[f"{s}: {t}"[:60] for s, t in SHAPES])
def test_a_shape_gives_what_the_shell_gives(shell: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / FILES[shell]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode())
    known = evaluated(tmp_path, shell)
    seen = started(tmp_path, shell)
    assert known == {name: seen.get(name, "") for name in known}


def told(tmp_path: Path, shell: str, text: str) -> LoginEnvironment:
    """What is said of a file on a whole machine of its own."""
    machine = Machine.debian12().user("sam", 1001, f"/bin/{shell}").file("/usr/bin/env", "", 0o755)
    home = "/home/sam"
    name = ".profile" if shell == "dash" else FILES[shell]
    machine.folder(f"{home}/.config/fish", uid=1001).file(f"{home}/{name}", text, uid=1001)
    machine.file(f"{home}/.bash_profile", ". ~/.bashrc\n", uid=1001)
    account = Account("sam", 1001, 1001, (1001,), home, f"/bin/{shell}")
    found = Environments.probe(RootHost(str(machine.build(tmp_path))), Users((account,)))
    return found.get("sam", "console") or pytest.fail("no console")


@pytest.mark.parametrize(
    ("shell", "text", "how"),
    [
        ("bash", "exec tmux\n", "exec missing"),
        ("bash", ". ~/.bash_profile\n", "recursion"),
        ("bash", '[ -n "$DONE" ] || { DONE=1; . ~/.bashrc; }\n', ""),
        ("zsh", "exec tmux\n", "exec missing"),
        ("zsh", "set -e\nfalse\n", ""),
    ],
)
def test_an_end_of_a_login_is_told(tmp_path: Path, shell: str, text: str, how: str) -> None:
    ending = told(tmp_path, shell, text).ending
    assert (ending.how if ending else "") == how


@pytest.mark.parametrize(
    ("shell", "text", "problems"),
    [
        ("tcsh", f"set x = ( ~/no/* )\nsetenv LD_LIBRARY_PATH {CUDA}\n", [(2, "LD_LIBRARY_PATH", "unread")]),
        ("zsh", f"[ a == b ]\nexport LD_LIBRARY_PATH={CUDA}\n", [(2, "LD_LIBRARY_PATH", "unread")]),
        ("fish", f"\nexport LD_LIBRARY_PATH={CUDA}${{LD_LIBRARY_PATH:+:${{LD_LIBRARY_PATH}}}}\n", [(2, "LD_LIBRARY_PATH", "syntax")]),
        ("fish", f"set -gx LD_LIBRARY_PATH {CUDA}\nif [ -f ~/.x ]; then\nfi\n", [(1, "LD_LIBRARY_PATH", "unread")]),
        ("fish", f"set -gx LD_LIBRARY_PATH {CUDA}\r\n", []),
        ("bash", 'PATH=":$PATH:"\nPATH="${PATH#:}"\nPATH="${PATH%:}"\n', []),
        ("tcsh", "setenv LD_LIBRARY_PATH $cwd/lib:/$VENDOR\n", []),
    ],
)  # fmt: skip
def test_what_is_malformed_is_told(tmp_path: Path, shell: str, text: str, problems: list[tuple[int, str, str]]) -> None:
    found = told(tmp_path, shell, text).problems
    assert [(p.source.line, p.variable, p.kind) for p in found] == problems


def test_a_setgid_agent_drops_what_the_loader_reads(tmp_path: Path) -> None:
    machine = (
        Machine.debian12()
        .file("/etc/X11/default-display-manager", "/usr/sbin/gdm3\n").file("/etc/gdm3/Xsession")
        .file("/etc/X11/Xsession.d/90x11-common_ssh-agent").file("/etc/X11/Xsession.options", "use-ssh-agent\n")
        .file("/usr/bin/ssh-agent", "", 0o2755)
        .append("/home/alice/.profile", f"export LD_LIBRARY_PATH={CUDA}\n")
    )  # fmt: skip
    machine.build(tmp_path)
    account = Account("alice", 1000, 1000, (1000,), "/home/alice", "/bin/bash")
    for wayland, value in ((False, ""), (True, None)):
        if wayland:
            os.makedirs(tmp_path / "usr/share/wayland-sessions")
        environments = Environments.probe(RootHost(str(tmp_path)), Users((account,)))
        assert environments.value("alice", "LD_LIBRARY_PATH", "graphical") == value
        assert environments.value("alice", "LD_LIBRARY_PATH", "console") == CUDA


ENDLESS = [
    ("zsh", "d }f!\n"),
    ("zsh", "a=(x})\n"),
    ("zsh", "() { true; } x}\n"),
    ("dash", "for x in <(a)\ndo :; done\n"),
    ("bash", "echo " + "{a," * 30_000 + "}" * 30_000 + "\n"),
    ("bash", "echo " + "{a}" * 30_000 + "\n"),
    ("zsh", "echo " + "{a,b}" * 30_000 + "\n"),
    ("fish", "set x " + "{a,b}" * 40 + "\n"),
    ("fish", "set x " + "{a,b}" * 30_000 + "\n"),
    ("fish", "set x a b\n" + "set x $x$x\n" * 40),
    ("tcsh", "set x = " + "{a,b}" * 40 + "\n"),
]


@pytest.mark.parametrize(("shell", "text"), ENDLESS, ids=[f"{s}: {t}"[:40] for s, t in ENDLESS])
def test_what_would_have_no_end_is_given_up(tmp_path: Path, shell: str, text: str) -> None:
    assert told(tmp_path, shell, f"export LD_LIBRARY_PATH={CUDA}\n" + text).files


def test_a_list_of_too_many_words_is_unknown_not_cut_off(tmp_path: Path) -> None:
    file = tmp_path / FILES["fish"]
    file.parent.mkdir(parents=True)
    file.write_text(f"set x {'{a,b}' * 7}\nfor y in $x$x\n  set -gx LD_LIBRARY_PATH $y\nend\n")
    assert evaluated(tmp_path, "fish")["LD_LIBRARY_PATH"] is None


def test_a_large_file_is_read(tmp_path: Path) -> None:
    text = "# " + "x" * 70_000 + f"\nexport LD_LIBRARY_PATH={CUDA}\n"
    assert told(tmp_path, "bash", text).values["LD_LIBRARY_PATH"] == CUDA
