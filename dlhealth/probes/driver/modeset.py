"""Whether nvidia-drm is told to set the modes of the screens, and whether this start goes without it."""

from dlhealth.host import Host, Unreadable
from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.probes import Unavailable
from dlhealth.probes.driver.modules import ModprobeConfig
from dlhealth.probes.machine.boot import next_boot
from dlhealth.records import NamedTuple

_PARAMETER = regex(r"(?:^| )nvidia[-_]drm\.modeset=1(?= |$)")
_WITHOUT = regex(
    r"(?:^| )(nomodeset|nvidia[-_]drm\.modeset=0|(?:module_blacklist|modprobe\.blacklist)=\S*nvidia\S*)(?= |$)"
)
_OPTION = regex(r"\bmodeset=(\d)")
GRUB = Place("the boot loader's kernel parameters")


class Modeset(NamedTuple):
    """`setting` is what tells the driver to set modes at each start (None: nothing does), `line` its text. `without` is
    the word of the running kernel's command line that prevents it this time, or says that the parameter is missing there;
    "" if this start has the setting."""

    setting: Place | None
    line: str
    without: str

    @classmethod
    def probe(cls, host: Host, config: ModprobeConfig) -> "Modeset":
        try:
            running = (host.text("/proc/cmdline") or "").strip()
            parameter = _PARAMETER.search(next_boot(host).arguments)
        except Unreadable as problem:
            raise Unavailable(str(problem)) from problem
        if not running:
            raise Unavailable("only a running machine shows how it was started")
        options = [(line, m[1]) for line in config.options("nvidia-drm") if (m := _OPTION.search(line.arguments))]
        prevented = _WITHOUT.search(running)
        if parameter:
            missing = "" if _PARAMETER.search(running) else "without nvidia-drm.modeset=1"
            return cls(GRUB, parameter[0].strip(), prevented[1] if prevented else missing)
        if options and options[-1][1] == "1":
            line = options[-1][0]
            return cls(
                line.source, f"options {line.module} {line.arguments}".strip(), prevented[1] if prevented else ""
            )
        return cls(None, "", "")
