"""A root directory with programs that do what the real ones would to a small package database, and note how they were
started. The door finds them in place of this machine's own."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from dlhealth.host import exec as door
from dlhealth.steps.base import Target
from tests.stand_in_apt import packages_of

DRIVER = {"nvidia-kernel-dkms": "535.1-1 ii ", "libcuda1": "535.1-1 ii "}
"""Packages for `StandInRoot.packages`."""

NOTE = """#!/bin/sh
{{ printf '%s\\0' "${{0##*/}}" "$@"; printf '\\1\\n'; }} >> {log}
{body}
"""

# What stands in for bubblewrap: the root's program runs outside of it.
BWRAP = """while [ "$1" != -- ]; do [ "$1" != --bind ] || IN_ROOT=$2; shift; done; shift 5; export IN_ROOT
[ -x {inside}/"$1" ] || exit 127; program=$1; shift; exec {inside}/"$program" "$@"
"""

# That programs of the root run here is nothing to note.
RUNS_HERE = """#!/bin/sh
[ "$*" != "-c true" ] || exit 0
"""

# dpkg and apt, as far as an action needs them: packages with versions and states, the automatic ones, those on hold.
PACKAGES = """#!{python} -IS
import json, os, sys
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
with open({log!r}, "a") as log:
    log.write("".join(w + chr(0) for w in [name, *words]) + chr(1) + chr(10))
root = os.environ["IN_ROOT"]
with open(root + "/packages.json") as file:
    db = json.load(file)
packages = db["packages"]

def put(deb):
    package, version, _ = os.path.basename(deb).split("_")
    packages[package] = version.replace("%3a", ":") + " ii "

def drop(package, purge):
    if purge or package not in packages:
        packages.pop(package, None)
        for path in db["conffiles"].get(package, []):
            if os.path.lexists(root + path):
                os.unlink(root + path)
    else:
        packages[package] = packages[package].split(" ")[0] + " rc "
    db["auto"] = [a for a in db["auto"] if a != package]

operands = [w for w in words if not w.startswith("-")]
for failing in db["fails"]:
    if failing in " ".join([name, *words]):
        sys.exit(print("E: told to fail", file=sys.stderr) or 100)
if name == "dpkg-query" and "${{Conffiles}}\\n" in words:
    for package in operands[1:]:
        print("".join(f"\\n {{path}} 0123456789abcdef" for path in db["conffiles"].get(package, [])))
elif name == "dpkg-query":
    for package, state in packages.items():
        print(f"{{package}}\\t{{state}}")
elif name == "apt-mark":
    lists = {{"showauto": "auto", "showhold": "held", "auto": "auto", "hold": "held", "unhold": "held"}}
    chosen = lists[words[0]]
    if words[0].startswith("show"):
        print(*db[chosen], sep=chr(10))
    else:
        db[chosen] = sorted(set(db[chosen]) - set(words[1:]) | (set() if words[0] == "unhold" else set(words[1:])))
elif name == "dpkg":
    if "--configure" in words:
        packages.update({{p: s.replace("iF", "ii").replace("iU", "ii") for p, s in packages.items()}})
    for operand in operands:
        if "--install" in words:
            put(operand)
        elif "--remove" in words or "--purge" in words:
            drop(operand, "--purge" in words)
elif "download" in words:
    package, version = words[-1].split("=")
    if package in db["archive"]:
        encoded = version.replace(":", "%3a")
        open(f"{{package}}_{{encoded}}_amd64.deb", "w").close()
elif "-f" in words:
    for package in db["also_removes"]:
        if "-s" in words:
            print(f"Remv {{package}} [{{packages[package].split(' ')[0]}}]")
        else:
            drop(package, False)
else:
    verb = next(w for w in words if w in ("install", "remove", "purge"))
    leaving, coming = list(db["also_removes"]) if "-s" in words else [], []
    for word in words[words.index(verb) + 1 :]:
        if word.startswith("-"):
            continue
        if verb != "install" or word.endswith("-"):
            leaving.append(word.removesuffix("-"))
        else:
            coming.append(word)
    if "-s" in words:
        print("Reading package lists...")
        for word in coming:
            package = word.partition("=")[0]
            had = packages.get(package, "").split(" ")[0]
            print(f"Inst {{package}}" + (f" [{{had}}]" if had else "") + " (9-1 archive:stable [amd64])")
        for package in leaving:
            version = packages[package].split(" ")[0]
            print(f"{{'Purg' if verb == 'purge' else 'Remv'}} {{package}} [{{version}}]")
    elif "--download-only" not in words:
        for word in coming:
            package, _, version = word.partition("=")
            db["auto"] = [a for a in db["auto"] if a != package]
            if word.endswith(".deb"):
                # One of the version that is there, whatever its state, is put there again only with --reinstall.
                package, version, _ = os.path.basename(word).split("_")
                if "--reinstall" in words or packages.get(package, "").split(" ")[0] != version.replace("%3a", ":"):
                    put(word)
            else:
                packages[package] = (version or "9-1") + " ii "
        for package in leaving:
            drop(package, verb == "purge")
with open(root + "/packages.json", "w") as file:
    json.dump(db, file)
"""

# update-initramfs: an image with the tree's modprobe.d files and its first NVIDIA module.
UPDATE_INITRAMFS = """exec {python} - "$IN_ROOT" "$@" <<'END'
import glob, re, sys
from pathlib import Path
sys.path.insert(0, {top!r})
from dlhealth.testing import Machine
root, kernel = Path(sys.argv[1]), sys.argv[-1]
images = [p.name for p in (root / "boot").glob("initrd.img-*")]
for release in [n.removeprefix("initrd.img-") for n in images] if kernel == "all" else [kernel]:
    found = [f for d in ("etc", "usr/lib") for f in sorted((root / d / "modprobe.d").glob("*.conf"))]
    files = {{str(f.relative_to(root)): f.read_text() for f in found if f.is_file()}}
    modules = sorted((root / "usr/lib/modules" / release).rglob("nvidia*.ko"))
    version = next((m[1].decode() for f in modules if (m := re.search(rb"\\0version=([^\\0]+)", f.read_bytes()))), "")
    Machine().initramfs(release, files, nvidia=version).build(root)
END
"""

# ldconfig: a cache of the libraries in the folders of ld.so.conf.d, and the links that their SONAMEs lack. The real one
# takes none of the tests' libraries.
LDCONFIG = """exec {python} - "$IN_ROOT" <<'END'
import struct, sys
from contextlib import suppress
from pathlib import Path
sys.path.insert(0, {top!r})
from dlhealth.host.elf import NotElf, read_elf
from dlhealth.host.root import RootHost
root = Path(sys.argv[1])
within = RootHost(str(root)).realpath
lines = [l.strip() for f in sorted((root / "etc/ld.so.conf.d").glob("*.conf")) for l in f.read_text().splitlines()]
folders = dict.fromkeys([l for l in lines if l.startswith("/")] + ["/usr/lib/x86_64-linux-gnu", "/usr/lib"])
places = {{d: root / (within(d) or "/none")[1:] for d in folders}}
for library in [p for place in places.values() for p in place.glob("*.so*") if p.is_file() and not p.is_symlink()]:
    with library.open("rb") as file, suppress(NotElf):
        if soname := read_elf(file, library.stat().st_size).soname:
            with suppress(FileExistsError):
                library.with_name(soname).symlink_to(library.name)
found = [(p.name, f"{{d}}/{{p.name}}") for d, place in places.items() for p in place.glob("*.so*")]
start, texts, entries = 48 + 24 * len(found), b"", b""
for words in sorted(found, reverse=True):
    places = []
    for word in words:
        places.append(start + len(texts))
        texts += word.encode() + bytes(1)
    entries += struct.pack("<iIIIQ", 0x303, *places, 0, 0)
header = b"glibc-ld.so.cache1.1" + struct.pack("<IIB3xI12x", len(found), len(texts), 2, 0)
(root / "etc/ld.so.cache").write_bytes(header + entries + texts)
END
"""

# update-alternatives --set NAME PATH, or --auto NAME: the links of a group and of what goes along with it.
UPDATE_ALTERNATIVES = """exec {python} - "$IN_ROOT" "$@" <<'END'
import os, sys
root, mode, name, *path = sys.argv[1:]
record = f"{{root}}/var/lib/dpkg/alternatives/{{name}}"
with open(record) as file:
    lines = file.read().split("\\n")
end = lines.index("")
along, choices = lines[2:end:2], {{}}
rest = lines[end + 1:]
while rest and rest[0]:
    choices[rest[0]] = int(rest[1]), rest[2:2 + len(along)]
    rest = rest[2 + len(along):]
chosen = path[0] if path else max(choices, key=lambda c: choices[c][0])
for link, target in zip([name, *along], [chosen, *choices[chosen][1]]):
    place = f"{{root}}/etc/alternatives/{{link}}"
    if os.path.lexists(place):
        os.unlink(place)
    if target:
        os.symlink(target, place)
with open(record, "w") as file:
    file.write("\\n".join(["manual" if path else "auto", *lines[1:]]))
END
"""


class StandInRoot:
    """`folder` is the root; `programs` the directory that the door looks in; `inside` what is found in the root."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.programs, self.inside = base / "root", base / "programs", base / "inside"
        for folder in (self.folder, self.programs, self.inside):
            folder.mkdir()
        self._log = base / "log"
        monkeypatch.setattr(door, "PROGRAM_FOLDERS", (str(self.programs),))
        monkeypatch.setitem(door._ENVIRONMENT, "PATH", f"{self.programs}:/usr/bin:/bin")
        for name in ("dev", "etc", "proc", "run", "sys"):
            (self.folder / name).mkdir()
        self.outside("bwrap", BWRAP.format(inside=shlex.quote(str(self.inside))))
        self._write(self.inside / "sh", RUNS_HERE)

    @property
    def target(self) -> Target:
        return Target(str(self.folder), "abc")

    def outside(self, name: str, body: str = "") -> None:
        """A program of the machine that dlhealth runs on."""
        self._write(self.programs / name, NOTE.format(log=shlex.quote(str(self._log)), body=body))

    def program(self, name: str, body: str = "") -> None:
        """A program of the root; $IN_ROOT is the root's directory."""
        self._write(self.inside / name, NOTE.format(log=shlex.quote(str(self._log)), body=body))

    def system_programs(self) -> None:
        """Put programs there that change the tree as the real ones do."""
        texts = {"python": sys.executable, "top": str(Path(__file__).parents[1])}
        self.program("ldconfig", LDCONFIG.format(**texts))
        self.program("depmod", 'cd "$IN_ROOT/lib/modules/$2" && find . -name "*.ko*" -printf "%P:\\n" > modules.dep')
        self.program("update-initramfs", UPDATE_INITRAMFS.format(**texts))
        self.program("update-alternatives", UPDATE_ALTERNATIVES.format(**texts))

    def packages(self, installed: dict[str, str], **more: Any) -> None:
        """Put the package programs there, with these packages ("name": "version ii ")."""
        empty: dict[str, Any] = {
            "auto": [],
            "held": [],
            "conffiles": {},
            "fails": [],
            "archive": [],
            "also_removes": [],
        }
        self.database = {**empty, "packages": installed, **more}
        for name in ("apt-get", "apt-mark", "dpkg", "dpkg-query"):
            self._write(self.inside / name, PACKAGES.format(python=sys.executable, log=str(self._log)))
        self._shell()

    def archive(self, *machines: Path) -> None:
        """Put package programs there that work on dpkg's own records and the files of the tree: they install what these
        machines and this one have. The first machine that has a package gives the version that apt prefers."""
        packages = [each for machine in (*machines, self.folder) for each in packages_of(machine)]
        archive = self.folder.parent / "archive.json"
        archive.write_text(json.dumps(packages))
        top = shlex.quote(str(Path(__file__).parents[1]))
        for name in ("apt-get", "apt-mark", "dkms", "dpkg", "dpkg-query"):
            start = f"exec {sys.executable} -m tests.stand_in_apt {name} {shlex.quote(str(archive))}"
            self.program(name, f'PYTHONPATH={top} {start} "$@"')
        self._shell()

    def _shell(self) -> None:
        """A shell for "cd" within the root, and its programs."""
        inside = shlex.quote(str(self.inside))
        shell = f'cd "$IN_ROOT/var/lib/dlhealth/debs" && PATH={inside}:$PATH exec /bin/sh -c "${{2#*&&}}" sh "$4"'
        self._write(self.inside / "sh", RUNS_HERE + NOTE.format(log=shlex.quote(str(self._log)), body=shell))

    @property
    def database(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "packages.json").read_text())
        return found

    @database.setter
    def database(self, content: dict[str, Any]) -> None:
        (self.folder / "packages.json").write_text(json.dumps(content))

    def change(self, **fields: Any) -> None:
        self.database = {**self.database, **fields}

    @property
    def all_runs(self) -> list[list[str]]:
        """The words of every program that was started, the first first."""
        try:
            content = self._log.read_text()
        except FileNotFoundError:
            return []
        return [run.split("\0") for run in content.split("\0\1\n")[:-1]]

    @property
    def runs(self) -> list[list[str]]:
        """Those of the root's own programs."""
        return [run for run in self.all_runs if run[0] != "bwrap"]

    def forget(self) -> None:
        self._log.unlink(missing_ok=True)

    def file(self, path: str, content: str = "") -> Path:
        made = self.folder / path.strip("/")
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(content)
        return made

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)
