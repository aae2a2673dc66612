"""Lines that start-up files of people really have, one at a time: what the variables are afterwards, or why nothing is
known. In the values "?" stands for what is not known, "<" and ">" for elements that may be before or after."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dlhealth.host.account import Account
from dlhealth.host.root import RootHost
from dlhealth.shell.start import Starter
from dlhealth.shell.state import Ending, Session, Variable

HOME = "/home/alice"
SHOWN = str.maketrans({"\0": "?", "\1": "<", "\2": ">"})
START = {"PATH": "/usr/bin:/bin", "HOME": HOME, "USER": "alice", "LOGNAME": "alice", "PWD": HOME}
PROGRAMS = [
    "ls",
    "mystery",
    "cat",
    "brew",
    "conda",
    "nvm",
    "pyenv",
    "starship",
    "dircolors",
    "kubectl",
    "ssh-agent",
    "opam",
    "module",
    "id",
    "uname",
    "whoami",
    "dirname",
    "basename",
]
FILES = {
    **{f"/usr/bin/{name}": "" for name in PROGRAMS}, "/usr/bin/locale-check": "", "/etc/shells": "", "/usr/local/cuda/bin/nvcc": "", "/home/alice/one.sh": "export AA=one$1\nexport PATH=/one:$PATH\n",
    "/home/alice/asdf.sh": "false\n", "/home/alice/z.sh": "", "/home/alice/bad.sh": "exit\n", "/usr/bin/two.sh": "export AA=two\n",
    "/home/alice/status.sh": "AA=$?\n", "/home/alice/empty.sh": "# nothing\n", "/home/alice/mystery.sh": "$(mystery) x\n",
    "/opt/ros/noetic/setup.bash": 'D=$(builtin cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)\n. "$D/setup.sh"\n', "/home/alice/ws/devel/setup.sh": "mystery\n",
    "/home/alice/one.fish": "set -gx PATH /one $PATH\n", "/home/alice/one.csh": "setenv AA one\n", "/home/alice/exit.csh": "exit\nsetenv AA no\n",
}  # fmt: skip
NAMES = {"bash": ".bashrc", "sh": ".profile", "zsh": ".zshenv", "fish": ".config/fish/config.fish", "csh": ".cshrc"}


class Seen:
    """What is known after the files."""

    def __init__(self, session: Session, ending: Ending | None) -> None:
        self.session, self.ending = session, ending

    def __getitem__(self, name: str) -> str | None:
        value = self.session.state.get(name).value
        return None if value is None else value.translate(SHOWN)

    @property
    def doubts(self) -> str:
        return "\n".join(self.session.trace.doubts)

    @property
    def problems(self) -> list[tuple[str, str]]:
        return [(problem.variable, problem.kind) for problem in self.session.trace.problems]


Read = Callable[..., Seen]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read a start-up file of a person; `interactive` as in a terminal."""

    def read(shell: str, text: str, interactive: bool = False) -> Seen:
        for path, content in {**FILES, f"{HOME}/{NAMES[shell]}": text}.items():
            made = tmp_path / path[1:]
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_text(content)
            made.chmod(0o755)
        session = Session(RootHost(str(tmp_path)), Account("alice", 1000, 1000, (1000,), HOME, f"/bin/{shell}"), False)
        session.state.variables.update({name: Variable(value, True) for name, value in START.items()})
        machine = Starter(session.host)
        if shell == "zsh":
            return Seen(session, machine.zsh(session, login=False, interactive=interactive))
        if shell == "fish":
            machine.fish(session, login=False, interactive=interactive)
        elif shell == "csh":
            machine.csh(session, "csh", login=False, interactive=interactive)
        else:
            evaluator = machine.shell(session, shell, interactive=interactive)
            evaluator.start(f"{HOME}/{NAMES[shell]}")
            return Seen(session, evaluator.ending)
        return Seen(session, None)

    return read


# shell, text, what is known afterwards
KNOWN: list[tuple[str, str, dict[str, str | None]]] = [
    # test
    ("bash", "if [ -d /usr; then AA=yes; else AA=no; fi", {"AA": "no"}),
    ("bash", "[ ] && AA=yes || AA=no", {"AA": "no"}),
    ("sh", '[ "$PATH" == x ] && AA=yes || AA=no', {"AA": "no"}),
    ("bash", '[ "$PATH" == /usr/bin:/bin ] && AA=yes || AA=no', {"AA": "yes"}),
    ("bash", "[ x -eq 1 ] && AA=yes || AA=no", {"AA": "no"}),
    ("bash", "[ 3 -ge 2 ] && AA=yes || AA=no", {"AA": "yes"}),
    ("bash", "[ ! -d /nowhere ] && AA=yes || AA=no", {"AA": "yes"}),
    ("bash", "[ -d /usr -a -d /nowhere ] && AA=yes || AA=no", {"AA": "no"}),
    ("bash", "[ -d /usr -o -n \"$RANDOM\" ] && AA=yes || AA=no", {"AA": "yes"}),
    ("bash", "[ -w /usr ] && AA=yes || AA=no", {"AA": "?"}),
    ("bash", "[ -v PATH ] && AA=yes || AA=no", {"AA": "yes"}),
    ("bash", "[[ -v PATH && ! -v NOTHING ]] && AA=yes || AA=no", {"AA": "yes"}),
    ("bash", "[[ ( -d /usr || -d /nowhere ) && -n x ]] && AA=yes || AA=no", {"AA": "yes"}),
    ("bash", "[[ $PATH =~ cuda ]] && AA=yes || AA=no", {"AA": "?"}),
    ("bash", "[[ 2 -lt 10 ]] && AA=yes || AA=no", {"AA": "yes"}),
    ("bash", "[[ $PATH != *cuda* ]] && PATH=/usr/local/cuda/bin:$PATH", {"PATH": "/usr/local/cuda/bin:/usr/bin:/bin"}),
    ("bash", "[[ $NOTHING ]] && AA=yes || AA=no", {"AA": "no"}),
    ("bash", "[[ a < b ]] && AA=yes || AA=no", {"AA": "?"}),
    ("bash", "[ -t 0 ] && AA=yes || AA=no", {"AA": "no"}),
    # builtins
    ("bash", "f() { AA=f; }; unset -f f; AA=x; f", {"AA": "x"}),
    ("sh", "unset PATH; PATH=/new", {"PATH": "/new"}),
    ("bash", "unset 1a PATH", {"PATH": None}),
    ("bash", "source one.sh arg", {"AA": "onearg", "PATH": "/one:/usr/bin:/bin"}),
    ("bash", "source two.sh", {"AA": "two"}),
    ("sh", ". ~/one.sh arg", {"AA": "one", "PATH": "/one:/usr/bin:/bin"}),
    ("bash", "source", {"PATH": "/usr/bin:/bin"}),
    ("bash", "source ~/asdf.sh", {"PATH": "</usr/bin:/bin>"}),
    ("bash", "source ~/z.sh", {"PATH": "/usr/bin:/bin"}),
    ("bash", 'source "$NVM/z.sh"', {"PATH": "/usr/bin:/bin"}),
    ("bash", 'source "$(brew --prefix)/asdf.sh"', {"PATH": "</usr/bin:/bin>"}),
    ("bash", "source <(kubectl completion bash)", {"PATH": "/usr/bin:/bin"}),
    ("bash", "eval 'AA=x; export PATH=/e:$PATH'", {"AA": "x", "PATH": "/e:/usr/bin:/bin"}),
    ("bash", 'eval "$(dircolors -b)"', {"PATH": "/usr/bin:/bin"}),
    # Without quotes, as Ubuntu's /etc/profile.d/01-locale-fix.sh has it.
    ("bash", "eval $(/usr/bin/locale-check C.UTF-8); AA=x", {"AA": "x", "PATH": "/usr/bin:/bin"}),
    ("sh", "eval `ssh-agent -s` > /dev/null; AA=x", {"AA": "x", "PATH": "/usr/bin:/bin"}),
    ("bash", 'eval "$(brew shellenv)"', {"PATH": "</usr/bin:/bin"}),
    ("bash", "eval $(brew shellenv)", {"PATH": "</usr/bin:/bin"}),
    ("bash", 'OUT="$(pyenv init -)"; eval "$OUT"', {"PATH": "/home/alice/.pyenv/shims:/usr/bin:/bin"}),
    ("bash", "eval return; AA=no", {"AA": None}),
    ("bash", "command -v ls >/dev/null && AA=yes || AA=no", {"AA": "yes"}),
    ("bash", "command -v nvcc >/dev/null && AA=yes || AA=no", {"AA": "no"}),
    ("bash", "f() { :; }; type f >/dev/null && AA=yes || AA=no", {"AA": "yes"}),
    ("bash", "hash -r; AA=x", {"AA": "x"}),
    ("bash", "command ls; AA=x", {"AA": "x"}),
    ("bash", "command export PATH=/c:$PATH", {"PATH": "/c:/usr/bin:/bin"}),
    ("bash", "builtin cd /usr/local/cuda && AA=$PWD", {"AA": "/usr/local/cuda"}),
    ("sh", "command . ~/nothing; AA=x", {"AA": "x"}),
    ("bash", "cd /nowhere || AA=no", {"AA": "no", "PWD": HOME}),
    ("bash", "cd - && AA=x; export BB=$PWD", {"BB": "?"}),
    ("bash", "cd; AA=$PWD", {"AA": HOME}),
    ("bash", "set -- a b c; shift 2; AA=$1$#", {"AA": "c1"}),
    ("bash", "set -- a; shift 3 || AA=no; BB=$1", {"AA": "no", "BB": "a"}),
    ("bash", "set -- a b; shift $RANDOM; AA=$1", {"AA": "?"}),
    ("bash", "set x y; AA=$2$*", {"AA": "yx y"}),
    ("bash", "set -eo pipefail; set +e; false; AA=x", {"AA": "x"}),
    ("bash", "set -a; AA=x; set +o allexport; BB=y", {"AA": "x", "BB": "y"}),
    ("bash", "shopt -q login_shell && AA=login || AA=not", {"AA": "?"}),
    ("bash", "shopt -oq posix && AA=posix || AA=not", {"AA": "not"}),
    ("bash", "shopt -s nullglob; shopt -u nullglob; for f in /usr/local/*/bin; do PATH=$PATH:$f; done", {"PATH": "/usr/bin:/bin:/usr/local/cuda/bin"}),
    ("bash", "shopt -s nullglob; for f in /usr/local/*/bin; do AA=$f; done", {"AA": "/usr/local/cuda/bin"}),
    ("bash", "read -r AA < /etc/hostname; printf -v BB x", {"AA": "?", "BB": "?"}),
    ("bash", "printf 'hello %s' AA; BB=x", {"AA": None, "BB": "x"}),
    ("bash", "trap 'x' EXIT; umask 022; alias PATH=x; AA=x", {"AA": "x", "PATH": "/usr/bin:/bin"}),
    ("bash", "return 1; AA=no", {"AA": None}),
    ("bash", "for i in 1 2 3; do [ $i = 2 ] && break; AA=$i; done", {"AA": "1"}),
    ("bash", "for i in 1 2 3; do [ $i = 2 ] && continue; AA=$AA$i; done", {"AA": "13"}),
    ("bash", "break; continue; AA=x", {"AA": "x"}),
    ("bash", "for i in 1 2; do [ -n \"$RANDOM\" ] && break; AA=$i; done; BB=x", {"AA": "?", "BB": "x"}),
    ("bash", "for i in 1 2; do if mystery; then break; else continue; fi; done; BB=x", {"BB": "x"}),
    ("bash", "for i in 1 2; do return; done; BB=x", {"BB": None}),
    ("bash", "while mystery; do PATH=/w:$PATH; done", {"PATH": "?"}),
    # As a function in Debian's /etc/zsh/zshrc takes its options.
    ("zsh", 'f() {\nlocal -a maps\nwhile [[ "$1" != "--" ]]; do\nmaps+=( "$1" )\nshift\ndone\nshift\nAA=$1\n}\nf a -- b\nBB=x',
     {"PATH": "/usr/bin:/bin", "AA": "b", "BB": "x"}),
    ("zsh", "f() { AA=$1; }\nf x; g () { BB=y; }; g", {"AA": "x", "BB": "y"}),
    ("bash", "while mystery; do shift; done; AA=$1", {"AA": "?", "PATH": "/usr/bin:/bin"}),
    ("bash", "until true; do PATH=/w:$PATH; done", {"PATH": "/usr/bin:/bin"}),
    ("bash", "for p in $UNKNOWN_OUTPUT $(mystery); do PATH=$PATH:$p; done", {"PATH": "?"}),
    ("bash", "if mystery; then return; else return; fi; AA=no", {"AA": None}),
    ("bash", "mystery && exit; AA=x", {"AA": "x"}),
    # evaluation
    ("bash", "echo x | read AA; ! false && BB=x", {"AA": None, "BB": "x"}),
    ("zsh", "echo x | read AA", {"AA": "?"}),
    ("bash", "$NOTHING; AA=x", {"AA": "x"}),
    ("bash", "AA=1 mystery; BB=$AA", {"AA": None, "BB": ""}),
    ("bash", "AA=1 true; BB=x", {"AA": None}),
    ("bash", "X=1 ls ${AA:=set}; BB=$AA", {"BB": "set"}),
    ("bash", "LD_LIBRARY_PATH=/l\n. /opt/ros/noetic/setup.bash", {"PATH": "</usr/bin:/bin>", "LD_LIBRARY_PATH": "</l>", "CUDA_HOME": None, "PYTHONPATH": "?"}),
    ("sh", ". ~/ws/devel/setup.sh", {"PATH": "</usr/bin:/bin>", "LD_LIBRARY_PATH": "?"}),
    ("bash", ". /usr/share/modules/init/$(ps -p $$ -ocomm=)", {"PATH": "</usr/bin:/bin>", "CUDA_HOME": "?", "AA": None}),
    ("sh", 'AA=$(dirname "${BASH_SOURCE[0]}")x', {"AA": "x"}),
    ("sh", 'AA=x$(echo ${PATH//:/ })$(echo ${NONE:?})', {"AA": "x"}),
    ("sh", "AA=$(builtin cd / && pwd)", {"AA": ""}),
    ("bash", "AA=$(id -u && whoami || echo no)", {"AA": "1000\nalice"}),
    ("bash", "AA=$(ls && whoami)", {"AA": "?"}),
    ("bash", "conda activate base", {"PATH": "</usr/bin:/bin", "LD_LIBRARY_PATH": "?", "CUDA_HOME": "?"}),
    ("bash", "conda info", {"PATH": "/usr/bin:/bin"}),
    ("bash", "nvm use 20", {"PATH": "</usr/bin:/bin"}),
    ("bash", "f() { local AA=in; BB=$AA; }; AA=out; f", {"AA": "out", "BB": "in"}),
    ("bash", "f() { local AA; AA=in; }; f", {"AA": None}),
    ("bash", "local AA=x; BB=y", {"AA": None, "BB": "y"}),
    ("bash", "declare -x AA=x; export -n AA; typeset BB+=y; BB+=z", {"AA": "x", "BB": "yz"}),
    ("bash", "AA=${BASH_SOURCE[0]}", {"AA": f"{HOME}/.bashrc"}),
    ("bash", "AA=${PATH//bin/x}", {"AA": "/usr/x:/x"}),
    ("bash", "AA=${#PATH}", {"AA": "13"}),
    ("bash", "AA=${NOTHING:?missing}; BB=x", {"AA": None}),
    ("bash", "AA=${PATH:?missing}", {"AA": "/usr/bin:/bin"}),
    ("bash", "AA=$(mystery); BB=${AA:-x}", {"BB": "?"}),
    ("bash", "AA=$(mystery); BB=${AA:+y}", {"BB": "?"}),
    ("bash", "true; AA=$?; false; [ $? -eq 0 ] && BB=yes || BB=no", {"AA": "0", "BB": "no"}),
    ("bash", "AA=$0$$; BB=$3", {"AA": "?", "BB": ""}),
    ("bash", "AA=~alice/x; BB=~bob/x", {"AA": "/home/alice/x", "BB": "?"}),
    ("bash", "AA=/a:~/b:~", {"AA": "/a:/home/alice/b:/home/alice"}),
    ("bash", 'AA=$(dirname /usr/local/cuda/); BB=$(basename "$PATH")', {"AA": "/usr/local", "BB": "bin"}),
    ("bash", "AA=$(whoami)$(id -u)$(uname)", {"AA": "alice1000Linux"}),
    ("bash", "PATH=/nowhere; AA=$(dirname /a/b)x", {"AA": "x"}),
    ("bash", "AA=$(X=1 whoami)", {"AA": "?"}),
    ("bash", "IFS=:; for p in $PATH; do AA=$AA-$p; done", {"AA": "-/usr/bin-/bin"}),
    ("bash", "IFS=; for p in $PATH; do AA=$p; done", {"AA": "/usr/bin:/bin"}),
    ("bash", "for p in /{a,b}; do PATH=$PATH:$p; done", {"PATH": "/usr/bin:/bin:/a:/b"}),
    ("bash", "for f in ~/{none,one}.{zsh,sh}; do [ -r $f ] && . $f; done", {"AA": "one", "PATH": "/one:/usr/bin:/bin"}),
    ("bash", "for p in /x{1..3} /{y,} /{z}; do PATH=$PATH:$p; done", {"PATH": "/usr/bin:/bin:/x1:/x2:/x3:/y:/:/{z}"}),
    ("bash", "for p in /{a,{b,c}/d}; do PATH=$PATH:$p; done", {"PATH": "/usr/bin:/bin:/a:/b/d:/c/d"}),
    ("bash", "for p in /{a,b /{01..02}; do PATH=$PATH:$p; done", {"PATH": "?"}),
    ("bash", "export AA=/{a,b}", {"AA": "/b"}),
    ("sh", "for p in /{a,b}; do PATH=$PATH:$p; done", {"PATH": "/usr/bin:/bin:/{a,b}"}),
    ("bash", "cd /usr/local; for p in c*; do AA=$p; done", {"AA": "cuda"}),
    ("bash", "case $NOTHING$PATH in *cuda*) AA=1 ;; ?usr*|x) AA=2 ;; *) AA=3 ;; esac", {"AA": "2"}),
    ("bash", "case $(mystery) in x) AA=1 ;; *) AA=2 ;; esac", {"AA": "?"}),
    ("bash", "case x in y) AA=1 ;; esac && BB=x", {"AA": None, "BB": "x"}),
    ("bash", "((AA=1)); let BB=2", {"AA": "?", "BB": "?"}),
    ("bash", "(AA=1; PATH=/x); mystery & BB=$?", {"AA": None, "PATH": "/usr/bin:/bin", "BB": "0"}),
    ("zsh", "emulate zsh; AA=x", {"AA": "x"}),
    ("zsh", "for d in /a $NOTHING; do PATH=$PATH:$d; done", {"PATH": "/usr/bin:/bin:/a"}),
    # fish
    ("fish", "source ~/one.fish", {"PATH": "/one:/usr/bin:/bin"}),
    ("fish", "source ~/nothing.fish; or set -gx AA none", {"AA": "none"}),
    ("fish", "if not test -d /nowhere; and test 'x' = 'x'\nset -gx AA yes\nelse if test -d /usr\nset -gx AA other\nelse\nset -gx AA no\nend", {"AA": "yes"}),
    ("fish", "if test ! -d /usr\nset -gx AA yes\nelse if mystery\nset -gx AA may\nelse\nset -gx AA no\nend", {"AA": "?"}),
    ("fish", "test -n \"$PATH\"; and set -gx AA yes; test -z \"$NOTHING\"; and set -gx BB yes", {"AA": "yes", "BB": "yes"}),
    ("fish", "test x; and set -gx AA yes; test a != a; and set -gx BB no", {"AA": "yes", "BB": None}),
    ("fish", "[ -d /usr ]; and set -gx AA yes", {"AA": "yes"}),
    ("fish", "switch (uname)\ncase Linux Darwin\nset -gx AA 1\ncase '*'\nset -gx AA 2\nend", {"AA": "?"}),
    ("fish", "switch $USER\ncase bob\nset -gx AA 1\ncase 'al*'\nset -gx AA 2\nend", {"AA": "2"}),
    ("fish", "function f\nset -gx AA f\nreturn\nset -gx AA no\nend\nf", {"AA": "f"}),
    ("fish", "if mystery\nreturn\nend\nset -gx AA x", {"AA": "?"}),
    ("fish", "if mystery\nfunction f\nset -gx AA a\nend\nelse\nfunction f\nset -gx AA b\nend\nend\nset -gx BB x\nf", {"AA": "?", "BB": "?"}),
    ("fish", "pyenv init - | source", {"PATH": "</usr/bin:/bin"}),
    ("fish", "starship init fish | source; set -gx AA x", {"PATH": "/usr/bin:/bin", "AA": "x"}),
    ("fish", "source (starship init fish | psub)", {"PATH": "/usr/bin:/bin"}),
    ("fish", "eval (brew shellenv)", {"PATH": "</usr/bin:/bin"}),
    ("fish", "eval set -gx AA x", {"AA": "x"}),
    ("fish", "conda activate base", {"PATH": "</usr/bin:/bin", "LD_LIBRARY_PATH": "?"}),
    ("fish", "conda info; nvm use 20", {"PATH": "</usr/bin:/bin"}),
    ("fish", "export AA=x BB; export PATH=\"/e:$PATH\"", {"AA": "x", "BB": None, "PATH": "/e:/usr/bin:/bin"}),
    ("fish", "export AA=(mystery) BB=x; export CC=pre(mystery); export DD=\"a$(mystery)\"", {"AA": "?", "BB": "x", "CC": "?", "DD": "a?"}),
    ("fish", "set -l PP /l; set -gx PATH $PP $PATH", {"PATH": "/l:/usr/bin:/bin"}),
    ("fish", "set -l AA in; set -g AA out", {"AA": "out"}),
    ("fish", "set -gx --path AA /a /b; set -a AA /c; set -p AA /z", {"AA": "/z:/a:/b:/c"}),
    ("fish", "set; set -e AA; set 1a x; set -x BB x; set -u BB y", {"BB": "y"}),
    ("fish", "fish_add_path -P --append /usr/local/cuda/bin /nowhere", {"PATH": "/usr/bin:/bin:/usr/local/cuda/bin"}),
    ("fish", "fish_add_path /usr/local/cuda/bin; fish_add_path /usr/local/cuda/bin/", {"PATH": "/usr/local/cuda/bin:/usr/bin:/bin"}),
    ("fish", "contains -- /bin $PATH; and set -gx AA yes", {"AA": "yes"}),
    ("fish", "command -v ls; and set -gx AA yes; type -q nvcc; and set -gx BB no", {"AA": "yes", "BB": None}),
    ("fish", "command ls; and set -gx AA may", {"AA": "?"}),
    ("fish", "status is-interactive; or set -gx AA not; status --is-login; or set -gx BB not", {"AA": "not", "BB": "not"}),
    ("fish", "set -gx AA 'a\\'b'; set -gx BB \"q\\\"\\$x\\n\"", {"AA": "a'b", "BB": 'q"$x\\n'}),
    ("fish", "set -gx AA \"x$(mystery)\"; set -gx BB a\\ b", {"AA": "x?", "BB": "a b"}),
    ("fish", "set -gx AA one \\\n two >/dev/null 2>&1 # comment", {"AA": "one two"}),
    ("fish", "set -gx AA /usr/local/c*/bin", {"AA": "/usr/local/cuda/bin"}),
    ("fish", "set -gx PATH $PATH[1] /x", {"PATH": "/usr/bin:/x"}),
    ("fish", "set -gx PATH $PATH[1..1] /x", {"PATH": "?"}),
    ("fish", "for d in /a /b; set -gx PATH $d $PATH; end; time test -d /usr && set -gx AA x || set -gx AA y", {"PATH": "/b:/a:/usr/bin:/bin", "AA": "x"}),
    # csh
    ("csh", "setenv AA $user; setenv BB $?NOTHING", {"AA": "alice", "BB": "0"}),
    ("csh", "if ($?PATH) setenv AA yes", {"AA": "yes"}),
    ("csh", 'if ( "$USER" != "bob" ) setenv AA yes', {"AA": "yes"}),
    ("csh", "if ( $USER =~ al* ) then\nsetenv AA yes\nendif", {"AA": "yes"}),
    ("csh", "if (mystery) then\nsetenv AA 1\nelse if (-d /usr) then\nsetenv AA 2\nelse\nsetenv AA 3\nendif", {"AA": "?"}),
    ("csh", "foreach f (`ls /home/alice/one.c*`)\nsource $f\nend", {"AA": "one", "PATH": "/usr/bin:/bin"}),
    ("csh", "set path = (/usr/local/c*/bin $path)", {"PATH": "/usr/local/cuda/bin:/usr/bin:/bin"}),
    ("csh", "set path = (`mystery` $path)", {"PATH": "?"}),
    ("csh", "set path = (`ls /usr/local` $path)", {"PATH": "?"}),
    ("csh", "set path = (`ls /usr/local/c*` $path)", {"PATH": "?"}),
    ("csh", "set path = (`ls -d /usr/local/cuda` $path)", {"PATH": "?"}),
    ("csh", "set path = (`ls /nowhere` $path)", {"PATH": "?"}),
    ("csh", "set path = (`ls /home/alice/one.csh /usr` $path)", {"PATH": "?"}),
    ("csh", "set path = (`/bin/ls ~/one.csh` $path)", {"PATH": "/home/alice/one.csh:/usr/bin:/bin"}),
    ("csh", "set path = /only", {"PATH": "/only"}),
    ("csh", "set x = (/a /b)\nforeach d ($x)\nsetenv PATH ${PATH}:$d\nend", {"PATH": "/usr/bin:/bin:/a:/b"}),
    ("csh", "source ~/one.csh; setenv BB x", {"AA": "one", "BB": "x"}),
    ("csh", "source ~/exit.csh; setenv BB x", {"AA": None, "BB": "x"}),
    ("csh", "exec bash\nsetenv AA no", {"AA": None}),
    ("csh", "source ~/nothing\nsetenv AA no", {"AA": None}),
    ("csh", "eval `dircolors -c`; setenv AA x", {"AA": "x"}),
    ("csh", "eval `brew shellenv`", {"PATH": "</usr/bin:/bin"}),
    ("csh", "conda activate base", {"PATH": "</usr/bin:/bin", "LD_LIBRARY_PATH": "?"}),
    ("csh", "onintr -; setenv AA x", {"AA": "x"}),
    ("csh", "mystery | setenv AA no; mystery & ; setenv BB x", {"AA": None, "BB": "x"}),
    ("csh", "mystery && setenv AA may", {"AA": "?"}),
    ("csh", "setenv AA 'a b'\\ c; setenv BB \"q$USER\"", {"AA": "a b c", "BB": "qalice"}),
    ("csh", "setenv AA ~/x; setenv BB ~bob/x", {"AA": "/home/alice/x", "BB": "?/x"}),
    ("csh", "setenv AA ~alice/x; setenv BB ~$USER/x", {"AA": "/home/alice/x", "BB": "?"}),  # its name is put together
    ("csh", "setenv AA ~; setenv BB x:~/y", {"AA": "/home/alice", "BB": "x:~/y"}),
    ("csh", "setenv AA $PATH:h; setenv BB x$", {"AA": "?", "BB": "x?"}),
    ("csh", "switch ($USER)\ncase bob:\nsetenv AA 1\nbreaksw\ndefault:\nsetenv AA 2\nendsw", {"AA": "2"}),
    ("csh", "unsetenv PATH; setenv; set; set 1=2", {"PATH": None}),
    # All words of a command are expanded before it sets anything.
    ("bash", "AA=old; export AA=new BB=$AA", {"AA": "new", "BB": "old"}),
    ("bash", "AA=old; export AA={new,$AA}", {"AA": "old"}),
    ("zsh", "AA=old; export AA=new BB=$AA", {"AA": "new", "BB": "old"}),
]  # fmt: skip


@pytest.mark.parametrize(("shell", "text", "expected"), KNOWN, ids=[f"{s}: {t}"[:70] for s, t, _ in KNOWN])
def test_after_these_lines(read: Read, shell: str, text: str, expected: dict[str, str | None]) -> None:
    seen = read(shell, text + "\n")
    assert {name: seen[name] for name in expected} == expected


# What the real shells answer (dash where "sh" stands) to `$?` before a command of the line has ended.
STATUS: list[tuple[str, str, str]] = [
    # shells, text, what AA is then
    ("bash sh zsh", "false; AA=$?", "1"),
    ("bash sh zsh", "[ -d /nowhere ]; AA=$?", "1"),
    ("bash sh zsh", "false; export AA=$?", "1"),
    ("bash sh zsh", "true; AA=$?", "0"),
    ("bash sh zsh", "true; export AA=$?", "0"),
    ("bash sh zsh", "false; BB=x; AA=$?", "0"),
    ("bash sh zsh", "false; export BB=x; AA=$?", "0"),
    ("bash sh zsh", "PATH=/no; BB=$(nowhere); AA=$?", "127"),
    ("bash sh zsh", "PATH=/no; $(nowhere); AA=$?", "127"),
    ("bash sh zsh", "false; BB=$(id -u); AA=$?", "0"),
    ("bash zsh", "false; BB=$(id -u) AA=$?", "0"),
    ("sh", "false; BB=$(id -u) AA=$?", "1"),
    ("bash zsh", "false; export BB=$(id -u) AA=$?", "0"),
    ("sh", "false; export BB=$(id -u) AA=$?", "1"),
    ("sh", "f() { AA=$?; }; false; f $(id -u)", "1"),
    ("sh", "false; case $(id -u) in *) AA=$?;; esac", "1"),
    ("bash zsh", "BB=$((1$(false))); AA=$?", "1"),
    ("bash zsh", "BB=($(false)); AA=$?", "1"),
    ("bash zsh", "BB=${PATH//$(false)/x}; AA=$?", "1"),
    ("bash sh zsh", "if false; then :; else AA=$?; fi", "1"),
    ("bash sh zsh", "false; for i in 1; do AA=$?; done", "1"),
    ("bash sh zsh", "false; for i in; do :; done; AA=$?", "0"),
    ("bash sh zsh", "false; case x in x) AA=$?;; esac", "1"),
    ("bash sh zsh", "false; case x in x) ;; esac; AA=$?", "0"),
    ("bash sh zsh", "false; eval 'AA=$?'", "1"),
    ("bash sh zsh", "false; eval ''; AA=$?", "0"),
    ("bash sh", "false; command eval 'AA=$?'", "1"),
    ("bash sh zsh", "false; . ~/status.sh", "1"),
    ("bash sh zsh", "false; . ~/empty.sh; AA=$?", "0"),
    ("bash", "false; source; AA=$?", "2"),
    ("bash sh zsh", "f() { false; return; }; f; AA=$?", "1"),
    ("bash sh zsh", "f() { local AA=$?; BB=$AA; }; false; f; AA=$BB", "1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("shell", "text", "status"), [(shell, text, status) for names, text, status in STATUS for shell in names.split()]
)
def test_a_status_is_the_real_one_or_unknown(read: Read, tmp_path: Path, shell: str, text: str, status: str) -> None:
    # Only of success it is known which number it is.
    assert read(shell, f"{text}\n")["AA"] == ("0" if status == "0" else "?")
    program = f"/bin/{'dash' if shell == 'sh' else shell}"
    if os.path.exists(program):
        words = [program, "-c", f'{text}\necho "AA=$AA"']
        home = {"HOME": f"{tmp_path}{HOME}", "PATH": START["PATH"]}
        done = subprocess.run(words, check=False, env=home, capture_output=True, text=True, timeout=20)
        assert done.stdout == f"AA={status}\n"


def test_nothing_is_known_of_the_status_where_nothing_is_known_at_all(read: Read) -> None:
    assert read("bash", 'f() { eval "$(mystery)"; }; f; AA=$?')["AA"] == "?"
    assert read("bash", ". ~/mystery.sh && AA=yes || AA=no")["AA"] == "?"


def test_fish_exports_of_what_a_program_prints_leave_nothing_known(read: Read) -> None:
    assert read("fish", "export (cat ~/.env)\n")["PATH"] == "?"


# shell, text, the reason why nothing is known any more
DOUBTED: list[tuple[str, str, str]] = [
    ("bash", "unset $(mystery)", "unset"),
    ("bash", 'source "$(mystery)"', "cannot tell which file it sources"),
    ("bash", "PATH=$(mystery)\nsource two.sh", "cannot tell which two.sh of PATH it sources"),
    ("bash", "source <(mystery)", "source of the output of mystery"),
    ("bash", "source /dev/stdin", "cannot read /dev/stdin, which it sources"),
    ("bash", 'eval "$(mystery)"', "eval of the output of mystery"),
    ("bash", "eval $(mystery)", "eval of the output of mystery"),
    ("bash", 'eval "$1$UNSEEN$(mystery | x)"', "cannot tell which text eval runs"),
    ("bash", "set $(mystery)", "set"),
    ("bash", "set -n", "set -n"),
    ("bash", "exec -a x bash", "exec with options"),
    ("bash", "for i in 1; do for j in 2; do break 2; done; done", "cannot follow a jump out of several loops"),
    ("bash", "for i in 1; do for j in 2; do continue 2; done; done", "cannot follow a jump out of several loops"),
    ("bash", "case x in x) AA=1 ;& *) AA=2 ;; esac", "a case that goes on with ;&"),
    ("bash", "$(mystery) x", "cannot tell which command it runs"),
    ("bash", "module load cuda", "module"),
    ("bash", "while mystery; do source ~/one.sh; done", "cannot follow this loop"),
    ("sh", "while mystery; do shift; done", "cannot follow this loop"),
    ("bash", "f() { f; }; f", "deep"),
    ("bash", "export $(mystery)", "cannot tell what export sets"),
    ("zsh", "emulate sh", "emulate"),
    ("fish", "mystery | while read x\nend", "a pipe into a block"),
    ("fish", "set AA )", "cannot follow this syntax"),
    ("fish", "if begin; true; end\nend", "a block as a condition"),
    ("fish", "if true\nelse what\nend", "cannot follow this else"),
    ("fish", "$MYSTERY x", "cannot tell which command it runs"),
    ("fish", "module load cuda", "module changes the environment"),
    ("fish", "set --show PATH x", "cannot follow this use of set"),
    ("fish", "set 'PATH[1]' /x", "cannot follow a set of a part of a list"),
    ("fish", "set -l PATH /x", "a local PATH"),
    ("fish", "set -U fish_user_paths (mystery)", "cannot tell the value of fish_user_paths"),
    ("fish", "fish_add_path --dry-run /x", "cannot follow the options of fish_add_path"),
    ("fish", "fish_add_path (mystery)", "cannot tell what fish_add_path sets"),
    ("fish", "source (mystery)", "cannot tell which file it sources"),
    ("fish", "export (mystery)=x", "cannot tell what export sets"),
    ("fish", "export A(mystery)", "cannot tell what export sets"),
    ("fish", "eval (mystery)", "runs the output of mystery"),
    ("fish", "mystery | source", "runs the output of mystery"),
    ("fish", "function f\nf\nend\nf", "deep"),
    ("csh", "foreach d (/a)\nsetenv AA x", "the file ends within a loop"),
    ("csh", "switch (x)\ncase x:", "the file ends within a block"),
    ("csh", "while (1)\nsetenv AA x\nend", "this loop does not end"),
    ("csh", "foreach d (`ls /usr/local`)\nsetenv PATH ${PATH}:$d\nend", "cannot tell what this loop runs over"),
    ("csh", "foreach d (`mystery`)\nend", "cannot tell what this loop runs over"),
    ("csh", "`mystery` x", "cannot tell which command it runs"),
    ("csh", "if (1", "cannot follow this if"),
    ("csh", "&& setenv AA x", "cannot follow && or || without a command beside it"),
    ("csh", "goto end", "cannot follow goto"),
    ("csh", "module load cuda", "module changes the environment"),
    ("csh", "setenv `mystery` x", "cannot tell what setenv sets"),
    ("csh", "source `mystery`", "cannot tell which file it sources"),
    ("csh", "eval `mystery`", "runs the output of mystery"),
]  # fmt: skip


@pytest.mark.parametrize(("shell", "text", "reason"), DOUBTED, ids=[f"{s}: {t}"[:70] for s, t, _ in DOUBTED])
def test_these_lines_make_everything_unknown_with_the_reason(read: Read, shell: str, text: str, reason: str) -> None:
    seen = read(shell, f"{text}\n")
    assert reason in seen.doubts
    assert seen["PATH"] == "?"
    assert seen["HOME"] == HOME


# shell, text, how the shell that starts the session ends
ENDED: list[tuple[str, str, str, str]] = [
    ("bash", "exit", "exit", "exit ends the shell"),
    ("bash", "exec mystery", "exec", "exec mystery replaces the shell"),
    ("bash", "set -e\nfalse", "set -e", "a command fails after set -e"),
    ("sh", ". /nowhere", "missing", "sources /nowhere, which cannot be read"),
    ("sh", "export 1a=x", "error", "export: 1a=x: bad variable name"),
    ("sh", "unset 1a", "error", "unset: 1a: bad variable name"),
    ("sh", "set -o emacs -o what", "error", "set: Illegal option -o what"),
    ("sh", "shift 3", "error", "shift: can't shift that many"),
    ("sh", "local AA=x", "error", "local: not in a function"),
    ("sh", "AA=${PATH//a/b}", "error", "Bad substitution"),
    ("sh", "eval 'if'", "syntax", "eval:"),
    ("sh", ". /opt/ros/noetic/setup.bash", "error", "/opt/ros/noetic/setup.bash is not for sh: sources /setup.sh"),
]


@pytest.mark.parametrize(("shell", "text", "how", "words"), ENDED, ids=[f"{s}: {t}" for s, t, _, _ in ENDED])
def test_these_lines_end_the_session(read: Read, shell: str, text: str, how: str, words: str) -> None:
    ending = read(shell, f"{text}\n").ending
    assert ending is not None
    assert (ending.how, ending.source.split(":")[0]) == (how, f"{HOME}/{NAMES[shell]}")
    assert words in ending.text


@pytest.mark.parametrize(
    ("shell", "text", "problem"),
    [
        ("bash", "export PATH = /x:$PATH", ("PATH", "space-around-equals")),
        ("csh", "PATH = /x", ("PATH", "space-around-equals")),
        ("csh", "setenv PATH = /x", ("PATH", "space-around-equals")),
        ("csh", "setenv PATH=/x", ("PATH", "space-around-equals")),
        ("csh", "setenv PATH /a /b", ("PATH", "space")),
        ("csh", "setenv LD_LIBRARY_PATH /l:$LD_LIBRARY_PATH", ("LD_LIBRARY_PATH", "undefined-variable")),
        ("fish", "set -gx LD_LIBRARY_PATH /l:$LD_LIBRARY_PATH", ("LD_LIBRARY_PATH", "undefined-variable")),
    ],
)
def test_a_malformed_line_is_named(read: Read, shell: str, text: str, problem: tuple[str, str]) -> None:
    assert problem in read(shell, f"{text}\n").problems


def test_csh_stops_reading_at_an_undefined_variable(read: Read) -> None:
    seen = read("csh", "setenv AA 1\nsetenv BB $NOTHING\nsetenv AA 2\n")
    assert (seen["AA"], seen["BB"], seen["PATH"]) == ("1", None, "/usr/bin:/bin")


@pytest.mark.parametrize(
    ("shell", "text"), [("bash", "[ -t 0 ] || AA=x"), ("fish", "status is-interactive; or set AA x")]
)
def test_a_terminal_is_told_from_none(read: Read, shell: str, text: str) -> None:
    assert read(shell, text, interactive=False)["AA"] == "x"


@pytest.mark.parametrize("shell", ["fish", "csh"])
def test_a_file_that_nobody_can_read_leaves_nothing_known(read: Read, shell: str, tmp_path: Path) -> None:
    path = tmp_path / HOME[1:] / ("later.fish" if shell == "fish" else "later.csh")
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    seen = read(shell, f"source {HOME}/{path.name}\n")
    assert seen["PATH"] == "?"
    assert path.name in seen.doubts


@pytest.mark.parametrize("shell", ["fish", "csh"])
def test_files_that_source_themselves_end(read: Read, shell: str) -> None:
    seen = read(shell, f"source {HOME}/{NAMES[shell]}\n")
    assert "deep" in seen.doubts


def test_universal_variables_of_fish_come_first(read: Read, tmp_path: Path) -> None:
    universal = tmp_path / "home/alice/.config/fish/fish_variables"
    universal.parent.mkdir(parents=True)
    universal.write_text(
        "# VERSION: 3.0\nSETUVAR --export AA:one\\x20two\nSETUVAR BB:\\x00\nSETUVAR fish_user_paths:/u\\x1e/usr/bin\n"
    )
    seen = read("fish", "set -U fish_user_paths /w\n")
    assert (seen["AA"], seen["BB"], seen["PATH"]) == ("one two", None, "/w:/usr/bin:/bin")
