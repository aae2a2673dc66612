"""Error codes of the CUDA driver, with the problems that cause them.

Source: NVIDIA, CUDA Driver API, enum CUresult.
"""

from dlhealth.records import NamedTuple


class Meaning(NamedTuple):
    """The name of an error in CUresult, and the ids of the problems that can cause it."""

    name: str
    causes: tuple[str, ...] = ()


NO_DEVICE = 100

_MISMATCH = "driver-library-version-mismatch-after-upgrade"
_UVM = "uvm-device-node-missing"
ERRORS = {
    1: Meaning("CUDA_ERROR_INVALID_VALUE"),
    2: Meaning("CUDA_ERROR_OUT_OF_MEMORY"),
    3: Meaning("CUDA_ERROR_NOT_INITIALIZED"),
    34: Meaning("CUDA_ERROR_STUB_LIBRARY", ("libcuda-stub-loaded",)),
    46: Meaning("CUDA_ERROR_DEVICE_UNAVAILABLE", ("compute-mode-exclusive", "mig-mode-without-instances")),
    NO_DEVICE: Meaning(
        "CUDA_ERROR_NO_DEVICE",
        (
            "nvidia-module-not-loaded",
            "nouveau-bound-instead-of-nvidia",
            "vfio-pci-claims-gpu",
            "gpu-not-driven",
            "gpu-without-driver",
            "gpu-not-on-bus",
            "rminitadapter-failed",
            "dev-nvidia-permissions",
            "cuda-visible-devices-wrong",
            "container-started-without-gpu",
            "xid-79-fallen-off-bus",
        ),
    ),
    101: Meaning("CUDA_ERROR_INVALID_DEVICE", ("cuda-visible-devices-wrong",)),
    209: Meaning("CUDA_ERROR_NO_BINARY_FOR_GPU"),
    214: Meaning("CUDA_ERROR_ECC_UNCORRECTABLE", ("xid-ecc-48-63-64-92-94-95",)),
    218: Meaning("CUDA_ERROR_INVALID_PTX"),
    221: Meaning("CUDA_ERROR_JIT_COMPILER_NOT_FOUND", ("partial-driver-install",)),
    222: Meaning("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", ("cuda-runtime-newer-than-driver",)),
    700: Meaning("CUDA_ERROR_ILLEGAL_ADDRESS", ("xid-application-errors-13-31-32-43-45-69",)),
    702: Meaning("CUDA_ERROR_LAUNCH_TIMEOUT"),
    719: Meaning("CUDA_ERROR_LAUNCH_FAILED", ("xid-application-errors-13-31-32-43-45-69", "xid-other")),
    802: Meaning("CUDA_ERROR_SYSTEM_NOT_READY", ("fabricmanager-missing-or-mismatched",)),
    803: Meaning("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", (_MISMATCH, "cuda-compat-lib-error-803")),
    804: Meaning("CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", ("cuda-forward-compat-unsupported-hw-804", _MISMATCH)),
    999: Meaning(
        "CUDA_ERROR_UNKNOWN",
        (_UVM, "uvm-broken-after-suspend", "container-uvm-nodes-missing", "dev-nvidia-permissions", _MISMATCH),
    ),
}
NOT_LOADED = -1
"""Instead of an error code: libcuda.so.1 could not be loaded."""
NO_LIBRARY = ("libcuda-missing-from-loader", "partial-driver-install", "library-damaged", "gpu-without-driver")
"""The problems that can keep libcuda.so.1 from being loaded."""
HANG = (
    "gpu-driver-hung",
    "xid-79-fallen-off-bus",
    "xid-119-120-gsp-timeout",
    "xid-61-62-internal-mcu",
    "xid-154-recovery-action",
    "rminitadapter-failed",
    "nccl-p2p-acs-iommu-hang",
)
"""The problems that can keep the driver from answering."""
WRONG_ANSWER = (
    "gpu-memory-errors",
    "pcie-link-degraded",
    "xid-ecc-48-63-64-92-94-95",
    "xid-74-nvlink",
    "xid-154-recovery-action",
    "xid-other",
)
"""The problems that can make a GPU compute or remember a wrong number."""


def named(call: str, code: int) -> str:
    """An error as one clause: "cuInit returned 803 (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)"."""
    meaning = ERRORS.get(code)
    return f"{call} returned {code} ({meaning.name if meaning else 'an error without a name here'})"


def suspects(code: int) -> tuple[str, ...]:
    """The ids of the problems that can cause an error."""
    if code == NOT_LOADED:
        return NO_LIBRARY
    return ERRORS[code].causes if code in ERRORS else ()
