"""CUDA fails since the machine woke up from a suspend, although nvidia-smi works.

What you see
    CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing env variable
    CUDA_VISIBLE_DEVICES after program start

    CUDA_ERROR_UNKNOWN: unknown error (999)

    torch.cuda.is_available() is False after the laptop was closed and opened, and True after a reboot.
Why
    The module nvidia_uvm, which CUDA needs, lost its state in the suspend. The environment and CUDA_VISIBLE_DEVICES are
    not the cause, whatever the message says.
Repair
    End all programs that use CUDA, and load nvidia_uvm again.
What the repair risks
    Nothing: if a program still uses the module, it is not unloaded.
By hand
    fuser -v /dev/nvidia-uvm
    # End the programs that are listed, then:
    modprobe -r nvidia_uvm && modprobe nvidia_uvm
    # To prevent it, let the driver save the video memory before a suspend. In a file in /etc/modprobe.d:
    # options nvidia NVreg_PreserveVideoMemoryAllocations=1 NVreg_TemporaryFilePath=/var/tmp
    systemctl enable nvidia-suspend.service nvidia-hibernate.service nvidia-resume.service
"""

from collections.abc import Iterator

from dlhealth.api import (
    CudaStart,
    Evidence,
    Finding,
    Machine,
    Plan,
    Reboot,
    ReloadModules,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    SuspendSetup,
    Unknown,
)

UNKNOWN_ERROR = 999


class UvmBrokenAfterSuspend(Rule):
    id = "uvm-broken-after-suspend"
    title = "CUDA fails since the machine woke up"
    stage = Stage.REBOOT
    severity = Severity.ERROR
    explained_by = (
        "dev-nvidia-permissions",
        "driver-library-version-mismatch-after-upgrade",
        "gpu-driver-hung",
        "uvm-device-node-missing",
        "xid-79-fallen-off-bus",
    )

    def detect(self, start: CudaStart, setup: SuspendSetup | None) -> Iterator[Finding | Unknown]:
        if start.woke is None:
            return
        if start.code is None:
            yield Unknown(f"cannot tell whether CUDA still works after the suspend: {start.why}")
        elif start.code == UNKNOWN_ERROR:
            saved = setup.preserves if setup else None
            yield self.finding(
                "host",
                "CUDA fails with error 999 since the machine woke up from a suspend",
                Evidence(start.source, "CUDA_ERROR_UNKNOWN (999)"),
                Evidence(start.woke.source, start.woke.text.strip()[:200]),
                *([] if saved is None else [Evidence("/proc/driver/nvidia/params", f"PreserveVideoMemoryAllocations: {saved:d}")]),
            )  # fmt: skip

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan("Load nvidia_uvm again", Risk.LOW, (ReloadModules(("nvidia_uvm",)),))
        yield Plan("Reboot", Risk.MEDIUM, (Reboot(),), reboot=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        torch = (
            "UserWarning: CUDA initialization: CUDA unknown error - this may be due to an incorrectly set up environment, e.g."
            " changing env variable CUDA_VISIBLE_DEVICES after program start. Setting the available devices to be zero.\n"
        )
        jax = "RuntimeError: Unable to initialize backend 'cuda': CUDA_ERROR_UNKNOWN: unknown error (999)\n"
        awake = (
            "[    0.000000] Linux version 6.8.0-50-generic (buildd@lcy02-amd64-001) #51-Ubuntu SMP\n"
            "[    4.100000] nvidia: loading out-of-tree module taints kernel.\n"
        )

        def posted(text: str, *said: str) -> Machine:
            lines = "".join(f"[ {9000 + n}.000001] {line}\n" for n, line in enumerate(said))
            packages = "ii  nvidia-utils-550  550.120-0ubuntu0.24.04.1  amd64  NVIDIA driver support binaries\n"
            return Machine().file("/error.txt", text).file("/dmesg.txt", awake + lines).file("/dpkg.txt", packages)

        slept = ("PM: suspend entry (deep)", "PM: suspend exit")
        ladder = (("low", "reload-modules nvidia_uvm"), ("medium reboot", "reboot"))
        yield Scenario("PyTorch after a suspend", posted(torch, *slept), finds="host", ladder=ladder)
        yield Scenario(
            "JAX after a hibernation", posted(jax, "PM: hibernation: hibernation exit"), finds="host", ladder=ladder
        )
        yield Scenario("never suspended", Machine.ubuntu2404_gpu().says("kernel", "nvidia: loading out-of-tree module"))
        yield Scenario(
            "another program's error after a suspend",
            posted("RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB\n", *slept),
            unknown=True,
        )
        yield Scenario("suspended before the last start", Machine.ubuntu2404_gpu()
                       .says("kernel", "PM: suspend exit", 100.0)
                       .says("kernel", "Linux version 6.8.0-50-generic (buildd@lcy02)", 9000.0))  # fmt: skip
        yield Scenario("no log", Machine.ubuntu2404_gpu(), unknown=True)
