"""Changes of kernel modules, boot images, alternatives and units; and steps for a person."""

from collections.abc import Collection, Iterable
from contextlib import suppress

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
from dlhealth.steps.base import KEPT, CommandFailed, CopyGone, Observed, Step, Target, differing, module_tree
from dlhealth.steps.dkmstree import is_built
from dlhealth.steps.locks import need_dpkg
from dlhealth.steps.space import images, need_room, need_room_for_images, need_room_to_build

_BUILD_SECONDS = 3600.0
"""A DKMS build of the five modules takes minutes on a fast machine; a slow one must not be killed halfway."""

_COMMAND_SECONDS = 900.0

_CHOICES = "/etc/alternatives"
_HOOKS = "/etc/initramfs/post-update.d"
"""What update-initramfs runs after it made an image: systemd-boot boots its own copy of it."""


class DkmsBuildStep(Step[DkmsBuild]):
    def prepare(self, target: Target) -> None:
        need_dpkg(target)
        need_room_to_build(target)

    def observe(self, target: Target) -> Observed:
        found = module_tree(target, [f"/lib/modules/{self.action.kernel}/updates"])
        return {**found, **(self._built(target) if is_built(target, self._name, self.action.kernel) else {})}

    def apply(self, target: Target, before: Observed) -> None:
        self._clear(target)
        target.command("dkms", "install", self._name, "-k", self.action.kernel, timeout=_BUILD_SECONDS)

    def revert(self, target: Target, before: Observed) -> None:
        names = {_stem(path) for path in self._built(target)}
        # A module that was built but not installed before stays built.
        built = any(p.startswith(self._folder) for p in before)
        verb = "uninstall" if built else "remove"
        target.command("dkms", verb, self._name, "-k", self.action.kernel, timeout=_COMMAND_SECONDS, check=False)
        if not built:
            # Removing the module from the last kernel also unregisters the source; it was registered before.
            target.command("dkms", "add", self._name, timeout=_COMMAND_SECONDS, check=False)
            self._clear(target)
        _remove_strays(target, self.action.kernel, names, before)

    @property
    def _name(self) -> str:
        return f"{self.action.module}/{self.action.version}"

    @property
    def _folder(self) -> str:
        return f"/var/lib/dkms/{self._name}/{self.action.kernel}"

    def _built(self, target: Target) -> Observed:
        return {p: v for p, v in module_tree(target, [self._folder]).items() if "/module/" in p}

    def _clear(self, target: Target) -> None:
        """Remove the remains of an interrupted build, by dlhealth or apt: dkms refuses to build beside them, and has no
        command to remove them."""
        if not is_built(target, self._name, self.action.kernel):
            target.remove_tree(self._folder)
            target.remove_tree(f"/var/lib/dkms/{self._name}/build")


class DkmsRemoveStep(Step[DkmsRemove]):
    def prepare(self, target: Target) -> None:
        need_dpkg(target)

    def observe(self, target: Target) -> Observed:
        return module_tree(target, [f"/var/lib/dkms/{self.action.module}/{self.action.version}"])

    def apply(self, target: Target, before: Observed) -> None:
        target.command("dkms", "remove", self._name, "--all", timeout=_COMMAND_SECONDS)
        # If only some of its modules were installed for a kernel, dkms lists none as installed, and keeps them.
        status = target.command("dkms", "status", self.action.module, timeout=_COMMAND_SECONDS, check=False).stdout
        for kernel, built in self._kernels(before).items():
            if f", {kernel}, " not in status:
                _remove_strays(target, kernel, built, {})

    def revert(self, target: Target, before: Observed) -> None:
        target.command("dkms", "add", self._name, timeout=_COMMAND_SECONDS, check=False)
        for kernel in sorted(self._kernels(before)):
            DkmsBuildStep(DkmsBuild(self.action.module, self.action.version, kernel)).apply(target, {})

    def left(self, target: Target, before: Observed) -> list[str]:
        # A rebuilt module has another time and perhaps another size.
        return sorted({p for p in before if "/module/" in p} - set(self.observe(target)))

    @property
    def _name(self) -> str:
        return f"{self.action.module}/{self.action.version}"

    def _kernels(self, before: Observed) -> dict[str, set[str]]:
        """The kernels for which it was built, with the names of the modules."""
        found: dict[str, set[str]] = {}
        for path in before:
            if "/module/" in path:
                kernel = path.removeprefix(f"/var/lib/dkms/{self._name}/").split("/")[0]
                found.setdefault(kernel, set()).add(_stem(path))
        return found


class LoadModulesStep(Step[LoadModules]):
    def prepare(self, target: Target) -> None:
        _needs_running(target, self.action.summary())

    def observe(self, target: Target) -> Observed:
        loaded = _loaded(target)
        return {m: m.replace("-", "_") in loaded for m in self.action.modules}

    def apply(self, target: Target, before: Observed) -> None:
        target.command("modprobe", "-a", *self.action.modules, timeout=_COMMAND_SECONDS)

    def revert(self, target: Target, before: Observed) -> None:
        # On the disk of another machine, no module is loaded. A module that is in use by now (by a daemon of the
        # driver, or since a boot that loaded it) stays loaded until the next reboot: it is not part of the state on the
        # disk.
        for module in reversed([m for m in self.action.modules if target.live and not before[m]]):
            target.command("modprobe", "-r", module, timeout=_COMMAND_SECONDS, check=False)

    def left(self, target: Target, before: Observed) -> list[str]:
        now = self.observe(target)
        loaded = [m for m in self.action.modules if target.live and now[m] and not before[m]]
        return [f"{module} stays loaded until the next reboot" for module in loaded]


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
        # The module that was loaded is no longer on the disk: that was the problem. There is nothing to return to, and
        # a machine whose module matches its libraries is not worse off.
        return None

    def left(self, target: Target, before: Observed) -> list[str]:
        version = self.observe(target)["version"]
        changed = target.live and version != before["version"]
        return [f"{self.action.modules[-1]} {version} stays loaded"] if changed else []


class RefreshModuleIndexStep(Step[RefreshModuleIndex]):
    def prepare(self, target: Target) -> None:
        need_dpkg(target)
        size = sum(target.root.stat(path, follow=True).st_size for path in self._files(target))
        need_room(target, f"/lib/modules/{self.action.kernel}", size, "a new module index")
        need_room(target, KEPT, size, f"copies for an undo of {self.action.summary()}")

    def observe(self, target: Target) -> Observed:
        return {path: target.large_digest(path) for path in self._files(target)}

    def apply(self, target: Target, before: Observed) -> None:
        _keep(target, before)
        target.command("depmod", "-a", self.action.kernel, timeout=_COMMAND_SECONDS)

    def revert(self, target: Target, before: Observed) -> None:
        for path, digest in before.items():
            _put_back(target, path, digest)

    def left(self, target: Target, before: Observed) -> list[str]:
        # Their content may belong to another step (apt's triggers, for example), which restores it.
        return [path for path in before if not target.identity(path)]

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
        # update-initramfs writes a new image beside the old one, and leaves it there when the power fails. It is
        # removed first: there may be no space for two.
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

    def left(self, target: Target, before: Observed) -> list[str]:
        # Like a module index.
        return [f"/boot/{name}" for name in before if not target.identity(f"/boot/{name}")]


class RefreshLoaderCacheStep(Step[RefreshLoaderCache]):
    def prepare(self, target: Target) -> None:
        return None

    def observe(self, target: Target) -> Observed:
        return target.state("/etc/ld.so.cache").to_json()

    def apply(self, target: Target, before: Observed) -> None:
        target.command("ldconfig", timeout=_COMMAND_SECONDS)

    def revert(self, target: Target, before: Observed) -> None:
        target.put("/etc/ld.so.cache", State.from_json(before))

    def left(self, target: Target, before: Observed) -> list[str]:
        # Like a module index.
        return ["/etc/ld.so.cache"] if self.observe(target)["kind"] != before["kind"] else []


class SetAlternativeStep(Step[SetAlternative]):
    def prepare(self, target: Target) -> None:
        return None

    def observe(self, target: Target) -> Observed:
        # The first line of the administrative file is "auto" or "manual", the second the link; then a pair of lines for
        # each slave link, its name first, up to an empty line (update-alternatives(1), FILES).
        lines = target.state(self._record).content.decode(errors="surrogateescape").split("\n")
        along = lines[2 : lines.index("") if "" in lines else None : 2]
        names = [name for name in (self.action.name, *along) if "/" not in name]
        return {"status": lines[0], "links": {name: target.state(f"{_CHOICES}/{name}").to_json() for name in names}}

    def apply(self, target: Target, before: Observed) -> None:
        self._choose(target, self.action.path)

    def revert(self, target: Target, before: Observed) -> None:
        recorded = self._links(before)
        was = State.from_json(recorded[self.action.name]).content.decode(errors="surrogateescape")
        with suppress(CommandFailed):  # if the former choice no longer exists
            self._choose(target, was if before["status"] == "manual" else "")
        # Links that somebody made differently from update-alternatives.
        for name, state in recorded.items():
            if target.state(f"{_CHOICES}/{name}").to_json() != state:
                target.put(f"{_CHOICES}/{name}", State.from_json(state))
        record = target.state(self._record)
        status, line, rest = record.content.partition(b"\n")
        if record.kind == "file" and status != before["status"].encode():
            target.put(self._record, record._replace(content=before["status"].encode() + line + rest))

    def left(self, target: Target, before: Observed) -> list[str]:
        now = self.observe(target)
        links = [f"{_CHOICES}/{name}" for name in self._differing(before, now)]
        return [*links, *[f"{self.action.name} is {now['status']}"] * (now["status"] != before["status"])]

    def same(self, now: Observed, recorded: Observed) -> bool:
        return bool(now["status"] == recorded["status"]) and not self._differing(recorded, now)

    def _differing(self, recorded: Observed, now: Observed) -> list[str]:
        links = self._links(recorded)
        return differing(links, now["links"] if "links" in recorded else {n: now["links"].get(n) for n in links})

    def _links(self, recorded: Observed) -> Observed:
        """The recorded links. Version 0.1 recorded only where the alternative's own link led, "" for no link."""
        if "links" in recorded:
            return dict(recorded["links"])
        value = str(recorded["value"])
        link = State("link", value.encode(errors="surrogateescape"), 0) if value else ABSENT
        return {self.action.name: link.to_json()}

    @property
    def _record(self) -> str:
        return f"/var/lib/dpkg/alternatives/{self.action.name}"

    def _choose(self, target: Target, path: str) -> None:
        words = ["--set", self.action.name, path] if path else ["--auto", self.action.name]
        target.command("update-alternatives", *words, timeout=_COMMAND_SECONDS)


def _loaded(target: Target) -> set[str]:
    """The loaded modules; none for the disk of another machine, and none if the kernel has no modules."""
    table = target.state("/proc/modules").content.decode() if target.live else ""
    return {line.split()[0] for line in table.splitlines()}


def _stem(path: str) -> str:
    """The name of a module, compressed or not."""
    return path.rpartition("/")[2].partition(".ko")[0]


def _remove_strays(target: Target, kernel: str, names: Collection[str], before: Observed) -> None:
    """Remove the modules with these names from the directories of dkms, except those that existed before."""
    there = module_tree(target, [f"/lib/modules/{kernel}/updates"])
    strays = [path for path in there if path not in before and _stem(path) in names]
    for path in strays:
        target.put(path, ABSENT)
    if strays:
        target.command("depmod", "-a", kernel, timeout=_COMMAND_SECONDS)


def _keep(target: Target, paths: Iterable[str]) -> None:
    """Copies of large files, except those that an earlier step removed (the removal of a kernel, for example)."""
    for path in paths:
        if target.identity(path):
            target.keep(path)


def _put_back(target: Target, path: str, digest: str) -> None:
    """Raises CopyGone if a large file has changed and its copy is gone. The copy may have another digest: an earlier
    step (apt's triggers) may have rebuilt the file. A missing file was missing before: depmod and "update-initramfs -u"
    delete none."""
    if target.put_back(path) or not target.identity(path):
        return
    if target.large_digest(path) != digest:
        raise CopyGone(f"{path} cannot be restored: its copy is gone from {KEPT}")


def _needs_running(target: Target, what: str) -> None:
    if not target.live:
        raise CommandFailed(f"this works only on the running machine: {what}")
