"""vfio-pci holds the GPU: it is reserved for a virtual machine.

What you see
    NVRM: GPU 0000:01:00.0 is already bound to vfio-pci.

    nvidia-smi does not show the GPU.
Why
    The machine was configured to pass the GPU through to a virtual machine: its PCI ids are in modprobe.d, on the
    kernel command line or in the initramfs. As long as they are there, this system cannot use the GPU.

    On a hypervisor this is intended. Then dlhealth only adds a note.
Repair
    If no virtual machine needs the GPU, remove the ids, rebuild the initramfs, and reboot.
What the repair risks
    A virtual machine that uses the GPU loses it. So dlhealth leaves this to you.
By hand
    # Remove "ids=10de:..." from /etc/modprobe.d,
    # or "vfio-pci.ids=..." from /etc/default/grub.
    update-initramfs -u
    update-grub
    systemctl reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    CudaToolkits,
    DriverPackages,
    Evidence,
    Finding,
    Gpus,
    KernelModules,
    Machine,
    Passthrough,
    Plan,
    PythonEnvironments,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)


class VfioPciClaimsGpu(Rule):
    id = "vfio-pci-claims-gpu"
    title = "vfio-pci holds the GPU"
    stage = Stage.INITRAMFS
    severity = Severity.WARNING
    risk = Risk.MEDIUM
    explains = ("nvidia-module-not-loaded",)

    def detect(
        self,
        gpus: Gpus,
        stubs: Passthrough,
        modules: KernelModules | None,
        packages: DriverPackages | None,
        toolkits: CudaToolkits | None,
        environments: PythonEnvironments | None,
    ) -> Iterator[Finding | Unknown]:
        for problem in (*gpus.problems, *stubs.problems):
            yield Unknown(problem)
        others = [g for g in gpus.gpus if not g.passed_through]
        driver = bool(packages and packages.version) or bool(modules and modules.files)
        wants = [Evidence(t.path, f"CUDA toolkit {t.version}") for t in (toolkits.toolkits if toolkits else ())]
        wants += [
            Evidence(e.path, f"torch {e.torch.version} built for CUDA {e.torch.cuda}")
            for e in (environments.environments if environments else ())
            if e.torch and e.torch.cuda
        ]
        for gpu in gpus.gpus:
            if not gpu.passed_through:
                continue
            where = stubs.claims.get(gpu.address, ())
            severity = Severity.WARNING if driver or wants else Severity.NOTE
            if driver and wants and not others and not stubs.machines:
                severity = Severity.ERROR
            elif stubs.machines and (others or not wants):
                # There are virtual machines, and no program here needs this GPU: it is intended.
                severity = Severity.NOTE
            # The running kernel's command line comes from the boot loader's configuration.
            written: list[str] = [c.source for c in where if c.source != "/proc/cmdline"]
            if where and not written:
                written = ["the kernel's command line in the boot loader's configuration"]
            yield self.finding(
                f"gpu:{gpu.address}",
                f"{gpu.driver} holds the {gpu.name} at {gpu.address}: it is reserved for a virtual machine, and this system cannot use it",
                Evidence(f"/sys/bus/pci/devices/{gpu.address}/driver", gpu.driver),
                *(Evidence(c.source, c.text) for c in where),
                *(Evidence(path, "defines a virtual machine") for path in stubs.machines[:2]),
                *wants[:2],
                severity=severity,
                where=", ".join(written) or "the initramfs, or the script that binds it",
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan(
            "If no virtual machine needs the GPU, make it available to this system",
            Risk.MEDIUM,
            (
                ByHand(f"remove the GPU's PCI id or address from {finding.detail['where']}"),
                ByHand(
                    "run update-initramfs -u -k all (and update-grub if you changed the kernel command line), then reboot"
                ),
            ),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        gpu = "gpu:0000:01:00.0"
        debian = Machine.debian12().gpu(driver="vfio-pci").debian_driver(loaded=False)
        yield Scenario(
            "ids in modprobe.d",
            debian.file("/etc/modprobe.d/vfio.conf", "options vfio-pci ids=10de:1b06,10de:10ef\n"),
            finds=gpu,
            ladder=(("medium reboot", "by-hand /etc/modprobe.d/vfio.conf:1", "by-hand -u -k"),),
        )
        yield Scenario(
            "ids on the kernel command line",
            Machine.ubuntu2404()
            .gpu(driver="vfio-pci")
            .ubuntu_driver(loaded=False)
            .file("/proc/cmdline", "BOOT_IMAGE=/vmlinuz ro vfio-pci.ids=10de:1b06\n")
            .file("/etc/default/grub", 'GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet vfio-pci.ids=10de:1b06"\n'),
            finds=gpu,
            ladder=(("medium reboot", "by-hand /etc/default/grub:2", "by-hand -u -k"),),
        )
        yield Scenario(
            "ids in the initramfs, and CUDA is installed",
            Machine.debian12()
            .gpu(driver="vfio-pci")
            .debian_driver(loaded=False)
            .cuda_toolkit()
            .file("/etc/initramfs-tools/modules", "# modules\nvfio_pci ids=10de:1b06\n"),
            finds=gpu,
            alone=False,
            ladder=(
                ("medium reboot", "by-hand /etc/initramfs-tools/modules:2", "by-hand -u -k"),
            ),  # other rules report the toolkit
        )
        yield Scenario(
            "a hypervisor without the driver",
            Machine.debian12().gpu(driver="vfio-pci"),
            finds=gpu,
            ladder=(("medium reboot", "by-hand remove GPU's address from initramfs script", "by-hand -u -k"),),
        )
        yield Scenario(
            "a hypervisor with one GPU of its own and one for a virtual machine",
            Machine.debian12_gpu()
            .gpu("2204", "0000:02:00.0", driver="vfio-pci")
            .cuda_toolkit()
            .file("/etc/libvirt/qemu/win11.xml", "<domain/>\n"),
            finds="gpu:0000:02:00.0",
            alone=False,  # other rules report the toolkit
        )
        yield Scenario("the GPU uses nvidia", Machine.debian12_gpu())
        yield Scenario(
            "only the GPU's audio device",
            Machine.debian12_gpu().gpu("10ef", "0000:01:00.1", driver="vfio-pci", klass="0x040300"),
        )
        yield Scenario("no PCI bus to read", Machine().os_release("debian", "12"), unknown=True)
