"""Flatpak programs draw without the GPU: Flatpak has driver libraries only for another version.

What you see
    Graphics driver 'nvidia-550-127' for Flatpak has not been found on your system.

    Games and browsers from Flatpak are slow, or do not start: libEGL warning, GLX errors

    The same program from the system's packages works.
Why
    A Flatpak program cannot use the system's driver libraries. Flatpak downloads a copy of them as a runtime, for
    exactly the version of the driver that is loaded during its update. After a driver upgrade, this copy is missing
    until the next update of Flatpak.

    A driver that is only hours or days old may not be on Flathub yet. Until then, these programs draw without the GPU.
Repair
    Update Flatpak.
What the repair risks
    Nothing.
By hand
    cat /sys/module/nvidia/version
    flatpak list --runtime | grep GL
    flatpak update
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    FlatpakDriver,
    KernelModules,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)

DAYS = 3 * 24 * 3600
"""How long Flathub may need for a new driver."""


class FlatpakGlRuntimeMismatch(Rule):
    id = "flatpak-gl-runtime-mismatch"
    title = "Flatpak has no driver libraries for the loaded driver"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING
    explained_by = ("driver-library-version-mismatch-after-upgrade",)

    def detect(self, flatpak: FlatpakDriver, modules: KernelModules) -> Iterator[Finding | Unknown]:
        wrong = {
            k: v for k, v in flatpak.runtimes.items() if modules.loaded_version and modules.loaded_version not in v
        }
        if not flatpak.folder or not flatpak.runtimes:
            return  # nothing shows that these programs ever used the GPU
        if modules.loaded_version is None:
            yield Unknown("Flatpak's driver libraries are compared only with a loaded driver")
        elif wrong and _too_new(flatpak):
            yield Unknown("Flatpak was updated soon after the driver: Flathub may not have had this version yet")
        elif wrong:
            named = " and ".join(sorted(wrong))
            versions = ", ".join(sorted({version for found in wrong.values() for version in found}))
            yield self.finding(
                "host",
                f"Flatpak has driver libraries ({named}) for {versions}, but driver {modules.loaded_version} is loaded: its programs draw without the GPU",
                Evidence("/sys/module/nvidia/version", modules.loaded_version),
                *(Evidence(f"flatpak runtime {kind}", ", ".join(found)) for kind, found in sorted(wrong.items())),
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        text = "run flatpak update as root, and as each user who installs programs with flatpak --user"
        yield Plan("Update Flatpak", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        system = "/var/lib/flatpak"

        def flatpak(*runtimes: str, changed: float = 1e9, folder: str = system) -> Machine:
            machine = Machine.ubuntu2404_gpu().file(f"{system}/app/org.mozilla.firefox/current/active/metadata")
            for name in runtimes:
                machine.file(f"{folder}/runtime/org.freedesktop.Platform.{name}/x86_64/1.4/active/metadata")
            return machine.file(f"{system}/.changed", mtime=changed)

        ladder = (("low", "by-hand flatpak update"),)
        yield Scenario("not updated since the driver", flatpak("GL.nvidia-550-107"), finds="host", ladder=ladder)
        yield Scenario(
            "updated later, only the 32 bit libraries are missing",
            flatpak("GL.nvidia-550-120", "GL32.nvidia-535-183-01", changed=4e9),
            finds="host",
            ladder=ladder,
        )
        yield Scenario("of this version", flatpak("GL.nvidia-550-107", "GL.nvidia-550-120", "GL.default"))
        yield Scenario("in the home directory", flatpak("GL.nvidia-550-120", folder="/home/alice/.local/share/flatpak"))
        yield Scenario("programs that never had a driver", flatpak("GL.default"))
        yield Scenario("no Flatpak", Machine.ubuntu2404_gpu())
        now = flatpak("GL.nvidia-550-107").file(f"{system}/.changed")
        yield Scenario("a driver that is new on Flathub", now, unknown=True)
        yield Scenario(
            "a mounted disk",
            Machine.ubuntu2404()
            .ubuntu_driver(loaded=False)
            .file(f"{system}/app/x/metadata")
            .file(f"{system}/runtime/org.freedesktop.Platform.GL.nvidia-550-107/x86_64"),
            unknown=True,
        )


def _too_new(flatpak: FlatpakDriver) -> bool:
    """Whether Flatpak was updated after the driver, but so soon that Flathub may not have had it."""
    if flatpak.changed is None or flatpak.driver_since is None:
        return False
    return 0 <= flatpak.changed - flatpak.driver_since < DAYS
