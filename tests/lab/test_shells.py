"""PATH and LD_LIBRARY_PATH as people break them in the files of their own shells: what a shell of each kind gets, before
the repair, after it, and after its undo."""

import time
from typing import NamedTuple

import pytest

from tests.lab.conftest import Fresh, Table
from tests.lab.lab import LabMachine
from tests.lab.looks import dlhealth

pytestmark = pytest.mark.lab

CUDA = "/usr/local/cuda/bin"
BEFORE, AFTER = "# mine: do not touch\numask 022\n", "\n# and this is mine, too   \n"


class Person(NamedTuple):
    """`name` is also that of the home. `wrong` is the line in `file` that breaks `variable`; `becomes` the repaired one.
    `ways` are how a shell is started that reads the file."""

    name: str
    shell: str
    file: str
    wrong: str
    becomes: str
    ways: tuple[str, ...]
    variable: str = "PATH"


PEOPLE = (
    Person("ada", "/bin/bash", ".bashrc", f"export PATH={CUDA}", f'export PATH="{CUDA}${{PATH:+:${{PATH}}}}"', ("-ic",)),
    Person("bob", "/bin/bash", ".bash_profile", f"PATH='{CUDA}:$PATH'", f'PATH="{CUDA}:$PATH"', ("su", "-lc")),
    Person("dan", "/bin/dash", ".profile", f"PATH={CUDA}", f'PATH="{CUDA}${{PATH:+:${{PATH}}}}"', ("su", "-lc")),
    Person("zoe", "/bin/zsh", ".zshrc", f"export PATH='{CUDA}:$PATH'", f'export PATH="{CUDA}:$PATH"', ("-ic",)),
    Person("zed", "/bin/zsh", ".zprofile", f"path=({CUDA})", f"path=({CUDA} $path)", ("su", "-lc")),
    Person("zac", "/bin/zsh", ".zshenv", f"export PATH={CUDA}", f'export PATH="{CUDA}${{PATH:+:${{PATH}}}}"', ("-c",)),
    Person(
        "fay", "/usr/bin/fish", ".config/fish/config.fish", f"set -gx PATH {CUDA}", f"set -gx PATH {CUDA} $PATH",
        ("su", "-lc", "-ic"),
    ),
    Person("tom", "/bin/tcsh", ".tcshrc", f"set path = ({CUDA})", f"set path = ({CUDA} $path)", ("su", "-c")),
    Person("tim", "/bin/tcsh", ".login", f"setenv PATH {CUDA}", f'setenv PATH "{CUDA}:$PATH"', ("su",)),
    Person("cat", "/bin/csh", ".cshrc", f"setenv PATH '{CUDA}:$PATH'", f'setenv PATH "{CUDA}:$PATH"', ("su", "-c")),
    Person(
        "lea", "/bin/bash", ".bashrc", "export LD_LIBRARY_PATH=/opt/lib\\${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}}",
        "export LD_LIBRARY_PATH=/opt/lib${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}}", ("-ic",), "LD_LIBRARY_PATH",
    ),
    Person(
        "len", "/bin/dash", ".profile", "export LD_LIBRARY_PATH = /opt/lib", "export LD_LIBRARY_PATH=/opt/lib", ("su", "-lc"),
        "LD_LIBRARY_PATH",
    ),
    Person(
        "liz", "/bin/zsh", ".zshrc", "export LD_LIBRARY_PATH='/opt/lib:$LD_LIBRARY_PATH'",
        'export LD_LIBRARY_PATH="/opt/lib:$LD_LIBRARY_PATH"', ("-ic",), "LD_LIBRARY_PATH",
    ),
    Person(
        "lou", "/usr/bin/fish", ".config/fish/config.fish", "set -gx LD_LIBRARY_PATH '/opt/lib:$LD_LIBRARY_PATH'",
        'set -gx LD_LIBRARY_PATH "/opt/lib:$LD_LIBRARY_PATH"', ("su", "-ic"), "LD_LIBRARY_PATH",
    ),
)  # fmt: skip


def broken(lab: LabMachine, person: Person) -> None:
    home = f"/home/{person.name}"
    path = f"{home}/{person.file}"
    lab.run("useradd", "-m", "-s", person.shell, person.name)
    lab.run("sh", "-c", f'rm -f {home}/.bash_profile {home}/.profile; mkdir -p "$(dirname {path})"')
    (lab.root / path.strip("/")).write_text(f"{BEFORE}{person.wrong}{AFTER}")
    lab.run("chown", "-R", f"{person.name}:", home)
    lab.run("chmod", "0640", path)
    lab.run("setfacl", "-m", "u:games:r", path)
    lab.run("setfattr", "-n", "user.origin", "-v", person.name, path)


def given(lab: LabMachine, person: Person, way: str) -> list[str]:
    """The elements of the variable in a shell that is started in that way, by nothing but the shell's own means."""
    command = f"/usr/bin/printenv {person.variable}"
    if way == "su":
        done = lab.run("su", "-", person.name, "-c", command, check=False)
    else:
        words = ["runuser", "-u", person.name, "--", "env", f"HOME=/home/{person.name}", person.shell]
        done = lab.run(*words, *({"-lc": ["-l"], "-ic": ["-i"]}.get(way, [])), "-c", command, check=False)
    lines = done.stdout.strip().splitlines()
    return lines[-1].split(":") if lines else []


def right(person: Person, elements: list[str]) -> bool:
    if person.variable == "PATH":
        return {CUDA, "/usr/bin", "/bin"} <= set(elements)
    return elements[:1] == ["/opt/lib"] and not any("$" in e for e in elements)


def looks(lab: LabMachine, person: Person) -> tuple[str, str]:
    """What is in the file; and whose it is, with mode, ACL and extended attributes."""
    path = f"/home/{person.name}/{person.file}"
    attributes = lab.run(
        "sh", "-c", f"stat -c '%U %G %a' {path}; getfacl -cp {path}; getfattr --absolute-names -d {path}"
    )
    return (lab.root / path.strip("/")).read_text(), attributes.stdout


def test_a_shell_of_each_kind_gets_the_right_path(fresh: Fresh, table: Table) -> None:
    lab = fresh("plain")
    lab.run("sh", "-c", "apt-get -q update && apt-get -qy --no-install-recommends install zsh fish tcsh csh acl attr")
    for person in PEOPLE:
        broken(lab, person)
    starts = [(person, way) for person in PEOPLE for way in person.ways]
    wrong = {(p.name, way): found for p, way in starts if right(p, found := given(lab, p, way))}
    assert not wrong, "these are not broken at all"
    before = {p.name: looks(lab, p) for p in PEOPLE}
    started = time.monotonic()
    status, fixed = dlhealth(lab, "fix", "--yes")
    seconds = round(time.monotonic() - started, 1)
    assert (status, fixed["outcome"]) == (0, "applied"), fixed
    assert {p.name: looks(lab, p) for p in PEOPLE} == {
        p.name: (f"{BEFORE}{p.becomes}{AFTER}", before[p.name][1]) for p in PEOPLE
    }
    failed = {(p.name, way): found for p, way in starts if not right(p, found := given(lab, p, way))}
    assert not failed
    assert dlhealth(lab, "fix", "--yes")[1]["outcome"] == "nothing-to-do"
    status, undone = dlhealth(lab, "undo", "--yes")
    assert (status, undone["transaction"]["outcome"]) == (0, "undone")
    assert {p.name: looks(lab, p) for p in PEOPLE} == before
    kinds = f"PATH in the files of {len({p.shell for p in PEOPLE})} shells"
    table.row(kinds, found=True, root=True, repaired=True, undone=True, seconds=seconds)
