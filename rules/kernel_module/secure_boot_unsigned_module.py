"""Secure Boot is on, but the NVIDIA module is not signed.

What you see
    modprobe: ERROR: could not insert 'nvidia': Required key not available

    Loading of unsigned module is rejected

    Lockdown: modprobe: unsigned module loading is restricted
Why
    With Secure Boot the kernel loads only modules whose signature it can verify. A module from a .run installer, or
    one that was built before DKMS had a key, has no signature.

    "module verification failed ... tainting kernel" is harmless: kernels without Secure Boot print it.
Repair
    Create a key for DKMS, rebuild the module so that it is signed, and enroll the key. The firmware asks for its
    password at the next boot, at the machine itself.

    Ubuntu's linux-modules-nvidia packages are already signed.
What the repair risks
    Nothing on the disk is lost, but somebody must sit at the machine during its next boot.
By hand
    dkms build --force nvidia/VERSION
    dkms install --force nvidia/VERSION
    # Debian:
    mokutil --import /var/lib/dkms/mok.pub
    # Ubuntu:
    mokutil --import /var/lib/shim-signed/mok/MOK.der
    # Then choose "Enroll MOK" on the blue screen:
    systemctl reboot
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
    RejectedModule,
    Risk,
    Rule,
    Scenario,
    SecureBoot,
    Severity,
    Stage,
    Unknown,
    kernels_to_judge,
)

# What kernels print about a module without a signature (kernel/module/signing.c, security/lockdown), by version.
REJECTED = r"[Ll]oading of unsigned module is rejected|unsigned module loading is restricted"


class SecureBootUnsignedModule(Rule):
    id = "secure-boot-unsigned-module"
    title = "Secure Boot is on and the NVIDIA module is not signed"
    stage = Stage.MODULE
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = (
        # Without the NVIDIA module, nouveau or nova must draw the screen.
        "initramfs-stale-nouveau-blacklist",
        "nova-core-claims-gpu",
        "nvidia-module-not-loaded",
    )

    def detect(
        self,
        boot: SecureBoot | None,
        kernel: Kernel,
        modules: KernelModules,
        journal: Journal | None,
        rejected: RejectedModule | None,
    ) -> Iterator[Finding | Unknown]:
        if rejected and (said := rejected.unsigned):
            yield self.finding(
                rejected.subject,
                "The kernel rejected a module without a signature, and no NVIDIA module is loaded",
                Evidence(said.source, said.text.strip()[:200]),
                *([Evidence(boot.source, boot.shows)] if boot else []),
                release=kernel.running or "the running kernel",
                key="",
            )
            return
        if boot is None:
            yield Unknown("cannot tell whether Secure Boot is on")
            return
        if not boot.enforced:
            return
        active = modules.loaded is not None and "nvidia" in modules.loaded
        running = modules.on_disk(kernel.running)
        if active and running and running.unsigned and running.version == modules.loaded_version:
            yield Unknown(
                f"{boot.source} shows {boot.shows}, but the kernel loaded {running.path}, which is not signed"
            )
            return
        for release, severity in kernels_to_judge(kernel):
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
                f"Secure Boot is on, but {module.path} is not signed: kernel {release} will not load it",
                Evidence(boot.source, boot.shows),
                Evidence(module.path, "no signature at the end of the file"),
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
            else [ByHand("create a key: dkms generate_mok (Debian 12) or update-secureboot-policy --new-key (Ubuntu)")]
        )
        yield Plan(
            "Sign the module with a key of this machine, and enroll that key (somebody must sit at the machine during the boot)",
            Risk.MEDIUM,
            (
                *make,
                ByHand(f"rebuild and sign the module: dkms build --force {built}; dkms install --force {built}"),
                ByHand(
                    f"run mokutil --import {key or 'KEY (/var/lib/dkms/mok.pub or /var/lib/shim-signed/mok/MOK.der)'},"
                    " choose a password, reboot, choose Enroll MOK, and enter the password"
                ),
            ),
            reboot=True,
        )
        yield Plan(
            "Or switch Secure Boot off, which lets the firmware boot unsigned systems",
            Risk.HIGH,
            (ByHand("switch Secure Boot off in the firmware's setup menu"),),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        down = Machine.debian12().gpu(driver="").debian_driver(loaded=False).secure_boot()
        yield Scenario(
            "an unsigned module",
            down,
            finds="kernel:6.1.0-50-amd64",
            ladder=(
                (
                    "medium reboot",
                    "by-hand generate_mok 12 update-secureboot-policy --new-key",
                    "by-hand --force nvidia-current/535.261.03 -k 6.1.0-50-amd64",
                    "by-hand --import /var/lib/dkms/mok.pub /var/lib/shim-signed/mok/MOK.der",
                ),
                ("high reboot", "by-hand switch Secure Boot firmware's setup menu"),
            ),
        )
        yield Scenario(
            "the kernel log reports it",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(loaded=False)
            .secure_boot()
            .says("kernel", "Loading of unsigned module is rejected"),
            finds="kernel:6.8.0-50-generic",
            ladder=(
                (
                    "medium reboot",
                    "by-hand generate_mok 12 update-secureboot-policy --new-key",
                    "by-hand --force nvidia/550.120 -k 6.8.0-50-generic",
                    "by-hand --import /var/lib/dkms/mok.pub /var/lib/shim-signed/mok/MOK.der",
                ),
                ("high reboot", "by-hand switch Secure Boot firmware's setup menu"),
            ),
        )
        yield Scenario(
            "a mounted disk, whose kernel was locked down at its last boot",
            Machine()
            .os_release("debian", "12")
            .kernel("6.1.0-50-amd64", running=False)
            .debian_driver(loaded=False)
            .says("kernel", "Kernel is locked down from EFI Secure Boot; see man kernel_lockdown.7", 0.0),
            finds="kernel:6.1.0-50-amd64",
        )
        yield Scenario(
            "a .run installer's module for the next kernel",
            Machine.debian12()
            .kernel("6.1.0-51-amd64", running=False)
            .gpu()
            .debian_driver(kernels=("6.1.0-50-amd64", "6.1.0-51-amd64"))
            .secure_boot(signed_by=2, enrolled=(2,))
            .nvidia_module("6.1.0-51-amd64", "535.261.03"),
            finds="kernel:6.1.0-51-amd64",
            ladder=(
                (
                    "medium reboot",
                    "by-hand --force nvidia-current/535.261.03 -k 6.1.0-51-amd64",
                    "by-hand --import /var/lib/dkms/mok.pub",
                ),
                ("high reboot", "by-hand switch Secure Boot firmware's setup menu"),
            ),
        )
        yield Scenario("Secure Boot is off", Machine.debian12_gpu().secure_boot(False))
        yield Scenario(
            "the message that kernels without Secure Boot print for every unsigned module",
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
        yield Scenario("it was loaded anyway", Machine.debian12_gpu().secure_boot(), unknown=True)
        yield Scenario(
            "a compressed module that cannot be unpacked",
            Machine.ubuntu2404()
            .gpu(driver="")
            .ubuntu_driver(kernels=(), loaded=False)
            .file("/usr/lib/modules/6.8.0-50-generic/updates/dkms/nvidia.ko.zst", b"\x28\xb5\x2f\xfd")
            .secure_boot(),
            unknown=True,
        )
        yield Scenario("validation is off in shim", Machine.debian12_gpu().secure_boot(validation=False))
        yield Scenario("no firmware to read", Machine.debian12_gpu(), unknown=True)
