"""Changes of kernel modules, boot images, alternatives, units; and what only a person can do."""

from collections.abc import Iterable

from dlhealth.actions.kinds import (
    DkmsBuild,
    DkmsRemove,
    LoadModules,
    RefreshLoaderCache,
    RefreshModuleIndex,
    ReloadModules,
    SetAlternative,
    UpdateInitramfs,
)
from dlhealth.host.change import ABSENT, State
from dlhealth.steps.base import KEPT, CommandFailed, CopyGone, Observed, Step, Target, module_tree
from dlhealth.steps.room import images, need_dpkg, need_room, need_room_for_images, need_room_to_build

_BUILD_SECONDS = 3600.0
"""A DKMS build of the five modules takes minutes on a fast machine; a slow one is not killed half way."""

_COMMAND_SECONDS = 900.0

_HOOKS = "/etc/initramfs/post-update.d"
"""What update-initramfs runs for an image that it has made: systemd-boot has its own copy, which is the one that
starts."""


class DkmsBuildStep(Step[DkmsBuild]):
    def prepare(self, target: Target) -> None:
        need_dpkg(target)
        need_room_to_build(target)

    def observe(self, target: Target) -> Observed:
        return module_tree(
            target,
            [
                f"/lib/modules/{self.action.kernel}/updates",
                f"/var/lib/dkms/{self.action.module}/{self.action.version}/{self.action.kernel}",
            ],
        )

    def apply(self, target: Target, before: Observed) -> None:
        target.command(
            "dkms",
            "install",
            f"{self.action.module}/{self.action.version}",
            "-k",
            self.action.kernel,
            timeout=_BUILD_SECONDS,
        )

    def revert(self, target: Target, before: Observed) -> None:
        module = f"{self.action.module}/{self.action.version}"
        # A module that was built before, and not installed, stays built.
        built = any(p.startswith("/var/lib/dkms/") and "/module/" in p for p in before)
        verb = "uninstall" if built else "remove"
        target.command("dkms", verb, module, "-k", self.action.kernel, timeout=_COMMAND_SECONDS, check=False)
        if not built:
            # The last kernel's removal also forgets the source; it was registered before.
            target.command("dkms", "add", module, timeout=_COMMAND_SECONDS, check=False)


class DkmsRemoveStep(Step[DkmsRemove]):
    def prepare(self, target: Target) -> None:
        need_dpkg(target)

    def observe(self, target: Target) -> Observed:
        return module_tree(target, [f"/var/lib/dkms/{self.action.module}/{self.action.version}"])

    def apply(self, target: Target, before: Observed) -> None:
        target.command(
            "dkms", "remove", f"{self.action.module}/{self.action.version}", "--all", timeout=_COMMAND_SECONDS
        )

    def revert(self, target: Target, before: Observed) -> None:
        target.command(
            "dkms", "add", f"{self.action.module}/{self.action.version}", timeout=_COMMAND_SECONDS, check=False
        )
        start = f"/var/lib/dkms/{self.action.module}/{self.action.version}/"
        kernels = {p.removeprefix(start).split("/")[0] for p in before if "/module/" in p}
        for kernel in sorted(kernels):
            DkmsBuildStep(DkmsBuild(self.action.module, self.action.version, kernel)).apply(target, {})


class LoadModulesStep(Step[LoadModules]):
    def prepare(self, target: Target) -> None:
        _needs_running(target, self.action.summary())

    def observe(self, target: Target) -> Observed:
        loaded = _loaded(target)
        return {m: m.replace("-", "_") in loaded for m in self.action.modules}

    def apply(self, target: Target, before: Observed) -> None:
        target.command("modprobe", "-a", *self.action.modules, timeout=_COMMAND_SECONDS)

    def revert(self, target: Target, before: Observed) -> None:
        # A disk that is looked at from another machine has none loaded. One that is used by now, as by a daemon of the
        # driver or since a start that loaded it by itself, stays until the next start: of what is on the disk it is no
        # part.
        for module in reversed([m for m in self.action.modules if target.live and not before[m]]):
            target.command("modprobe", "-r", module, timeout=_COMMAND_SECONDS, check=False)


class ReloadModulesStep(Step[ReloadModules]):
    def prepare(self, target: Target) -> None:
        _needs_running(target, self.action.summary())

    def observe(self, target: Target) -> Observed:
        name = self.action.modules[-1].replace("-", "_")
        content = target.state(f"/sys/module/{name}/version").content
        return {"version": content.decode(errors="replace").strip()}

    def apply(self, target: Target, before: Observed) -> None:
        target.command("modprobe", "-r", *self.action.modules, timeout=_COMMAND_SECONDS)
        target.command("modprobe", self.action.modules[-1], timeout=_COMMAND_SECONDS)

    def revert(self, target: Target, before: Observed) -> None:
        # The module that was loaded is no longer on the disk, as that is what was wrong: there is nothing to go back
        # to, and a machine with the module of its libraries is not worse off.
        return None


class RefreshModuleIndexStep(Step[RefreshModuleIndex]):
    def prepare(self, target: Target) -> None:
        need_dpkg(target)
        size = sum(target.root.stat(path, follow=True).st_size for path in self._files(target))
        need_room(target, f"/lib/modules/{self.action.kernel}", size, "a new index of modules")
        need_room(target, KEPT, size, f"copies for an undo of {self.action.summary()}")

    def observe(self, target: Target) -> Observed:
        return {path: target.large_digest(path) for path in self._files(target)}

    def apply(self, target: Target, before: Observed) -> None:
        _keep(target, before)
        target.command("depmod", "-a", self.action.kernel, timeout=_COMMAND_SECONDS)

    def revert(self, target: Target, before: Observed) -> None:
        for path, digest in before.items():
            _put_back(target, path, digest)

    def _files(self, target: Target) -> list[str]:
        folder = f"/lib/modules/{self.action.kernel}"
        return [f"{folder}/{name}" for name in target.names(folder) if name.startswith("modules.")]


class UpdateInitramfsStep(Step[UpdateInitramfs]):
    def prepare(self, target: Target) -> None:
        need_dpkg(target)
        need_room_for_images(target, self.action.kernel)
        kept = sum(images(target, self.action.kernel).values())
        need_room(target, KEPT, kept, f"copies for an undo of {self.action.summary()}")

    def observe(self, target: Target) -> Observed:
        return {name: target.large_digest(f"/boot/{name}") for name in images(target, self.action.kernel)}

    def apply(self, target: Target, before: Observed) -> None:
        _keep(target, [f"/boot/{name}" for name in before])
        target.command("update-initramfs", "-u", "-k", self.action.kernel, timeout=_COMMAND_SECONDS)

    def revert(self, target: Target, before: Observed) -> None:
        # What update-initramfs has beside an image while it writes a new one, and leaves there when the power goes. It
        # goes first: there may be no room for two beside the image.
        beside = {f"{name}{suffix}" for name in before for suffix in (".new", ".dpkg-bak")}
        for name in beside.intersection(target.names("/boot")).difference(before):
            target.put(f"/boot/{name}", ABSENT)
        for name, digest in before.items():
            _put_back(target, f"/boot/{name}", digest)
        for name in before if target.names(_HOOKS) else ():
            kernel = name.removeprefix("initrd.img-")
            if target.identity(f"/boot/vmlinuz-{kernel}"):
                words = (f"--arg={kernel}", f"--arg=/boot/{name}", _HOOKS)
                target.command("run-parts", *words, timeout=_COMMAND_SECONDS)


class RefreshLoaderCacheStep(Step[RefreshLoaderCache]):
    def prepare(self, target: Target) -> None:
        return None

    def observe(self, target: Target) -> Observed:
        return target.state("/etc/ld.so.cache").to_json()

    def apply(self, target: Target, before: Observed) -> None:
        target.command("ldconfig", timeout=_COMMAND_SECONDS)

    def revert(self, target: Target, before: Observed) -> None:
        target.put("/etc/ld.so.cache", State.from_json(before))


class SetAlternativeStep(Step[SetAlternative]):
    def prepare(self, target: Target) -> None:
        return None

    def observe(self, target: Target) -> Observed:
        # The first line of the administrative file is "auto" or "manual" (update-alternatives(1), FILES).
        status = (
            target.state(f"/var/lib/dpkg/alternatives/{self.action.name}")
            .content.split(b"\n")[0]
            .decode(errors="replace")
        )
        value = target.state(f"/etc/alternatives/{self.action.name}").content.decode(errors="replace")
        return {"status": status, "value": value}

    def apply(self, target: Target, before: Observed) -> None:
        self._choose(target, self.action.path)

    def revert(self, target: Target, before: Observed) -> None:
        self._choose(target, before["value"] if before["status"] == "manual" else "")

    def _choose(self, target: Target, path: str) -> None:
        words = ["--set", self.action.name, path] if path else ["--auto", self.action.name]
        target.command("update-alternatives", *words, timeout=_COMMAND_SECONDS)


def _loaded(target: Target) -> set[str]:
    """None of a disk that is looked at from another machine, and none where the kernel takes no modules."""
    table = target.state("/proc/modules").content.decode() if target.live else ""
    return {line.split()[0] for line in table.splitlines()}


def _keep(target: Target, paths: Iterable[str]) -> None:
    """Copies of large files, but of those that an earlier step took away, as the removal of a kernel does."""
    for path in paths:
        if target.identity(path):
            target.keep(path)


def _put_back(target: Target, path: str, digest: str) -> None:
    """Raises CopyGone where a large file is not as it was then, and what was kept of it is gone. What was kept may
    have another digest: an earlier step may have made the file anew, as apt's triggers do. A file that is not there was
    not there to be kept: depmod and "update-initramfs -u" delete none."""
    if target.put_back(path) or not target.identity(path):
        return
    if target.large_digest(path) != digest:
        raise CopyGone(f"{path} can't be restored as it was: its copy is gone from {KEPT}")


def _needs_running(target: Target, what: str) -> None:
    if not target.live:
        raise CommandFailed(f"only the running machine can do this: {what}")
