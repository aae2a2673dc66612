"""The packages of NVIDIA's container toolkit have different versions.

What you see
    nvidia-container-cli: unrecognized option '--cuda-compat-mode'

    Containers with --gpus do not start after an upgrade of the toolkit.
Why
    The toolkit consists of four packages that are released together with one version: nvidia-container-toolkit,
    nvidia-container-toolkit-base, libnvidia-container-tools and libnvidia-container1. apt does not refuse a mixture,
    for example if only one of them is upgraded, on hold, or taken from another repository.

    The toolkit passes options to nvidia-container-cli that older versions of it do not know.
Repair
    Install all of them in the newest installed version.
What the repair risks
    Running containers are not affected. Docker's configuration stays.
By hand
    dpkg -l | grep nvidia-container
    apt-get install nvidia-container-toolkit nvidia-container-toolkit-base libnvidia-container-tools libnvidia-container1
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    Evidence,
    Finding,
    Machine,
    Package,
    Packages,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    version_key,
)

_NAMES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
_ONE_VERSION = (1, 12)
"""Before this version, the packages had numbers of their own."""


class ContainerToolkitPackagesDiffer(Rule):
    id = "container-toolkit-packages-differ"
    title = "The packages of NVIDIA's container toolkit have different versions"
    stage = Stage.PACKAGE_SET
    severity = Severity.WARNING
    risk = Risk.MEDIUM

    def detect(self, packages: Packages) -> Iterator[Finding | Unknown]:
        found = [p for name in _NAMES for p in packages.installed(name)]
        versions = {version_key(p.version) for p in found}
        if len(versions) < 2 or max(versions) < _ONE_VERSION:
            return
        newest = max(found, key=lambda p: version_key(p.version))
        older = [p for p in found if version_key(p.version) < version_key(newest.version)]
        names = " and ".join(f"{p.name} {p.version}" for p in older)
        yield self.finding(
            f"package:{older[0].name}",
            f"{names} {'is' if len(older) == 1 else 'are'} older than {newest.name} {newest.version}",
            *(Evidence("/var/lib/dpkg/status", f"{p.name} {p.version}") for p in (newest, *older)),
            packages=tuple(found),
            version=newest.version,
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        version = finding.detail["version"]
        found: tuple[Package, ...] = finding.detail["packages"]
        names = tuple(f"{p.name}={version}" for p in found if p.version != version)
        yield Plan(
            f"Install version {version} of all packages of the toolkit", Risk.MEDIUM, (AptInstall(names),), network=True
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def machine(*versions: str) -> Machine:
            machine = Machine.ubuntu2404_gpu()
            for name, version in zip(_NAMES, versions, strict=False):
                machine.package(name, version)
            return machine

        yield Scenario(
            "only the toolkit was upgraded",
            machine("1.17.8-1", "1.17.8-1", "1.13.5-1", "1.13.5-1"),
            finds="package:libnvidia-container-tools",
            ladder=(
                (
                    "medium network",
                    "apt-install libnvidia-container-tools=1.17.8-1 libnvidia-container1=1.17.8-1",
                ),
            ),
        )
        yield Scenario(
            "only the library is older",
            machine("1.17.8-1", "1.17.8-1", "1.17.8-1", "1.16.2-1"),
            finds="package:libnvidia-container1",
        )
        yield Scenario("one version", machine("1.17.8-1", "1.17.8-1", "1.17.8-1", "1.17.8-1"))
        yield Scenario(
            "only the base", machine("", "").without_package("nvidia-container-toolkit").package(_NAMES[1], "1.17.8-1")
        )
        yield Scenario(
            "from before the common version", machine("1.0.5-1", "", "1.0.7-1", "1.0.7-1").without_package(_NAMES[1])
        )
        yield Scenario("no toolkit", Machine.ubuntu2404_gpu())
        yield Scenario(
            "dpkg's records are not readable", machine("1.17.8-1").fifo("/var/lib/dpkg/status"), unknown=True
        )
