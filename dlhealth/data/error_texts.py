"""Which problems an error text of a program can come from, as people paste it: the most probable first.

Sources: the sources of the programs that print them (PyTorch, TensorFlow, JAX, NumPy, glibc's loader, Docker,
libnvidia-container, nvidia-smi, kmod, apt, dpkg, DKMS, the X server). What the kernel logs is in kernel_log.py.
"""

import re
from collections.abc import Iterator

from dlhealth.data.kernel_log import sayings, xid
from dlhealth.data.telling_errors import proven

_MISMATCH = "driver-library-version-mismatch-after-upgrade"
_NO_DRIVER = (
    "gpu-without-driver",
    "dkms-module-missing-for-running-kernel",
    "nvidia-module-not-loaded",
    "secure-boot-mok-not-enrolled",
    "nouveau-bound-instead-of-nvidia",
)
_CODE = (
    r"(?:(?:cuda driver lib(?:rary)?|nvcuda|cudart|nvml(?: vram)?) init failure|failed to get device context"
    r"|\bcu(?:Init|da\w+)(?: err(?:or)?| failed| returned)?) ?[:=(]? ?(?:with )?(?:err(?:or)? |code )?"
)
"""How programs that name only the number of CUDA's error begin."""
_TEXTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    # NVML and CUDA
    (r"driver/library version mismatch|system has unsupported display driver / cuda driver combination|error 803\b"
     rf"|{_CODE}803\b",
     (_MISMATCH, "cuda-compat-lib-error-803", "container-driver-libraries-differ")),
    (r"forward compatibility was attempted on non.?supported HW|error 804\b",
     ("cuda-forward-compat-unsupported-hw-804", _MISMATCH)),
    (r"failed to initialize nvml: unknown error",
     ("container-gpu-lost-after-daemon-reload", "container-toolkit-no-cgroups")),
    (r"failed to initialize nvml: gpu access blocked", ("container-toolkit-no-cgroups", "wsl-linux-driver-inside")),
    (r"couldn't communicate with the nvidia driver|failed to initialize nvml: driver not loaded|nvml error: driver not loaded|nvidia driver is not loaded"
     r"|failed to (?:initialize|load) the nvidia kernel module|module not found: 'nvidia'", _NO_DRIVER),
    (r"unable to load the kernel module 'nvidia|unable to load the nvidia kernel module",
     ("secure-boot-mok-not-enrolled", "nouveau-bound-instead-of-nvidia", "dkms-compiler-mismatch", "driver-too-old-for-new-gpu")),
    (r"kernel module load error: (?:key was rejected|required key)", ("secure-boot-mok-not-enrolled",)),
    (r"failed to initialize nvml: insufficient permissions|nvml error: insufficient permissions",
     ("dev-nvidia-permissions", "container-toolkit-no-cgroups")),
    (r"no devices were found", ("rminitadapter-failed", "gpu-not-on-bus", "xid-79-fallen-off-bus",
                                "driver-too-old-for-new-gpu", "legacy-gpu-needs-470-390-340")),
    (r"unable to determine the device handle|gpu is lost|\|err! +err! +\S+ +err! / err!",
     ("xid-79-fallen-off-bus", "gpu-driver-hung")),
    (r"cuda driver version is insufficient for cuda runtime version|cudaErrorInsufficientDriver|unsupported display driver"
     r"|requirement error: unsatisfied condition: cuda|provided ptx was compiled with an unsupported toolchain"
     rf"|{_CODE}35\b|your nvidia driver is too old or missing",
     ("cuda-runtime-newer-than-driver", "torch-wheel-newer-than-driver")),
    (r"nvidia driver on your system is too old", ("torch-wheel-newer-than-driver",)),
    (rf"system not yet initialized|cuda_error_system_not_ready|error 802\b|{_CODE}802\b", ("fabricmanager-missing-or-mismatched",)),
    (rf"all cuda-capable devices are busy or unavailable|{_CODE}46\b",
     ("compute-mode-exclusive", "mig-mode-without-instances", "gpu-driver-hung")),
    (r"no cuda-capable device is detected|cuda_error_no_device|no cuda gpus are available"
     rf"|{_CODE}100\b",
     ("cuda-visible-devices-wrong", "container-started-without-gpu", *_NO_DRIVER)),
    (r"cuda unknown error|cuda_error_unknown|failed call to cuinit: unknown error|cuda error(?: 999)?: unknown error"
     rf"|initialize cuda: unknown error|init gpu: unknown error|{_CODE}999\b",
     ("uvm-broken-after-suspend", "uvm-device-node-missing", "container-uvm-nodes-missing", "gpu-driver-hung")),
    (r"err_nvgpuctrperm|does not have permission to access nvidia gpu performance counters|cupti_error_insufficient_privileges",
     ("gpu-profiling-permission",)),
    # PyTorch, TensorFlow, JAX, NumPy
    (r"no kernel image is available for execution|is not compatible with the current pytorch installation",
     ("torch-no-kernel-image-new-gpu", "torch-no-kernel-image-old-gpu")),
    (r"torch not compiled with cuda enabled|attempting to deserialize object on a cuda device",
     ("torch-cpu-only-build",)),
    (r"found no nvidia driver on your system", (*_NO_DRIVER, "container-started-without-gpu")),
    (r"pytorch and torchvision were compiled with different cuda|operator torchvision::nms does not exist",
     ("torch-companion-built-for-other-torch", "wheels-overwrite-each-other")),
    (r"__nvjitlink\w+|undefined symbol: (?:nccl|cusparse|cublas|cusolver)\w+",
     ("ld-library-path-shadows-wheel-libraries",)),
    (r"undefined symbol: \w*cudnn\w*|loaded runtime cudnn library|cudnn_status_(?:version_mismatch|sublibrary)\w*"
     r"|pytorch was compiled against cudnn|cudnn version incompatibility",
     ("ld-library-path-old-cudnn-shadows-torch", "cudnn-mixed-sublibraries", "cudnn-header-so-version-mismatch")),
    (r"libcudnn\w*\.so\.\d+\S*: cannot open shared object|could not load dynamic library 'libcudnn"
     r"|could not load library libcudnn|unable to load any of \{?libcudnn|could not locate cudnn",
     ("cudnn-runtime-missing", "cudnn-major-8-vs-9", "tf-cannot-dlopen-gpu-libraries", "program-cuda-major-missing")),
    (r"could not load dynamic library '|cannot dlopen some gpu libraries",
     ("tf-cannot-dlopen-gpu-libraries", "ldconfig-cuda-entry-missing")),
    (r"could not find cuda drivers on your machine",
     ("tf-cannot-dlopen-gpu-libraries", "libcuda-missing-from-loader", *_NO_DRIVER)),
    (r"jax plugin configuration error: exception when calling jax_plugins",
     ("ld-library-path-shadows-wheel-libraries", "jax-gpu-backend-unavailable")),
    (r"unable to load cu\w+\. is it installed|outdated cu\w+ installation found|the cu\w+ library was not found",
     ("ld-library-path-shadows-wheel-libraries", "jax-gpu-backend-unavailable")),
    (r"libcuda\.so(?:\.1)?: cannot open shared object|libcuda\.so\.1: file too short",
     ("libcuda-missing-from-loader", "library-damaged", "container-started-without-gpu")),
    (r"cuda version: (?:err!|n/a)",
     ("libcuda-missing-from-loader", "container-started-without-gpu", "wsl-libcuda-not-symlink")),
    (r"do not appear to have an nvidia gpu supported by",
     ("legacy-gpu-needs-470-390-340", "driver-too-old-for-new-gpu", "gpu-not-on-bus")),
    (r"is not included in the path environment variable", ("login-loop-broken-path-environment",)),
    (r"libnvrtc\.so: cannot open", ("libnvrtc-without-number",)),
    (r"libcupti\.so\S*: cannot open|could not load dynamic library 'libcupti", ("libcupti-not-on-path",)),
    (r"libnvinfer\w*\.so\S*: cannot open|could not find tensorrt|could not load dynamic library 'libnvinfer",
     ("tensorrt-library-missing",)),
    (r"lib(?:cudart|cublas|cublasLt|cufft|curand|cusolver|cusparse|nvJitLink)\.so\.\d+\S*: cannot open shared object",
     ("program-cuda-major-missing", "ldconfig-cuda-entry-missing", "tf-cannot-dlopen-gpu-libraries")),
    (r"(?:conda|mamba|forge|/envs/)\S*: version [`'‘]?(?:GLIBCXX|CXXABI)_\d[\d.]*['’]? not found",
     ("conda-libstdcxx-too-old", "ld-library-path-conda-breaks-system")),
    (r"cuda setup failed despite gpu being available|bitsandbytes was compiled without gpu support",
     ("bitsandbytes-lacks-cuda-version", "program-cuda-major-missing", "torch-cpu-only-build")),
    (r"_array_api not found|compiled using numpy 1\.x cannot be run|numpy\.dtype size changed", ("numpy-2-abi",)),
    (r"jaxlib .{0,40}is newer than and incompatible with jax|jaxlib version \S+ is newer", ("jaxlib-newer-than-jax",)),
    (r"no gpu/tpu found, falling back to cpu|unable to initialize backend '(?:cuda|gpu)'|cuda-enabled jaxlib is not installed",
     ("jax-gpu-backend-unavailable",)),
    (r"libcuda\.so\.1.{0,60}stub|is a stub library|cuda_error_stub_library", ("libcuda-stub-loaded",)),
    # Containers
    (r"could not select device driver|(?:unknown or invalid|unknown) runtime (?:specified|name:?) ?\"?nvidia",
     ("docker-nvidia-runtime-not-configured", "docker-snap-or-desktop")),
    (r"nvidia-container-cli: initialization error: (?:load library failed|driver error)|libnvidia-ml\.so\.1: cannot open",
     ("container-toolkit-cannot-find-driver", "libcuda-missing-from-loader")),
    (r"if this is a gpu node, did you (?:configure|set)",
     ("containerd-nvidia-runtime-not-configured", "docker-nvidia-runtime-not-configured")),
    (r"unresolvable cdi devices|failed to inject cdi devices", ("cdi-spec-stale",)),
    (r"bus error.{0,80}shared memory|insufficient shared memory \(shm\)|/dev/shm/nccl", ("shm-too-small",)),
    # Modules, packages, the desktop
    (r"key was rejected by service|required key not available|module with unavailable key",
     ("secure-boot-mok-not-enrolled", "secure-boot-unsigned-module")),
    (r"module nvidia(?:[\w-]*) not found", ("dkms-module-missing-for-running-kernel", "gpu-without-driver")),
    (r"exec format error|disagrees about version of symbol|invalid module format",
     ("dkms-module-missing-for-running-kernel", "kernel-modules-of-two-versions")),
    (r"kernel headers for kernel .{1,80}cannot be found|unable to find the kernel source tree"
     r"|kernel headers for this kernel do(?:es)? not seem to be installed", ("kernel-headers-missing",)),
    (r"failed preempt_rt sanity check|is a preempt_rt kernel", ("dkms-module-missing-for-running-kernel",)),
    (r"gpl-incompatible module|gpl-only symbol", ("gpl-only-symbol-build-failure",)),
    (r"unrecognized command.line option|compiler version check failed|does not match the one used to build the kernel",
     ("dkms-compiler-mismatch",)),
    (r"bad return status for module build",
     ("kernel-too-new-for-driver-branch", "dkms-compiler-mismatch", "kernel-headers-missing", "other-dkms-module-fails")),
    (r"pci i/o region assigned to your nvidia device is invalid|bar[0-4] is 0m @ 0x0", ("bar-space-above-4g-decoding",)),
    (r"preservevideomemoryallocations module parameter is set", ("resume-black-screen-vram-not-preserved",)),
    (r"failed to load module \"nvidia\"", ("stale-xorg-conf-nvidia", "partial-driver-install", "glx-alternatives-wrong")),
    (r"nouveau kernel driver is currently in use", ("nouveau-bound-instead-of-nvidia",)),
    (r"unsupported gnu version", ("nvcc-host-compiler-unsupported",)),
    (r"nvcc: (?:command )?not found|cuda_home environment variable is not set|nvcc was not found|/bin/nvcc'", ("nvcc-not-in-path", "distro-nvidia-cuda-toolkit-shadows")),
    (r"no_pubkey (?:a4b469963bf863cc|f60f4b3d7fa2af80)", ("cuda-repo-key-rotation",)),
    (r"conflicting values set for option signed-by", ("apt-signed-by-conflict",)),
    (r"is not valid yet|certificate is not yet valid", ("clock-skew-breaks-apt-tls",)),
    (r"could not get lock /var/lib/(?:dpkg|apt)", ("apt-lock-held",)),
    (r"dpkg was interrupted", ("dpkg-interrupted",)),
    (r"could not find module by name='off'|could not insert 'off'", ("prime-profile-blocks-nvidia",)),
    (r"lib(?:nvidia|cuda)[\w.+-]* ?: conflicts: ", ("mixed-repositories", "third-party-package-pulls-other-libnvidia")),
    (r"a graphical session is already running|session never registered", ("login-loop-custom-user-unit",)),
    (r"could not update \.?iceauthority file", ("login-loop-home-dotfile-permissions", "login-loop-disk-full")),
    (r"trying to overwrite '", ("dpkg-file-overwrite-conflict", "third-party-package-pulls-other-libnvidia")),
    (r"(?<![\w-])(?:lib)?(?:nvidia|cuda)[\w.+-]*(?::\w+)? ?: (?:pre)?depends: .{1,80}(?:is to[ ]be|is not going to be|not) install",
     ("mixed-repositories", "held-packages-block-driver", "third-party-package-pulls-other-libnvidia")),
    (r"you have held broken packages", ("mixed-repositories", "held-packages-block-driver",
                                        "third-party-package-pulls-other-libnvidia")),
    (r"dpkg: error processing package|dependency problems - leaving unconfigured",
     ("half-configured-driver-packages", "other-dkms-module-fails", "boot-partition-full")),
    (r"no space left on device", ("login-loop-disk-full", "boot-partition-full", "disk-full-dataset-cache")),
    (r"failed to assign any connected display devices|no screens found",
     ("stale-xorg-conf-nvidia", "hybrid-internal-panel-black", "xorg-conf-wrong-busid")),
    (r"extension \"glx\" missing|not supported by egl|failed to initialize glx",
     ("login-loop-glx-broken-driver-mismatch", "glx-alternatives-wrong", "stale-libglx-symlink")),
    (r"\.xauthority.{0,40}(?:permission denied|not writable)|(?:error|timeout) in locking authority file",
     ("login-loop-xauthority-wrong-owner", "login-loop-home-dotfile-permissions", "login-loop-disk-full")),
)  # fmt: skip

_HARMLESS = ("tensorrt-library-missing",)
"""Programs say so at each start, and go on. They come last."""


def problems_of(text: str) -> tuple[str, ...]:
    """The ids of the problems whose error texts are in a text: first those that it proves, then in the order of the
    text's first match for each row; empty if dlhealth knows none of its texts."""
    plain = " ".join(text.split())
    found = sorted((match.start(), row) for row, match in enumerate(_matches(plain)) if match)
    ids = [*(problem.fault for problem in proven(plain)), *_logged(plain)]
    for _, row in found:
        ids += _TEXTS[row][1]
    return tuple(sorted(dict.fromkeys(ids), key=_HARMLESS.__contains__))


def _matches(text: str) -> "Iterator[re.Match[str] | None]":
    return (re.search(pattern, text, re.IGNORECASE) for pattern, _ in _TEXTS)


def _logged(text: str) -> Iterator[str]:
    """Of lines of the kernel log. Each begins with the name of the module."""
    for at in (match.start() for match in re.finditer(r"\b(?:NVRM|nvidia[\w-]*|kernel): ", text)):
        yield from (s.fault for s in sayings().values() if s.fault and s.pattern.search(text[at:]))
    for number in re.findall(r"NVRM: Xid \([^)]{1,40}\): (\d{1,4})\b", text):
        yield xid(int(number)).fault
