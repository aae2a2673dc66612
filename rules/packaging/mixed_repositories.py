"""The driver's packages come from different repositories.

What you see
    E: Unable to correct problems, you have held broken packages.

    libnvidia-compute-510: Conflicts: libnvidia-compute

    trying to overwrite '/lib/udev/rules.d/71-nvidia.rules', which is also in package nvidia-kernel-common-NNN
Why
    The distribution, the graphics-drivers PPA and NVIDIA's CUDA repository build the same driver, but split it into
    packages differently.

    The pin file of NVIDIA's repository gives it priority over all others. So each upgrade replaces some packages and
    leaves the others.

    A CUDA toolkit from NVIDIA works well with a driver from the distribution.
Repair
    Install the whole driver from one source, and stop the other source from offering it.
What the repair risks
    apt may want to remove a desktop metapackage or CUDA. Simulate first (apt-get -s) and read the list.
By hand
    apt-cache policy nvidia-driver-NNN libnvidia-compute-NNN
    # Simulate, then run it again without -s:
    apt-get -s install PACKAGE=VERSION
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    Action,
    AptInstall,
    AptSources,
    DriverPackage,
    DriverPackages,
    Evidence,
    Finding,
    Machine,
    PackageOrigins,
    Packages,
    Plan,
    Reboot,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    WriteFile,
    version_key,
)

NVIDIA, UBUNTU = "NVIDIA's repository", "Ubuntu's archive"
PIN = """\
# The driver comes from the distribution. CUDA, cuDNN and the container tools may come from NVIDIA's repository.
Package: {}
Pin: release o=NVIDIA
Pin-Priority: -1
"""
PINNED = (
    "cuda-drivers*", "nvidia-open*", "nvidia-driver*", "nvidia-dkms-*", "nvidia-kernel-*", "nvidia-utils-*",
    "nvidia-compute-utils-*", "nvidia-firmware-*", "libnvidia-*-[0-9][0-9][0-9]*", "xserver-xorg-video-nvidia*",
)  # fmt: skip
"""The driver's metapackages and all its packages under Ubuntu's names, for every branch. Not libnvidia-container*, which
belongs to the container tools."""


class MixedRepositories(Rule):
    id = "mixed-repositories"
    title = "The driver's packages come from different repositories"
    stage = Stage.SOURCES
    severity = Severity.WARNING
    risk = Risk.HIGH
    explains = ("half-configured-driver-packages", "third-party-package-pulls-other-libnvidia")

    def detect(self, driver: DriverPackages, origins: PackageOrigins, sources: AptSources | None) -> Iterator[Finding]:
        for members in _sets(driver):
            builds: dict[str, list[DriverPackage]] = {}
            for member in members:
                builds.setdefault(member.package.version, []).append(member)
            if len(builds) < 2:
                continue
            known = _known(builds, origins)
            two_branches = len({m.package.upstream.split(".")[0] for m in members}) > 1
            if not (
                _disjoint(list(known.values()))
                or _same_upstream(members, known)
                # A release of a distribution has one driver branch; Ubuntu's branches have different package names.
                or (two_branches and sources and sources.of(NVIDIA) and all(NVIDIA in k for k in known.values()))
            ):
                continue
            ordered = sorted(builds, key=lambda v: (*_weight(builds[v]), v))
            main, foreign = ordered[0], [m for v in ordered[1:] for m in builds[v]]
            names = [" or ".join(sorted(known[v])) or "an unknown source" for v in ordered]
            evidence = [
                Evidence(
                    "/var/lib/dpkg/status",
                    f"{m.package.name} {m.package.version} ({' or '.join(sorted(known[m.package.version])) or 'unknown source'})",
                )
                for m in (*builds[main][:3], *foreign[:5])
            ]
            evidence += [Evidence(origins.origins[m.package.name][1], m.package.name) for m in foreign[:1]]
            for origin in sorted(set().union(*known.values())):
                source = sources.of(origin) if sources else None
                if source:
                    evidence.append(Evidence(source.source, source.uri))
            for pin in sources.pins if sources else ():
                if "nvidia" in pin.pin.lower() or "nvidia" in pin.packages.lower():
                    evidence.append(
                        Evidence(pin.source, f"Package: {pin.packages}; Pin: {pin.pin}; Pin-Priority: {pin.priority}")
                    )
            yield self.finding(
                "host",
                f"Packages of the driver come from two sources: {names[0]} ({main}) and {names[1]} ({ordered[1]})",
                *evidence,
                severity=Severity.ERROR if len({m.package.upstream for m in members}) > 1 else Severity.WARNING,
                main=main,
                foreign=[m.package.name for m in foreign],
                nvidia=bool(sources and sources.of(NVIDIA) and any(known[v] == {NVIDIA} for v in ordered[1:])),
            )

    def remedies(self, finding: Finding, driver: DriverPackages, packages: Packages) -> Iterator[Plan]:
        main, foreign = finding.detail["main"], finding.detail["foreign"]
        ours = [m for m in driver.members if m.package.version == main]
        upstream = ours[0].package.upstream
        # Ubuntu's package names contain the branch: packages of another branch are replaced by those of ours.
        other = tuple(n for n in foreign if (b := re.search(r"-(\d{3})(?:-|$)", n)) and b[1] != upstream.split(".")[0])
        complete = DriverPackages(tuple(ours), upstream, None).complete if other else ()
        missing = (name for package, name in packages.unmet() if package.version == main)
        same_name = (f"{n}={main}" for n in foreign if n not in other)
        install = AptInstall(tuple(dict.fromkeys((*same_name, *complete, *missing))), remove=other)
        steps: list[Action] = [install, Reboot()]
        if finding.detail["nvidia"]:
            # Debian's package names have no branch, and NVIDIA's repository for Debian uses the same names.
            names = {m.package.name for m in driver.members if m.coupled and not re.search(r"-\d{3}", m.package.name)}
            pin = PIN.format(" ".join((*PINNED, *sorted(names))))
            steps.insert(0, WriteFile("/etc/apt/preferences.d/nvidia-driver-from-distribution", pin))
        yield Plan(
            f"Install the whole driver from one source, in version {main}"
            + (f" and remove {', '.join(other)}" if other else ""),
            Risk.HIGH, tuple(steps), reboot=True, network=True,
        )  # fmt: skip

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        source = "deb [signed-by=/usr/share/keyrings/cuda-archive-keyring.gpg] https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64/ /\n"
        pin = "Package: *\nPin: release l=NVIDIA CUDA\nPin-Priority: 600\n"
        repository = "/etc/apt/sources.list.d/cuda-ubuntu2404-x86_64.list"
        yield Scenario(
            "NVIDIA's repository replaced some libraries",
            Machine.ubuntu2404_gpu()
            .file(repository, source)
            .file("/etc/apt/preferences.d/cuda-repository-pin-600", pin)
            .package("libnvidia-compute-550", "550.144.03-0ubuntu1", multi_arch="same")
            .package("libnvidia-gl-550", "550.144.03-0ubuntu1", multi_arch="same"),
            finds="host",
            steps=("write-file", "apt-install", "reboot"),
            ladder=(
                (
                    "high reboot network",
                    "write-file /etc/apt/preferences.d/nvidia-driver-from-distribution Package: cuda-drivers* nvidia-open* nvidia-driver* nvidia-dkms-* nvidia-kernel-* nvidia-utils-* nvidia-compute-utils-* nvidia-firmware-* libnvidia-*-[0-9][0-9][0-9]* xserver-xorg-video-nvidia* / Pin: release o=NVIDIA / Pin-Priority: -1",
                    "apt-install libnvidia-compute-550=550.120-0ubuntu0.24.04.1 libnvidia-gl-550=550.120-0ubuntu0.24.04.1",
                    "reboot",
                ),
            ),
        )
        yield Scenario(
            "the same driver version, from the PPA and from Ubuntu",
            Machine.ubuntu2404_gpu().package("libnvidia-compute-550", "550.120-0ubuntu0~gpu24.04.1", multi_arch="same"),
            finds="host",
            steps=("apt-install", "reboot"),
            ladder=(("high reboot network", "apt-install libnvidia-compute-550=550.120-0ubuntu0.24.04.1", "reboot"),),
        )
        yield Scenario(
            "apt's lists prove it on Debian",
            Machine.debian12_gpu()
            .file("/etc/apt/sources.list", "deb http://deb.debian.org/debian bookworm main contrib non-free\n")
            .file("/etc/apt/sources.list.d/cuda.list", "deb https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/ /\n")
            .file("/var/lib/apt/lists/developer.download.nvidia.com_compute_cuda_repos_debian12_x86%5f64_Packages",
                  "Package: libcuda1\nVersion: 560.35.03-1\nSize: 1\n\n")
            .file("/var/lib/apt/lists/deb.debian.org_debian_dists_bookworm_non-free_binary-amd64_Packages",
                  "Package: nvidia-driver\nVersion: 535.261.03-1\n\nPackage: libcuda1\nVersion: 535.261.03-1\n")
            .package("libcuda1", "560.35.03-1", multi_arch="same"),
            finds="host",
            ladder=(('high reboot network', 'write-file /etc/apt/preferences.d/nvidia-driver-from-distribution Package: cuda-drivers* nvidia-open* nvidia-driver* nvidia-dkms-* nvidia-kernel-* nvidia-utils-* nvidia-compute-utils-* nvidia-firmware-* libnvidia-*-[0-9][0-9][0-9]* xserver-xorg-video-nvidia* libcuda1 libegl-nvidia0 libgl1-nvidia-glvnd-glx libglx-nvidia0 libnvidia-cfg1 libnvidia-eglcore libnvidia-glcore libnvidia-glvkspirv libnvidia-ml1 libnvidia-ptxjitcompiler1 nvidia-alternative nvidia-driver nvidia-driver-bin nvidia-driver-libs nvidia-egl-common nvidia-egl-icd nvidia-kernel-dkms nvidia-kernel-support nvidia-smi nvidia-vdpau-driver xserver-xorg-video-nvidia / Pin: release o=NVIDIA / Pin-Priority: -1', 'apt-install libcuda1=535.261.03-1', 'reboot'),),
        )  # fmt: skip
        yield Scenario(
            "Ubuntu's driver with NVIDIA's CUDA toolkit",
            Machine.ubuntu2404_gpu()
            .file(repository, source)
            .file("/etc/apt/preferences.d/cuda-repository-pin-600", pin)
            .package("cuda-toolkit-12-4", "12.4.1-1")
            .package("cuda-nvcc-12-4", "12.4.131-1")
            .package("libcudnn9-cuda-12", "9.1.0.70-1")
            .package("nvidia-container-toolkit", "1.16.2-1"),
        )
        yield Scenario(
            "everything from NVIDIA's repository, whose metapackages have other version numbers",
            Machine.ubuntu2404().gpu().ubuntu_driver("550.120").file(repository, source)
            .package("cuda-drivers-550", "550.120-1").package("cuda-drivers", "550.120-1"),
        )  # fmt: skip
        yield Scenario(
            "half upgraded within Ubuntu's archive",
            Machine.ubuntu2404_gpu()
            .file("/etc/apt/sources.list", "deb http://archive.ubuntu.com/ubuntu noble main restricted\n")
            .package("libnvidia-compute-550", "550.67-0ubuntu3", multi_arch="same"),
        )
        yield Scenario("no package records", Machine().file("/etc/hostname", "disk"), unknown=True)


def _sets(driver: DriverPackages) -> list[list[DriverPackage]]:
    """Groups of packages that must come from one source. NVIDIA's metapackages have their own version numbers, and Debian
    can install its Tesla and legacy drivers beside the current one."""
    sets: dict[str, list[DriverPackage]] = {}
    for member in driver.members:
        if member.coupled and member.role != "meta":
            flavour = member.family if "tesla" in member.family or "legacy" in member.family else ""
            sets.setdefault(flavour, []).append(member)
    return list(sets.values())


def _known(builds: dict[str, list[DriverPackage]], origins: PackageOrigins) -> dict[str, set[str]]:
    """The possible sources of each build: a source that is certain for one of its packages holds for all of them."""
    known: dict[str, set[str]] = {}
    for version, members in builds.items():
        possible = [set(origins.origins.get(m.package.name, ((), ""))[0]) for m in members]
        known[version] = min((p for p in possible if p), key=len, default=set())
    stable = [v for v, origin in known.items() if origin == {UBUNTU} and re.search(r"ubuntu\d+\.\d\d\.\d\d", v)]
    for version, origin in known.items():
        # Ubuntu's updates have the release number in their version; a version as new without it is not from Ubuntu.
        if len(origin) > 1 and any(version_key(version) >= version_key(v) for v in stable):
            known[version] = origin - {UBUNTU}
    return known


def _disjoint(origins: list[set[str]]) -> bool:
    """Whether at least two builds certainly come from different sources."""
    return any(a and b and not a & b for i, a in enumerate(origins) for b in origins[i + 1 :])


def _same_upstream(members: list[DriverPackage], known: dict[str, set[str]]) -> bool:
    """Whether one upstream version has two builds of different style: an archive has only one build of it."""
    styles: dict[str, set[str]] = {}
    for m in members:
        version = m.package.version
        styles.setdefault(m.package.upstream, set()).add(version[len(m.package.upstream) :].split(".")[0])
    return any(len(s) > 1 for s in styles.values()) and any(len(o) > 1 for o in known.values())


def _weight(members: list[DriverPackage]) -> tuple[int, int]:
    return -sum(m.role in ("driver", "module") for m in members), -len(members)
