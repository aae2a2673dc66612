"""Secure Boot is on and the NVIDIA module is not signed.

What you see
    modprobe: ERROR: could not insert 'nvidia': Required key not available
    Loading of unsigned module is rejected
Why
    With Secure Boot the kernel loads only modules whose signature it can check. A module of the .run installer, or one
    built before DKMS had a key, carries none.
Repair
    Give DKMS a key, build the module again so that it is signed, and enrol the key; the firmware asks for its password
    on the next start, at the machine itself. Ubuntu's linux-modules-nvidia packages come signed.
What the repair risks
    Nothing on the disk; but somebody must sit in front of the machine at its next start.
By hand
    dkms build --force, then mokutil --import /var/lib/dkms/mok.pub, reboot and choose "Enroll MOK"
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Journal,
    Kernel,
    KernelModules,
    Layer,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    SecureBoot,
    Severity,
    Stage,
)

# The kernel's own words for a module without a signature (kernel/module/signing.c).
REJECTED = r"Loading of (?:unsigned module|module with unsupported crypto|module with unavailable key) is rejected|Lockdown: modprobe: unsigned module loading is restricted"


class SecureBootUnsignedModule(Rule):
    id = "secure-boot-unsigned-module"
    title = "Secure Boot is on and the NVIDIA module is not signed"
    layer = Layer.KERNEL_MODULE
    stage = Stage.MODULE
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("login-loop-glx-broken-driver-mismatch", "nvidia-module-not-loaded", "nouveau-bound-instead-of-nvidia")

    def detect(
        self, boot: SecureBoot, kernel: Kernel, modules: KernelModules, journal: Journal | None
    ) -> Iterator[Finding]:
        if not boot.enforced:
            return
        for release, severity in kernel.to_judge():
            module = modules.on_disk(release)
            loaded = release == kernel.running and modules.loaded is not None and "nvidia" in modules.loaded
            if module is None or module.signature or loaded:
                continue
            said = (
                next(journal.kernel(REJECTED, last_boot=True), None) if journal and release == kernel.running else None
            )
            yield self.finding(
                f"kernel:{release}",
                f"Secure Boot is on, and {module.path} is not signed: kernel {release} will not load it",
                Evidence(boot.source, "Secure Boot is on"),
                Evidence(module.path, "no signature at its end"),
                *([Evidence("kernel log", said.text)] if said else []),
                severity=severity,
                key="/var/lib/dkms/mok.pub" if any(k.path == "/var/lib/dkms/mok.pub" for k in boot.keys) else "",
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        key = finding.detail["key"]
        yield Plan(
            "Sign the module with a key of this machine and enrol that key: somebody must be at the machine when it starts",
            Risk.MEDIUM,
            (
                *(
                    []
                    if key
                    else [ByHand("make a key for DKMS: dkms generate_mok (Debian 12, Ubuntu 22.04 and newer)")]
                ),
                ByHand("build and sign the module again: dkms build --force and dkms install --force for this kernel"),
                ByHand(
                    "mokutil --import /var/lib/dkms/mok.pub, give a password, restart, choose Enroll MOK and type it"
                ),
            ),
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
        yield Scenario("Secure Boot is off", Machine.debian12_gpu().secure_boot(False))
        yield Scenario("validation is off in shim", Machine.debian12_gpu().secure_boot(validation=False))
        yield Scenario("no firmware in sight", Machine.debian12_gpu(), unknown=True)
