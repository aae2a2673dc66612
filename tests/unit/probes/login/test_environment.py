"""What logins give: PAM's files, the files of each shell and display manager, malformed lines, and hostile ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dlhealth.host.root import RootHost
from dlhealth.probes import Options
from dlhealth.probes.login.environment import Environments, LoginEnvironment, excerpt
from dlhealth.probes.login.users import Users
from dlhealth.shell.malformed import corrected
from dlhealth.testing import Machine

STANDARD = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
Probe = Callable[[Machine], Environments]


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    def run(machine: Machine) -> Environments:
        host = RootHost(str(machine.build(tmp_path)))
        return Environments.probe(host, Users.probe(host, Options()))

    return run


def login(environments: Environments, kind: str = "interactive", user: str = "alice") -> LoginEnvironment:
    found = environments.get(user, kind)
    assert found
    return found


def ubuntu() -> Machine:
    """/etc/profile leaves PATH alone there."""
    return (
        Machine.ubuntu2404()
        .file("/etc/profile", "for i in /etc/profile.d/*.sh; do . $i; done\n")
        .file("/etc/profile.d/a.sh", "")
    )


def test_as_installed(probe: Probe) -> None:
    environments = probe(Machine.debian12())
    for kind in ("console", "graphical", "interactive"):
        assert login(environments, kind).values == {"PATH": STANDARD}
        assert not login(environments, kind).problems
        assert not login(environments, kind).doubts
    assert environments.value("alice", "PATH", "pam") == "/usr/local/bin:/usr/bin:/bin"


def test_each_element_has_its_line(probe: Probe) -> None:
    machine = (
        Machine.debian12().cuda_toolkit().append("/home/alice/.bashrc", "export LD_LIBRARY_PATH=/l\nPATH=$PATH:/x\n")
    )
    environments = probe(machine)
    assert environments.elements("alice", "LD_LIBRARY_PATH") == [("/l", "/home/alice/.bashrc:15")]
    sources = dict(environments.elements("alice", "PATH"))
    assert sources["/usr/local/cuda/bin"] == "/etc/profile.d/cuda.sh:1"
    assert sources["/x"] == "/home/alice/.bashrc:16"
    assert environments.value("alice", "LD_LIBRARY_PATH", "graphical") == ""


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('PATH="/a:/b"', "/a:/b"), ("PATH='/a'", "/a"), ("export PATH=/a", "/a"), ("  PATH=/a", "/a"), ("PATH=/a # comment", "/a "),
        ('PATH="/a', "/a"), ('PATH=/a"', '/a"'), ('PATH="/a":"/b"', '/a":"/b'), ("PATH=$PATH:/a", "$PATH:/a"), ("PATH=/a\\\n/b", "/a/b"),
        ("PATH =/a", "/usr/local/bin:/usr/bin:/bin"), ("PATH=/a\r", "/a\r"), ('PATH="/a"\r', '/a"\r'), ("PATH = /a", "/usr/local/bin:/usr/bin:/bin"),
        ("PATH=\"/a\" ", '/a" '), ("=x\nPATH=/a", "/a"), ("A-B=c\nPATH=/a", "/a"), ("PATH=/a\nPATH=/b", "/b"), ("PATH=", ""),
    ],
)  # fmt: skip
def test_pam_env_reads_etc_environment(probe: Probe, line: str, value: str) -> None:
    """As _parse_env_file of linux-pam 1.5.2."""
    assert probe(ubuntu().file("/etc/environment", f"LANG=C\n{line}\n")).value("alice", "PATH", "pam") == value


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("PATH DEFAULT=/a", "/a"), ("PATH DEFAULT=/a OVERRIDE=/b", "/b"), ('PATH DEFAULT="/a b"', "/a b"), ("PATH DEFAULT=@{HOME}/bin:${PATH}", "/home/alice/bin:/usr/local/bin:/usr/bin:/bin"),
        ("PATH DEFAULT=/a:$PATH", "/a:$PATH"), ("PATH=/a", "/usr/local/bin:/usr/bin:/bin"), (r"PATH DEFAULT=\$HOME", "$HOME"), ("PATH OVERRIDE=${NOTHING} DEFAULT=/d", "/d"),
    ],
)  # fmt: skip
def test_pam_env_conf(probe: Probe, line: str, value: str) -> None:
    assert probe(ubuntu().file("/etc/security/pam_env.conf", f"# x\n{line}\n")).value("alice", "PATH", "pam") == value


def test_pam_services_decide(probe: Probe) -> None:
    machine = (
        ubuntu()
        .file("/etc/X11/default-display-manager", "/usr/sbin/lightdm\n")
        .file("/etc/pam.d/lightdm", "auth include common\nsession required pam_env.so readenv=0 user_readenv=1\n")
        .file("/etc/pam.d/login", "session required pam_env.so envfile=/etc/other\n")
        .file("/etc/environment", "PATH=/not-read\n")
        .file("/etc/other", "PATH=/other:/usr/bin\n")
        .file("/home/alice/.pam_environment", "PATH DEFAULT=/own:/usr/bin\n", uid=1000)
    )
    environments = probe(machine)
    assert environments.value("alice", "PATH", "pam") == "/own:/usr/bin"
    assert environments.value("alice", "PATH", "console") == "/other:/usr/bin"


def test_a_service_without_pam_env(probe: Probe) -> None:
    machine = ubuntu().file("/etc/pam.d/login", "session required pam_unix.so\n").file("/etc/environment", "PATH=/x\n")
    assert probe(machine).value("alice", "PATH", "console") == "/usr/local/bin:/usr/bin:/bin"


def test_login_defs(probe: Probe) -> None:
    machine = ubuntu().append("/etc/login.defs", "ENV_PATH\tPATH=/own/bin:/usr/bin\n")
    assert probe(machine).elements("alice", "PATH", "console")[0] == ("/own/bin", "/etc/login.defs:3")


@pytest.mark.parametrize(
    ("manager", "files"),
    [
        ("gdm3", ["/etc/profile", "/home/alice/.profile", "/home/alice/.xprofile", "/home/alice/.xsessionrc"]),
        ("sddm", ["/etc/profile", "/home/alice/.profile", "/home/alice/.bashrc", "/home/alice/.xprofile", "/home/alice/.xsessionrc"]),
        ("lightdm", ["/etc/profile", "/home/alice/.profile", "/home/alice/.xprofile", "/home/alice/.xsessionrc"]),
    ],
)  # fmt: skip
def test_files_of_display_managers(probe: Probe, manager: str, files: list[str]) -> None:
    machine = (
        Machine.debian12().file("/etc/X11/default-display-manager", f"/usr/sbin/{manager}\n").file("/etc/gdm3/Xsession")
    )
    for name in (".xprofile", ".xsessionrc"):
        machine.file(f"/home/alice/{name}", "", uid=1000)
    environments = probe(machine)
    assert environments.display_manager == manager
    assert login(environments, "graphical").files == tuple(files)


@pytest.mark.parametrize(
    ("shell", "lines", "ends"),
    [
        ("/bin/bash", ". ~/missing\nPATH+=:/s\n", False),
        ("/bin/zsh", ". ~/missing\npath+=/s\n", False),
        ("/bin/sh", "PATH=$PATH:/s\n", False),
        ("/bin/tcsh", "PATH=$PATH:/s\n", False),
        ("/usr/bin/fish", "PATH=$PATH:/s\n", False),
        ("/usr/bin/fish", ". ~/missing\n", True),
    ],
)
def test_debians_sddm_goes_on_in_the_login_shell_and_reads_no_xprofile(
    probe: Probe, shell: str, lines: str, ends: bool
) -> None:
    machine = (
        Machine.debian12()
        .file("/etc/X11/default-display-manager", "/usr/bin/sddm\n")
        .file("/etc/sddm/Xsession", "case $SHELL in\nesac\n. /etc/X11/Xsession\n")
        .user("sam", 1001, shell)
        .file("/home/sam/.xsessionrc", lines, uid=1001).file("/home/sam/.xprofile", "exit\n", uid=1001)
        .file("/home/sam/.zprofile", "path+=/own\n", uid=1001).file("/home/sam/.login", "setenv PATH ${PATH}:/own\n", uid=1001)
        .file("/home/sam/.profile", "PATH=$PATH:/own\n", uid=1001)
        .file("/home/sam/.config/fish/config.fish", "set -a PATH /fish\n", uid=1001)
    )  # fmt: skip
    graphical = login(probe(machine), "graphical", "sam")
    assert (graphical.ending is not None) is ends
    folders = [folder for folder, _ in graphical.lists["PATH"]]
    wanted = ["/own", *["/fish"] * ("fish" in shell), *["/s"] * (not ends)]
    assert folders[-len(wanted) :] == wanted


def test_scripts_of_xsession_d_that_set_a_variable_are_read_in_their_order(probe: Probe) -> None:
    machine = (
        Machine.debian12()
        .file("/etc/X11/default-display-manager", "/usr/sbin/gdm3\n")
        .file("/etc/gdm3/Xsession")
        .file("/etc/X11/Xsession.d/40x11-common_xsessionrc", ". $USERXSESSIONRC\n")
        .file("/etc/X11/Xsession.d/20other", "exit\n")
        .file("/etc/X11/Xsession.d/30.dpkg-old", "PATH=/no\n")
        .file("/etc/X11/Xsession.d/55cuda", "PATH=$PATH:/second\n")
        .file("/home/alice/.xsessionrc", "PATH=$PATH:/first\n", uid=1000)
    )
    graphical = login(probe(machine), "graphical")
    assert [e for e, _ in graphical.lists["PATH"]][-2:] == ["/first", "/second"]
    assert graphical.last("PATH").source == "/etc/X11/Xsession.d/55cuda:1"  # type: ignore[union-attr]


def test_where_nothing_is_known_a_variable_is_not_unset(probe: Probe) -> None:
    machine = Machine.debian12().append("/home/alice/.bashrc", "module load cuda\n")
    assert probe(machine).value("alice", "CUDA_HOME") is None


@pytest.mark.parametrize(("zshenv", "read"), [("mystery | . /x\n", True), ("export ZDOTDIR=$(where)\n", False)])
def test_zshs_files_are_at_home_unless_a_line_speaks_of_zdotdir(probe: Probe, zshenv: str, read: bool) -> None:
    machine = (
        Machine.debian12().user("zoe", 1001, "/bin/zsh")
        .file("/home/zoe/.zshenv", zshenv, uid=1001).file("/home/zoe/.zshrc", "path+=/z\n", uid=1001)
    )  # fmt: skip
    assert ("/home/zoe/.zshrc" in login(probe(machine), "console", "zoe").files) is read


def test_a_universal_path_of_fish_breaks_none(probe: Probe) -> None:
    """PATH is inherited, so it is global, and what is global comes first."""
    machine = (
        Machine.debian12().user("fay", 1001, "/usr/bin/fish")
        .file("/home/fay/.config/fish/config.fish", "set -Ux PATH /c/bin\nset -Ux CUDA_HOME /c\n", uid=1001)
        .file("/home/fay/.config/fish/fish_variables", "SETUVAR --export --path PATH:/c/bin\n", uid=1001)
    )  # fmt: skip
    environments = probe(machine)
    assert not environments.broken_paths(in_terminals=True)
    assert environments.value("fay", "CUDA_HOME") == "/c"


def test_debians_lightdm_reads_no_profile(probe: Probe) -> None:
    machine = (
        Machine.debian12()
        .link("/etc/systemd/system/display-manager.service", "/lib/systemd/system/lightdm.service")
        .file("/usr/share/lightdm/lightdm.conf.d/01_debian.conf", "[Seat:*]\n# x\nsession-wrapper=/etc/X11/Xsession\n")
        .append("/home/alice/.profile", "exit\n")
    )
    environments = probe(machine)
    assert login(environments, "graphical").ending is None
    ending = login(environments, "console").ending
    assert ending
    assert (ending.source, ending.how) == ("/home/alice/.profile:13", "exit")


def test_a_server_has_no_graphical_login(probe: Probe) -> None:
    assert probe(Machine.debian12().file("/usr/lib/systemd/systemd", "")).get("alice", "graphical") is None


def test_gdm_takes_path_from_systemd(probe: Probe) -> None:
    machine = (
        ubuntu()
        .file("/etc/X11/default-display-manager", "/usr/sbin/gdm3\n")
        .file("/etc/gdm3/Xsession")
        .file("/etc/environment.d/50-cuda.conf", 'PATH="/c:$PATH"\nCUDA_HOME=/usr/local/cuda\n')
        .file("/home/alice/.config/environment.d/50-cuda.conf", "PATH=/own:${PATH}${NOTHING:+:/x}\n", uid=1000)
    )
    graphical = login(probe(machine), "graphical")
    assert ("/own", "/home/alice/.config/environment.d/50-cuda.conf:1") in graphical.lists["PATH"]
    assert "CUDA_HOME" not in graphical.values, "the person's file hides the system's of the same name"


def test_zsh_fish_and_tcsh(probe: Probe) -> None:
    machine = (
        Machine.debian12()
        .user("zoe", 1001, "/bin/zsh").file("/home/zoe/.zshrc", "path=(/z $path)\n", uid=1001)
        .user("fay", 1002, "/usr/bin/fish").file("/home/fay/.config/fish/config.fish", "set -gx PATH /f $PATH\n", uid=1002)
        .user("tom", 1003, "/bin/tcsh").file("/home/tom/.cshrc", "set path = (/t $path)\n", uid=1003)
        .user("kay", 1004, "/bin/ksh93")
    )  # fmt: skip
    environments = probe(machine)
    for user, folder in (("zoe", "/z"), ("fay", "/f"), ("tom", "/t")):
        assert environments.elements(user, "PATH")[0][0] == folder
    assert environments.value("kay", "PATH") is None
    assert login(environments, "console", "kay").doubts == ("cannot follow the start-up files of /bin/ksh93",)


@pytest.mark.parametrize(
    ("shell", "file", "line", "completed"),
    [
        ("/bin/bash", ".bashrc", "export PATH=/c/bin", 'export PATH="/c/bin${PATH:+:${PATH}}"'),
        ("/bin/zsh", ".zshrc", "path=(/c/bin /d)", "path=(/c/bin /d $path)"),
        ("/bin/zsh", ".zshrc", "path=( /c/bin )", "path=( /c/bin $path)"),
        ("/bin/zsh", ".zshrc", 'path=("/c/$x")', ""),
        ("/bin/csh", ".cshrc", "setenv PATH /c/bin", 'setenv PATH "/c/bin:$PATH"'),
        ("/bin/csh", ".cshrc", 'setenv PATH "/c/bin:/d"', 'setenv PATH "/c/bin:/d:$PATH"'),
        ("/bin/tcsh", ".tcshrc", "set path = (/c/bin)", "set path = (/c/bin $path)"),
        ("/bin/tcsh", ".tcshrc", "set path=/c/bin", ""),
        ("/usr/bin/fish", ".config/fish/config.fish", "set -gx PATH /c/bin /d", "set -gx PATH /c/bin /d $PATH"),
        ("/usr/bin/fish", ".config/fish/config.fish", "set --path PATH /c/bin", ""),
        ("/usr/bin/fish", ".config/fish/config.fish", "export PATH=/c:$PATH # x", 'export PATH="/c:$PATH" # x'),
        ("/bin/bash", ".bashrc", "export PATH=/c # $x", 'export PATH="/c${PATH:+:${PATH}}" # $x'),
    ],
)
def test_a_line_that_swallows_path_is_completed_in_the_words_of_its_shell(
    shell: str, file: str, line: str, completed: str, probe: Probe
) -> None:
    machine = Machine.debian12().user("sam", 1001, shell).file(f"/home/sam/{file}", f"{line}\n", uid=1001)
    (broken,) = probe(machine).broken_paths(in_terminals=True)
    assert (broken.source, broken.line, broken.completed) == (f"/home/sam/{file}:1", line, completed)


@pytest.mark.parametrize(
    ("line", "kind", "correction"),
    [
        (r"export PATH=/c\${PATH:+:${PATH}}", "literal-expansion", "export PATH=/c${PATH:+:${PATH}}"),
        ("export PATH='/c:$PATH'", "literal-expansion", 'export PATH="/c:$PATH"'),
        ("export PATH=/c${PATH:+:${PATH}}}", "unbalanced-braces", "export PATH=/c${PATH:+:${PATH}}"),
        ("export PATH=/c${PATH:+:${PATH}", "unbalanced-braces", "export PATH=/c${PATH:+:${PATH}}"),
        ("export PATH = /c:$PATH", "space-around-equals", "export PATH=/c:$PATH"),
        ("export PATH= /c:$PATH", "space-around-equals", "export PATH=/c:$PATH"),
        ("PATH =/c:$PATH", "space-around-equals", "PATH=/c:$PATH"),
        ('export PATH=/c:$PATH"', "open-quote", "export PATH=/c:$PATH"),
        ('export PATH="/c:$PATH', "open-quote", 'export PATH="/c:$PATH"'),
        ("export PATH=/c::$PATH", "empty-element", "export PATH=/c${PATH:+:$PATH}"),
        ("export PATH=$PATH:/c:", "empty-element", "export PATH=${PATH:+$PATH:}/c"),
        ("export PATH=/c:$PATH\r", "carriage-return", "export PATH=/c:$PATH"),
        ("export PATH=/c:PATH:$PATH", "missing-dollar", "export PATH=/c:$PATH:$PATH"),
        ('export PATH="/c: $PATH:/d"', "space", 'export PATH="/c:$PATH:/d"'),
        ("export PATH=PATH=/c:$PATH", "nested-assignment", ""),
        ("export PATH=\u201c/c:$PATH\u201d", "literal-quote", 'export PATH="/c:$PATH"'),
        ("export PATH=$PATH:/c;/usr", "wrong-separator", "export PATH=$PATH:/c:/usr"),
        ("export PATH=$PATH:/c,/usr", "wrong-separator", "export PATH=$PATH:/c:/usr"),
        ("export PATH='/c:$PATH", "open-quote", 'export PATH="/c:$PATH"'),
        ("export PATH=/c$PATH", "missing-colon", "export PATH=/c:$PATH"),
        ('export PATH="/c${PATH}" # x', "missing-colon", 'export PATH="/c:${PATH}" # x'),
        ("export PATH=$PATH/c", "missing-colon", "export PATH=$PATH:/c"),
        ("PATH+=/c", "missing-colon", "PATH+=:/c"),
        ("export\u00a0PATH=/c:$PATH", "hard-blank", "export PATH=/c:$PATH"),
        ("\u00a0\u00a0export PATH=/c:$PATH", "hard-blank", "  export PATH=/c:$PATH"),
        ("export PATH\u00a0=\u00a0/c:$PATH", "hard-blank", "export PATH=/c:$PATH"),
        ("export PATH=\u00a0/c:$PATH", "space", "export PATH=/c:$PATH"),
        ("export PATH=/c:$PATH\u00a0", "space", "export PATH=/c:$PATH"),
    ],
)  # fmt: skip
def test_malformed_lines(probe: Probe, line: str, kind: str, correction: str) -> None:
    problems = login(probe(Machine.debian12().append("/home/alice/.bashrc", f"{line}\n"))).problems
    assert [(p.source, p.variable, p.kind, p.correction) for p in problems] == [
        ("/home/alice/.bashrc:15", "PATH", kind, correction)
    ]


@pytest.mark.parametrize(
    "line",
    [
        "export PATH=/c${PATH:+:${PATH}}", 'PATH="/c:$PATH"  # don\'t', "PATH=~/bin:$PATH", r"PATH=/a\ b:$PATH", "export PATH",
        "MANPATH='$x'", "alias x='PATH = y'", "echo 'export PATH = x' > /dev/null", "if false; then PATH = 1; fi", "PATH=$PATH:.",
        "PATH=/usr/bin\nPATH=/opt/usr/bin", "PATH=/usr\nPATH=/usr/bin", "PATH=$HOME/bin:$PATH", "export\u00a0X=1",
    ],
)  # fmt: skip
def test_sound_lines(probe: Probe, line: str) -> None:
    assert not login(probe(Machine.debian12().append("/home/alice/.bashrc", f"{line}\n"))).problems


def test_a_corrected_line_is_not_malformed(probe: Probe) -> None:
    wrong = r"export PATH=/c\${PATH:+:${PATH}}"
    machine = Machine.debian12().append("/home/alice/.bashrc", corrected(wrong, "PATH", "literal-expansion") + "\n")
    environments = probe(machine)
    assert not login(environments).problems
    assert environments.elements("alice", "PATH")[0][0] == "/c"


def test_what_is_not_known_is_not_guessed(probe: Probe) -> None:
    machine = Machine.debian12().append(
        "/home/alice/.bashrc", 'if some-program; then PATH=/maybe:$PATH; fi\nX=$(other)\neval "$X"\n'
    )
    interactive = login(probe(machine))
    assert interactive.values["PATH"] is None
    assert interactive.doubts
    machine = Machine.debian12().append("/home/alice/.bashrc", "if some-program; then PATH=/maybe:$PATH; fi\n")


def test_condas_block(probe: Probe, tmp_path: Path) -> None:
    block = """\
__conda_setup="$('/opt/conda/bin/conda' 'shell.bash' 'hook' 2> /dev/null)"
if [ $? -eq 0 ]; then
    eval "$__conda_setup"
else
    if [ -f "/opt/conda/etc/profile.d/conda.sh" ]; then
        . "/opt/conda/etc/profile.d/conda.sh"
    else
        export PATH="/opt/conda/bin:$PATH"
    fi
fi
unset __conda_setup
"""
    interactive = login(probe(Machine.debian12().append("/home/alice/.bashrc", block)))
    assert interactive.values["PATH"] is None
    assert "/usr/bin" in dict(interactive.lists["PATH"])
    assert "LD_LIBRARY_PATH" not in interactive.values


def test_nobody_reads_in_anothers_name(probe: Probe) -> None:
    machine = (
        Machine.debian12()
        .file("/root/secret", "export PATH=/leaked\n", 0o600)
        .append("/home/alice/.bashrc", ". /root/secret\n")
    )
    interactive = login(probe(machine))
    assert interactive.values["PATH"] == STANDARD
    assert "/root/secret" not in interactive.files


def test_values_of_others_stay_out(probe: Probe) -> None:
    machine = Machine.debian12().append(
        "/home/alice/.bashrc", "export API_TOKEN=hunter2 PATH='/x:$PATH'; PASSWORD=hunter2\n"
    )
    environments = probe(machine)
    assert "hunter2" not in repr(environments)
    assert login(environments).problems[0].line == ""


@pytest.mark.parametrize(
    "line",
    [
        "LD_LIBRARY_PATH = /x TOKEN=hunter2",
        "export LD_LIBRARY_PATH=/x:${LD_LIBRARY_PATH TOKEN=hunter2",
        'export PATH="/only/this\nTOKEN=hunter2"',
        'export PATH="/only/this; TOKEN=hunter2',
        'export PATH="/x:$PATH\nexport TOKEN=hunter2\nA="b"',
        "export PATH=/only/this; mysql -phunter2",
        "export PATH=/only/this # the password is hunter2",
        "LD_LIBRARY_PATH = /x;mysql -phunter2",
        "exit 1 # the password is hunter2",
    ],
)
@pytest.mark.parametrize("path", ["/home/alice/.profile", "/home/alice/.bashrc"])
def test_what_a_malformed_line_drags_along_stays_out(probe: Probe, path: str, line: str) -> None:
    environments = probe(Machine.debian12().append(path, f"{line}\n"))
    assert "hunter2" not in repr([(e.values, e.lists, e.problems, e.ending_line) for e in environments.logins])
    assert "hunter2" not in repr([environments.broken_paths(), environments.broken_paths(in_terminals=True)])


def test_what_a_malformed_line_of_pam_env_drags_along_stays_out(probe: Probe) -> None:
    environments = probe(Machine.debian12().append("/etc/environment", "LD_LIBRARY_PATH = /x TOKEN=hunter2\n"))
    assert [p.shown for p in environments.logins[0].problems] == ["LD_LIBRARY_PATH = /x TOKEN=…"]
    assert "hunter2" not in repr(environments.logins[0].problems)


def test_excerpt() -> None:
    line = "[ -d /x ] && export TOKEN=abc PATH=/x:$PATH && curl -H key"
    assert excerpt(line, "PATH") == "PATH=/x:$PATH"
    assert excerpt("PATH=/x SECRET='a b' cmd", "PATH") == "PATH=/x SECRET=… cmd"
    assert excerpt("export PATH='/x;/y':${A#b} # it is abc", "PATH") == "export PATH='/x;/y':${A#b}"
    assert excerpt("set -x TOKEN abc; set -gx PATH /x $PATH;curl abc", "PATH") == "set -gx PATH /x $PATH"


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("exit 0\n", "exit"), ("a=(1 2)\n", "syntax"), ("function f() { :; }\n", "syntax"), (". /gone/setup.sh\n", "missing"),
        ("exec zsh\n", "exec"), ("export A = b\n", "error"), ("x=${HOME//a/b}\n", "error"), ("set -e\nfalse\n", "set -e"),
        ("if [ -d /usr ]; then\n  exit\nfi\n", "exit"), (". /home/alice/.other\n", "exit"),
    ],
)  # fmt: skip
def test_a_session_that_ends(probe: Probe, text: str, how: str) -> None:
    machine = Machine.debian12().file("/home/alice/.other", "exit\n", uid=1000).append("/home/alice/.profile", text)
    ending = login(probe(machine), "graphical").ending
    assert ending
    assert ending.how == how


@pytest.mark.parametrize(
    "text",
    [
        "return\na=(1 2)\n".replace("a=(1 2)", "b"), "[ -f /gone ] && . /gone\n", "missing-command\n", "[[ -d / ]]\n", "(exit 1)\n",
        "some-program || exit 1\n", "[ -t 0 ] && exec zsh\n", "command . /gone\n", "f() { exit; }\n", "set -e\nset +e\nfalse\n",
    ],
)  # fmt: skip
def test_a_session_that_goes_on(probe: Probe, text: str) -> None:
    assert login(probe(Machine.debian12().append("/home/alice/.profile", text)), "graphical").ending is None


@pytest.mark.parametrize(
    "text",
    [
        ". ~/.bashrc\n" * 3,
        "f() { f; f; }\nf\n",
        "PATH=$PATH:/x\n" * 4000,
        "PATH=$PATH:$PATH\n" * 100,
        "x\n" * 100_000,
        "${" * 9000,
    ],
)
def test_hostile_files_are_bounded(probe: Probe, text: str) -> None:
    interactive = login(probe(Machine.debian12().file("/home/alice/.bashrc", text, uid=1000)))
    assert interactive.doubts or interactive.problems or interactive.values == {"PATH": STANDARD}


FILES = ("/etc/environment", "/etc/security/pam_env.conf", "/etc/profile.d/x.sh", "/home/alice/.bashrc", "/home/fay/.config/fish/config.fish",
         "/home/tom/.cshrc", "/home/zoe/.zshrc", "/home/alice/.config/environment.d/x.conf", "/home/fay/.config/fish/fish_variables", "/etc/login.defs")  # fmt: skip
SOUP = st.lists(
    st.sampled_from(["PATH", "=", "/x", ":", "$PATH", "${", "}", '"', "'", "`", "\\", "\n", " ", "(", ")", "if", "then", "fi", "end", "set", "setenv", "export",
                     "-gx", "[", "]", "[[", "<<", "E", ";", "&&", "|", "eval", ".", "source", "~", "*", "$(", "\r", "\0", "\1", "case", "in", "esac", "for", "é",
                     "||", "&", "@", "switch", "breaksw", "endsw", "default:", "foreach", "endif", "else", "while", "function", "not", "and", "begin"]),
    max_size=60,
).map("".join)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(FILES), text=SOUP)
@example(path="/home/tom/.cshrc", text="&&")
@example(path="/home/tom/.cshrc", text="a ||")
def test_nothing_raises(tmp_path_factory: pytest.TempPathFactory, path: str, text: str) -> None:
    machine = (
        Machine.debian12()
        .user("zoe", 1001, "/bin/zsh")
        .user("fay", 1002, "/usr/bin/fish")
        .user("tom", 1003, "/bin/tcsh")
    )
    machine.file("/etc/X11/default-display-manager", "/usr/sbin/gdm3\n").file(path, text)
    host = RootHost(str(machine.build(tmp_path_factory.mktemp("m"))))
    for found in Environments.probe(host, Users.probe(host, Options())).logins:
        for value in found.values.values():
            assert value is None or not set(value) & set("\0\1\2")


@pytest.mark.parametrize(
    ("line", "correction"),
    [
        ("LD_LIBRARY_PATH=/c/lib:$LD_LIBRARY_PATH", "LD_LIBRARY_PATH=/c/lib"),
        ('LD_LIBRARY_PATH="$LD_LIBRARY_PATH:/c/lib"', 'LD_LIBRARY_PATH="/c/lib"'),
        ("LD_LIBRARY_PATH=/c${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}}", "LD_LIBRARY_PATH=/c"),
        ("export LD_LIBRARY_PATH=/c:$LD_LIBRARY_PATH", "LD_LIBRARY_PATH=/c"),
        ('LD_LIBRARY_PATH="/c:$LD_LIBRARY_PATH" # c = $x', 'LD_LIBRARY_PATH="/c"# c = $x'),
        ("LD_LIBRARY_PATH=$CUDA_HOME/lib64:$LD_LIBRARY_PATH", ""),
        (r"LD_LIBRARY_PATH=/c:\$LD_LIBRARY_PATH", ""),
        ("LD_LIBRARY_PATH=$LD_LIBRARY_PATH", ""),
        ('PATH="/usr/bin:/bin:$PATH"', 'PATH="/usr/bin:/bin"'),
    ],
)
def test_what_a_variable_was_is_left_out_where_nothing_is_expanded(probe: Probe, line: str, correction: str) -> None:
    problems = login(probe(Machine.debian12().file("/etc/environment", f"{line}\n")), "pam").problems
    assert {p.correction for p in problems} == {correction}


@pytest.mark.parametrize(
    ("shell", "file", "line", "correction"),
    [
        ("/bin/tcsh", ".cshrc", "setenv PATH = /c:$PATH", "setenv PATH /c:$PATH"),
        ("/bin/tcsh", ".cshrc", "setenv PATH=/c:$PATH", "setenv PATH /c:$PATH"),
        ("/usr/bin/fish", ".config/fish/config.fish", "set -gx PATH /c PATH", "set -gx PATH /c $PATH"),
    ],
)
def test_malformed_lines_of_other_shells(probe: Probe, shell: str, file: str, line: str, correction: str) -> None:
    machine = Machine.debian12().user("bob", 1001, shell).file(f"/home/bob/{file}", f"{line}\n", uid=1001)
    assert login(probe(machine), user="bob").problems[0].correction == correction


def test_a_quote_that_the_next_one_closes_is_found_where_it_was_left_open(probe: Probe) -> None:
    text = 'export PATH="/c:$PATH\nalias ll="ls -l"\nexport X=1\n'
    (problem,) = login(probe(Machine.debian12().append("/home/alice/.bashrc", text))).problems
    assert (problem.source, problem.correction) == ("/home/alice/.bashrc:15", 'export PATH="/c:$PATH"')


def test_a_defect_of_a_reader_concerns_one_account_alone(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlhealth.shell.csh import Csh

    def defect(self: Csh) -> None:
        raise KeyError("OSTYPE")

    monkeypatch.setattr(Csh, "start", defect)
    machine = Machine.debian12().user("tom", 1001, "/bin/tcsh").append("/home/alice/.bashrc", "export PATH=/only\n")
    environments = probe(machine)
    assert environments.value("alice", "PATH") == "/only"
    assert environments.value("tom", "PATH", "pam") == "/usr/local/bin:/usr/bin:/bin"
    console = login(environments, "console", "tom")
    assert (console.values, console.lost) == ({"PATH": None, "LD_LIBRARY_PATH": None}, True)
    assert console.doubts == ("dlhealth could not read the start-up files of tom (KeyError: 'OSTYPE')",)
