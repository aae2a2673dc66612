"""The outputs of common programs that people post. Each is recognized by its content."""

from collections.abc import Callable

from dlhealth.host.posted import cuda, files, hardware, kernel, packages, python, session
from dlhealth.host.posted.known import Output, Pieces
from dlhealth.host.posted.text import plain
from dlhealth.host.posted.transcript import commands

Reader = Callable[[Output, Pieces], bool]


def read_outputs(text: str, name: str, pieces: Pieces) -> bool:
    """Take what any known output in a text tells. Whether there is one."""
    output = Output(text, name)
    known = [reader(output, pieces) for reader, words in READERS if not words or any(word in text for word in words)]
    return any(known)


def read_pasted(text: str, name: str, pieces: Pieces) -> bool:
    """The same for a text that went through a terminal, a mail or a web page, with the commands that were typed."""
    output = Output(kernel.without_the_past(plain(text)), name)
    typed = list(commands(output.text))
    known = [files.printed(command, output, pieces) for command in typed]
    known += [files.listed(command, output, pieces) for command in typed]
    for command in typed:
        packages.searched(command, pieces)
    known += [session.shown(typed, output, pieces), kernel.silent(typed, output, pieces)]
    known += [files.attached(output, pieces), session.start_up_file(output, pieces)]
    known.append(session.failed(output, pieces))
    known.append(read_outputs(output.text, name, pieces))
    return any(known)


READERS: tuple[tuple[Reader, tuple[str, ...]], ...] = (
    (
        kernel.system,
        ("Linux ", "uname", "Kernel Release", "Description:", "VERSION"),
    ),
    (kernel.lone_release, ()),
    (kernel.summary, ("Kernel", "OS", "Distro:", "Operating System", "System:")),
    (packages.dpkg, ("ii ", "iF ", "iU ", "iH ", "rc ", "hi ", "un ", "iW ", "it ", "iHR ", "pn ", "ri ", "hF ")),
    (packages.apt, ("[installed", "[upgradable", "[residual", "Installed: ", "(--configure)", "install\n", "hold\n")),
    (kernel.log, ("kernel", "] ", "]: ", "NVRM", "nvidia", "nouveau", "rejected", "Lockdown", "PKCS")),
    (kernel.dkms, (": added", ": built", ": installed")),
    (kernel.failed_build, ("make.log", "Error! Bad return", "kernel headers for kernel", "error: ", "modpost: ")),
    (kernel.refused, ("modprobe", "modinfo", "insert")),
    (hardware.lspci, ("]: ", " controller: ", "Kernel driver in use")),
    (hardware.drivers_for_devices, ("modalias",)),
    (kernel.loaded, ("Used by", " Live 0x", "nvidia", "nouveau")),
    (kernel.modinfo, ("filename:",)),
    (
        kernel.driver,
        (
            "NVRM version",
            "NVIDIA-SMI",
            "NVML",
            "nvml",
            "Driver Version  ",
            "OpenGL",
            "driver: nvidia",
            "No devices",
            "dynamic library",
        ),
    ),
    (hardware.gpus_of_the_driver, ("| ", "GPU ")),
    (hardware.reports, ("NVSMI LOG", "NVIDIA-SMI")),
    (hardware.inxi, ("Graphics:",)),
    (
        packages.complaints,
        ("E: ", "W: ", "Err:", "dpkg: ", "trying to overwrite", "The following sig", "Error!", "subprocess"),
    ),
    (files.space, ("Mounted on",)),
    (files.listing, ("rw", "r-x", "No such file")),
    (files.loader_cache, (") => /", "found in")),
    (kernel.secure_boot, ("enabled", "disabled")),
    (files.xorg_log, ("X.Org X Server",)),
    (cuda.compiler, ("Cuda compilation tools",)),
    (cuda.docker, ("docker", "Docker", "Runtimes:", "OS/Arch:")),
    (python.collected, ("PyTorch version",)),
    (python.conda, ("# packages in environment at",)),
    (python.pip, ("==", "Package")),
    (python.shown, ("Name: ",)),
    (python.answered, ("torch.", "tf.", "tensorflow.")),
    (python.tensorflow, ("tf.version.VERSION",)),
    (session.environment, ("PATH=",)),
)
"""Each with words. Every text that it recognizes has at least one of them; most texts have none."""
