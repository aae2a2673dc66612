"""Profiling was opened to all users, but the loaded driver still allows it only to root.

What you see
    ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters on the target device

    CUPTI_ERROR_INSUFFICIENT_PRIVILEGES, from Nsight Compute or a framework's profiler
Why
    Since 2019, the driver allows only root to read the GPU's performance counters. The module option
    NVreg_RestrictProfilingToAdminUsers=0 opens them to all users. It takes effect when the module is loaded: the
    initramfs may contain an older copy of the file, and a running driver does not change.

    Without this option, profiling by root alone is the driver's policy and not a fault.
Repair
    Rebuild the initramfs and reboot.
What the repair risks
    The option itself lets users measure what other users' programs do on the GPU. dlhealth does not set it.
By hand
    grep RmProfilingAdminOnly /proc/driver/nvidia/params
    grep -rn RestrictProfiling /etc/modprobe.d
    update-initramfs -u -k all
    systemctl reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    Evidence,
    Finding,
    Kernel,
    Machine,
    Plan,
    Profiling,
    Reboot,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UpdateInitramfs,
)

_PARAMETERS = "/proc/driver/nvidia/params"


class GpuProfilingPermission(Rule):
    id = "gpu-profiling-permission"
    title = "Profiling was opened to all users, but the loaded driver allows it only to root"
    stage = Stage.INITRAMFS
    severity = Severity.WARNING
    risk = Risk.MEDIUM

    def detect(self, profiling: Profiling) -> Iterator[Finding | Unknown]:
        line = profiling.configured
        if line is None:
            return
        if profiling.admin_only is None:
            yield Unknown("cannot tell what the driver allows: it is not loaded, or this machine is not running")
        elif profiling.admin_only:
            yield self.finding(
                "host",
                f"{line.source} opens profiling to all users, but the loaded driver still allows it only to root",
                Evidence(line.source, f"options {line.module} {line.arguments}"),
                Evidence(_PARAMETERS, "RmProfilingAdminOnly: 1"),
            )

    def remedies(self, finding: Finding, kernel: Kernel) -> Iterator[Plan]:
        if kernel.target:
            yield Plan(
                "Load the driver with this option",
                Risk.MEDIUM,
                (UpdateInitramfs(kernel.target), Reboot()),
                reboot=True,
            )
        else:
            yield Plan("Load the driver with this option", Risk.MEDIUM, (Reboot(),), reboot=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        option = "options {} NVreg_RestrictProfilingToAdminUsers={}\n"

        def machine(base: Machine, admin_only: int, text: str) -> Machine:
            params = f"ModifyDeviceFiles: 1\nRmProfilingAdminOnly: {admin_only}\n"
            return base.file(_PARAMETERS, params).file("/etc/modprobe.d/profiling.conf", text)

        ubuntu, debian = Machine.ubuntu2404_gpu, Machine.debian12_gpu
        yield Scenario(
            "not yet loaded",
            machine(ubuntu(), 1, option.format("nvidia", 0)),
            finds="host",
            ladder=(("medium reboot", "update-initramfs 6.8.0-50-generic", "reboot"),),
        )
        yield Scenario(
            "with Debian's name of the module", machine(debian(), 1, option.format("nvidia-current", 0)), finds="host"
        )
        yield Scenario("in effect", machine(ubuntu(), 0, option.format("nvidia", 0)))
        yield Scenario("nobody asked for it", machine(ubuntu(), 1, ""))
        yield Scenario("only root, on purpose", machine(ubuntu(), 1, option.format("nvidia", 1)))
        yield Scenario(
            "the driver is not loaded",
            Machine.ubuntu2404().file("/etc/modprobe.d/profiling.conf", option.format("nvidia", 0)),
            unknown=True,
        )
