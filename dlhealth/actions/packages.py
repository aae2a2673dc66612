"""Changes of the set of installed packages."""

from typing import NamedTuple


class AptInstall(NamedTuple):
    """Install or upgrade packages ("name" or "name=version"); `reinstall` also when they are installed already."""

    packages: tuple[str, ...]
    reinstall: bool = False

    def summary(self) -> str:
        return f"apt-get install {'--reinstall ' if self.reinstall else ''}{' '.join(self.packages)}"


class AptRemove(NamedTuple):
    """Remove exactly these packages; `purge` with their configuration."""

    packages: tuple[str, ...]
    purge: bool = False

    def summary(self) -> str:
        return f"apt-get {'purge' if self.purge else 'remove'} {' '.join(self.packages)}"


class AptUnhold(NamedTuple):
    """Take the hold off packages."""

    packages: tuple[str, ...]

    def summary(self) -> str:
        return f"apt-mark unhold {' '.join(self.packages)}"


class DpkgConfigure(NamedTuple):
    """Finish what an interrupted dpkg left undone."""

    def summary(self) -> str:
        return "dpkg --configure -a && apt-get -f install"


class PipInstall(NamedTuple):
    """Install packages into one Python environment."""

    python: str
    arguments: tuple[str, ...]

    def summary(self) -> str:
        return f"{self.python} -m pip install {' '.join(self.arguments)}"
