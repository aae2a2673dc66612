"""NVIDIA's container toolkit cannot load the host's driver library, or its configuration names no existing ldconfig.

What you see
    nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1: cannot open shared object file

    nvidia-container-cli: ldcache error: open failed: /sbin/ldconfig.real: no such file or directory
Why
    To start a container with a GPU, the toolkit loads libnvidia-ml.so.1 on the host, and runs the host's ldconfig.
    Without a complete driver on the host, no container gets a GPU.

    /etc/nvidia-container-runtime/config.toml names the ldconfig. /sbin/ldconfig.real exists only on Ubuntu; a
    configuration that was copied from there fails on Debian.
Repair
    Repair the driver on the host first. For ldconfig, name the program that exists.
What the repair risks
    Low: only the toolkit's configuration changes.
By hand
    nvidia-smi
    ldconfig -p | grep libnvidia-ml
    grep ldconfig /etc/nvidia-container-runtime/config.toml
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Docker,
    DriverLibraries,
    EditFile,
    Evidence,
    Finding,
    Gpus,
    Machine,
    Plan,
    Platform,
    PlatformSetting,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    ToolkitConfig,
    Unknown,
)

_CONFIG = "/etc/nvidia-container-runtime/config.toml"
_LIBRARY = "libnvidia-ml.so.1"


class ContainerToolkitCannotFindDriver(Rule):
    id = "container-toolkit-cannot-find-driver"
    title = "NVIDIA's container toolkit cannot load the host's driver library"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    explained_by = (
        "libcuda-missing-from-loader",
        "partial-driver-install",
        "half-configured-driver-packages",
        "gpu-without-driver",
        "nvidia-module-not-loaded",
        "library-damaged",
        "runfile-uninstall-leftovers",
    )

    def detect(
        self, platform: Platform, docker: Docker, config: ToolkitConfig, libraries: DriverLibraries, gpus: Gpus
    ) -> Iterator[Finding | Unknown]:
        if not docker.toolkit or not gpus.gpus or platform.setting is not PlatformSetting.MACHINE:
            return
        if config.number and not config.exists:
            yield self.finding(
                f"file:{_CONFIG}",
                f"{_CONFIG}:{config.number} names {config.ldconfig}, which does not exist: no container gets a GPU",
                Evidence(f"{_CONFIG}:{config.number}", config.line.strip()),
                Evidence(config.ldconfig, "does not exist"),
            )
        if libraries.find(_LIBRARY):
            return
        if libraries.problems:
            yield from (Unknown(problem) for problem in libraries.problems)
            return
        narrow = libraries.find(_LIBRARY, bits=32)
        yield self.finding(
            "host",
            f"NVIDIA's container toolkit is installed, but {_LIBRARY} is not: no container gets a GPU",
            Evidence(docker.toolkit, "NVIDIA's container toolkit"),
            Evidence(_LIBRARY, f"only for 32 bit programs: {narrow.path}" if narrow else "not found on this machine"),
        )

    def remedies(self, finding: Finding, config: ToolkitConfig) -> Iterator[Plan]:
        if finding.subject == "host":
            text = "install the driver completely (nvidia-smi must work on the host), and run ldconfig"
            yield Plan("Install the driver on the host", Risk.HIGH, (ByHand(text),), network=True)
            return
        new = config.line.replace(config.ldconfig, "/sbin/ldconfig")
        yield Plan("Use /sbin/ldconfig", Risk.LOW, (EditFile(_CONFIG, ((config.number, config.line, new),)),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def toolkit(machine: Machine, ldconfig: str = "/sbin/ldconfig") -> Machine:
            text = f'[nvidia-container-cli]\nload-kmods = true\n#path = "/usr/bin/nvidia-container-cli"\nldconfig = "@{ldconfig}"\n'
            return machine.file("/usr/bin/nvidia-ctk", "", 0o755).file("/sbin/ldconfig", "", 0o755).file(_CONFIG, text)

        yield Scenario(
            "Ubuntu's ldconfig on Debian",
            toolkit(Machine.debian12_gpu(), "/sbin/ldconfig.real"),
            finds=f"file:{_CONFIG}",
            steps=("edit-file",),
            ladder=(("low", f'edit-file {_CONFIG} 4: ldconfig = "@/sbin/ldconfig"'),),
        )
        yield Scenario(
            "no driver on the host",
            toolkit(Machine.debian12().gpu(driver="")),
            finds="host",
            causes=("gpu-without-driver",),
        )
        yield Scenario("complete", toolkit(Machine.debian12_gpu()))
        yield Scenario(
            "Ubuntu's own ldconfig",
            toolkit(Machine.ubuntu2404_gpu(), "/sbin/ldconfig.real").file("/sbin/ldconfig.real", "", 0o755),
        )
        yield Scenario("no toolkit", Machine.debian12().gpu(driver=""))
        yield Scenario("the configuration is not readable", toolkit(Machine.debian12_gpu()).fifo(_CONFIG), unknown=True)
