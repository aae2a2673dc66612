"""Messages that the kernel and NVIDIA's module write to the kernel log when something is wrong.

The only table for the watcher, which reads single messages, and for the doctor, which reads whole logs. A message of
several lines is matched as one line, with one "NVRM:" at its start. Sources: NVIDIA's open kernel modules (nv.c,
nv-pci.c, osinit.c), Linux (kernel/module/, security/lockdown/), and public logs of older drivers.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from dlhealth.data import load
from dlhealth.lazy import regex
from dlhealth.model import Severity
from dlhealth.records import NamedTuple

_GPU = (
    r"^NVRM: (?:The NVIDIA GPU (?P<address>[0-9a-f:.]{7,16}):? \(PCI ID: 10de:(?P<device>[0-9a-f]{4})\) )?"
    r"(?:installed )?in this system "
)

_SAYINGS: Mapping[str, tuple[str, str, str, str, str]] = {
    "api-mismatch": (
        r"^NVRM: API mismatch",
        "driver-library-version-mismatch-after-upgrade", "driver-libraries", "driver", "",
    ),
    "two-versions": (
        r"^nvidia-\w+: Version mismatch: nvidia\.ko ?\((?P<main>[\d.]+)\) (?P<file>nvidia-\w+)\.ko ?\((?P<part>[\d.]+)\)",
        "kernel-modules-of-two-versions", "kernel-module", "driver", "",
    ),
    "fallen": (
        r"^NVRM: (?:Xid \((?:PCI:)?(?P<xid>[0-9a-f:.]{5,16})\): 79\b"
        r"|(?:The NVIDIA )?GPU (?:at )?(?:PCI:)?(?P<gpu>[0-9a-f:.]{5,16}?):? "
        r"(?:\(PCI ID: [0-9a-f:]{9}\) installed in this system has|GPU has|has) fallen off the bus)",
        "xid-79-fallen-off-bus", "hardware", "gpu", "",
    ),
    "no-gsp": (
        _GPU + r"is not supported by open nvidia\.ko",
        "open-module-on-unsupported-gpu", "kernel-module", "driver", "",
    ),
    "not-ready": (
        r"^NVRM: Open nvidia\.ko is only ready for use on Data Center GPUs",
        "open-module-on-unsupported-gpu", "kernel-module", "driver", "",
    ),
    "needs-open": (
        _GPU + r"requires use of the NVIDIA open kernel modules",
        "closed-module-on-blackwell", "kernel-module", "driver", "",
    ),
    "too-old": (
        _GPU + r"is not supported by the (?:NVIDIA )?(?P<version>\d[\d.]+) (?:NVIDIA )?(?:Linux )?driver release",
        "driver-too-old-for-new-gpu", "kernel-module", "driver", "",
    ),
    "legacy": (
        r"^NVRM: The NVIDIA (?:NVIDIA )?(?P<name>[^:]{1,80}?) GPU installed in this system (?:is )?supported through the NVIDIA "
        r"(?P<branch>\d{2,3})\.[\dx.]{1,9} Legacy drivers(?:.{0,150}?The (?P<version>\d[\d.]+) NVIDIA driver will)?",
        "legacy-gpu-needs-470-390-340", "kernel-module", "driver", "",
    ),
    "not-started": (
        r"^NVRM: .*(?:RmInitAdapter failed|rm_init_adapter failed)",
        "rminitadapter-failed", "hardware", "gpu", "",
    ),
    "magic": (
        r"^nvidia[\w-]*: version magic '(?P<has>[^']*)' should be '(?P<wants>[^']*)'",
        "nvidia-module-not-loaded", "kernel-module", "driver",
        "the module was built for another configuration of the kernel, or by another compiler: see which words differ",
    ),
    "foreign": (
        r"^nvidia[\w-]*: (?:version magic|disagrees about version|Unknown symbol)",
        "nvidia-module-not-loaded", "kernel-module", "driver",
        "the module was built with the headers of another build of this kernel: run dkms uninstall and then dkms "
        "install --force for this kernel",
    ),
    "unsigned": (
        r"^nvidia[\w-]*: loading of unsigned module is rejected",
        "secure-boot-unsigned-module", "kernel-module", "driver", "",
    ),
    "key-rejected": (
        r"^nvidia[\w-]*: [Ll]oading of module with unavailable key is rejected",
        "secure-boot-mok-not-enrolled", "kernel-module", "driver", "",
    ),
    "none-initialized": (
        r"^NVRM: .*(?:in this system is not supported|No NVIDIA|None of the NVIDIA)",
        "nvidia-module-not-loaded", "kernel-module", "driver",
        "the module found no GPU that it can drive: the first NVRM lines of this start say why",
    ),
    # They do not name the module, or prove no fault: a reason to check.
    "rejected": (r"^Loading of .*module.* is rejected|^Lockdown: .*: unsigned module loading", "", "", "driver", ""),
    "display": (r"^nvidia-modeset: ERROR|^\[drm:nv_drm", "", "", "driver", ""),
    "nouveau": (r"^nouveau [0-9a-f:.]+: (?:NVIDIA |(?:bus|fifo|gr): )", "", "", "driver", ""),
    "loading": (r"^nvidia: (?:loading|module verification)|^NVRM: loading", "", "", "driver", ""),
}  # fmt: skip
"""By name: a pattern (case is ignored), the fault that it proves and the layer of that fault ("" for neither), what the
watcher checks, and advice if the fault has no repair of its own. The first match counts."""

_XID = r"^NVRM: Xid \((?:PCI:)?(?P<gpu>[0-9a-f:.]{5,16})\): (?P<number>\d{1,4})\b"
"""An error that the driver reports by its number; xids.json contains NVIDIA's advice. Drivers before 361 wrote no
"PCI:"."""
_SXID = r"^nvidia-nvswitch\d+: SXid \(PCI:(?P<gpu>[0-9a-f:.]{5,16})\): (?P<number>\d{5}), (?P<fatal>Fatal|Non-fatal)"
"""The same for an NVSwitch."""

_FLAGS = re.ASCII | re.IGNORECASE
XID_PATTERN = regex(_XID, _FLAGS)
SXID_PATTERN = regex(_SXID, _FLAGS)
SXID_FAULT = "nvswitch-sxid-errors"


class Saying(NamedTuple):
    """One row of the table."""

    name: str
    pattern: "re.Pattern[str]"
    fault: str
    layer: str
    topic: str
    advice: str


@cache
def sayings() -> Mapping[str, Saying]:
    """The table, by name, in its order."""
    return {
        name: Saying(name, regex(pattern, _FLAGS), fault, layer, topic, advice)
        for name, (pattern, fault, layer, topic, advice) in _SAYINGS.items()
    }


class Xid(NamedTuple):
    """What is known of an error number of the driver, or of an NVSwitch (`switch`): NVIDIA's name, a short meaning ("" for
    either where there is none), the rule here and its layer, how severe it is, NVIDIA's immediate action, what to do, and
    whose fault it usually is: application, driver, hardware, link, "" where that is not known."""

    number: int
    name: str
    meaning: str
    fault: str
    layer: str
    severity: Severity
    action: str
    advice: str
    whose: str
    switch: bool = False

    @property
    def called(self) -> str:
        """The number and what it means: "Xid 79 (GPU has fallen off the bus)"."""
        known = self.meaning or self.name
        return f"{'SXid' if self.switch else 'Xid'} {self.number}{f' ({known})' if known else ''}"

    def told(self, address: str, times: int = 1) -> str:
        """The sentence for a finding and for an alert."""
        often = f" ({times} times)" if times > 1 else ""
        if self.switch:
            return f"The NVSwitch at {address} reported {self.called}{often}: {self.advice}"
        return f"The driver reported {self.called} for the GPU at {address}{often}: {self.advice}"

    def severity_of(self, times: int) -> Severity:
        """A repeat makes an error of what was a warning. What asks for nothing stays a note, however often it comes."""
        return Severity.ERROR if times > 1 and self.severity is Severity.WARNING else self.severity


@cache
def xid(number: int) -> Xid:
    """A number that is not in the catalogue has no explanation, so it is a warning."""
    table = load("xids")
    unknown: dict[str, Any] = {
        "xid": number, "name": "", "meaning": "", "action": "CONTACT_SUPPORT", "fault": "xid-other", "whose": ""
    }  # fmt: skip
    row = next((r for r in table["rows"] if r["xid"] == number), unknown)
    action, fault = table["actions"][row["action"]], row["fault"]
    severity, more = Severity(action["severity"]), table["whose"][row["whose"]]
    advice = action["do"] if severity is Severity.NOTE or not more else f"{action['do']}; {more}"
    return Xid(
        number,
        row["name"],
        row["meaning"],
        fault,
        table["layers"][fault],
        severity,
        row["action"],
        advice,
        row["whose"],
    )


@cache
def sxid(number: int, *, fatal: bool) -> Xid:
    """The same of an NVSwitch. The line itself says whether the error was fatal to the link; the table, where it says
    more: an error that resets the whole fabric, or one that the switch corrected."""
    table = load("xids")
    row = next((r for r in table["sxids"] if r["sxid"] == number), None)
    kind = row["kind"] if row and (row["kind"] in ("always", "fatal")) == fatal else "fatal" if fatal else "corrected"
    does = table["sxid_kinds"][kind]
    meaning, severity = row["meaning"] if row else "", Severity(does["severity"])
    return Xid(
        number, "", meaning, SXID_FAULT, "hardware", severity, "", does["do"], "hardware" if fatal else "", switch=True
    )


def recovered(text: str) -> bool:
    """Whether an Xid 154 says that the GPU needs nothing any more."""
    return bool(re.search(r"changed from .* to 0x0 \(None\)", text))


def full_address(text: str) -> str:
    """A complete PCI address: NVIDIA's messages leave out the function, and sometimes shorten the domain."""
    domain, _, rest = (text if text.count(":") == 2 else f"0:{text}").lower().partition(":")
    return f"{int(domain or '0', 16):04x}:{rest if '.' in rest else rest + '.0'}"
