"""Downloads the wheels that a wheel needs for one version of Python: fetch.py WHEEL PYTHON BUILT TARGET.

pip alone decides by its own version of Python what another one needs. BUILT has wheels that were built here.
"""

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

PLATFORMS = ("manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux2010_x86_64", "any")


def requirements(wheel: Path, python: str) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (n for n in packed.namelist() if n.endswith(".dist-info/METADATA"))
        lines = Parser().parsestr(packed.read(name).decode()).get_all("Requires-Dist") or []
    there = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    return [r for r in map(Requirement, lines) if r.marker is None or r.marker.evaluate(there)]


def download(requirement: str, python: str, built: str, target: Path) -> Path:
    """The wheel of a requirement, in a directory of its own first: pip does not say its name."""
    alone = target / "one"
    argv = [sys.executable, "-m", "pip", "-q", "download", "--no-deps", "--only-binary=:all:", "-d", str(alone)]
    argv += ["--find-links", built, "--python-version", python, "--implementation", "cp"]
    argv += [word for platform in PLATFORMS for word in ("--platform", platform)]
    subprocess.run([*argv, requirement], check=True)  # noqa: S603  (pip itself)
    (wheel,) = alone.glob("*.whl")
    kept = wheel.replace(target / wheel.name)
    alone.rmdir()
    return kept


def main(first: Path, python: str, built: str, target: Path) -> None:
    target.mkdir(exist_ok=True)
    seen: set[str] = set()
    waiting = [first]
    while waiting:
        for needed in requirements(waiting.pop(), python):
            if needed.name not in seen:
                seen.add(needed.name)
                waiting.append(download(f"{needed.name}{needed.specifier}", python, built, target))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
