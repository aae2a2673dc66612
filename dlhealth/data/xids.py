"""What the numbers are about by which NVIDIA's driver reports errors (Xid).

Source: https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html
"""

from collections.abc import Mapping

_ECC = "xid-ecc-48-63-64-92-94-95"
_APPLICATION = "xid-application-errors-13-31-32-43-45-69"

XIDS: Mapping[str, tuple[str, str, str]] = {
    # A program did what it must not, or was ended: the machine is not to be repaired.
    **dict.fromkeys(("13", "31", "32", "43", "45", "68", "69"), (_APPLICATION, "warning", "runtime")),
    # The driver has dealt with it; what it has put aside is so from the next reset on.
    **dict.fromkeys(("63", "92", "94"), (_ECC, "warning", "hardware")),
    **dict.fromkeys(("48", "64", "95"), (_ECC, "error", "hardware")),
    **dict.fromkeys(("61", "62"), ("xid-61-62-internal-mcu", "error", "hardware")),
    "74": ("xid-74-nvlink", "error", "hardware"),
    "79": ("xid-79-fallen-off-bus", "error", "hardware"),
    **dict.fromkeys(("119", "120"), ("xid-119-120-gsp-timeout", "error", "runtime")),
    # It says what another Xid asks for.
    "154": ("xid-154-recovery-action", "warning", "runtime"),
}
"""By its number: the fault, how severe it is, and its layer."""
