"""Error texts that prove one problem."""

import pytest

from dlhealth.data.error_texts import problems_of
from dlhealth.data.telling_errors import _ROWS, proven
from dlhealth.engine.rule import Rule

CAPABILITIES = "The current PyTorch install supports CUDA capabilities "
CASES = (
    (f"NVIDIA GeForce RTX 5080 with CUDA capability sm_120 is not compatible with the current PyTorch installation.\n"
     f"{CAPABILITIES}sm_50 sm_80 sm_86 sm_90.",
     "torch-no-kernel-image-new-gpu", "NVIDIA GeForce RTX 5080 (compute capability 12.0)"),
    (f"Tesla K80 with CUDA capability sm_37 is not compatible with the current PyTorch installation.\n"
     f"{CAPABILITIES}sm_50 sm_60 sm_70.",
     "torch-no-kernel-image-old-gpu", "Tesla K80 (compute capability 3.7)"),
    ("Found GPU0 NVIDIA TITAN Xp which is of cuda capability 6.1.\nMinimum and Maximum cuda capability supported by this "
     "version of PyTorch is\n(7.0) - (12.0)", "torch-no-kernel-image-old-gpu", "NVIDIA TITAN Xp"),
    ("Found GPU0 GeForce GT 740 which is of cuda capability 3.0.\nPyTorch no longer supports this GPU because it is too old.",
     "torch-no-kernel-image-old-gpu", "compute capability 3.0"),
    ("/var/lib/dkms/nvidia/390.48/build/nvidia/nv.c:98:11: error: implicit declaration of function ‘sys_close’; did you mean",
     "kernel-too-new-for-driver-branch", "Driver 390.48 does not build for this kernel"),
    ("/tmp/selfgz9/NVIDIA-Linux-x86_64-384.90/kernel/nvidia-uvm/uvm8.c:12: error: too few arguments to function 'timer_setup'",
     "kernel-too-new-for-driver-branch", "too few arguments to function 'timer_setup'"),
    ("unable to make backup link of './usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15' before installing new version: Invalid "
     "cross-device link", "container-driver-libraries-differ", "/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15 is mounted"),
    ("Outdated cuSPARSE installation found.\nVersion JAX was built against: 12200\nMinimum supported: 12100\nInstalled version: 12002",
     "jax-gpu-backend-unavailable", "cuSPARSE that it finds (12002)"),
    ("Unable to initialize backend 'cuda': Found cuBLAS version 110200, but JAX was built against version 110401, which is newer. The",
     "jax-gpu-backend-unavailable", "cuBLAS that it finds (110200)"),
    ("versions_helpers.cc:80: operation cufftGetProperty(MAJOR_VERSION, &major) failed: The cuFFT library was not found.",
     "jax-gpu-backend-unavailable", "cannot load cuFFT"),
    ("RuntimeError: Unable to load cuDNN. Is it installed?", "jax-gpu-backend-unavailable", "cannot load cuDNN"),
    ("Unable to initialize backend 'cuda': module 'jaxlib.xla_extension' has no attribute 'GpuAllocatorConfig'",
     "jax-gpu-backend-unavailable", "built without CUDA"),
    ("RuntimeError: cuDNN version incompatibility: PyTorch was compiled  against (8, 9, 1) but found runtime version (8, 4, 0). "
     "One possibility is that there is a conflicting cuDNN in LD_LIBRARY_PATH.",
     "ld-library-path-old-cudnn-shadows-torch", "loads 8, 4, 0"),
    ("cuDNN version mismatch: PyTorch was compiled against 7605 but linked against 7103\n$ echo $LD_LIBRARY_PATH\n/sw/cuda-9/lib64",
     "ld-library-path-old-cudnn-shadows-torch", "built for cuDNN 7605"),
    ("OSError: /v/nvidia/cudnn/lib/libcublas.so.12: undefined symbol: cublasLtGetEnv, version libcublasLt.so.12",
     "ld-library-path-shadows-wheel-libraries", "libcublasLt.so.12 are mixed: the one that is loaded first lacks cublasLtGetEnv"),
    ("symbol cublasGetX, version libcublas.so.9.2 not defined in file libcublas.so.9.2 with link time reference",
     "ld-library-path-shadows-wheel-libraries", "libcublas.so.9.2"),
    ("Error! Bad return status for module build on kernel: 6.8.0-45-generic (x86_64)\nConsult /var/lib/dkms/rtl88x2bu/5.8.7/build/make.log "
     "for more information.\ndpkg: error processing package rtl88x2bu-dkms (--configure):", "other-dkms-module-fails",
     "rtl88x2bu 5.8.7 does not build for kernel 6.8.0-45-generic"),
    ('File "/usr/bin/quirks-handler", line 20, in <module>\n import Quirks.x\nModuleNotFoundError: No module named \'Quirks\'\n'
     "dpkg: error processing package nvidia-dkms-535 (--configure):", "system-python-changed-breaks-postinst", "nvidia-dkms-535"),
    ("OSError: CUDA_HOME environment variable is not set. Please set it to your CUDA install root.", "nvcc-not-in-path", "nvcc"),
    ("FileNotFoundError: [Errno 2] No such file or directory: '/usr/local/cuda/bin/nvcc'", "nvcc-not-in-path", "nvcc"),
    ("Detected non-NVML platform: could not load NVML library: libnvidia-ml.so.1: cannot open shared object file\nIncompatible "
     "platform detected\nIf this is a GPU node, did you configure the NVIDIA Container Toolkit?",
     "containerd-nvidia-runtime-not-configured", "device plugin"),
    ("Failed to initialize NVML: could not load NVML library.\nIf this is a GPU node, did you set the docker default runtime to `nvidia`?",
     "docker-nvidia-runtime-not-configured", "device plugin"),
    ("NCCL WARN Error while creating shared memory segment /dev/shm/nccl-ab (size 7340384)", "shm-too-small", "NCCL"),
    ("bash: /home/joe/miniconda3/lib/libtinfo.so.6: no version information available (required by bash)",
     "ld-library-path-conda-breaks-system", "bash loads /home/joe/miniconda3/lib/libtinfo.so.6"),
    ("AssertionError: Torch not compiled with CUDA enabled", "torch-cpu-only-build", "without CUDA"),
    ("RuntimeError: operator torchvision::nms does not exist", "torch-companion-built-for-other-torch", "torchvision"),
    ("ImportError: /v/site-packages/causal_conv1d_cuda.cpython-311-x86_64-linux-gnu.so: undefined symbol: _ZN3c104cuda9SetDeviceEi",
     "torch-companion-built-for-other-torch", "causal_conv1d_cuda.cpython-311-x86_64-linux-gnu.so"),
    ("The detected CUDA version (12.6) mismatches the version that was used to compile\nPyTorch (11.7). Please make sure to",
     "cuda-symlink-wrong-version", "nvcc is CUDA 12.6, and PyTorch is for CUDA 11.7"),
    ("RuntimeError: The NVIDIA driver on your system is too old (found version 11060).", "torch-wheel-newer-than-driver",
     "CUDA 11.6"),
    ("nvidia-docker | Error: unsupported CUDA version: driver 7.5 < image 8.0.61", "cuda-runtime-newer-than-driver",
     "CUDA 8.0.61"),
    ("nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.6, please update your driver to a newer version",
     "cuda-runtime-newer-than-driver", "CUDA 12.6"),
    ("CUDA error: the provided PTX was compiled with an unsupported toolchain.", "cuda-runtime-newer-than-driver", "newer"),
    ("cudaGetDeviceCount(). Error 802: system not yet initialized", "fabricmanager-missing-or-mismatched", "NVLink"),
    ("fabric manager NVIDIA GPU driver interface version 535.54.03 don't match with driver version 535.86.10. Please",
     "fabricmanager-missing-or-mismatched", "is 535.54.03, the driver is 535.86.10"),
    ("A module that was compiled using NumPy 1.x cannot be run in\nNumPy 2.0.1 as it may crash.", "numpy-2-abi", "NumPy 2.0.1"),
    ("JAX plugin jax_cuda13_plugin version 0.8.1 is installed, but it is not compatible with the installed jaxlib version "
     "0.8.0, so it will not be used", "jax-gpu-backend-unavailable", "jaxlib is 0.8.0"),
    ("Mismatched PJRT plugin PJRT API version (0.67) and framework PJRT API version 0.54)", "jax-gpu-backend-unavailable", "PJRT"),
    ("An NVIDIA GPU may be present on this machine, but a CUDA-enabled jaxlib is not installed. Falling back to cpu.",
     "jax-gpu-backend-unavailable", "CPU"),
    ("RuntimeError: jaxlib version 0.5.1 is newer than and incompatible with jax version 0.4.30. Please", "jaxlib-newer-than-jax",
     "jaxlib 0.5.1 is newer than jax 0.4.30"),
    ("Failed to load library libonnxruntime_providers_cuda.so with error: libcublas.so.11: cannot open shared object file",
     "program-cuda-major-missing", "libcublas.so.11"),
    ("Could not load dynamic library 'libcudart.so.11.0'; dlerror: x", "tf-cannot-dlopen-gpu-libraries", "libcudart.so.11.0"),
    ("Could not load dynamic library 'libcufft.so.10'; dlerror: x\nW gpu_device.cc: Cannot dlopen some GPU libraries.",
     "tf-cannot-dlopen-gpu-libraries", "libcufft.so.10"),
    ("libcublas.so.12: symbol cublasLtGetVersion version libcublasLt.so.12 not defined in file libcublasLt.so.12 with link time",
     "ld-library-path-shadows-wheel-libraries", "libcublasLt.so.12"),
    ("/v/nvidia/cusparse/lib/libcusparse.so.12: undefined symbol: __nvJitLinkCreate_12_8, version libnvJitLink.so.12",
     "ld-library-path-shadows-wheel-libraries", "__nvJitLinkCreate_12_8"),
    ("/home/joe/mambaforge/envs/x/lib/libstdc++.so.6: version `CXXABI_1.3.15' not found (required by y)",
     "conda-libstdcxx-too-old", "CXXABI_1.3.15"),
    ("error: #error -- unsupported GNU version! gcc versions later than 12 are not supported!",
     "nvcc-host-compiler-unsupported", "up to 12"),
    ("nvcc fatal   : Unsupported gpu architecture 'compute_120'", "toolkit-does-not-support-gpu", "12.0"),
    ("src/a.h:46:10: fatal error: cudnn_version.h: No such file or directory", "cudnn-headers-missing-or-split",
     "cudnn_version.h"),
    ("/sbin/ldconfig.real: /usr/lib/libcudnn_ops.so.9 is not a symbolic link", "cudnn-links-are-copies", "libcudnn_ops.so.9"),
    ("CuPy failed to load libnvrtc.so.11.2: OSError: libnvrtc.so.11.2: cannot open", "program-cuda-major-missing",
     "libnvrtc.so.11.2"),
    ('OCI runtime create failed: exec: "nvidia-container-runtime-hook": executable file not found in $PATH',
     "docker-nvidia-runtime-not-configured", "nvidia-container-runtime-hook is not installed"),
    ('could not select device driver "nvidia" with capabilities: [[gpu compute]]', "docker-nvidia-runtime-not-configured",
     "--gpus"),
    ("could not select device driver with capabilities: [[gpu]]", "docker-nvidia-runtime-not-configured", "--gpus"),
    ('could not select device driver "" with capabilities: [[gpu]]', "docker-nvidia-runtime-not-configured", "--gpus"),
    ("Error response from daemon: unknown or invalid runtime name: nvidia.", "docker-nvidia-runtime-not-configured", "nvidia"),
    ("nvidia-container-cli: mount error: file creation failed: /var/lib/docker/overlay2/1f/merged/usr/lib64/libcuda.so.1: "
     "file exists: unknown.", "container-image-has-driver-libraries", "/usr/lib64/libcuda.so.1"),
    ("nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1: cannot open",
     "container-toolkit-cannot-find-driver", "libnvidia-ml.so.1"),
    ("RuntimeError: Configured CUDA binary not found at /v/bitsandbytes/libbitsandbytes_cuda128.so",
     "bitsandbytes-lacks-cuda-version", "libbitsandbytes_cuda128.so"),
    ("Could not load library libcudnn_cnn_infer.so.8. Error: libcudnn_cnn_infer.so.8: cannot open shared object file",
     "cudnn-runtime-missing", "libcudnn_cnn_infer.so.8"),
    ("Unable to load any of {libcudnn_ops.so.9.1.0, libcudnn_ops.so.9.1, libcudnn_ops.so}", "cudnn-runtime-missing",
     "libcudnn_ops.so.9"),
    ("libonnxruntime_providers_tensorrt.so with error: libnvinfer.so.10: cannot open shared object file",
     "tensorrt-library-missing", "libnvinfer.so.10"),
    ("stat /dev/nvidia-uvm: no such file or directory", "uvm-device-node-missing", "/dev/nvidia-uvm"),
    ("Error 804: forward compatibility was attempted on non supported HW", "cuda-forward-compat-unsupported-hw-804", "compat"),
    ('failed to get sandbox runtime: no runtime for "nvidia" is configured', "containerd-nvidia-runtime-not-configured",
     "containerd"),
    ("Failed to initialize NVML: Unknown Error\n$ cat config.toml\n[nvidia-container-cli]\nno-cgroups = true\n",
     "container-toolkit-no-cgroups", "no-cgroups is set"),
    ("open failed: /sys/fs/cgroup/devices/user.slice/devices.allow: permission denied", "container-toolkit-no-cgroups", "root"),
    ("ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).",
     "shm-too-small", "/dev/shm"),
    ("nvidia-driver-570 : Depends: nvidia-kernel-common-570 (>= 570.133.20) but 570.86.10-0ubuntu1 is to be installed",
     "mixed-repositories", "nvidia-kernel-common-570 >= 570.133.20, but apt would install 570.86.10-0ubuntu1"),
    ("nvidia-driver : Depends: nvidia-driver-libs (= 535.183.01-1~deb12u1) but it is not going to be installed or\n"
     "                 Depends: nvidia-alternative (= 535.183.01-1~deb12u1) but 550.54.14-1~bpo12+1 is to be installed",
     "mixed-repositories", "550.54.14-1~bpo12+1"),
    ("libnvidia-extra-580 : Depends: libc6 (>= 2.38) but 2.35-0ubuntu3.8 is to be installed", "mixed-repositories",
     "libnvidia-extra-580 comes from a repository for another release: it needs libc6 2.38"),
    ("nsight-systems-2024.1.1 : Depends: libtinfo5 but it is not installable", "mixed-repositories", "libtinfo5"),
    ("Error! Your kernel headers for kernel 6.11.0-9-generic cannot be found at /lib/modules/6.11.0-9-generic/build",
     "kernel-headers-missing", "kernel 6.11.0-9-generic are missing"),
    ("Module build for kernel 5.4.0-99-lowlatency was skipped since the\nkernel headers for this kernel do not seem to be "
     "installed.", "kernel-headers-missing", "5.4.0-99-lowlatency"),
    ("ERROR: Unable to find the kernel source tree for the currently running kernel. Please make sure", "kernel-headers-missing",
     "running kernel"),
    ("*** Failed PREEMPT_RT sanity check. Bailing out! ***", "dkms-module-missing-for-running-kernel", "realtime"),
    ("ERROR: The Nouveau kernel driver is currently in use by your system.", "nouveau-bound-instead-of-nvidia", "nouveau"),
    ("-> Kernel module load error: Required key not available", "secure-boot-mok-not-enrolled", "Required key"),
    ("Error while installing package: trying to overwrite '/lib/udev/rules.d/71-nvidia.rules', which is also in package "
     "nvidia-kernel-common-550 550.120-0ubuntu1", "dpkg-file-overwrite-conflict", "nvidia-kernel-common-550 550.120-0ubuntu1"),
    ("modprobe: ERROR: could not insert 'off': Unknown symbol in module, or unknown parameter (see dmesg)",
     "prime-profile-blocks-nvidia", "prime-select intel"),
    ("gnome-session-i[2210]: A graphical session is already running!", "login-loop-custom-user-unit", "user unit"),
    ("Could not update ICEauthority file /home/joe/.ICEauthority", "login-loop-home-dotfile-permissions",
     "/home/joe/.ICEauthority"),
    ("Error writing X authority: Failed to open X authority /home/joe/.Xauthority: Permission denied",
     "login-loop-xauthority-wrong-owner", "/home/joe/.Xauthority belongs to somebody else"),
)  # fmt: skip


@pytest.mark.parametrize(("text", "fault", "shows"), CASES)
def test_proves_one_problem(text: str, fault: str, shows: str) -> None:
    (problem,) = proven(text)
    assert problem.fault == fault
    assert shows in problem.title
    assert "{" not in problem.title + problem.repair
    assert problems_of(text)[0] == fault


@pytest.mark.parametrize(
    "text",
    [
        # Several problems have these texts.
        "CUDA error: no kernel image is available for execution on the device",
        "RuntimeError: No CUDA GPUs are available",
        "CUDA driver version is insufficient for CUDA runtime version",
        "Error 803: system has unsupported display driver / cuda driver combination",
        "/lib/x86_64-linux-gnu/libstdc++.so.6: version `GLIBCXX_3.4.32' not found",
        "nvidia-docker | Error: unsupported CUDA version: driver 0.0 < image 8.0",
        "Failed to initialize NVML: Unknown Error\n[nvidia-container-cli]\n#no-cgroups = true\n",
        # The plugin is there, and failed.
        "Exception when calling jax_plugins.xla_cuda12.initialize()\nAn NVIDIA GPU may be present on this machine, but a CUDA-enabled jaxlib is not installed.",
        # No LD_LIBRARY_PATH is set.
        "cuDNN version incompatibility: PyTorch was compiled  against (8, 9, 1) but found runtime version (8, 4, 0).",
        # TensorFlow lacks the driver, or only TensorRT.
        "Could not load dynamic library 'libcuda.so.1'; dlerror: x\nW gpu_device.cc: Cannot dlopen some GPU libraries.",
        "Could not load dynamic library 'libnvinfer.so.7'; dlerror: libnvinfer.so.7: cannot open shared object file",
        # A hold, a mirror that is being updated, or a package of an old kernel has the same effect as a second repository.
        "nvidia-driver-535 : Depends: nvidia-dkms-535 (>= 535.230.02) but 535.183.01-0ubuntu0.22.04.1 is to be installed",
        "linux-modules-nvidia-535-6.5.0-9-generic : Depends: nvidia-kernel-common-535 (= 535.1-0ubuntu0.1) but 535.2-0ubuntu1 is to be installed",
        "gimp : Depends: libc6 (>= 2.38) but 2.35-0ubuntu3 is to be installed",
        "xauth: timeout in locking authority file /home/joe/.Xauthority",
        # The build has code for this generation.
        f"NVIDIA A40 with CUDA capability sm_86 is not compatible with the current PyTorch installation. {CAPABILITIES}sm_80.",
        "",
    ],
)
def test_proves_nothing(text: str) -> None:
    assert not [*proven(text)]


def test_each_row_is_tried_and_names_a_rule(rules: tuple[Rule, ...]) -> None:
    faults = {fault for _, fault, _ in CASES}
    assert faults <= {rule.id for rule in rules}
    assert {row.fault for row in _ROWS} - {""} <= faults
