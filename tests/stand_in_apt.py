"""apt, dpkg and DKMS for a machine in a directory: they change its files and dpkg's records as the real programs do.

    python -m tests.stand_in_apt PROGRAM ARCHIVE WORDS...     $IN_ROOT is the machine's directory

The archive holds the packages of other such machines. What dkms and update-initramfs make during the installation of a
driver is a part of its DKMS package here. Packages conflict if they have a
file in common, or are the same part of two drivers of Ubuntu.
"""

import base64
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dlhealth.testing import Machine

STATUS, INFO = "var/lib/dpkg/status", "var/lib/dpkg/info"
SCRIPTS = (
    (r"\S*nvidia\S*-dkms\S*", ("usr/lib/modules/*/updates/dkms/nvidia*", "var/lib/dkms/nvidia*/**/*")),
    (r"(?P<module>\S+)-dkms", ("var/lib/dkms/{module}/**/*",)),
    (
        r"libcudnn\d+-dev",
        ("etc/alternatives/libcudnn*", "usr/include/cudnn*.h", "usr/lib/x86_64-linux-gnu/libcudnn.so"),
    ),
)
"""What the maintainer scripts of packages make."""


class Archived(NamedTuple):
    """A package with its entry in dpkg's status, the name and content of its list, and its files: a link's target, or the
    content, mode and time."""

    name: str
    fields: dict[str, str]
    listed: str
    lines: str
    files: dict[str, list[str]]

    @property
    def version(self) -> str:
        return self.fields["Version"]

    @property
    def needs(self) -> Iterator[tuple[str, str]]:
        """Name and exact version, "" for any, of each dependency without an alternative."""
        for clause in filter(None, self.fields.get("Depends", "").split(",")):
            if "|" not in clause and (found := re.match(r"\s*(\S+?)(?::any)?\s*(?:\((\S+)\s+(\S+)\))?\s*$", clause)):
                yield found[1], found[3] if found[2] == "=" else ""


def packages_of(root: Path) -> Iterator[Archived]:
    """All packages of a machine."""
    for name, fields in entries((root / STATUS).read_text()).items():
        listed = next(
            (p for n in (name, f"{name}:{fields['Architecture']}") if (p := root / INFO / f"{n}.list").exists()), None
        )
        paths = [line for line in (listed.read_text().splitlines() if listed else ()) if line != "/."]
        for pattern, made in SCRIPTS:
            if found := re.fullmatch(pattern, name):
                globs = (each.format(**found.groupdict()) for each in made)
                paths += [f"/{p.relative_to(root)}" for each in globs for p in sorted(root.glob(each))]
        files = {p: content for p in paths if (content := packed(root / p.lstrip("/")))}
        lines = listed.read_text() if listed else ""
        yield Archived(name, fields, listed.name if listed else f"{name}.list", lines, files)


def role(name: str) -> str:
    """What the packages of all branches of Ubuntu's driver provide and conflict with; "" for other packages."""
    found = re.match(r"(?!nvidia-firmware)(\S+?)-\d{3}\b", name)
    return found[1] if found else ""


def packed(path: Path) -> list[str]:
    if path.is_symlink():
        return [os.readlink(path)]
    if not path.is_file():
        return []
    status = path.stat()
    return [base64.b64encode(path.read_bytes()).decode(), oct(status.st_mode & 0o7777), str(status.st_mtime_ns)]


def entries(text: str) -> dict[str, dict[str, str]]:
    """dpkg's status file, by the name that apt uses."""
    found = {}
    for paragraph in filter(None, text.split("\n\n")):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line)
        foreign = fields["Architecture"] not in ("amd64", "all")
        found[f"{fields['Package']}:{fields['Architecture']}" if foreign else fields["Package"]] = fields
    return found


class System:
    """The machine, and what its sources offer."""

    def __init__(self, root: Path, archive: Path) -> None:
        self.root = root
        self.installed = entries((root / STATUS).read_text())
        self.offers = [Archived(*each) for each in json.loads(archive.read_text())]

    def save(self) -> None:
        paragraphs = ("".join(f"{k}: {v}\n" for k, v in fields.items()) for fields in self.installed.values())
        (self.root / STATUS).write_text("\n".join(paragraphs))

    def find(self, name: str, version: str = "") -> Archived | None:
        return next((o for o in self.offers if o.name == name and version in ("", o.version)), None)

    def files(self, name: str) -> set[str]:
        fields = self.installed.get(name, {})
        known = self.find(name, fields.get("Version", ""))
        return set(known.files) if known else set()

    def plan(self, words: list[str]) -> tuple[list[Archived], list[str]]:
        """What comes and what leaves, by dependencies and common files."""
        leaving = [w[:-1] for w in words if w.endswith("-")]
        coming: dict[str, Archived] = {}
        ahead = [(w, "") if "=" not in w else tuple(w.split("=", 1)) for w in words if not w.endswith("-")]
        named = {name for name, _ in ahead}
        while ahead:
            name, version = ahead.pop(0)
            offer = self.find(name, version)
            has = self.installed.get(name, {}).get("Version")
            if (
                name in coming
                or (offer is None and name not in named)
                or (name not in named and has and version in ("", has))
            ):
                continue
            if offer is None:
                sys.exit(print(f"E: Unable to locate package {name}", file=sys.stderr) or 100)
            coming[name] = offer
            ahead += offer.needs
        taken = {p for o in coming.values() for p in o.files}
        roles = {role(name) for name in coming} - {""}
        others = [n for n in self.installed if n not in coming and n not in leaving]
        leaving += [n for n in others if role(n) in roles or self.files(n) & taken]
        while more := [n for n in self.installed if n not in (*coming, *leaving) and self._needs(n, leaving)]:
            leaving += more
        return list(coming.values()), [n for n in leaving if n in self.installed]

    def _needs(self, name: str, leaving: Iterable[str]) -> bool:
        package = self.find(name, self.installed[name]["Version"])
        return bool(package) and any(needed in leaving for needed, _ in package.needs)

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            fields = self.installed.pop(name)
            known = self.find(name, fields["Version"])
            for path in known.files if known else ():
                place = self.root / path.lstrip("/")
                place.unlink(missing_ok=True)
                while place.parent.is_relative_to(self.root / "usr/src") or "dkms" in place.parent.parts:
                    place = place.parent
                    with suppress(OSError):  # not empty, or already gone
                        place.rmdir()
            if known:
                (self.root / INFO / known.listed).unlink(missing_ok=True)

    def install(self, packages: Iterable[Archived]) -> None:
        for package in packages:
            if package.name in self.installed:
                self.remove([package.name])
            self.installed[package.name] = {**package.fields, "Status": "install ok installed"}
            for path, content in package.files.items():
                place = self.root / path.lstrip("/")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.unlink(missing_ok=True)
                if len(content) == 1:
                    place.symlink_to(content[0])
                else:
                    place.write_bytes(base64.b64decode(content[0]))
                    place.chmod(int(content[1], 8))
                    os.utime(place, ns=(int(content[2]), int(content[2])))
            if package.lines:
                (self.root / INFO / package.listed).write_text(package.lines)

    def apt(self, words: list[str]) -> None:
        at = next(n for n, w in enumerate(words) if w in ("download", "install", "remove", "purge"))
        verb, names = words[at], [w for w in words[at + 1 :] if not w.startswith("-")]
        if verb == "download":
            name, _, version = names[0].partition("=")
            if offer := self.find(name, version):
                Path(f"{name}_{version.replace(':', '%3a')}_amd64.deb").write_text(json.dumps(offer))
            return
        debs = [Archived(*json.loads(self._inside(n).read_text())) for n in names if n.endswith(".deb")]
        names = [n for n in names if not n.endswith(".deb")]
        if verb in ("remove", "purge"):
            names = [f"{n}-" for n in names]
        coming, leaving = self.plan(names)
        coming += debs
        if "-s" in words:
            for package in coming:
                has = self.installed.get(package.name, {}).get("Version")
                print(f"Inst {package.name}{f' [{has}]' if has else ''} ({package.version} archive:stable [amd64])")
            for name in leaving:
                print(f"{'Purg' if verb == 'purge' else 'Remv'} {name} [{self.installed[name]['Version']}]")
        elif "--download-only" not in words:
            self.remove(n for n in leaving if n in self.installed)
            self.install(coming)

    def _inside(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def dpkg(self, words: list[str]) -> None:
        operands = [w for w in words if not w.startswith("-")]
        if "--install" in words:
            self.install(Archived(*json.loads(self._inside(deb).read_text())) for deb in operands)
        elif "--remove" in words or "--purge" in words:
            self.remove(n for n in operands if n in self.installed)
        elif "--configure" in words:
            for fields in self.installed.values():
                fields["Status"] = re.sub("half-configured|unpacked", "installed", fields["Status"])

    def query(self, words: list[str]) -> None:
        if "${Conffiles}\n" not in words:
            for name, fields in self.installed.items():
                want, _, state = fields["Status"].split()
                short = {"installed": "i", "config-files": "c", "half-configured": "F", "unpacked": "U"}[state]
                print(f"{name}\t{fields['Version']} {want[0]}{short} ")

    def mark(self, words: list[str]) -> None:
        verb, *names = words
        if verb == "showhold":
            print(*(n for n, f in self.installed.items() if f["Status"].startswith("hold")), sep="\n")
        for name in names if verb in ("hold", "unhold") else ():
            state = self.installed[name]["Status"].split(" ", 1)[1]
            self.installed[name]["Status"] = f"{'hold' if verb == 'hold' else 'install'} {state}"


def dkms(root: Path, verb: str, name: str, kernel: str) -> int:
    """A module is built if the kernel's compiler and headers are installed."""
    module, _, version = name.partition("/")
    tree = root / "var/lib/dkms" / module / version
    modules = root / "usr/lib/modules" / kernel / "updates/dkms"
    built = (tree / kernel).is_dir()
    if verb == "status" and built:
        state = "installed" if any(modules.glob(f"{module}*.ko")) else "built"
        print(f"{name}, {kernel}, x86_64: {state}")
    elif verb in ("remove", "uninstall") and built:
        for path in modules.glob("nvidia*.ko"):
            path.unlink()
        if verb == "remove":
            shutil.rmtree(tree / kernel)
            (tree.parent / f"kernel-{kernel}-x86_64").unlink()
    elif verb == "install":
        compiler = re.search(r"gcc-\d+", (root / "proc/version").read_text())
        if built or not (root / "usr/lib/modules" / kernel / "build").is_symlink():
            return 8
        if compiler and not (root / "usr/bin" / compiler[0]).exists():
            return 10
        machine = Machine().dkms(module, version, [kernel])
        machine._driver_modules(kernel, version, module, "updates/dkms")
        machine.build(root)
    return 0


def main(program: str, archive: str, *words: str) -> None:
    if program == "dkms":
        name = words[1] if len(words) > 1 else ""
        kernel = words[words.index("-k") + 1] if "-k" in words else ""
        sys.exit(dkms(Path(os.environ["IN_ROOT"]), words[0], name, kernel))
    system = System(Path(os.environ["IN_ROOT"]), Path(archive))
    {"apt-get": system.apt, "dpkg": system.dpkg, "dpkg-query": system.query, "apt-mark": system.mark}[program](
        list(words)
    )
    system.save()


if __name__ == "__main__":
    main(*sys.argv[1:])
