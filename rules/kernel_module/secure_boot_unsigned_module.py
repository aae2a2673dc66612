"""Secure Boot is on and the NVIDIA module is not signed.

What you see
    modprobe: ERROR: could not insert 'nvidia': Required key not available
    Loading of unsigned module is rejected
    Lockdown: modprobe: unsigned module loading is restricted
Why
    With Secure Boot the kernel loads only modules whose signature it can check. A module of the .run installer, or one
    built before DKMS had a key, carries none.
    "module verification failed ... tainting kernel" is what every kernel without Secure Boot says: harmless.
Repair
    Give DKMS a key, build the module again so that it is signed, and enrol the key; the firmware asks for its password
    on the next start, at the machine itself. Ubuntu's linux-modules-nvidia packages come signed.
What the repair risks
    Nothing on the disk; but somebody must sit in front of the machine at its next start.
By hand
    dkms build --force nvidia/VERSION; dkms install --force nvidia/VERSION
    mokutil --import /var/lib/dkms/mok.pub (Ubuntu: /var/lib/shim-signed/mok/MOK.der); reboot; choose "Enroll MOK"
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Dkms,
    Evidence,
    Finding,
    Journal,
    Kernel,
    KernelModules,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    SecureBoot,
    Severity,
    Stage,
    Unknown,
)

# The kernel's own words for a module without a signature (kernel/module/signing.c, and security/lockdown), by version.
REJECTED = r"[Ll]oading of unsigned module is rejected|unsigned module loading is restricted"


class SecureBootUnsignedModule(Rule):
    id = "secure-boot-unsigned-module"
    title = "Secure Boot is on and the NVIDIA module is not signed"
    stage = Stage.MODULE
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = (
        # Without the NVIDIA module, nouveau and nova draw the screen, so they stay.
        "initramfs-stale-nouveau-blacklist",
        "nova-core-claims-gpu",
        "nvidia-module-not-loaded",
    )

    def detect(
        self, boot: SecureBoot, kernel: Kernel, modules: KernelModules, journal: Journal | None
    ) -> Iterator[Finding | Unknown]:
        if not boot.enforced:
            return
        active = modules.loaded is not None and "nvidia" in modules.loaded
        running = modules.on_disk(kernel.running)
        if active and running and running.unsigned and running.version == modules.loaded_version:
            yield Unknown(f"{boot.source} shows {boot.shows}, yet the kernel took {running.path}, which is not signed")
            return
        for release, severity in kernel.to_judge():
            module = modules.on_disk(release)
            if module is None or (release == kernel.running and active):
                continue
            if module.unsigned is None:
                yield Unknown(f"{module.path}: {module.problem}")
            if not module.unsigned:
                continue
            here = journal if release == kernel.running or kernel.running is None else None
            said = next(here.kernel(REJECTED, last_boot=True), None) if here else None
            yield self.finding(
                f"kernel:{release}",
                f"Secure Boot is on, and {module.path} is not signed: kernel {release} will not load it",
                Evidence(boot.source, boot.shows),
                Evidence(module.path, "no signature at its end"),
                *([Evidence(said.source, said.text.strip()[:200])] if said else []),
                severity=severity,
                release=release,
                key=boot.keys[0].path if boot.keys else "",
            )

    def remedies(self, finding: Finding, dkms: Dkms | None) -> Iterator[Plan]:
        key = finding.detail["key"]
        module = dkms.newest() if dkms else None
        built = (
            f"{module.name}/{module.version} -k {finding.detail['release']}" if module else "the module for this kernel"
        )
        make = (
            []
            if key
            else [ByHand("make a key: dkms generate_mok (Debian 12), update-secureboot-policy --new-key (Ubuntu)")]
        )
        yield Plan(
            "Sign the module with a key of this machine and enrol that key: somebody must be at the machine when it starts",
            Risk.MEDIUM,
            (
                *make,
                ByHand(f"build and sign again: dkms build --force {built}; dkms install --force {built}"),
                ByHand(
                    f"mokutil --import {key or 'the new key (/var/lib/dkms/mok.pub, /var/lib/shim-signed/mok/MOK.der)'},"
                    " give a password, restart, choose Enroll MOK and type it"
                ),
            ),
            reboot=True,
        )
        yield Plan(
            "Or let the firmware start anything: the owner decides",
            Risk.HIGH,
            (ByHand("switch Secure Boot off in the firmware's setup"),),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        down = Machine.debian12().gpu(driver="").debian_driver(loaded=False).secure_boot()
        yield Scenario("a module that was never signed", down, finds="kernel:6.1.0-50-amd64")
        yield Scenario(
            "the kernel says so",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(loaded=False)
            .secure_boot()
            .says("kernel", "Loading of unsigned module is rejected"),
            finds="kernel:6.8.0-50-generic",
        )
        yield Scenario(
            "a disk, whose kernel was locked down when it last started",
            Machine()
            .os_release("debian", "12")
            .kernel("6.1.0-50-amd64", running=False)
            .debian_driver(loaded=False)
            .says("kernel", "Kernel is locked down from EFI Secure Boot; see man kernel_lockdown.7", 0.0),
            finds="kernel:6.1.0-50-amd64",
        )
        yield Scenario(
            "a .run file's module for the next kernel",
            Machine.debian12()
            .kernel("6.1.0-51-amd64", running=False)
            .gpu()
            .debian_driver(kernels=("6.1.0-50-amd64", "6.1.0-51-amd64"))
            .secure_boot(signed_by=2, enrolled=(2,))
            .nvidia_module("6.1.0-51-amd64", "535.261.03"),
            finds="kernel:6.1.0-51-amd64",
        )
        yield Scenario("Secure Boot is off", Machine.debian12_gpu().secure_boot(False))
        yield Scenario(
            "the lines that a kernel without Secure Boot says of every unsigned module",
            Machine.debian12_gpu()
            .secure_boot(False)
            .says(
                "kernel", "nvidia: module verification failed: signature and/or required key missing - tainting kernel"
            ),
        )
        yield Scenario(
            "on in the firmware, but the kernel is not locked down",
            Machine.debian12()
            .gpu()
            .debian_driver()
            .secure_boot()
            .file("/sys/kernel/security/lockdown", "[none] integrity confidentiality\n"),
        )
        yield Scenario("it was loaded all the same", Machine.debian12_gpu().secure_boot(), unknown=True)
        yield Scenario(
            "a compressed module that can't be unpacked",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(kernels=(), loaded=False)
            .file("/usr/lib/modules/6.8.0-50-generic/updates/dkms/nvidia.ko.zst", b"\x28\xb5\x2f\xfd")
            .secure_boot(),
            unknown=True,
        )
        yield Scenario("validation is off in shim", Machine.debian12_gpu().secure_boot(validation=False))
        yield Scenario("no firmware in sight", Machine.debian12_gpu(), unknown=True)
