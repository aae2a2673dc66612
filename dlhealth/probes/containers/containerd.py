"""containerd as the engine of Kubernetes, and whether it knows NVIDIA's runtime."""

from dlhealth.host import Host
from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.probes import Unavailable
from dlhealth.probes.machine.platform import Platform, PlatformSetting
from dlhealth.records import NamedTuple

CONFIG = "/etc/containerd/config.toml"
_PROGRAMS = ("/usr/bin/containerd", "/usr/local/bin/containerd")
_KUBELET = ("/usr/bin/kubelet", "/usr/local/bin/kubelet", "/var/lib/kubelet/config.yaml")
_TOOLKIT = ("/usr/bin/nvidia-ctk", "/usr/bin/nvidia-container-runtime")
_RUNTIME = regex(r"""^\s*(?:BinaryName|Runtime)\s*=\s*["'](?P<program>/[^"']*nvidia-container-runtime[^"']*)["']""")
_WITH_CDI = regex(r"^\s*enable_cdi\s*=\s*true\b")


class Containerd(NamedTuple):
    """`program` is containerd, `kubelet` what shows that Kubernetes uses this machine, `toolkit` a program of NVIDIA's
    container toolkit ("" without). `runtimes` are NVIDIA's runtimes in its configuration, each with the place that names
    it; `absent` are those whose program is not there. `cdi` says that containers get devices by descriptions."""

    program: str
    kubelet: str
    toolkit: str
    runtimes: tuple[tuple[str, str], ...]
    absent: tuple[tuple[str, str], ...]
    cdi: bool

    @classmethod
    def probe(cls, host: Host, platform: Platform) -> "Containerd":
        if platform.setting is PlatformSetting.CONTAINER:
            raise Unavailable("skipped in a container: containerd belongs to the host")
        runtimes, cdi = [], False
        for path in (CONFIG, *host.glob("/etc/containerd/conf.d/*.toml")):
            for number, line in enumerate((host.text(path) or "").splitlines(), 1):
                if match := _RUNTIME.match(line):
                    runtimes.append((Place(path, number), match["program"]))
                cdi = cdi or _WITH_CDI.match(line) is not None
        return cls(
            _first(host, _PROGRAMS),
            _first(host, _KUBELET),
            _first(host, _TOOLKIT),
            tuple(runtimes),
            tuple((place, program) for place, program in runtimes if not host.exists(program)),
            cdi,
        )


def _first(host: Host, paths: tuple[str, ...]) -> str:
    return next((path for path in paths if host.exists(path)), "")
