"""A removed tool for laptops with two GPUs left a file that keeps the nvidia module from loading.

What you see
    [ERROR] Could not load GPU driver

    The driver is installed and built, but the module is not loaded after a boot.
Why
    Bumblebee, EnvyControl, system76-power and similar tools block the module with a file in /etc/modprobe.d.

    When the tool is uninstalled, its file can stay behind. dlhealth recognizes such a file by its name, or because it
    names its tool.
Repair
    Move the file out of the way and rebuild the initramfs.
What the repair risks
    Nothing: dlhealth changes the file only if its tool is not installed.
By hand
    mv /etc/modprobe.d/bumblebee.conf /root/
    update-initramfs -u -k all
"""

from collections.abc import Iterator

from dlhealth.api import (
    Evidence,
    Finding,
    Gpus,
    GpuSwitch,
    Kernel,
    KernelModules,
    LoadModules,
    Machine,
    MoveAside,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UpdateInitramfs,
)


class BumblebeeLeftoverBlacklistsNvidia(Rule):
    id = "bumblebee-leftover-blacklists-nvidia"
    title = "A leftover configuration blacklists the nvidia module"
    stage = Stage.MODULE
    severity = Severity.ERROR
    explains = ("nouveau-bound-instead-of-nvidia", "nvidia-module-not-loaded")

    def detect(self, switch: GpuSwitch, modules: KernelModules, gpus: Gpus | None) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in switch.problems)
        if not modules.files or (gpus is not None and not gpus.gpus):
            return
        loaded = modules.loaded is not None and "nvidia" in modules.loaded
        for blocker in switch.left_over:
            if blocker.tool is None or "/modprobe.d/" not in blocker.source.path:
                continue
            yield self.finding(
                f"file:{blocker.source.path}",
                f"{blocker.source.path} blocks the nvidia module, but {blocker.tool.name}, the tool that wrote it, is not installed",
                Evidence(blocker.source, blocker.text),
                Evidence("/var/lib/dpkg/status", f"{' and '.join(blocker.tool.packages)}: not installed"),
                Evidence(blocker.tool.programs[0], "does not exist"),
                severity=Severity.WARNING if loaded else Severity.ERROR,
                path=blocker.source.path,
            )

    def remedies(self, finding: Finding, kernel: Kernel) -> Iterator[Plan]:
        load = (LoadModules(("nvidia",)),) if kernel.running else ()
        path = finding.detail["path"]
        yield Plan(
            f"Move {path} out of the way and rebuild the initramfs",
            Risk.LOW,
            (MoveAside(path), UpdateInitramfs("all"), *load),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        path = "/etc/modprobe.d/bumblebee.conf"
        down = Machine.debian12().gpu(driver="").debian_driver(loaded=False)
        yield Scenario(
            "left behind by an uninstalled Bumblebee",
            down.file(path, "# bumblebee\nblacklist nvidia\nblacklist nvidia-current\n"),
            finds=f"file:{path}",
            steps=("move-aside", "update-initramfs", "load-modules"),
            ladder=(
                ("low", "move-aside /etc/modprobe.d/bumblebee.conf", "update-initramfs all", "load-modules nvidia"),
            ),
        )
        yield Scenario(
            "another tool's file on Ubuntu",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(loaded=False)
            .file("/etc/modprobe.d/nvidia-xrun.conf", "blacklist  nvidia\n"),
            finds="file:/etc/modprobe.d/nvidia-xrun.conf",
            ladder=(
                ("low", "move-aside /etc/modprobe.d/nvidia-xrun.conf", "update-initramfs all", "load-modules nvidia"),
            ),
        )
        yield Scenario("only nouveau is blacklisted", Machine.debian12_gpu())
        yield Scenario(
            "prime-select turned the GPU off",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(loaded=False)
            .file("/usr/bin/prime-select")
            .file("/lib/modprobe.d/blacklist-nvidia.conf", "blacklist nvidia\n"),
            alone=False,
        )
        yield Scenario("in a comment", Machine.debian12_gpu().file(path, "# blacklist nvidia\n"))
        yield Scenario("a file that cannot be read", Machine.debian12_gpu().fifo(path), unknown=True)
