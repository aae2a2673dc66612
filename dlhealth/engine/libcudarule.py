"""What the rules about a libcuda of another driver version have in common."""

import re
from collections.abc import Iterable, Iterator

from dlhealth.actions import AptRemove, RefreshLoaderCache
from dlhealth.engine.rule import Rule
from dlhealth.judgements.cudadriver import CudaDriver
from dlhealth.ladders.loader import out_of_configuration, out_of_variable
from dlhealth.model import Evidence, Finding, Plan, Risk, Severity, Stage, Unknown
from dlhealth.probes.cuda.toolkits import Libcuda, LibcudaChoice
from dlhealth.probes.driver.gpu import Gpus
from dlhealth.probes.machine.loader import LoaderConfig, UserPaths
from dlhealth.probes.packaging.packages import Packages


class LibcudaRule(Rule):
    """A libcuda that is loaded before the driver's own. `newer` chooses those of cuda-compat that are newer than the
    driver, which only GPUs for data centers support; otherwise all others."""

    stage = Stage.LOADER
    severity = Severity.ERROR
    newer: bool

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
                yield Unknown(f"cannot find out the driver version of {compat.real}")
                continue
            version, source = driver.versions[0]
            newer = _numbers(compat.version) > _numbers(version)
            too_new = compat.kind == "compat" and newer
            if too_new is not self.newer:
                continue
            names = [gpu.name for gpu in gpus.gpus] if gpus else []
            if too_new and not names:
                yield Unknown(
                    f"{compat.path} is newer than the driver; the GPU is not visible here, so it is unknown whether it may use it"
                )
                continue
            if too_new and all(map(_data_centre, names)):
                continue  # this is the purpose of the package
            users = [x.user for x in (compat, *more) if x.user]
            yield self.finding(
                f"file:{compat.source.rpartition(':')[0] or compat.path}" if users else f"file:{compat.path}",
                f"Programs load {compat.path} (driver {compat.version}) before the libcuda of the installed driver {version}: "
                f"error {804 if too_new else 803}",
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
        if finding.detail["personal"]:
            yield out_of_variable(folder, finding.detail["source"], paths)
        else:
            yield out_of_configuration(folder, loader)
        compat = folder.endswith("/compat")
        installed = packages.installed("cuda-compat-*") if packages and compat else ()
        if installed:
            names = tuple(p.name for p in installed)
            yield Plan(
                f"Remove {', '.join(names)}", Risk.MEDIUM, (AptRemove(names), RefreshLoaderCache()), network=True
            )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _data_centre(name: str) -> bool:
    """Whether the name is a data center GPU's ("Tesla V100", "GA100 [A100 SXM4 40GB]", "H100 PCIe", "L40S")."""
    if re.search(r"GeForce|Quadro|RTX|GTX|TITAN|NVS", name, re.IGNORECASE):
        return False
    return re.search(r"Tesla|\b(?:[ABHLTPV]\d{1,3}[A-Z]{0,2}|G[HB]200|GRID)\b", name) is not None
