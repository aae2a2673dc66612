"""Error texts of programs, and the problems that they come from."""

import pytest

from dlhealth.data.error_texts import _TEXTS, problems_of
from dlhealth.engine.rule import Rule

CASES = (
    ("cuInit err: 999\nWARN msg=\"unknown error initializing cuda driver library\" error=\"cuda driver library init failure: 999\"",
     "uvm-broken-after-suspend"),
    ("Unable to load CUDA management library libnvidia-ml.so: nvml vram init failure: 999", "uvm-broken-after-suspend"),
    ("cuda driver library init failure: 803", "driver-library-version-mismatch-after-upgrade"),
    ("| NVIDIA-SMI 545.46     Driver Version: 546.80       CUDA Version: ERR!     |", "libcuda-missing-from-loader"),
    ("|   0  NVIDIA A10   Off  | 00000000:65:00.0 Off |\n|ERR!   ERR! ERR!    ERR! / ERR!|      2MiB / 23028MiB |", "xid-79-fallen-off-bus"),
    ("cudaSetDevice err: 35", "cuda-runtime-newer-than-driver"),
    ("cuda driver library failed to get device context 46", "compute-mode-exclusive"),
    ("cuInit failed with error 802", "fabricmanager-missing-or-mismatched"),
    ("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.99",
     "driver-library-version-mismatch-after-upgrade"),
    ("Failed to initialize NVML: Unknown Error", "container-gpu-lost-after-daemon-reload"),
    ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that", "gpu-without-driver"),
    ("RuntimeError: The NVIDIA driver on your system is too old (found version 10020). Please update",
     "torch-wheel-newer-than-driver"),
    ("RuntimeError: CUDA error: no kernel image is available\nfor execution on the device",
     "torch-no-kernel-image-new-gpu"),
    ("CUDA driver version is insufficient for CUDA runtime version", "cuda-runtime-newer-than-driver"),
    ("AssertionError: Torch not compiled with CUDA enabled", "torch-cpu-only-build"),
    ("RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized",
     "fabricmanager-missing-or-mismatched"),
    ("Error 804: forward compatibility was attempted on non supported HW", "cuda-forward-compat-unsupported-hw-804"),
    ("ImportError: libcudnn.so.8: cannot open shared object file: No such file or directory", "cudnn-runtime-missing"),
    ("W dso_loader.cc:64] Could not load dynamic library 'libcudart.so.11.0'; dlerror: libcudart.so.11.0: cannot open",
     "tf-cannot-dlopen-gpu-libraries"),
    ("Could not load library libcudnn_cnn_infer.so.8. Error: undefined symbol: _ZN5cudnn3cnn34layerNorm",
     "cudnn-runtime-missing"),
    ("undefined symbol: cudnnGetLibConfig", "ld-library-path-old-cudnn-shadows-torch"),
    ("libcusparse.so.12: undefined symbol: __nvJitLinkAddData_12_1, version libnvJitLink.so.12",
     "ld-library-path-shadows-wheel-libraries"),
    ("/opt/conda/lib/libstdc++.so.6: version `GLIBCXX_3.4.29' not found (required by x.so)", "conda-libstdcxx-too-old"),
    ("A module that was compiled using NumPy 1.x cannot be run in NumPy 2.1.0 as it may crash", "numpy-2-abi"),
    ("RuntimeError: Detected that PyTorch and torchvision were compiled with different CUDA versions",
     "torch-companion-built-for-other-torch"),
    ("jaxlib version 0.4.30 is newer than and incompatible with jax version 0.4.25", "jaxlib-newer-than-jax"),
    ('docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].',
     "docker-nvidia-runtime-not-configured"),
    ("docker: Error response from daemon: unknown or invalid runtime name: nvidia", "docker-nvidia-runtime-not-configured"),
    ("nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1: cannot open shared object file",
     "container-toolkit-cannot-find-driver"),
    ("unresolvable CDI devices nvidia.com/gpu=all", "cdi-spec-stale"),
    ("modprobe: ERROR: could not insert 'nvidia': Key was rejected by service", "secure-boot-mok-not-enrolled"),
    ("modprobe: FATAL: Module nvidia not found in directory /lib/modules/6.8.0-31-generic",
     "dkms-module-missing-for-running-kernel"),
    ("Error! Your kernel headers for kernel 6.1.0-9-amd64 cannot be found", "kernel-headers-missing"),
    ("FATAL: modpost: GPL-incompatible module nvidia.ko uses GPL-only symbol 'x'", "gpl-only-symbol-build-failure"),
    ("ERROR: The Nouveau kernel driver is currently in use by your system.", "nouveau-bound-instead-of-nvidia"),
    ("error: #error -- unsupported GNU version! gcc versions later than 10 are not supported!",
     "nvcc-host-compiler-unsupported"),
    ("bash: nvcc: command not found", "nvcc-not-in-path"),
    ("E: The following signatures could not be verified: NO_PUBKEY A4B469963BF863CC", "cuda-repo-key-rotation"),
    ("E: Conflicting values set for option Signed-By regarding source https://x", "apt-signed-by-conflict"),
    ("E: Could not get lock /var/lib/dpkg/lock-frontend", "apt-lock-held"),
    ("E: dpkg was interrupted, you must manually run 'dpkg --configure -a'", "dpkg-interrupted"),
    ("dpkg: error processing package nvidia-dkms-550 (--configure):", "half-configured-driver-packages"),
    ("(EE) NVIDIA(0): Failed to assign any connected display devices to X screen 0", "stale-xorg-conf-nvidia"),
    ("NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off the bus.", "xid-79-fallen-off-bus"),
    ("[ 4.1] NVRM: API mismatch: the client has the version 550.1", "driver-library-version-mismatch-after-upgrade"),
    ("CUDA error: all CUDA-capable devices are busy or unavailable", "compute-mode-exclusive"),
    ("ERR_NVGPUCTRPERM The user does not have permission", "gpu-profiling-permission"),
    ("RuntimeError: No CUDA GPUs are available", "cuda-visible-devices-wrong"),
    ("RuntimeError: DataLoader worker is killed by signal: Bus error. It is possible that dataloader's workers are out of "
     "shared memory", "shm-too-small"),
)  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), CASES)
def test_the_most_probable_problem_of_a_text_is_first(text: str, problem: str) -> None:
    assert problems_of(text)[0] == problem


@pytest.mark.parametrize(
    "text",
    [
        "/lib/x86_64-linux-gnu/libstdc++.so.6: version `GLIBCXX_3.4.30' not found (required by x.so)",
        "",
        "login-loop",
        "Killed",
        "segmentation fault",
        "CUDA out of memory. Tried to allocate 2 GiB",
        "nvidia",
    ],
)
def test_other_texts_belong_to_no_problem(text: str) -> None:
    assert problems_of(text) == ()


def test_every_problem_of_the_table_has_a_rule(rules: tuple[Rule, ...]) -> None:
    assert {i for _, ids in _TEXTS for i in ids} <= {rule.id for rule in rules}
