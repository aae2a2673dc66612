"""Files of libcuda are missing in WSL2's directory for the libraries of the Windows driver.

What you see
    /usr/bin/ld: cannot find -lcuda

    libcuda.so.1: cannot open shared object file, in WSL2

    ldconfig also warns: "/usr/lib/wsl/lib/libcuda.so.1 is not a symbolic link". This warning is harmless: the Windows
    driver has three equal files where Linux has links, and CUDA works with them.
Why
    /usr/lib/wsl/lib shows a directory of Windows. Somebody who wanted to silence the harmless warning removed a file
    there, or replaced it with a link to a file that does not exist. Or the driver's installation in Windows is incomplete.
Repair
    Reinstall NVIDIA's driver in Windows, and restart WSL. Ignore the warning of ldconfig.
What the repair risks
    WSL must be restarted: running programs in it end.
By hand
    ls -l /usr/lib/wsl/lib/libcuda*
    # In Windows, after you reinstalled the driver:
    # wsl --shutdown
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Machine,
    Plan,
    Platform,
    PlatformSetting,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    WslLibraries,
)

FOLDER = "/usr/lib/wsl/lib"
OF_PROGRAMS, OF_COMPILERS = "libcuda.so.1", "libcuda.so"


class WslLibcudaNotSymlink(Rule):
    id = "wsl-libcuda-not-symlink"
    title = "Files of libcuda are missing in WSL2"
    stage = Stage.LOADER
    severity = Severity.WARNING
    risk = Risk.MEDIUM
    explains = ("libcuda-missing-from-loader",)

    def detect(self, platform: Platform, libraries: WslLibraries) -> Iterator[Finding | Unknown]:
        if platform.setting is not PlatformSetting.WSL:
            return
        if not libraries.files and not libraries.broken:
            yield Unknown("the Windows driver is not visible: /usr/lib/wsl/lib has no libcuda")
            return
        missing = [name for name in (OF_PROGRAMS, OF_COMPILERS) if name not in libraries.files]
        if not missing:
            return
        name = missing[0]
        what = "no program finds CUDA" if name == OF_PROGRAMS else "programs cannot be linked with CUDA"
        yield self.finding(
            f"file:{FOLDER}/{name}",
            f"{FOLDER}/{name} {_state(libraries, name)}: {what}",
            *(Evidence(f"{FOLDER}/{n}", _state(libraries, n)) for n in missing),
            *(Evidence(f"{FOLDER}/{n}", "exists") for n in libraries.files[:1]),
            severity=Severity.ERROR if name == OF_PROGRAMS else Severity.NOTE,
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        text = "in Windows, reinstall NVIDIA's driver (this restores the three files), then run wsl --shutdown"
        yield Plan("Reinstall the driver in Windows", Risk.MEDIUM, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        kernel = "5.15.153.1-microsoft-standard-WSL2"

        def wsl(*names: str) -> Machine:
            machine = (
                Machine()
                .os_release("ubuntu", "22.04", "Ubuntu")
                .user()
                .package("libc6", "2.35-0ubuntu3")
                .file("/proc/sys/kernel/osrelease", f"{kernel}\n")
                .file("/proc/version", f"Linux version {kernel} (gcc 11.2.0)\n")
                .file("/proc/modules")
                .file("/dev/dxg")
                .folder(FOLDER)
                .file("/etc/ld.so.conf.d/ld.wsl.conf", f"{FOLDER}\n")
            )
            for name in names:
                machine.library(f"{FOLDER}/{name}", "libcuda.so.1")
            return machine

        ladder = (("medium", "by-hand Windows wsl --shutdown"),)
        yield Scenario(
            "a link to a file that does not exist",
            wsl("libcuda.so").link(f"{FOLDER}/libcuda.so.1", f"{FOLDER}/libcuda.so.1.1"),
            finds=f"file:{FOLDER}/libcuda.so.1",
            ladder=ladder,
        )
        yield Scenario(
            "the name for compilers was removed",
            wsl("libcuda.so.1", "libcuda.so.1.1"),
            finds=f"file:{FOLDER}/libcuda.so",
            ladder=ladder,
        )
        yield Scenario("three equal files, the cause of a harmless warning",
                       wsl("libcuda.so", "libcuda.so.1", "libcuda.so.1.1"))  # fmt: skip
        yield Scenario(
            "links that lead to a file",
            wsl("libcuda.so.1.1")
            .link(f"{FOLDER}/libcuda.so.1", "libcuda.so.1.1")
            .link(f"{FOLDER}/libcuda.so", "libcuda.so.1"),
        )
        yield Scenario("a machine without WSL", Machine.ubuntu2404_gpu())
        yield Scenario("Windows has no driver", wsl(), unknown=True)


def _state(libraries: WslLibraries, name: str) -> str:
    target = libraries.broken.get(name)
    return f"is a link to {target}, which does not exist" if target else "does not exist"
