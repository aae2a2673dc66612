"""Error texts that prove one problem, whatever else is known of the machine.

error_texts.py has all problems that a text *can* come from. Sources: the sources of the programs that print them
(PyTorch, TensorFlow, JAX, ONNX Runtime, NumPy, bitsandbytes, nvcc, Docker, libnvidia-container, NVIDIA's fabric manager,
apt, DKMS, NVIDIA's installer and the Makefile of its modules, LightDM).
"""

import re
from collections.abc import Callable, Iterator

from dlhealth.data.compat import version_key
from dlhealth.records import NamedTuple

_RUNTIME = r"lib(?:cudart|cublas|cublasLt|cufft|curand|cusolver|cusparse|nvJitLink|nvrtc|cudnn)"

_OF_NVIDIA = r"(?<![\w-])(?:lib)?(?:nvidia|cuda-drivers|xserver-xorg-video-nvidia)[\w.+-]*|(?<![\w-])libcuda1"
_PACKAGE = r"\b(?P<package>(?:lib)?(?:nvidia|cuda|nsight)[\w.+-]*)(?::\w+)?"
_ANOTHER_RELEASE = (
    "use NVIDIA's repository, or the PPA, for this release of the distribution, and remove the one for the other release "
    "from /etc/apt/sources.list.d; then apt-get update"
)
_REPOSITORIES = (r"[-~]\dubuntu0\.", r"-[01]ubuntu\d$|^\d[\d.]*-1$", r"~bpo", r"~deb\d+u", r"-\dpop")
"""What the versions of Ubuntu, NVIDIA, Debian's backports, Debian and Pop!_OS look like."""
_TENSORFLOW = (
    "TensorFlow 2.14 or newer: pip install 'tensorflow[and-cuda]' into the same environment; older: install CUDA and cuDNN in "
    "the versions that this TensorFlow was built for, where the loader finds them"
)
_JAX_LIBRARIES = (
    "pip install --upgrade 'jax[cuda12]' into the same environment; a directory of CUDA in LD_LIBRARY_PATH comes before "
    "its libraries: run unset LD_LIBRARY_PATH and try again"
)
_LONGEST = 300


class Proven(NamedTuple):
    """A problem that a text proves: `title` has the values that the text names, `said` is the part of the text that
    proves it, and `repair` is what a person does about it. `needs` is a command, or a fact, whose output must be there,
    too ("" for none)."""

    fault: str
    title: str
    said: str
    repair: str
    needs: str


Match = re.Match[str]


class _Row(NamedTuple):
    """`fault`, `title` and `repair` may contain the names of groups of the pattern; `judge` may replace the fault, or
    return "" if the values prove nothing."""

    pattern: str
    fault: str
    title: str
    repair: str
    judge: Callable[[Match], str] | None = None
    needs: str = ""


def proven(text: str) -> Iterator[Proven]:
    """The problems that a text proves, in the order of the text; each once."""
    plain = " ".join(text.split())
    matches = ((re.search(row.pattern, plain, re.IGNORECASE), row) for row in _ROWS)
    seen: set[str] = set()
    for match, row in sorted(((m, row) for m, row in matches if m), key=lambda found: found[0].start()):
        fault = row.judge(match) if row.judge else row.fault
        if fault and fault not in seen:
            seen.add(fault)
            values = {name: value or "" for name, value in match.groupdict().items()}
            values |= _spoken(values)
            yield Proven(fault, row.title.format(**values), match[0][:_LONGEST], row.repair.format(**values), row.needs)


def _spoken(values: dict[str, str]) -> dict[str, str]:
    """Values in the form that people know: "11040" is CUDA 11.4, "sm_120" is compute capability 12.0."""
    spoken = {}
    if number := values.get("number", ""):
        spoken["cuda"] = f"{int(number) // 1000}.{int(number) % 1000 // 10}"
    if capability := values.get("capability", ""):
        spoken["capability"] = _capability(capability)
    return spoken


def _capability(text: str) -> str:
    """Of the number in the name of an architecture: "120" is 12.0."""
    return text if "." in text else f"{text[:-1]}.{text[-1]}"


def _old_or_new(match: Match) -> str:
    """Which generation of GPUs a build of PyTorch lacks."""
    ours = version_key(_capability(match["capability"]))
    built = sorted(
        version_key(_capability(t)) for t in re.findall(r"sm_(\d{2,3})|\((\d+\.\d+)\)", match["built"]) for t in t if t
    )
    if not built:
        return ""
    if ours < built[0]:
        return "torch-no-kernel-image-old-gpu"
    return "torch-no-kernel-image-new-gpu" if ours[0] > built[-1][0] else ""


def _of_the_node(match: Match) -> str:
    """Which runtime the device plugin of Kubernetes asks for."""
    return f"{match['docker'] or 'containerd'}-nvidia-runtime-not-configured".lower()


def _no_plugin(match: Match) -> str:
    """JAX says the same after a plugin that is there failed."""
    return "" if "jax_plugins" in match.string else "jax-gpu-backend-unavailable"


def _by_library_path(match: Match) -> str:
    """PyTorch names LD_LIBRARY_PATH only if it is set: without it, a package of pip or conda is the likelier cause."""
    named = r"LD_LIBRARY_PATH contains incompatible|cuDNN in LD_LIBRARY_PATH|LD_LIBRARY_PATH\W{0,4}/\S*(?:cuda|cudnn)"
    return "ld-library-path-old-cudnn-shadows-torch" if re.search(named, match.string) else ""


def _two_sources(match: Match) -> str:
    """That apt would install another version proves a second repository only if the two look like different ones: a
    package on hold, or a mirror that is being updated, has the same effect."""
    if re.search(r"linux-modules-\S+ ?: $", match.string[: match.start()]):
        return ""  # of a kernel that apt did not upgrade yet
    has, wants = ([bool(re.search(form, match[name])) for form in _REPOSITORIES] for name in ("has", "wants"))
    # A bound without a revision is the one of NVIDIA's own modules, which all repositories use.
    bare = "-" not in match["wants"] and match["how"] == ">=" and has[1]
    return "mixed-repositories" if bare or (any(has) and any(wants) and has != wants) else ""


def _other_library(match: Match) -> str:
    """TensorFlow's list of libraries proves nothing about CUDA if the driver's own is among them."""
    return "" if "library 'libcuda.so" in match.string else "tf-cannot-dlopen-gpu-libraries"


_ROWS = (
    _Row(
        r"(?P<library>/\S*(?:conda|forge|mamba|/envs/)\S*/lib\w+\.so[.\d]*): no version information available \(required by "
        r"(?P<program>[^\s)]+)\)",
        "ld-library-path-conda-breaks-system", "{program} loads {library} in place of the system's library",
        "take the directory of conda out of LD_LIBRARY_PATH: conda's programs find their libraries without it",
    ),
    _Row(
        r"could not load NVML library(?:.{0,400}?)If this is a GPU node, did you (?:configure the NVIDIA Container Toolkit|set the "
        r"(?P<docker>docker) default runtime)",
        "", "The pod of the device plugin got no driver: the node starts it without NVIDIA's container runtime",
        "on the node: sudo nvidia-ctk runtime configure --runtime=containerd --set-as-default (or =docker), and restart it; or set "
        "runtimeClassName: nvidia for the plugin",
        _of_the_node,
    ),
    _Row(
        r"unable to make backup link of '\.?(?P<file>/usr/lib/\S*lib(?:cuda|nvidia|nv)\S*|/usr/bin/nvidia-\S+)' before installing "
        r"new version: Invalid cross-device link",
        "container-driver-libraries-differ",
        "{file} is mounted from the container's host, so no package can replace it",
        "install no driver in a container that has the GPU: take packages without the driver (cuda-toolkit instead of cuda or "
        "nvidia-cuda-toolkit), or install them in a container that is started without the GPU",
    ),
    _Row(
        r"(?P<gpu>(?:NVIDIA |GeForce |Tesla |Quadro )[\w .-]{2,60}?) with CUDA capability sm_(?P<capability>\d{2,3}) is not "
        r"compatible with the current PyTorch installation\. The current PyTorch install supports CUDA capabilities "
        r"(?P<built>(?:sm_\d+a? ?|compute_\d+ ?)+)",
        "", "This build of PyTorch does not support {gpu} (compute capability {capability}): it was built for {built}",
        "install a build of PyTorch for this GPU into the same environment (dlhealth explain names the versions)",
        _old_or_new,
    ),
    _Row(
        r"Found GPU\d+ (?P<gpu>[\w .-]{2,60}?) which is of cuda capability (?P<capability>\d+\.\d)\. Minimum and Maximum cuda "
        r"capability supported by this version of PyTorch is (?P<built>\(\d+\.\d+\) - \(\d+\.\d+\))",
        "", "This build of PyTorch does not support {gpu} (compute capability {capability}): it was built for {built}",
        "install a build of PyTorch for this GPU into the same environment (dlhealth explain names the versions)",
        _old_or_new,
    ),
    _Row(
        r"Found GPU\d+ (?P<gpu>[\w .-]{2,60}?) which is of cuda capability (?P<capability>\d+\.\d)\. PyTorch no longer supports "
        r"this GPU because it is too old",
        "torch-no-kernel-image-old-gpu",
        "This build of PyTorch no longer supports {gpu} (compute capability {capability})",
        "install an older build of PyTorch into the same environment",
    ),
    _Row(
        r"Torch not compiled with CUDA enabled",
        "torch-cpu-only-build", "PyTorch is built without CUDA",
        "install the same version of PyTorch with CUDA into the same environment",
    ),
    _Row(
        r"operator torchvision::nms does not exist|PyTorch and (?P<other>torchvision|torchaudio) were compiled with different CUDA"
        r"|Could not run 'torchvision::nms' with arguments from the 'CUDA' backend",
        "torch-companion-built-for-other-torch", "torchvision or torchaudio was built for another PyTorch, or for the CPU",
        "install torch, torchvision and torchaudio together, from one index",
    ),
    _Row(
        r"(?P<file>[\w.-]*(?:flash_attn|causal_conv1d|selective_scan|torch_scatter|torch_sparse|xformers|_C)[\w.-]*\.so): undefined "
        r"symbol: (?P<symbol>_ZN?K?(?:\d+)?(?:2at|3c10|5torch)\w*)",
        "torch-companion-built-for-other-torch", "{file} was built for another PyTorch: it needs {symbol}",
        "reinstall its package in a build for the installed PyTorch",
    ),
    _Row(
        r"CUDA_HOME environment variable is not set|nvcc was not found\.|No such file or directory: '(?P<nvcc>/\S*/bin/nvcc)'",
        "nvcc-not-in-path", "A build does not find CUDA's compiler, nvcc",
        "install a CUDA toolkit of the CUDA version of PyTorch, or set CUDA_HOME to the directory of the one that is installed; "
        "many packages also have wheels, which need no compiler",
    ),
    _Row(
        r"The detected CUDA version \((?P<nvcc>\d+\.\d+)\) mismatches the version that was used to compile PyTorch "
        r"\((?P<torch>\d+\.\d+)\)",
        "cuda-symlink-wrong-version",
        "nvcc is CUDA {nvcc}, and PyTorch is for CUDA {torch}: the extension cannot be compiled",
        "install a toolkit of CUDA {torch} beside it, and set CUDA_HOME to it for the build",
    ),
    _Row(
        r"The NVIDIA driver on your system is too old \(found version (?P<number>\d{4,5})\)",
        "torch-wheel-newer-than-driver",
        "PyTorch needs a newer driver: this one supports CUDA {cuda}",
        "install a newer driver, or a build of PyTorch for CUDA {cuda} or older",
    ),
    _Row(
        r"unsupported CUDA version: driver (?P<has>[1-9][\d.]*) < image (?P<needs>\d[\d.]*)"
        r"|unsatisfied condition: cuda ?>= ?(?P<wants>\d[\d.]*), please update your driver",
        "cuda-runtime-newer-than-driver",
        "The image needs CUDA {needs}{wants}, and the driver is older",
        "install a newer driver, or use an image for an older CUDA",
    ),
    _Row(
        r"/(?:dkms/nvidia[\w-]*/|src/nvidia[\w-]*?-|NVIDIA-Linux-x86_64-)(?P<version>\d{2,4}\.[\d.]*\d)[^\s:]*:\d+(?::\d+)?: error: "
        r"(?P<error>(?:implicit declaration of function|too (?:few|many) arguments to function|‘?struct \w+’? has no member named) "
        r"[‘'`\"]?\w+[’'\"]?)",
        "kernel-too-new-for-driver-branch",
        "Driver {version} does not build for this kernel, which is newer: {error}",
        "install a newer driver, or start an older kernel",
    ),
    _Row(
        r"the provided PTX was compiled with an unsupported toolchain",
        "cuda-runtime-newer-than-driver", "A program was built with a newer CUDA than the driver supports",
        "install a newer driver, or build the program with the CUDA version that nvidia-smi shows",
    ),
    _Row(
        r"system not yet initialized|cudaErrorSystemNotReady|CUDA_ERROR_SYSTEM_NOT_READY",
        "fabricmanager-missing-or-mismatched", "CUDA waits for the NVLink fabric: NVIDIA's fabric manager does not run",
        "install the fabric manager in the version of the driver, and start nvidia-fabricmanager.service",
    ),
    _Row(
        r"fabric manager NVIDIA GPU driver interface version (?P<manager>\d[\d.]*) don['’]t match with driver version "
        r"(?P<driver>\d[\d.]*\d)",
        "fabricmanager-missing-or-mismatched", "The fabric manager is {manager}, the driver is {driver}",
        "install the fabric manager in version {driver}",
    ),
    _Row(
        r"compiled using NumPy 1\.x cannot be run in NumPy (?P<numpy>2[\d.]*\d)",
        "numpy-2-abi", "A module was built for NumPy 1, and NumPy {numpy} is installed",
        "pip install 'numpy<2' into the same environment, or newer versions of the packages that the traceback names",
    ),
    _Row(
        r"JAX plugin (?P<plugin>\S+) version (?P<version>\S+) is installed, but it is not compatible with the installed jaxlib "
        r"version (?P<jaxlib>\d[\w.+]*\w)",
        "jax-gpu-backend-unavailable", "JAX ignores {plugin} {version}: jaxlib is {jaxlib}",
        "install the plugin in the version of jaxlib: pip install {plugin}=={jaxlib}",
    ),
    _Row(
        r"Mismatched PJRT plugin PJRT API version \((?P<plugin>[\d.]+)\) and framework PJRT API version \(?(?P<jax>[\d.]+)\)",
        "jax-gpu-backend-unavailable", "JAX and its CUDA plugin have different versions (PJRT {jax} and {plugin})",
        "install jax, jaxlib and the plugin in one version: pip install --upgrade 'jax[cuda12]'",
    ),
    _Row(
        r"NVIDIA GPU may be present on this machine, but a CUDA-enabled jaxlib is not installed",
        "", "JAX has no CUDA plugin: it uses the CPU",
        "pip install 'jax[cuda12]' in the version of jax",
        _no_plugin,
    ),
    _Row(
        r"Outdated (?P<library>cu\w+) installation found\. Version JAX was built against: \d+ Minimum supported: (?P<least>\d+) "
        r"Installed version: (?P<has>\d+)",
        "jax-gpu-backend-unavailable",
        "JAX does not use the GPU: the {library} that it finds ({has}) is older than the oldest that it supports ({least})",
        _JAX_LIBRARIES,
    ),
    _Row(
        r"Found (?P<library>cu\w+) version (?P<has>\d+), but JAX was built against version (?P<built>\d+), which is newer",
        "jax-gpu-backend-unavailable",
        "JAX does not use the GPU: the {library} that it finds ({has}) is older than the one that it was built for ({built})",
        _JAX_LIBRARIES,
    ),
    _Row(
        r"operation \w+\([^)]*\) failed: The (?P<library>cu\w+) library was not found"
        r"|RuntimeError: Unable to load (?P<other>cu\w+)\. Is it installed",
        "jax-gpu-backend-unavailable", "JAX does not use the GPU: it cannot load {library}{other}",
        _JAX_LIBRARIES,
    ),
    _Row(
        r"Unable to initialize backend 'cuda'\W{0,3}: module 'jaxlib\.xla_extension' has no attribute 'GpuAllocatorConfig'",
        "jax-gpu-backend-unavailable", "jaxlib is built without CUDA: JAX uses the CPU",
        "install jax with CUDA in the version that the program needs into the same environment: pip install 'jax[cuda12]'",
    ),
    _Row(
        r"cuDNN version (?:incompatibility|mismatch): PyTorch was compiled against \(?(?P<built>\d[\d, ]*\d)\)? but (?:found "
        r"runtime version|linked against) \(?(?P<has>\d[\d, ]*\d)",
        "", "PyTorch was built for cuDNN {built}, but loads {has}: LD_LIBRARY_PATH comes before its own cuDNN",
        "run unset LD_LIBRARY_PATH and try again; then take the directory with the other cuDNN out of the start-up file that "
        "sets it",
        _by_library_path,
    ),
    _Row(
        r"for module build on kernel: (?P<kernel>\d\S+)(?: \(\w+\))? Consult /var/lib/dkms/(?P<module>(?!nvidia)[\w.+-]+)/"
        r"(?P<version>[^/\s]+)/build/make\.log .{0,300}?error processing package (?P<package>\S+) \(--configure\)",
        "other-dkms-module-fails",
        "{package} cannot be configured: the DKMS module {module} {version} does not build for kernel {kernel}",
        "install a version of {module} for this kernel, or remove the package that brings it; then run dpkg --configure -a",
    ),
    _Row(
        r'File "/usr/(?:bin|s?bin|share|lib)/[^"]*", line (?:(?!File ").){1,400}?No module named \'(?P<module>Quirks|UbuntuDrivers'
        r"|apt_pkg|_apt_pkg|apt|lsb_release|softwareproperties|gi|dbus)\W.{0,200}?error processing package (?P<package>\S+) "
        r"\(--configure\)",
        "system-python-changed-breaks-postinst",
        "{package} cannot be configured: python3 is not the version of the distribution, so it does not find {module}",
        "point /usr/bin/python3 to the version of the distribution again (ls -l /usr/bin/python3*), then run dpkg --configure -a",
    ),
    _Row(
        r"jaxlib (?:version )?(?P<jaxlib>\d[\w.]*) is newer than and incompatible with jax version (?P<jax>\d[\w.]*\w)",
        "jaxlib-newer-than-jax", "jaxlib {jaxlib} is newer than jax {jax}",
        "install both in one version: pip install --upgrade jax jaxlib",
    ),
    _Row(
        r"libonnxruntime_providers_(?:cuda|tensorrt)\.so with error: (?P<library>" + _RUNTIME + r"\.so\.\d+): cannot open",
        "program-cuda-major-missing", "ONNX Runtime was built for another CUDA: {library} is not installed",
        "install an onnxruntime-gpu for the installed CUDA, or pip install 'onnxruntime-gpu[cuda,cudnn]'",
    ),
    _Row(
        r"Could not load dynamic library '(?!libnv)(?P<library>lib\w+\.so[\d.]*)'(?:.*?)"
        r"Cannot dlopen some GPU libraries",
        "", "TensorFlow could not load {library} and others, so it uses the CPU",
        _TENSORFLOW,
        _other_library,
    ),
    _Row(
        r"Could not load dynamic library '(?P<library>" + _RUNTIME + r"\.so\.[\d.]*\d)'",
        "", "TensorFlow could not load {library}, so it uses the CPU",
        _TENSORFLOW,
        _other_library,
        "the driver's version",
    ),
    _Row(
        r"symbol (?P<symbol>\w+),? version (?P<library>" + _RUNTIME + r"\.so\.[\d.]*\d) not defined in file"
        r"|undefined symbol: (?P<other>\w+), version (?P<file>" + _RUNTIME + r"\.so\.[\d.]*\d)",
        "ld-library-path-shadows-wheel-libraries",
        "Two versions of {library}{file} are mixed: the one that is loaded first lacks {symbol}{other}",
        "take the directory with the other version out of LD_LIBRARY_PATH",
    ),
    _Row(
        r"(?P<file>\S*libcusparse\.so\.\d+): undefined symbol: (?P<symbol>__nvJitLink\w+)",
        "ld-library-path-shadows-wheel-libraries",
        "The libnvJitLink.so that is loaded first is older than cuSPARSE: it lacks {symbol}",
        "take the directory of the CUDA toolkit out of LD_LIBRARY_PATH",
    ),
    _Row(
        r"(?P<file>/\S*(?:conda|mamba|forge|/envs/)\S*libstdc\+\+\.so\.6): version [`'‘]?(?P<symbol>(?:GLIBCXX|CXXABI)_\d[\d.]*)['’]? "
        r"not found",
        "conda-libstdcxx-too-old", "{file} is too old: it lacks {symbol}",
        "conda install -c conda-forge libstdcxx-ng in that environment",
    ),
    _Row(
        r"unsupported GNU version! gcc versions later than (?P<gcc>\d+) are not supported",
        "nvcc-host-compiler-unsupported", "nvcc supports GCC up to {gcc}, and the installed one is newer",
        "install gcc-{gcc} and g++-{gcc}, and set NVCC_CCBIN=/usr/bin/g++-{gcc}",
    ),
    _Row(
        r"nvcc fatal ?: Unsupported gpu architecture '(?:compute|sm)_(?P<capability>\d{2,3})a?'",
        "toolkit-does-not-support-gpu", "nvcc cannot compile for a GPU of compute capability {capability}: its CUDA is too old or "
        "too new for it",
        "install a CUDA toolkit that knows the GPU, or set TORCH_CUDA_ARCH_LIST to an architecture that this nvcc knows",
    ),
    _Row(
        r"fatal error: (?P<header>cudnn\w*\.h): No such file or directory",
        "cudnn-headers-missing-or-split", "The compiler does not find {header} of cuDNN",
        "install libcudnn9-dev or libcudnn8-dev, or copy all cudnn*.h of NVIDIA's archive into the include directory",
    ),
    _Row(
        r"ldconfig(?:\.real)?: (?P<file>\S*libcudnn\S*) is not a symbolic link",
        "cudnn-links-are-copies", "{file} is a copy, and should be a link",
        "run dlhealth fix on that machine, or make the link again with ln -sf",
    ),
    _Row(
        r"CuPy failed to load (?P<library>lib\w+\.so\.[\d.]*\d)",
        "program-cuda-major-missing", "CuPy was built for another CUDA: it does not find {library}",
        "install the CuPy for the installed CUDA (cupy-cuda12x), or pip install 'cupy-cuda12x[ctk]'",
    ),
    _Row(
        r"\W(?P<program>nvidia-container-runtime(?:-hook)?)\W{0,2}: executable file not found",
        "docker-nvidia-runtime-not-configured", "{program} is not installed, and Docker's configuration names it",
        "apt-get install nvidia-container-toolkit, then restart Docker",
    ),
    _Row(
        r"could not select device driver (?:\"\w*\" )?with capabilities: \[\[[^\]]*gpu[^\]]*\]\]",
        "docker-nvidia-runtime-not-configured", "Docker knows no NVIDIA runtime, so --gpus fails",
        "install nvidia-container-toolkit, run nvidia-ctk runtime configure --runtime=docker, and restart Docker. "
        "A Docker that is a snap or Docker Desktop does not use it",
    ),
    _Row(
        r"unknown (?:or invalid )?runtime (?:name|specified)[:]? \"?nvidia",
        "docker-nvidia-runtime-not-configured", "Docker knows no runtime with the name nvidia",
        "run nvidia-ctk runtime configure --runtime=docker, and restart Docker",
    ),
    _Row(
        r"mount error: file creation failed: \S*/merged(?P<file>/\S+?\.so[.\d]*): file exists",
        "container-image-has-driver-libraries",
        "The image contains {file} of the driver, so the toolkit cannot put the host's into its containers",
        "in the Dockerfile of the image, remove libcuda.so.1 and libnvidia-*.so.1, and the packages that bring them",
    ),
    _Row(
        r"nvidia-container-cli: initialization error: load library failed: (?P<library>libnvidia-ml\.so\.1)",
        "container-toolkit-cannot-find-driver", "NVIDIA's container toolkit does not find {library}",
        "run ldconfig on the host; a Docker that is a snap does not see the host's driver",
    ),
    _Row(
        r"Configured (?:CUDA|NVIDIA) binary not found at (?P<file>\S*libbitsandbytes_cuda\d+\.so)",
        "bitsandbytes-lacks-cuda-version", "bitsandbytes was not built for the CUDA version of PyTorch: {file} does not exist",
        "pip install --upgrade bitsandbytes",
    ),
    _Row(
        r"Could not load library (?P<library>libcudnn_\w+\.so\.\d+)\. Error: libcudnn_\w+\.so\.\d+: cannot open"
        r"|Unable to load any of \{?(?P<other>libcudnn_\w+\.so\.\d+)",
        "cudnn-runtime-missing", "A program does not find {library}{other} of cuDNN",
        "install that major version of cuDNN (pip install nvidia-cudnn-cu12 with that version in the environment), and add its "
        "directory to LD_LIBRARY_PATH of the program",
    ),
    _Row(
        r"libonnxruntime_providers_tensorrt\.so with error: (?P<library>libnvinfer\w*\.so\.\d+): cannot open",
        "tensorrt-library-missing", "ONNX Runtime does not find {library} of TensorRT",
        "install this version of TensorRT, or use only CUDAExecutionProvider",
    ),
    _Row(
        r"/dev/nvidia-uvm['’]?: no such file or directory",
        "uvm-device-node-missing", "/dev/nvidia-uvm does not exist, so CUDA cannot start",
        "run nvidia-modprobe -u -c=0 as root",
    ),
    _Row(
        r"(?:error|failure) 804: forward compatibility was attempted on non supported HW",
        "cuda-forward-compat-unsupported-hw-804",
        "A program loads the libcuda.so of a cuda-compat package, which works only with data center GPUs",
        "install a driver that supports the CUDA of the program or image, or use an image for the CUDA of the driver",
        None, "nvidia-smi",
    ),
    _Row(
        r"no runtime for \W{0,2}nvidia\W{0,2} is configured",
        "containerd-nvidia-runtime-not-configured", "containerd has no runtime with the name nvidia",
        "run nvidia-ctk runtime configure --runtime=containerd, and restart containerd",
    ),
    _Row(
        r"Failed to initialize NVML: (?:Unknown Error|GPU access blocked).*?[^#\w]no-cgroups ?= ?true"
        r"|[^#\w]no-cgroups ?= ?true.*?Failed to initialize NVML: (?:Unknown Error|GPU access blocked)",
        "container-toolkit-no-cgroups", "no-cgroups is set: containers of Docker may not open the GPU's nodes",
        "set no-cgroups = false in /etc/nvidia-container-runtime/config.toml",
    ),
    _Row(
        r"/sys/fs/cgroup/devices/\S*devices\.allow: permission denied|bpf_prog_query\(BPF_CGROUP_DEVICE\) failed: operation not "
        r"permitted",
        "container-toolkit-no-cgroups", "A container engine without root cannot set up the GPU's control group",
        "set no-cgroups = true in /etc/nvidia-container-runtime/config.toml, or describe the GPU with nvidia-ctk cdi generate",
    ),
    _Row(
        r"insufficient shared memory \(shm\)|unable to write to file </torch_\w+>",
        "shm-too-small", "Data loaders fill /dev/shm of the container",
        "start the container with --ipc=host or --shm-size=8g",
    ),
    _Row(
        r"Error while creating shared memory segment /dev/shm/nccl|failed to extend /dev/shm/nccl\S* to \d+ bytes",
        "shm-too-small", "NCCL gets no shared memory in /dev/shm, which is probably too small",
        "start the container with --ipc=host or --shm-size=8g",
    ),
    _Row(
        rf"(?:Pre)?Depends: (?P<needed>{_OF_NVIDIA})(?::\w+)? \((?P<how>[<>=]+) (?P<wants>[^\s)]+)\) "
        r"but (?P<has>\d\S*) is to[ ]be installed",
        "", "The driver needs {needed} {how} {wants}, but apt would install {has}, which is from another repository",
        "install all packages of the driver from one repository, and remove or pin the other: apt-cache policy {needed} "
        "shows which repository has which version",
        _two_sources,
    ),
    _Row(
        rf"{_PACKAGE} ?: (?:Pre)?Depends: libc6 \(>= (?P<wants>\d[\d.]*)\) but (?P<has>\d\S*) is to[ ]be installed",
        "mixed-repositories", "{package} comes from a repository for another release: it needs libc6 {wants}; here: {has}",
        _ANOTHER_RELEASE,
    ),
    _Row(
        rf"{_PACKAGE} ?: (?:Pre)?Depends: (?P<needed>libssl3|libssl1\.1|libtinfo5)(?: \([^)]*\))? but it is not installable",
        "mixed-repositories",
        "{package} comes from a repository for another release: it needs {needed}, which this release does not have",
        _ANOTHER_RELEASE,
    ),
    _Row(
        r"kernel headers for kernel (?P<kernel>\d\S*) cannot be found"
        r"|for kernel (?P<other>\d\S*) was skipped since the kernel headers for this kernel do(?:es)? not seem to be installed",
        "kernel-headers-missing", "The headers of kernel {kernel}{other} are missing, so DKMS can build no module for it",
        "install the headers of kernel {kernel}{other} (Debian and Ubuntu: linux-headers-{kernel}{other}), then run "
        "dkms autoinstall -k {kernel}{other}",
    ),
    _Row(
        r"Unable to find the kernel source tree for the currently running kernel",
        "kernel-headers-missing", "NVIDIA's installer does not find the headers of the running kernel",
        "install the headers of the running kernel (Debian and Ubuntu: linux-headers-$(uname -r)), and run the installer again",
    ),
    _Row(
        r"kernel you are installing for is a PREEMPT_RT kernel|Failed PREEMPT_RT sanity check",
        "dkms-module-missing-for-running-kernel",
        "The NVIDIA driver refuses to be built for this kernel, which is a realtime kernel (PREEMPT_RT)",
        "boot a kernel of the distribution without -rt or -realtime in its name",
    ),
    _Row(
        r"The Nouveau kernel driver is currently in use by your system",
        "nouveau-bound-instead-of-nvidia", "nouveau holds the GPU, so NVIDIA's installer stops",
        "write \"blacklist nouveau\" and \"options nouveau modeset=0\" to a file in /etc/modprobe.d, rebuild the initramfs "
        "(update-initramfs -u or dracut -f), reboot, and run the installer again",
    ),
    _Row(
        r"Kernel module load error: (?P<said>Key was rejected by service|Required key not available)",
        "secure-boot-mok-not-enrolled", "Secure Boot is on, and the kernel rejects the module of NVIDIA's installer: {said}",
        "run the installer again and let it sign the module, enroll its key with mokutil --import, and reboot; or turn "
        "Secure Boot off in the firmware",
    ),
    _Row(
        r"trying to overwrite '(?P<path>/[^']+)', which is also in package (?P<package>(?:lib)?nvidia\S+) (?P<version>\d\S*)",
        "dpkg-file-overwrite-conflict", "Two packages of the driver bring {path}: {package} {version} has it already",
        "remove {package} if nothing needs it (apt-get -s remove {package} shows what goes with it), then run "
        "apt-get -f install",
    ),
    _Row(
        r"could not find module by name='off'|could not insert 'off'",
        "prime-profile-blocks-nvidia", "nvidia-prime switched the NVIDIA GPU off (prime-select intel)",
        "to use the GPU: sudo prime-select nvidia, or on-demand; then reboot",
    ),
    _Row(
        r"A graphical session is already running",
        "login-loop-custom-user-unit",
        "A user unit starts the target of the graphical session before GNOME does, so GNOME gives up",
        "in ~/.config/systemd/user, find the unit that has graphical-session.target in Wants=, Requires= or BindsTo=, and "
        "disable it: systemctl --user disable NAME",
    ),
    _Row(
        r"Could not update \.?ICEauthority file (?P<path>/\S+?)\.?(?: |$)",
        "login-loop-home-dotfile-permissions", "The session cannot write {path}: it, or its directory, belongs to somebody else",
        "log in on a text console and compare the owners: ls -ld ~ {path}; then sudo chown $USER: {path}",
    ),
    _Row(
        r"Error writing X ?authority: Failed to open X ?authority (?P<path>/\S+): Permission denied",
        "login-loop-xauthority-wrong-owner", "{path} belongs to somebody else, so LightDM cannot start the session",
        "log in on a text console and move it out of the way: sudo mv {path} {path}.bak",
    ),
)  # fmt: skip
