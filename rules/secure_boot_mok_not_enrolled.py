"""Secure Boot is on, and the key that signed the NVIDIA module is not enrolled.

What you see
    modprobe: ERROR: could not insert 'nvidia': Key was rejected by service
    PKCS#7 signature not signed with a trusted key
Why
    DKMS signs with a key of this machine, which the firmware trusts only after its owner enrolled it. The blue screen
    at the start was missed, the firmware forgot its keys, or another key than the enrolled one was used.
Repair
    Enrol the key that really signed the module; the firmware asks for its password on the next start.
What the repair risks
    Nothing on the disk; but somebody must sit in front of the machine at its next start.
By hand
    mokutil --import /var/lib/dkms/mok.pub; reboot; Enroll MOK
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
    Unknown,
    signer_serial,
)

REJECTED = r"PKCS#7 signature not signed with a trusted key|Loading of module with unavailable key is rejected|Key was rejected by service"


class SecureBootMokNotEnrolled(Rule):
    id = "secure-boot-mok-not-enrolled"
    title = "Secure Boot is on and the module's key is not enrolled"
    layer = Layer.KERNEL_MODULE
    stage = Stage.MODULE
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("login-loop-glx-broken-driver-mismatch", "nvidia-module-not-loaded", "nouveau-bound-instead-of-nvidia")

    def detect(
        self, boot: SecureBoot, kernel: Kernel, modules: KernelModules, journal: Journal | None
    ) -> Iterator[Finding | Unknown]:
        if not boot.enforced:
            return
        for release, severity in kernel.to_judge():
            module = modules.on_disk(release)
            loaded = release == kernel.running and modules.loaded is not None and "nvidia" in modules.loaded
            if module is None or not module.signature or loaded:
                continue
            if boot.enrolled is None:
                yield Unknown("the list of enrolled keys can't be read")
                continue
            serial = signer_serial(module.signature)
            ours = next((k for k in boot.keys if k.serial == serial), None)
            said = (
                next(journal.kernel(REJECTED, last_boot=True), None) if journal and release == kernel.running else None
            )
            if serial in boot.enrolled:
                continue
            # A distribution's own key is in the kernel; only a key of this machine must be enrolled.
            if ours is None and said is None:
                yield Unknown(
                    f"{module.path} is signed with key {serial or 'of unknown number'}, which may be the distribution's"
                )
                continue
            yield self.finding(
                f"kernel:{release}",
                f"Secure Boot is on, and {module.path} is signed with key {serial or 'of unknown number'}, which is not enrolled: kernel {release} will not load it",
                Evidence(boot.source, "Secure Boot is on"),
                Evidence(
                    module.path,
                    f"signed with key {serial or 'of unknown number'}" + (f" ({ours.path})" if ours else ""),
                ),
                Evidence("MokListRT", f"enrolled: {', '.join(boot.enrolled) or 'no key'}"),
                *([Evidence("kernel log", said.text)] if said else []),
                severity=severity,
                key=ours.path if ours else "the certificate of the key that signed it",
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan(
            "Enrol the key: somebody must be at the machine when it starts",
            Risk.MEDIUM,
            (
                ByHand(f"mokutil --import {finding.detail['key']}, and give a password"),
                ByHand("restart, choose Enroll MOK in the blue screen and type that password"),
            ),
            reboot=True,
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        debian = Machine.debian12().gpu(driver="").debian_driver(loaded=False)
        yield Scenario("DKMS's key was never enrolled", debian.secure_boot(signed_by=2), finds="kernel:6.1.0-50-amd64")
        yield Scenario(
            "another key is enrolled",
            Machine.ubuntu2404().gpu(driver="").ubuntu_driver(loaded=False).secure_boot(signed_by=2, enrolled=(1,)),
            finds="kernel:6.8.0-50-generic",
        )
        yield Scenario(
            "the key is enrolled", Machine.debian12().gpu().debian_driver().secure_boot(signed_by=2, enrolled=(1, 2))
        )
        yield Scenario("Secure Boot is off", Machine.debian12().gpu().debian_driver().secure_boot(False, signed_by=2))
        yield Scenario("no firmware in sight", Machine.debian12_gpu(), unknown=True)
