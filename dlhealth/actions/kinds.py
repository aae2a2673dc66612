"""The closed set of changes that dlhealth may make, or ask a person to make, as data."""

from shlex import join

from dlhealth.records import NamedTuple


class EditFile(NamedTuple):
    """Replace whole lines of one file. `changes` are (number from 1, the present line, the new line, or None to remove
    it)."""

    path: str
    changes: tuple[tuple[int, str, str | None], ...]

    def summary(self) -> str:
        parts = [
            f"remove line {number} ({old.strip()})" if new is None else f"line {number} becomes: {new.strip()}"
            for number, old, new in self.changes
        ]
        return f"{self.path}: {'; '.join(parts)}"


class WriteFile(NamedTuple):
    """Create a file, or replace an existing one, whose owner and mode stay."""

    path: str
    text: str
    mode: int = 0o644

    def summary(self) -> str:
        return f"write {self.path}: {self.text.strip().replace(chr(10), ' / ')}"


class CopyFile(NamedTuple):
    """Copy one of the machine's files to a free path, readable by everybody."""

    source: str
    path: str

    def summary(self) -> str:
        return f"cp {self.source} {self.path}"


class MoveAside(NamedTuple):
    """Move a file, a link or a whole directory out of the way, whatever its size. An undo moves it back."""

    path: str

    def summary(self) -> str:
        return f"move {self.path} aside (kept in /var/lib/dlhealth)"


class MakeDirectory(NamedTuple):
    """Make an empty directory in one that exists, for everybody to read; one that exists already stays as it is."""

    path: str

    def summary(self) -> str:
        return f"mkdir {self.path}"


class MakeLink(NamedTuple):
    """Make `path` a symbolic link to `target`. An undo restores the previous file."""

    path: str
    target: str

    def summary(self) -> str:
        return f"ln -sfn {self.target} {self.path}"


class ChangeOwner(NamedTuple):
    """Change user and group of one file or directory, not of its content."""

    path: str
    user: str
    group: str

    def summary(self) -> str:
        return f"chown -h {self.user}:{self.group} {self.path}"


class ChangeMode(NamedTuple):
    """Set the permission bits of one file or directory."""

    path: str
    mode: int

    def summary(self) -> str:
        return f"chmod {self.mode:04o} {self.path}"


class AptInstall(NamedTuple):
    """Install or upgrade packages ("name" or "name=version"); `reinstall` also those that are already installed.
    `remove` must be removed in the same step, and `may_remove` may be; if apt would remove anything else, the plan
    stops. `instead_of` are paths that the plan moved out of the way before and that the packages may fill again: an
    undo frees them."""

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
    """Remove exactly these packages; with `purge`, also their configuration."""

    packages: tuple[str, ...]
    purge: bool = False

    def summary(self) -> str:
        return f"apt-get {'purge' if self.purge else 'remove'} {' '.join(self.packages)}"


class AptPurgeReinstall(NamedTuple):
    """Purge these packages with their configuration, and install the same versions again: the most drastic repair. It
    begins only if dlhealth has an archive of every package that is removed. If apt would remove anything else, the plan
    stops. Packages of another architecture (Steam's, for example) are removed and return with the native packages that
    they need."""

    packages: tuple[str, ...]

    def summary(self) -> str:
        names = " ".join(self.packages)
        return f"apt-get purge {names} && apt-get install {names}"


class AptUnhold(NamedTuple):
    """Release the hold on packages."""

    packages: tuple[str, ...]

    def summary(self) -> str:
        return f"apt-mark unhold {' '.join(self.packages)}"


class DpkgConfigure(NamedTuple):
    """Finish the work of an interrupted dpkg."""

    def summary(self) -> str:
        return "dpkg --configure -a && apt-get -f install"


class AptFixBroken(NamedTuple):
    """Install missing dependencies of installed packages. It removes nothing: if apt would, the step does not begin."""

    def summary(self) -> str:
        return "apt-get -f install"


class PipInstall(NamedTuple):
    """Install packages into one Python environment. Only the owner of the environment may do it. An environment made by
    uv has no pip: uv installs into it."""

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
    """Rebuild the index that modprobe uses to find the modules of one kernel."""

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
    """Choose one path of an alternative; an empty `path` leaves the choice to the priorities."""

    name: str
    path: str

    def summary(self) -> str:
        return f"update-alternatives {f'--set {self.name} {self.path}' if self.path else f'--auto {self.name}'}"


class Reboot(NamedTuple):
    """Reboot the machine."""

    def summary(self) -> str:
        return "systemctl reboot"


class ByHand(NamedTuple):
    """A step for a person: a firmware setting, hardware, or a decision."""

    text: str

    def summary(self) -> str:
        return self.text
