"""Changes of the set of installed packages: always one apt transaction, which was simulated and downloaded before."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from time import time_ns

from dlhealth.actions.kinds import AptFixBroken, AptInstall, AptPurgeReinstall, AptRemove, AptUnhold, DpkgConfigure
from dlhealth.host.change import ABSENT, State
from dlhealth.lazy import regex
from dlhealth.steps.base import A, CommandFailed, DiskFull, Observed, Step, Target, differing
from dlhealth.steps.dkmstree import FOLDER as _DKMS
from dlhealth.steps.dkmstree import clear_interrupted
from dlhealth.steps.locks import need_dpkg, wait_for_dpkg
from dlhealth.steps.space import need_room_for_images, need_room_to_build, need_room_to_unpack

POOL = "/var/lib/dlhealth/debs"
"""Where packages are kept for an undo."""

ARCHIVES = "/var/cache/apt/archives"
_LISTS = "/var/lib/dpkg/info"

_SECONDS = 3600.0
_WAIT_BACK = 600
"""In seconds. An undo of changes waits longer for other programs before it gives up."""
# The administrator's settings for apt must neither turn a removal into a purge, which keeps no configuration, nor add
# an autoremove, which would stop the repair.
_OURS = (
    "-q", "-y", "-oAPT::Get::Purge=false", "-oAPT::Get::AutomaticRemove=false", "-oDpkg::Options::=--force-confold",
)  # fmt: skip
_APT = ("apt-get", *_OURS, "-o", "DPkg::Lock::Timeout=60")
"""The lock was free when the plan began (`need_dpkg`): a program that took it since gets a minute."""
_APT_BACK = ("apt-get", *_OURS, "-o", f"DPkg::Lock::Timeout={_WAIT_BACK}")
_BUILD_ERROR = regex(r"\b(?:error|ERROR):|\*\*\* |No space left on device|Killed signal")
_SIMULATED = regex(r"^(Inst|Remv|Purg) (\S+)(?: \[(\S+)\])?(?: \((\S+))?")


class _PackagesStep(Step[A]):
    """Changes the set of packages."""

    def same(self, now: Observed, recorded: Observed) -> bool:
        """Also if packages were configured since that were unfinished then: no undo returns to that."""
        installed = _states(now)
        completed = {
            name
            for name, (version, state) in _states(recorded).items()
            if state not in "inc" and installed.get(name) == (version, "i")
        }
        packages = {**recorded["packages"], **{name: now["packages"][name] for name in completed}}
        return now == {**recorded, "packages": packages}


class AptInstallStep(_PackagesStep[AptInstall]):
    def _words(self) -> list[str]:
        return ["install", *["--reinstall"] * self.action.reinstall, "--allow-downgrades", *self.action.names()]

    def prepare(self, target: Target) -> None:
        _prepare(target, self._words(), (*self.action.may_remove, *self.action.remove))

    def observe(self, target: Target) -> Observed:
        paths = [*self.action.instead_of, *(_files_of(target, self.action.packages) if self.action.reinstall else ())]
        files = {"files": {path: target.identity(path) for path in paths}} if paths else {}
        return {**_installed(target), **files}

    def apply(self, target: Target, before: Observed) -> None:
        was = _installed(target)  # an earlier step may have released a hold
        _change(target, *self._words())
        # apt marks the named packages as manually installed, and dpkg releases a hold from what it installs again.
        now = _installed(target)
        _mark(target, was, now, sorted(set(was["auto"]) - set(now["auto"])))

    def revert(self, target: Target, before: Observed) -> None:
        _restore(target, before)
        for path in self.action.instead_of:
            target.put(path, ABSENT)

    def left(self, target: Target, before: Observed) -> list[str]:
        changed = [p for p, was in before.get("files", {}).items() if target.identity(p) != was]
        return [*_left(target, before), *(f"{path} stays as in the package" for path in changed)]


class AptRemoveStep(_PackagesStep[AptRemove]):
    def prepare(self, target: Target) -> None:
        _prepare(target, ["purge" if self.action.purge else "remove", *self.action.packages], self.action.packages)

    def observe(self, target: Target) -> Observed:
        return _with_configuration(target, self.action.packages) if self.action.purge else _installed(target)

    def apply(self, target: Target, before: Observed) -> None:
        _change(target, "purge" if self.action.purge else "remove", *self.action.packages)

    def revert(self, target: Target, before: Observed) -> None:
        _restore(target, before)

    def left(self, target: Target, before: Observed) -> list[str]:
        return _left(target, before)


class AptPurgeReinstallStep(_PackagesStep[AptPurgeReinstall]):
    def prepare(self, target: Target) -> None:
        _prepare(target, ["purge", *self.action.packages], tuple(f"{name}:any" for name in self.action.packages))
        _need_room_to_configure(target, self.action.packages)

    def observe(self, target: Target) -> Observed:
        return _with_configuration(target, self.action.packages)

    def apply(self, target: Target, before: Observed) -> None:
        target.command(*_APT, "purge", *self.action.packages, timeout=_SECONDS)
        # Installed completely, whatever state they had before; with the configuration that they bring.
        there = {n: f"{version} ii " for n, (version, state) in _states(before).items() if state not in "nc"}
        _restore(target, {"packages": {**before["packages"], **there}, "auto": before["auto"]})

    def revert(self, target: Target, before: Observed) -> None:
        _restore(target, before)

    def left(self, target: Target, before: Observed) -> list[str]:
        return _left(target, before)


class AptUnholdStep(Step[AptUnhold]):
    def prepare(self, target: Target) -> None:
        need_dpkg(target)
        target.unheld = True

    def observe(self, target: Target) -> Observed:
        held = target.command("apt-mark", "showhold", timeout=60).stdout.split()
        return {name: name in held for name in self.action.packages}

    def apply(self, target: Target, before: Observed) -> None:
        target.command("apt-mark", "unhold", *self.action.packages, timeout=60)

    def revert(self, target: Target, before: Observed) -> None:
        held = [name for name in self.action.packages if before[name]]
        if held:
            target.command("apt-mark", "hold", *held, timeout=60)

    def left(self, target: Target, before: Observed) -> list[str]:
        return [f"{name} is not on hold as before" for name in differing(before, self.observe(target))]


class DpkgConfigureStep(Step[DpkgConfigure]):
    def prepare(self, target: Target) -> None:
        need_dpkg(target)
        _need_room_to_configure(target, [n for n, (_, state) in _states(_installed(target)).items() if state != "i"])

    def observe(self, target: Target) -> Observed:
        return {n: state for n, (_, state) in _states(_installed(target)).items() if state not in "inc"}

    def apply(self, target: Target, before: Observed) -> None:
        clear_interrupted(target)  # beside them the script of a DKMS package fails
        words = ("dpkg", "--force-confold", "--configure", "-a")
        if any(text.endswith("R") for text in _installed(target)["packages"].values()):
            # dpkg and apt fail here on packages that must be reinstalled, but only after dpkg has finished its journal.
            target.command(*words, timeout=_SECONDS, check=False)
            return
        target.command(*words, timeout=_SECONDS)
        # What apt would have to remove for that (a user's program that lacks a library) is not part of this.
        if not _leaving(_simulate(target, "-f", "install")):
            target.command(*_APT, "-f", "install", timeout=_SECONDS, network=True)

    def revert(self, target: Target, before: Observed) -> None:
        # Half-configured is not a state to return to: a configured package is the one thing that an undo leaves.
        return None

    def left(self, target: Target, before: Observed) -> list[str]:
        now = self.observe(target)
        return [f"{name} stays configured" for name in before if name not in now]


class AptFixBrokenStep(_PackagesStep[AptFixBroken]):
    def prepare(self, target: Target) -> None:
        _prepare(target, ["-f", "install"], ())

    def observe(self, target: Target) -> Observed:
        return _installed(target)

    def apply(self, target: Target, before: Observed) -> None:
        _change(target, "-f", "install")

    def revert(self, target: Target, before: Observed) -> None:
        _restore(target, before)

    def left(self, target: Target, before: Observed) -> list[str]:
        return _left(target, before)


def _change(target: Target, *words: str) -> None:
    """Run apt. If a package's script fails because a module does not build, the error also names the build's first
    error: apt only says that dpkg failed."""
    started = time_ns()
    try:
        target.command(*_APT, *words, timeout=_SECONDS)
    except DiskFull:
        raise
    except CommandFailed as problem:
        raise CommandFailed("; ".join([str(problem), *_build_errors(target, started)])) from problem


def _build_errors(target: Target, since: int) -> list[str]:
    """The first error of each DKMS build that failed since then (in nanoseconds). Its log stays until the next
    build."""
    errors = []
    for module in target.names(_DKMS):
        for version in target.names(f"{_DKMS}/{module}"):
            path = f"{_DKMS}/{module}/{version}/build/make.log"
            if target.identity(path).get("mtime", 0) >= since:
                lines = target.state(path).content.decode(errors="replace").splitlines()
                errors += [f"{path}: {line.strip()[:200]}" for line in lines if _BUILD_ERROR.search(line)][:1]
    return errors


def _installed(target: Target) -> Observed:
    form = "${binary:Package}\\t${Version} ${db:Status-Abbrev}\\n"
    listed = target.command("dpkg-query", "-W", "-f", form, timeout=60).stdout
    return {"packages": dict(line.split("\t") for line in listed.splitlines()), "auto": sorted(_automatic(target))}


def _files_of(target: Target, packages: tuple[str, ...]) -> list[str]:
    """dpkg's paths of these packages, without configuration, which dpkg keeps unchanged."""
    wanted = {name.partition("=")[0].partition(":")[0] for name in packages}
    lists = [n for n in target.names(_LISTS) if n.endswith(".list") and n[:-5].partition(":")[0] in wanted]
    texts = [target.state(f"{_LISTS}/{name}").content.decode(errors="surrogateescape") for name in lists]
    paths = [path for text in texts for path in text.splitlines()]
    folders = {path.rpartition("/")[0] for path in paths}
    return [p for p in paths if p not in folders and p.startswith("/") and p != "/." and not p.startswith("/etc/")]


def _left(target: Target, before: Observed) -> list[str]:
    """Packages that differ from before. A package that was half installed and is now complete is not a loss."""
    installed = _installed(target)
    now, then = _states(installed), _states(before)
    found = []
    for name, (version, state) in then.items():
        has, is_now = now.get(name, ("", "n"))
        if state == "i" and (has, is_now) != (version, "i"):
            found.append(f"{name} is {has if is_now == 'i' else 'not installed'}, but was {version}")
        elif state in "nc" and is_now not in "nc":
            found.append(f"{name} is installed")
        elif state == "i" and _on_hold(before, name) != _on_hold(installed, name):
            found.append(f"{name} is not on hold as before")
    found += [f"{name} is installed" for name, (_, state) in now.items() if name not in then and state not in "nc"]
    configuration = before.get("configuration", {}).items()
    return [*found, *(path for path, state in configuration if target.state(path).to_json() != state)]


def _automatic(target: Target) -> list[str]:
    """The names of "apt-mark showauto". That command rebuilds apt's cache after each change by dpkg, which takes a
    second and 40 MB on the disk; so it runs only if the file is not in its usual place."""
    states = target.state("/var/lib/apt/extended_states")
    if states.kind != "file":
        return target.command("apt-mark", "showauto", timeout=60).stdout.split()
    native = _native(target)
    return [_name(r, native) for r in _records(states.content.decode()) if r.get("Auto-Installed") == "1"]


def _records(text: str) -> list[dict[str, str]]:
    """The first lines of the fields of each paragraph, in the format of dpkg and apt."""
    paragraphs = (p.splitlines() for p in text.split("\n\n"))
    fields = ([line.partition(": ") for line in lines if line[:1] not in (" ", "\t")] for lines in paragraphs)
    return [{key: value.strip() for key, _, value in each} for each in fields if each]


def _name(record: dict[str, str], native: str) -> str:
    """The name that apt uses: with the architecture if that is a foreign one."""
    architecture = record.get("Architecture", "")
    plain = record.get("Package", "")
    return f"{plain}:{architecture}" if native and architecture not in ("", "all", native) else plain


def _states(installed: Observed) -> dict[str, tuple[str, str]]:
    """Name → version and letter of the state, "i" if all is well; with "n" and "c" none of its programs are installed
    (dpkg-query(1), db:Status-Abbrev)."""
    shown = {name: text.split(" ") for name, text in installed["packages"].items()}
    return {name: (words[0], words[1][1:2]) for name, words in shown.items()}


def _with_configuration(target: Target, names: tuple[str, ...]) -> Observed:
    """What a purge also deletes: configuration, which an administrator may have edited."""
    listed = target.command("dpkg-query", "-W", "-f", "${Conffiles}\n", *names, timeout=60, check=False).stdout
    paths = [line.split()[0] for line in listed.splitlines() if line.strip()]
    return {**_installed(target), "configuration": {p: target.state(p).to_json() for p in paths}}


def _prepare(target: Target, words: list[str], may_remove: tuple[str, ...]) -> None:
    """Raises CommandFailed if apt cannot do it, or would remove anything else; a name with ":any" allows to remove the
    package in all its architectures."""
    need_dpkg(target)
    if target.unheld:  # later; apt refuses to change a package that is still on hold, before it changes anything
        words = ["--allow-change-held-packages", *words]
    simulated = _simulate(target, *words)
    leaving: dict[str, str] = {}
    coming: dict[str, str] = {}
    for line in simulated.splitlines():
        found = _SIMULATED.match(line)
        if found is None:
            continue
        what, name, version, new = found.groups()
        if what != "Inst" and not {name, f"{name.partition(':')[0]}:any"}.intersection(may_remove):
            raise CommandFailed(f"apt would also remove {name}, which is not part of this repair")
        if version:
            leaving[name] = version
        if what == "Inst":
            coming[name] = new or ""
    _need_room_for_initramfs(target, [*coming, *leaving])
    known = _known(target, [*coming.items(), *leaving.items()])
    if coming:
        _need_room_to_unpack(target, known, coming, leaving)
        _need_room_to_configure(target, list(coming))
        if not _are_here(target, known, coming):
            target.command(*_APT, "--download-only", *words, timeout=_SECONDS, network=True)
    for item in leaving.items():
        _keep_package(target, *item, known.get(item, {}).get("Size"))


def _simulate(target: Target, *words: str) -> str:
    """What apt would do. Raises CommandFailed if it refuses, as it does for packages on hold."""
    return target.command("apt-get", "-s", *_OURS, *words, timeout=300).stdout


def _leaving(simulated: str) -> set[str]:
    return {m[2] for line in simulated.splitlines() if (m := _SIMULATED.match(line)) and m[1] != "Inst"}


_Known = dict[tuple[str, str], dict[str, str]]
"""apt's records of packages, by name and version."""


def _known(target: Target, asked: Iterable[tuple[str, str]]) -> _Known:
    words = sorted({f"{name}={version}" for name, version in asked})
    shown = target.command("apt-cache", "show", *words, timeout=300, check=False).stdout
    native = _native(target)
    return {(_name(r, native), r.get("Version", "")): r for r in _records(shown)}


def _need_room_to_unpack(target: Target, known: _Known, coming: dict[str, str], leaving: dict[str, str]) -> None:
    """Installed-Size is in KiB (deb-substvars(5)); a package that apt no longer knows counts as nothing."""
    new, old = ([int(known.get(i, {}).get("Installed-Size") or 0) << 10 for i in s.items()] for s in (coming, leaving))
    # dpkg unpacks the whole package before it removes the old files.
    need_room_to_unpack(target, coming, max(0, sum(new) - sum(old)) + max(new))


def _need_room_to_configure(target: Target, names: Sequence[str]) -> None:
    """For the configuration of packages: kernels and module sources start DKMS."""
    if any(name.endswith("-dkms") or name.startswith(("linux-image-", "linux-headers-")) for name in names):
        need_room_to_build(target)
    _need_room_for_initramfs(target, names)


def _need_room_for_initramfs(target: Target, names: Sequence[str]) -> None:
    """Kernels rebuild the initramfs when they are installed or removed. So do the driver's libraries, through their
    alternatives."""
    if any(part in name for name in names for part in ("nvidia", "libcuda", "-dkms", "linux-image-", "initramfs-")):
        need_room_for_images(target, "all")


def _are_here(target: Target, known: _Known, coming: dict[str, str]) -> bool:
    """Whether all archives are here in full size. apt uses the same test before it downloads; asking apt takes a
    second."""
    return all("Size" in (r := known.get(i, {})) and _have(target, ARCHIVES, *i, r["Size"]) for i in coming.items())


def _have(target: Target, folder: str, name: str, version: str, size: str | None) -> str | None:
    """The name of its archive in a directory; None if there is none, or only an incomplete one."""
    native = _native(target)
    file = next((n for n in target.names(folder) if _is_file_of(n, name, version, native)), None)
    whole = file and size in (None, str(target.identity(f"{folder}/{file}").get("size")))
    return file if whole else None


# An incomplete download, as on a full disk, never gets the name of an archive.
_FETCH = f"""
cd {POOL} && rm -rf partial && mkdir partial || exit 1
(cd partial && apt-get -q download "$1" && set -- *.deb && [ -e "$1" ] && sync "$@" && mv "$@" ..)
status=$?; rm -rf partial; exit $status
"""


def _keep_package(target: Target, name: str, version: str, size: str | None) -> None:
    """Keep the present version of a package before its removal, for an undo. apt does not know the size of a package
    that no source offers any more."""
    if _have(target, POOL, name, version, size):
        return
    target.make_folder(POOL)
    _drop(target, name, version)
    said = ""
    if cached := _have(target, ARCHIVES, name, version, size):
        target.share(f"{ARCHIVES}/{cached}", POOL)
    else:
        words = ("sh", "-c", _FETCH, "sh", f"{name}={version}")
        fetched = target.command(*words, timeout=_SECONDS, check=False, network=True)
        said = (fetched.stderr.strip().splitlines() or [""])[-1]
    kept = _have(target, POOL, name, version, size)
    if kept is None:
        # from a directory, apt copies only what fits on the disk, and does not report it
        if _drop(target, name, version):
            said = f"{POOL} received only a part of it: is the disk full?"
        raise CommandFailed(
            f"{name} {version} is no longer available{said and f' ({said})'}, so the repair could not be undone: "
            f"nothing was changed"
        )
    target.settle(f"{POOL}/{kept}")


def _drop(target: Target, name: str, version: str) -> bool:
    """Remove an incomplete archive from the pool; whether there was one."""
    broken = _have(target, POOL, name, version, None)
    if broken:
        target.put(f"{POOL}/{broken}", ABSENT)
    return bool(broken)


def _native(target: Target) -> str:
    """The machine's own architecture; "" if it is the only one. dpkg keeps a list once there is a foreign architecture,
    and writes its own first (dpkg_arch_save_list in lib/dpkg/arch.c)."""
    return target.state("/var/lib/dpkg/arch").content.decode().partition("\n")[0]


def _is_file_of(file: str, name: str, version: str, native: str) -> bool:
    """Whether a .deb is that version of a package: of the architecture in the name ("libcuda1:i386"), otherwise of the
    native one or of none."""
    plain, _, architecture = name.partition(":")
    stem, _, built = file.removesuffix(".deb").rpartition("_")
    fits = built == architecture if architecture else built in (native or built, "all")
    return fits and stem == f"{plain}_{version.replace(':', '%3a')}"


def _exchange(target: Target, debs: list[str], leaving: list[str]) -> None:
    """Install packages from files while others are removed. apt does it; dpkg does it if apt would remove more than
    these, because the previous state had unfulfilled dependencies. dpkg also does it if apt does not get that far:
    another apt that only downloads blocks it, and a program that it asks first (apt-listbugs, etckeeper) may refuse."""

    # Without --reinstall apt skips a package that already has this version, even if half of its files are missing.
    # Recommended packages were installed and are among these, or were not wanted.
    words = ["install", "--reinstall", "--allow-downgrades", "--no-install-recommends"]
    words += [*debs, *(f"{name}-" for name in leaving)]
    if not debs and not leaving:
        return
    with suppress(CommandFailed):
        if _leaving(_simulate(target, *words)) <= {n.partition(":")[0] for n in leaving} | set(leaving):
            target.command(*_APT_BACK, *words, timeout=_SECONDS)
            return
    if leaving:
        target.command("dpkg", "--force-depends", "--remove", *leaving, timeout=_SECONDS)
    if debs:
        target.command("dpkg", "--force-depends", "--force-confold", "--install", *debs, timeout=_SECONDS)


def _restore(target: Target, before: Observed) -> None:
    """Restore the set of packages from the pool, with their configuration."""
    # Programs that a killed dlhealth started still run, and may change the state after it was read.
    wait_for_dpkg(target, _WAIT_BACK)
    _configure_others(target, before)
    now, then = _states(_installed(target)), _states(before)
    old = {n: version for n, (version, state) in then.items() if state == "i"}
    pool, native = target.names(POOL), _native(target)
    debs, lost = [], []
    for name, version in old.items():
        if now.get(name) == (version, "i"):
            continue
        deb = next((n for n in pool if _is_file_of(n, name, version, native)), None)
        if deb:
            debs.append(f"{POOL}/{deb}")
        elif now.get(name, ("", ""))[1] != "i":
            lost.append(f"{name} {version}")
        # Otherwise somebody else installed another version since: what the plan changes is in the pool.
    # A package that was half installed and is now complete stays: libc6 waits for triggers whenever dpkg is
    # interrupted.
    there_too = {n for n, (_, state) in then.items() if state not in "nc"}
    _exchange(target, debs, [n for n, (_, state) in now.items() if state not in "nc" and n not in there_too])
    installed = _installed(target)
    strange = [name for name in installed["packages"] if name not in before["packages"]]
    if strange:  # their configuration remains
        target.command("dpkg", "--purge", *strange, timeout=_SECONDS)
    for path, state in before.get("configuration", {}).items():
        target.put(path, State.from_json(state))
    _mark(target, before, installed, before["auto"])
    if lost:  # reported last, so that everything else is restored first
        raise CommandFailed(f"the old package {', '.join(lost)} is missing from {POOL}")


def _configure_others(target: Target, before: Observed) -> None:
    """Configure what others left unfinished. A package of this step that could not be configured would fail again, for
    a module after minutes of building: it is removed, or its old version returns."""
    now, then = _states(_installed(target)), _states(before)
    unfinished = {name for name, (_, state) in now.items() if state in "HUF"}
    new = {name for name in unfinished if then.get(name, ("", "n"))[1] in "nc"}
    changed = {name for name in unfinished - new if then[name][0] != now[name][0]}
    if new:
        target.command("dpkg", "--force-depends", "--remove", *sorted(new), timeout=_SECONDS, check=False)
    names = sorted(unfinished - new - changed) if changed else ["-a"]
    if names:
        target.command("dpkg", "--force-confold", "--configure", *names, timeout=_SECONDS, check=False)


def _mark(target: Target, before: Observed, now: Observed, automatic: Sequence[str]) -> None:
    """Mark these as automatically installed, and restore the previous holds, for packages that are installed."""
    here = {n for n, (_, state) in _states(now).items() if state == "i"}
    names = here | {n.partition(":")[0] for n in here}
    held = [n for n in sorted(here) if _on_hold(before, n) and not _on_hold(now, n)]
    for verb, marked in (("auto", [n for n in automatic if n in names]), ("hold", held)):
        if marked:
            target.command("apt-mark", verb, *marked, timeout=60)


def _on_hold(installed: Observed, name: str) -> bool:
    text: str = installed["packages"].get(name, "")
    return text.partition(" ")[2].startswith("h")
