"""Bumblebee, or another old tool for hybrid laptops, forbids the nvidia module to load.

What you see
    [ERROR] Could not load GPU driver
    The driver is installed and built, yet the module is not loaded after a start.
Why
    Bumblebee loads the module itself, only when a program asks for it; its configuration blacklists nvidia for
    everybody else and stays behind when Bumblebee goes.
Repair
    Take the blacklist away and rebuild the initramfs.
What the repair risks
    A laptop that still uses Bumblebee would have its GPU powered all the time: where it is installed, it is left alone.
By hand
    apt-get purge bumblebee; rm /etc/modprobe.d/bumblebee.conf; update-initramfs -u -k all
"""

from collections.abc import Iterator

from dlhealth.api import (
    Evidence,
    Finding,
    Gpus,
    Kernel,
    KernelModules,
    LoadModules,
    Machine,
    ModprobeConfig,
    MoveAside,
    Packages,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UpdateInitramfs,
)

# prime-select's own files say that the GPU is off because somebody chose so.
CHOSEN = ("prime", "blacklist-nvidia.conf")


class BumblebeeLeftoverBlacklistsNvidia(Rule):
    id = "bumblebee-leftover-blacklists-nvidia"
    title = "A leftover configuration blacklists the nvidia module"
    stage = Stage.MODULE
    severity = Severity.ERROR
    explains = ("nouveau-bound-instead-of-nvidia", "nvidia-module-not-loaded")

    def detect(
        self, config: ModprobeConfig, modules: KernelModules, gpus: Gpus | None, packages: Packages | None
    ) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in config.problems)
        lines = [li for li in config.blacklists("nvidia") if not any(c in li.source for c in CHOSEN)]
        if not lines or not modules.files or (gpus is not None and not gpus.gpus):
            return
        bumblebee = packages.get("bumblebee") if packages else None
        in_use = bumblebee is not None and bumblebee.state == "installed"
        loaded = modules.loaded is not None and "nvidia" in modules.loaded
        for path in dict.fromkeys(li.source.rpartition(":")[0] for li in lines):
            line = next(li for li in lines if li.source.startswith(f"{path}:"))
            yield self.finding(
                f"file:{path}",
                f"{path} blacklists the nvidia module"
                + (": it loads only when Bumblebee asks for it" if in_use else ", and Bumblebee is not installed"),
                Evidence(line.source, "blacklist nvidia"),
                Evidence("/var/lib/dpkg/status", f"bumblebee: {bumblebee.state if bumblebee else 'not installed'}"),
                severity=Severity.NOTE if in_use else Severity.WARNING if loaded else Severity.ERROR,
                path=path,
            )

    def remedies(self, finding: Finding, kernel: Kernel) -> Iterator[Plan]:
        load = (LoadModules(("nvidia",)),) if kernel.running else ()
        path = finding.detail["path"]
        yield Plan(
            f"Take {path} away and rebuild the initramfs", Risk.LOW, (MoveAside(path), UpdateInitramfs("all"), *load)
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        path = "/etc/modprobe.d/bumblebee.conf"
        down = Machine.debian12().gpu(driver="").debian_driver(loaded=False)
        yield Scenario(
            "left after a removal",
            down.file(path, "# bumblebee\nblacklist nvidia\nblacklist nvidia-current\n"),
            finds=f"file:{path}",
        )
        yield Scenario(
            "another tool's file on Ubuntu",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(loaded=False)
            .file("/etc/modprobe.d/nvidia-xrun.conf", "blacklist  nvidia\n"),
            finds="file:/etc/modprobe.d/nvidia-xrun.conf",
        )
        yield Scenario("only nouveau is blacklisted", Machine.debian12_gpu())
        yield Scenario(
            "prime-select turned the GPU off",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(loaded=False)
            .file("/lib/modprobe.d/blacklist-nvidia.conf", "blacklist nvidia\n"),
            alone=False,
        )
        yield Scenario("in a comment", Machine.debian12_gpu().file(path, "# blacklist nvidia\n"))
        yield Scenario("a configuration that can't be read", Machine.debian12_gpu().fifo(path), unknown=True)
