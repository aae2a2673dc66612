"""The evaluator against real zsh, fish, tcsh and csh, on generated start-up files: what it calls known is what the shell
gives."""

import random
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from dlhealth.host.account import Account
from dlhealth.host.root import RootHost
from dlhealth.shell.start import Starter
from dlhealth.shell.state import Session, Variable
from dlhealth.shell.values import known_elements

START = {"PATH": "/usr/bin:/bin", "USER": "root", "LOGNAME": "root"}
VARIABLES = ("PATH", "LD_LIBRARY_PATH", "AA", "BB")
CASES = 60

ZSH = [
    "export PATH=$HOME/bin:$PATH", "path+=(/a /b)", "path=(/c $path)", "path=(~/d $path /e)", "typeset -U path", "typeset -U PATH path",
    "export LD_LIBRARY_PATH=/l:$LD_LIBRARY_PATH", "export LD_LIBRARY_PATH=/l${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}}", "AA=x", "export AA=$PATH",
    'BB="a b"', "export BB=$BB", "[[ -d /usr ]] && path=(/usr/games $path)", "if [[ -d /nonexistent ]]; then\nPATH=/no\nfi",
    "if [[ -n $AA ]]; then\nexport BB=set\nelse\nexport BB=unset\nfi", "unset AA", "case $PATH in\n*/a:*) export AA=has ;;\n*) export AA=not ;;\nesac",
    "for d in /u /v; do\nPATH=$PATH:$d\ndone", "for d in /u /v; {\nPATH=$PATH:$d\n}", "autoload -Uz compinit", "bindkey -e", "setopt autocd",
    "zstyle ':completion:*' menu select", "plugins=(git docker)", "alias ll='ls -l'", "f() { path+=(/f) }\nf", "function g {\nexport AA=g\n}\ng",
    "(( ${+commands[ls]} )) && export BB=ls", "if (( $+commands[nonexistent] )); then\nexport BB=no\nfi", "export PATH=/p:$PATH:/p", "source ~/.extra",
    ". ~/.missing", "[ -f ~/.extra ] && . ~/.extra", "export AA=${PATH%%:*}", "export AA=${BB:-default}", "fpath=(~/f $fpath)", "export AA=~/x:~/y",
    "typeset -x AA=typeset", "export AA='$PATH'", 'export AA="\\${PATH}"', "PATH+=:/plus", "AA+=more", "export PATH", "hash -r", "emulate sh -c 'AA=1'",
    "return", "[[ $- == *i* ]] || return", "[[ -o interactive ]] && export AA=i", "export MANPATH=/m:$MANPATH", "PATH=${PATH}:/q\nexport PATH", "true && AA=1 || AA=2",
    'export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"', "eval 'AA=ev'", "eval \"$(/bin/echo AA=ev2)\"", "local_var=$(/bin/echo x)", "export AA=$PATH:h", "export AA=$path[1]",
    "() { path+=(/anon) }", "path[1]=()", "path=(${path:#/bin})", "export AA=${(j.:.)path}", "if true { AA=short }", "while false; do AA=w; done", "repeat 2 { AA=r }",
    "typeset -TUx LD_LIBRARY_PATH ld_library_path\nld_library_path=(/t $ld_library_path)\nld_library_path+=(/t /t2)", "typeset -T LD_LIBRARY_PATH ld_library_path",
    "path[1,0]=/sub", "path+=/one", "PATH+=/glued", "path=(/usr/bin(N) /nonexistent(N) /usr/games(N-/) /etc/passwd(N/) /etc/passwd(N.) $path)", "path=(/usr/{,s}bin(N) $path)", "path=(/usr/b*(N) $path)",
    "g() { AA=$1; [[ -d $1 ]] && path=($1 $path) }\ng /usr", "if [ -d /usr ]; then export BB=bracket; fi", "[ -s /nonexistent ] && \\. /nonexistent", "for d (/r /s) PATH=$PATH:$d",
    "for d (/r /s) { AA=$d }", "for d (/r /s); do BB=$d; done", "for d in /br{a,c} /{1..2}; do PATH=$d:$PATH; done", "export AA=/{a,b}", "[[ $PATH == /bin:/usr/bin ]] && AA=same", "[[ -z $PATH ]] && AA=none",
]  # fmt: skip
FISH = [
    "set -gx PATH /a $PATH", "set -x PATH $PATH /b", "set PATH /c $PATH", "fish_add_path /usr/games", "fish_add_path /nonexistent", "fish_add_path -a /usr/sbin",
    "set -gx LD_LIBRARY_PATH /l $LD_LIBRARY_PATH", 'set -gx LD_LIBRARY_PATH "/l:$LD_LIBRARY_PATH"', "set -gx AA x", "set AA y", "set -x BB a b", "set -e AA", "set -gx AA $HOME/x",
    "if test -d /usr\nset -gx AA usr\nend", "if test -d /nonexistent\nset -gx AA no\nelse\nset -gx AA yes\nend", "test -d /usr; and set -gx BB and", "test -d /nonexistent; or set -gx BB or",
    "if status is-interactive\nset -gx AA inter\nend", "if status --is-login\nset -gx AA login\nend", "if not contains /a $PATH\nset -gx PATH /a $PATH\nend", "for d in /u /v\nset PATH $d $PATH\nend",
    "switch $HOME\ncase '/tmp/*'\nset -gx AA home\ncase '*'\nset -gx AA other\nend", "function f\nset -gx BB f\nend\nf", "alias ll 'ls -l'", "set fish_greeting", "source ~/.extra.fish", "set -U fish_user_paths /usr/games",
    "test -f ~/.missing && source ~/.missing", "begin\nset -gx AA begin\nend", "set -q AA; or set -gx AA default", "set -q BB && set -gx BB again", "set -gx AA 'single $PATH'", 'set -gx AA "double $HOME"', "set -gx AA a\\ b",
    "set -gx AA (echo out)", "set -gx AA (string join : a b)", "echo hello >/dev/null", "set -gx AA $nothing/x", "set -gx AA pre$nothing", "export AA=exported", "set -a PATH /app", "set -p PATH /prep", "set -gx PATH ~/bin $PATH", "set -gx PATH /k:$PATH", "fish_add_path -P /usr/sbin", "set fish_user_paths /w $fish_user_paths", 'export PATH="/ex:$PATH"',
    "command -v ls >/dev/null; and set -gx BB ls", "type -q nonexistent; and set -gx BB no", "set -gx AA {a,b}", "set -gx AA /usr/b*n", "if test -d /usr; and test -d /etc\nset -gx AA both\nend", "if test -d /x || test -d /usr\nset -gx AA either\nend",
    "set -l AA local", "set PATH /usr/bin /bin", "set -gx CUDA_HOME /usr/local/cuda; set -gx PATH $CUDA_HOME/bin $PATH", "set -gx PATH /semi:/colon $PATH", "return", "while false\nset AA w\nend", "true | cat", "eval 'set -gx AA ev'", "set -x AA",
    "set --export AA long", "set -gx --path BB a b", "set -u AA", "# comment 'x", "set -gx AA x # comment", "if true; set -gx AA oneline; end", "not test -d /usr; and set -gx AA not", "! test -d /nonexistent; and set -gx AA bang",
    "fish_add_path -aP /usr/sbin /usr/bin", "fish_add_path --move --prepend /bin", "fish_add_path -gPm /bin", "fish_add_path -m /usr/games", "fish_add_path -aPv /nonexistent", "set -Ux PATH /c/bin", "set -Ux LD_LIBRARY_PATH /uni", "set -g fish_user_paths /usr/sbin", "set -Ux AA uni", "set -g AA glob",
    "function p\nif test -d $argv[1]\nset -gx PATH $argv[1] $PATH\nend\nend\np /usr\np /nonexistent", "function q -a one two\nset -gx AA $one-$two\nset -gx BB $argv[-1]\nend\nq a b", "function r\nset -gx PATH $argv $PATH\nend\nr /r1 /r2\nr",
    "if test (/usr/bin/id -u) = 0\nset -gx AA root\nend", "switch (uname)\ncase Linux\nset -gx BB linux\nend", "set -gx AA $PATH[1]", "set -gx AA $PATH[99]", 'set -gx AA "$PATH[-1]"',
]  # fmt: skip
CSH = [
    "setenv PATH /a:$PATH", 'setenv PATH "/b:${PATH}"', "setenv PATH ${PATH}:/c", "set path = (/d $path)", "set path=($path /e)", "set path = ( ~/bin $path /usr/games )",
    "setenv LD_LIBRARY_PATH /l", "if ($?LD_LIBRARY_PATH) then\nsetenv LD_LIBRARY_PATH /m:$LD_LIBRARY_PATH\nelse\nsetenv LD_LIBRARY_PATH /m\nendif", "setenv LD_LIBRARY_PATH /n:$LD_LIBRARY_PATH",
    "setenv AA x", "set AA = y", "set BB=z", "setenv BB $HOME/b", "unsetenv AA", "unset BB", "if (-d /usr) setenv AA usr", "if ( -d /nonexistent ) setenv AA no", "if (-e ~/.extra) source ~/.extra", "source ~/.extra", "source ~/.missing",
    "if ($?prompt) then\nsetenv AA prompt\nendif", "if (! $?prompt) setenv AA noprompt", "if ($?tcsh) setenv BB tcsh", "foreach d (/u /v)\nsetenv PATH ${PATH}:$d\nend", "switch ($HOME)\ncase /tmp/*:\nsetenv AA home\nbreaksw\ndefault:\nsetenv AA other\nbreaksw\nendsw",
    "alias ll 'ls -l'", "set history = 100", "umask 022", "setenv AA 'single quoted'", 'setenv AA "double $HOME"', "setenv AA `echo out`", "# comment '", "setenv AA", "if (\"$HOME\" == \"/x\") then\nsetenv AA x\nelse if (-d /etc) then\nsetenv AA etc\nelse\nsetenv AA none\nendif",
    "setenv PATH /usr/bin:/bin:/r", "set noglob; setenv AA glob; unset noglob", "setenv AA 1; setenv BB 2", "if ($?AA && $?BB) setenv BB both", "if ($?AA || $?BB) setenv BB either", "echo hello > /dev/null", "test -d /usr && setenv AA and", "setenv AA a\\ b", "setenv PATH = /x",
    "if (! -d /nonexistent) then\nsetenv BB not\nendif", "set x = (one two)\nsetenv AA $x[1]", "eval 'setenv AA ev'", "exit", "rehash", "set path = /single", "setenv MANPATH /m", "if (-d /usr && ! -d /nonexistent) setenv AA logic", "@ n = 1", "while (0)\nsetenv AA w\nend",
]  # fmt: skip
SHELLS: Mapping[str, tuple[str, list[str], str, str]] = {
    # shell: file, lines, the file that lines source, and what that has
    "zsh": (".zshenv", ZSH, ".extra", "path=(/extra $path)\n"),
    "fish": (".config/fish/config.fish", FISH, ".extra.fish", "set -gx PATH /extra $PATH\n"),
    "tcsh": (".tcshrc", CSH, ".extra", "setenv PATH /extra:$PATH\n"),
    "csh": (".cshrc", CSH, ".extra", "setenv PATH /extra:$PATH\n"),
}


def write(home: Path, shell: str, lines: list[str]) -> None:
    file, _, extra, content = SHELLS[shell]
    for name, text in ((file, "\n".join(lines) + "\n"), (extra, content)):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def known(environment: Mapping[str, str], shell: str, program: str) -> Session:
    """What the evaluator makes of a home directory's files, when a shell starts with this environment."""
    host = RootHost("/")
    session = Session(host, Account("root", 0, 0, (0,), environment["HOME"], program), terminal=False)
    session.state.variables.update({n: Variable(v, True) for n, v in environment.items()})
    machine = Starter(host)
    if shell == "zsh":
        machine.zsh(session, login=False, interactive=False)
    elif shell == "fish":
        machine.fish(session, login=False, interactive=False)
    else:
        machine.csh(session, shell, login=False, interactive=False)
    return session


def agree(session: Session, seen: Mapping[str, str]) -> str:
    """ "" or what is wrong."""
    for name in VARIABLES:
        variable, real = session.state.get(name), seen.get(name)
        if variable.exported is False or variable.value is None:
            if real is not None and variable.exported is not None:
                return f"{name} is {real!r}, not unset"
        elif real is None:
            if variable.exported is True and variable.value != "\0":
                return f"{name} is not set, not {variable.value!r}"
        else:
            pattern = "".join(
                {"\0": ".*", "\1": "(?:.*:)?", "\2": "(?::.*)?"}.get(c) or re.escape(c) for c in variable.value
            )
            if not re.fullmatch(pattern, real, re.DOTALL) or not set(known_elements(variable.value)) <= set(
                real.split(":")
            ):
                return f"{name} is {real!r}, not {variable.value!r}"
    return ""


@pytest.mark.parametrize("shell", SHELLS)
def test_known_is_what_the_shell_gives(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    chance = random.Random(shell)
    pool = SHELLS[shell][1]
    cases = [[line] for line in pool] + [chance.sample(pool, 5) for _ in range(CASES)]
    wrong, told = [], 0
    for number, lines in enumerate(cases):
        home = tmp_path / str(number)
        write(home, shell, lines)
        environment = START | {"HOME": str(home), "SHELL": program, "PWD": str(home)}
        session = known(environment, shell, program)  # before fish writes files of its own
        out = subprocess.run(
            [program, "-c", "/usr/bin/env -0"],
            check=False,
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
        ).stdout.decode(errors="surrogateescape")
        seen = dict(pair.partition("=")[::2] for pair in out.split("\0") if pair)
        told += "\0" not in (session.state.get("PATH").value or "")
        if seen and (problem := agree(session, seen)):
            wrong.append((problem, lines))
    assert not wrong, "\n".join(f"{problem}\n    {lines}" for problem, lines in wrong)
    assert told > len(cases) / 4, "too little is known"
