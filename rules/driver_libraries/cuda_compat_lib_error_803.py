"""Programs load the libcuda of another driver version, usually from cuda-compat, before the driver's own.

What you see
    Error 803: system has unsupported display driver / cuda driver combination

    Error 804 (on a GeForce): forward compatibility was attempted on non supported HW

    nvidia-smi works.
Why
    The packages cuda-compat-X-Y contain the libcuda of a newer driver, in the toolkit's directory compat/. Data
    center GPUs can use it with an older kernel module. It does not work on other GPUs or with a newer driver.

    Programs load it only if somebody added that directory to LD_LIBRARY_PATH or /etc/ld.so.conf.d.

    A libcuda that was copied from another machine or an older driver causes the same error, if LD_LIBRARY_PATH leads
    to it.
Repair
    Remove the directory from the loader's search path and run ldconfig. The package itself does no harm.
What the repair risks
    Programs that need a newer CUDA version than the driver supports then fail with error 35. They need a newer
    driver.
By hand
    ldconfig -p | grep libcuda.so.1
    cat /proc/driver/nvidia/version
    grep -rn compat /etc/ld.so.conf.d ~/.bashrc
    # Remove the directory from the line that grep finds, then:
    ldconfig
"""

import re
from collections.abc import Iterable, Iterator

from dlhealth.api import (
    AptRemove,
    ByHand,
    CudaDriver,
    EditFile,
    Evidence,
    Finding,
    Gpus,
    Libcuda,
    LibcudaChoice,
    LoaderConfig,
    Machine,
    Packages,
    Place,
    Plan,
    RefreshLoaderCache,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UserPaths,
    without_element,
)


class CudaCompatLibError803(Rule):
    id = "cuda-compat-lib-error-803"
    title = "A libcuda of another driver version is loaded before the driver's own"
    stage = Stage.LOADER
    severity = Severity.ERROR
    explains = ("third-party-package-pulls-other-libnvidia",)

    def detect(self, libcuda: LibcudaChoice, driver: CudaDriver, gpus: Gpus | None) -> Iterator[Finding | Unknown]:
        groups: dict[str, list[Libcuda]] = {}
        for x in self._first(libcuda):
            # A libcuda of another version in a user's LD_LIBRARY_PATH causes the same error.
            if x.kind == "compat" or (x.kind == "driver" and x.user and x.version):
                groups.setdefault(x.source if x.user else x.path, []).append(x)
        for compat, *more in groups.values():
            if not driver.versions or compat.version in driver.numbers:
                continue
            if not compat.version:
                yield Unknown(f"cannot determine the driver version of {compat.real}")
                continue
            version, source = driver.versions[0]
            newer = _numbers(compat.version) > _numbers(version)
            names = [gpu.name for gpu in gpus.gpus] if gpus else []
            if compat.kind == "compat" and newer and not names:
                yield Unknown(
                    f"{compat.path} is newer than the driver; the GPU is not visible here, so it is unknown whether it may use it"
                )
                continue
            if compat.kind == "compat" and newer and all(map(_data_centre, names)):
                continue  # this is the purpose of the package
            users = [x.user for x in (compat, *more) if x.user]
            where = f"LD_LIBRARY_PATH of {', '.join(users)}" if users else compat.source
            yield self.finding(
                f"file:{compat.source.rpartition(':')[0] or compat.path}" if users else f"file:{compat.path}",
                f"Programs load {compat.path} (driver {compat.version}) before the libcuda of the installed driver {version}: "
                f"error {804 if newer and compat.kind == 'compat' else 803}",
                Evidence(compat.source, compat.path),
                Evidence(compat.real, f"libcuda of driver {compat.version}"),
                Evidence(source, f"driver {version}"),
                *(
                    Evidence(f"GPU {gpu.address}", gpu.name)
                    for gpu in (gpus.gpus if gpus else ())
                    if gpu.name and newer
                ),
                about=[f"user:{user}" for user in users],
                path=compat.path,
                where=where,
                source=compat.source,
                personal=bool(users),
            )

    def _first(self, libcuda: LibcudaChoice) -> Iterable[Libcuda]:
        """The libcuda that every user loads, and the one of each user whose LD_LIBRARY_PATH leads to another."""
        first: dict[str, Libcuda] = {}
        for x in (*libcuda.common, *libcuda.personal):
            if x.runtime:
                first.setdefault(x.user, x)
        return first.values()

    def remedies(
        self, finding: Finding, loader: LoaderConfig, paths: UserPaths | None, packages: Packages | None
    ) -> Iterator[Plan]:
        folder = finding.detail["path"].rpartition("/")[0]
        entry = next((d for d in loader.directories if d.path == folder and d.source.line), None)
        if finding.detail["personal"]:
            yield _edit(folder, finding.detail["source"], paths)
        elif entry and entry.source.line:
            edit = EditFile(entry.source.path, ((entry.source.line, entry.line, None),))
            yield Plan(f"Remove {folder} from {entry.source.path}", Risk.LOW, (edit, RefreshLoaderCache()))
        else:
            yield Plan("Update the loader's cache (ldconfig)", Risk.LOW, (RefreshLoaderCache(),))
        compat = folder.endswith("/compat")
        installed = packages.installed("cuda-compat-*") if packages and compat else ()
        if installed:
            names = tuple(p.name for p in installed)
            yield Plan(
                f"Remove {', '.join(names)}", Risk.MEDIUM, (AptRemove(names), RefreshLoaderCache()), network=True
            )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def compat(version: str, device: str = "1b06") -> Machine:
            folder, machine = "/usr/local/cuda-12.2/compat", Machine.ubuntu2404()
            return (
                (machine.gpu(device) if device else machine)
                .ubuntu_driver("550.120")
                .cuda_toolkit("12.2")
                .library(f"{folder}/libcuda.so.{version}", "libcuda.so.1")
                .link(f"{folder}/libcuda.so.1", f"libcuda.so.{version}")
                .link(f"{folder}/libcuda.so", "libcuda.so.1")
                .package("cuda-compat-12-2", "535.104.05-1", [f"{folder}/libcuda.so.{version}"])
            )

        def with_entry(machine: Machine) -> Machine:
            return machine.file("/etc/ld.so.conf.d/00-compat.conf", "# compat\n/usr/local/cuda/compat\n")

        path = "/usr/local/cuda/compat/libcuda.so.1"
        yield Scenario(
            "in ld.so.conf.d, on a GTX 1080 Ti",
            with_entry(compat("570.86.10")),
            finds=f"file:{path}",
            steps=("edit-file", "refresh-loader-cache"),
            ladder=(
                (
                    "low",
                    "edit-file /etc/ld.so.conf.d/00-compat.conf 2: -",
                    "refresh-loader-cache",
                ),
                (
                    "medium network",
                    "apt-remove cuda-compat-12-2",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario(
            "older than the driver, on a Tesla V100", with_entry(compat("535.104.05", "1db1")), finds=f"file:{path}"
        )
        yield Scenario(
            "in LD_LIBRARY_PATH",
            compat("535.104.05").append(
                "/home/alice/.profile", 'export LD_LIBRARY_PATH="/usr/local/cuda-12.2/compat:$LD_LIBRARY_PATH"\n'
            ),
            finds="file:/home/alice/.profile",
            steps=("edit-file",),
            ladder=(
                (
                    "low",
                    "edit-file /home/alice/.profile 13: -",
                ),
                (
                    "medium network",
                    "apt-remove cuda-compat-12-2",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario(
            "an old driver's libcuda, copied into a home directory",
            Machine.ubuntu2404_gpu()
            .library("/home/alice/lib/libcuda.so.515.65.01", "libcuda.so.1")
            .link("/home/alice/lib/libcuda.so.1", "libcuda.so.515.65.01")
            .append("/home/alice/.bashrc", "export LD_LIBRARY_PATH=$HOME/lib\n"),
            finds="file:/home/alice/.bashrc",
            ladder=(
                (
                    "low",
                    "by-hand /home/alice/.bashrc /home/alice/lib",
                ),
            ),
        )
        yield Scenario(
            "the driver's own libcuda in LD_LIBRARY_PATH",
            Machine.ubuntu2404_gpu().append(
                "/home/alice/.bashrc", "export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu\n"
            ),
        )
        yield Scenario("only the package", compat("535.104.05"))
        yield Scenario("newer than the driver, on a Tesla V100", with_entry(compat("570.86.10", "1db1")))
        yield Scenario(
            "newer than the driver, on a mounted disk without a visible GPU",
            with_entry(compat("570.86.10", "")),
            unknown=True,
        )
        yield Scenario("the same version as the driver", with_entry(compat("550.120")))
        yield Scenario(
            "after the driver's own libcuda",
            compat("535.104.05").file("/etc/ld.so.conf.d/zz.conf", "/usr/local/cuda/compat\n"),
        )
        yield Scenario(
            "no version in its name",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .library("/usr/local/cuda-12.2/compat/libcuda.so.1", "libcuda.so.1")
            .file("/etc/ld.so.conf.d/00-compat.conf", "/usr/local/cuda-12.2/compat\n"),
            unknown=True,
        )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _data_centre(name: str) -> bool:
    """Whether the name is a data center GPU's ("Tesla V100", "GA100 [A100 SXM4 40GB]", "H100 PCIe", "L40S")."""
    if re.search(r"GeForce|Quadro|RTX|GTX|TITAN|NVS", name, re.IGNORECASE):
        return False
    return re.search(r"Tesla|\b(?:[ABHLTPV]\d{1,3}[A-Z]{0,2}|G[HB]200|GRID)\b", name) is not None


def _edit(folder: str, source: Place, paths: UserPaths | None) -> Plan:
    """The plan to remove a directory from a user's LD_LIBRARY_PATH; automatic if the line only sets this variable."""
    line = next((d.line for d in paths.libraries() if d.source == source and d.path == folder), "") if paths else ""
    new = without_element(line, folder)
    summary = f"Remove {folder} from LD_LIBRARY_PATH in {source}"
    if new == line or source.line is None:
        text = f"edit {source.path}, remove the part that adds {folder}, then log out and in again"
        return Plan(summary, Risk.LOW, (ByHand(text),))
    return Plan(summary, Risk.LOW, (EditFile(source.path, ((source.line, line, new),)),))
