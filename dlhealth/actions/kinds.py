"""The closed set of things that dlhealth may do to a machine, or ask a person to do, as data."""

from shlex import join

from dlhealth.records import NamedTuple


class EditFile(NamedTuple):
    """Replace whole lines of one file. `changes` are (number from 1, the line as it is, the line as it shall be, or
    None to take it out)."""

    path: str
    changes: tuple[tuple[int, str, str | None], ...]

    def summary(self) -> str:
        parts = [
            f"take out line {number} ({old.strip()})" if new is None else f"line {number} becomes: {new.strip()}"
            for number, old, new in self.changes
        ]
        return f"{self.path}: {'; '.join(parts)}"


class WriteFile(NamedTuple):
    """Create a file, or replace the one that is there, whose owner and mode then stay."""

    path: str
    text: str
    mode: int = 0o644

    def summary(self) -> str:
        return f"write {self.path}: {self.text.strip().replace(chr(10), ' / ')}"


class CopyFile(NamedTuple):
    """Put a copy of one of the machine's files at a path where no file is, for everybody to read."""

    source: str
    path: str

    def summary(self) -> str:
        return f"cp {self.source} {self.path}"


class MoveAside(NamedTuple):
    """Take a file, a link or a whole folder out of the way, whatever its size; it is kept where undo finds it."""

    path: str

    def summary(self) -> str:
        return f"move {self.path} aside (kept in /var/lib/dlhealth)"


class MakeDirectory(NamedTuple):
    """Make an empty directory in one that exists, for everybody to read; one that exists already stays as it is."""

    path: str

    def summary(self) -> str:
        return f"mkdir {self.path}"


class MakeLink(NamedTuple):
    """Make `path` a symbolic link to `target`; what is there is kept where undo finds it."""

    path: str
    target: str

    def summary(self) -> str:
        return f"ln -sfn {self.target} {self.path}"


class ChangeOwner(NamedTuple):
    """Give one file or folder (not what is in it) to a user and a group."""

    path: str
    user: str
    group: str

    def summary(self) -> str:
        return f"chown -h {self.user}:{self.group} {self.path}"


class ChangeMode(NamedTuple):
    """Set the permission bits of one file or folder."""

    path: str
    mode: int

    def summary(self) -> str:
        return f"chmod {self.mode:04o} {self.path}"


class AptInstall(NamedTuple):
    """Install or upgrade packages ("name" or "name=version"); `reinstall` also when they are installed already.
    `remove` goes in exchange, and `may_remove` may: anything else that apt would remove stops the plan. `instead_of` are
    paths that the plan has moved aside before, and that the packages may fill again: an undo makes way there."""

    packages: tuple[str, ...]
    reinstall: bool = False
    may_remove: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    instead_of: tuple[str, ...] = ()

    def summary(self) -> str:
        return " ".join(["apt-get install", *["--reinstall"] * self.reinstall, *self.names()])

    def names(self) -> list[str]:
        return [*self.packages, *(f"{name}-" for name in self.remove)]


class AptRemove(NamedTuple):
    """Remove exactly these packages; `purge` with their configuration."""

    packages: tuple[str, ...]
    purge: bool = False

    def summary(self) -> str:
        return f"apt-get {'purge' if self.purge else 'remove'} {' '.join(self.packages)}"


class AptPurgeReinstall(NamedTuple):
    """Purge these packages, with their configuration, and install the same versions again: the last rung. It begins
    only when every package that goes lies here to come back; what else apt would remove stops it. Those of another
    architecture, as Steam's, go with the machine's own that they need, and come back with them."""

    packages: tuple[str, ...]

    def summary(self) -> str:
        names = " ".join(self.packages)
        return f"apt-get purge {names} && apt-get install {names}"


class AptUnhold(NamedTuple):
    """Take the hold off packages."""

    packages: tuple[str, ...]

    def summary(self) -> str:
        return f"apt-mark unhold {' '.join(self.packages)}"


class DpkgConfigure(NamedTuple):
    """Finish what an interrupted dpkg left undone."""

    def summary(self) -> str:
        return "dpkg --configure -a && apt-get -f install"


class AptFixBroken(NamedTuple):
    """Install what installed packages depend on and lack. It removes nothing: where apt would, it does not begin."""

    def summary(self) -> str:
        return "apt-get -f install"


class PipInstall(NamedTuple):
    """Install packages into one Python environment. The environment is its owner's: only he or she may do it. One that
    uv made has no pip; uv itself installs into it."""

    python: str
    arguments: tuple[str, ...]
    uv: bool = False

    def summary(self) -> str:
        if self.uv:
            return join(("uv", "pip", "install", "--python", self.python, *self.arguments))
        return join((self.python, "-m", "pip", "install", *self.arguments))


class DkmsBuild(NamedTuple):
    """Build and install a DKMS module for one kernel."""

    module: str
    version: str
    kernel: str

    def summary(self) -> str:
        return f"dkms install {self.module}/{self.version} -k {self.kernel}"


class DkmsRemove(NamedTuple):
    """Remove a DKMS module of one version from all kernels."""

    module: str
    version: str

    def summary(self) -> str:
        return f"dkms remove {self.module}/{self.version} --all"


class LoadModules(NamedTuple):
    """Load kernel modules."""

    modules: tuple[str, ...]

    def summary(self) -> str:
        return f"modprobe -a {' '.join(self.modules)}"


class ReloadModules(NamedTuple):
    """Unload the NVIDIA modules, in this order, and load the last of them again."""

    modules: tuple[str, ...]

    def summary(self) -> str:
        return f"modprobe -r {' '.join(self.modules)} && modprobe {self.modules[-1]}"


class RefreshModuleIndex(NamedTuple):
    """Rebuild the index by which modprobe finds the modules of one kernel."""

    kernel: str

    def summary(self) -> str:
        return f"depmod -a {self.kernel}"


class UpdateInitramfs(NamedTuple):
    """Rebuild the initramfs of one kernel, or of all with "all"."""

    kernel: str

    def summary(self) -> str:
        return f"update-initramfs -u -k {self.kernel}"


class RefreshLoaderCache(NamedTuple):
    """Rebuild the cache of the dynamic loader."""

    def summary(self) -> str:
        return "ldconfig"


class SetAlternative(NamedTuple):
    """Choose one alternative of the alternatives system; an empty `path` leaves the choice to its priorities."""

    name: str
    path: str

    def summary(self) -> str:
        return f"update-alternatives {f'--set {self.name} {self.path}' if self.path else f'--auto {self.name}'}"


class Reboot(NamedTuple):
    """Restart the machine."""

    def summary(self) -> str:
        return "systemctl reboot"


class ByHand(NamedTuple):
    """What dlhealth does not do: a firmware setting, hardware, or a person's decision."""

    text: str

    def summary(self) -> str:
        return self.text
