"""OpenCL's list of drivers: the files in /etc/OpenCL/vendors; each names a library."""

from dlhealth.host import Host, Unreadable
from dlhealth.probes.machine.loader import LoaderConfig
from dlhealth.records import NamedTuple

VENDORS = "/etc/OpenCL/vendors"
NVIDIA = "libnvidia-opencl.so.1"


class OpenCl(NamedTuple):
    """`loader` is the libOpenCL that programs get, `library` NVIDIA's driver for it (None if the dynamic loader finds
    none). `directory` says whether VENDORS exists, `entry` is the file that names NVIDIA's driver, "" without one;
    `problems` could not be read."""

    loader: str | None
    library: str | None
    directory: bool
    entry: str
    problems: tuple[str, ...]

    @classmethod
    def probe(cls, host: Host, loader: LoaderConfig) -> "OpenCl":
        entry, problems = "", []
        for path in host.glob(f"{VENDORS}/*.icd"):
            try:
                if "libnvidia-opencl" in (host.text(path) or ""):
                    entry = path
            except Unreadable as problem:
                problems.append(str(problem))
        return cls(loader.find("libOpenCL.so.1"), loader.find(NVIDIA), host.exists(VENDORS), entry, tuple(problems))
