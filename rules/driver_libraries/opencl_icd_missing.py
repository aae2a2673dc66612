"""OpenCL does not find NVIDIA's driver.

What you see
    clinfo prints "Number of platforms 0" or lists no NVIDIA platform.

    Blender, hashcat or darktable find no OpenCL device, although nvidia-smi and CUDA work.
Why
    Programs load libOpenCL.so.1, which reads the files in /etc/OpenCL/vendors. One of them must contain
    libnvidia-opencl.so.1. That file is missing in many container images, and after part of the driver was removed. Or
    the file exists, but the library is missing.
Repair
    Write the file, or install the driver's OpenCL library.
What the repair risks
    Little: one text file, or one package of the installed driver.
By hand
    clinfo -l
    cat /etc/OpenCL/vendors/*.icd
    ldconfig -p | grep opencl
    mkdir -p /etc/OpenCL/vendors
    echo libnvidia-opencl.so.1 > /etc/OpenCL/vendors/nvidia.icd
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Machine,
    MakeDirectory,
    OpenCl,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UsableGpu,
    WriteFile,
)

_ENTRY = "/etc/OpenCL/vendors/nvidia.icd"
_DIRECTORIES = ("/etc/OpenCL", "/etc/OpenCL/vendors")
_LIBRARY = "libnvidia-opencl.so.1"


class OpenclIcdMissing(Rule):
    id = "opencl-icd-missing"
    title = "OpenCL does not find NVIDIA's driver"
    stage = Stage.LOADER
    severity = Severity.WARNING

    def detect(self, opencl: OpenCl, gpu: UsableGpu) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in opencl.problems)
        # Without libOpenCL, no program uses OpenCL.
        if not gpu.source or not opencl.loader or opencl.problems or bool(opencl.library) is bool(opencl.entry):
            return
        loader = Evidence(opencl.loader, "OpenCL is installed")
        if opencl.library:
            yield self.finding(
                "host",
                f"No file in /etc/OpenCL/vendors names {_LIBRARY}, so OpenCL does not find the GPU",
                Evidence(opencl.library, "NVIDIA's OpenCL driver"),
                Evidence(_ENTRY, "does not exist"),
                loader,
                lacks="entry",
                directory=opencl.directory,
            )
        else:
            yield self.finding(
                "host",
                f"{opencl.entry} names {_LIBRARY}, which is not installed, so OpenCL does not find the GPU",
                Evidence(opencl.entry, _LIBRARY),
                loader,
                lacks="library",
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if finding.detail["lacks"] == "entry":
            missing = () if finding.detail["directory"] else tuple(map(MakeDirectory, _DIRECTORIES))
            write = WriteFile(_ENTRY, f"{_LIBRARY}\n")
            yield Plan(f"Write {_LIBRARY} into {_ENTRY}", Risk.LOW, (*missing, write))
            return
        text = "Debian: apt-get install nvidia-opencl-icd. Ubuntu: apt-get install --reinstall libnvidia-compute-BRANCH"
        yield Plan("Install the driver's OpenCL library", Risk.LOW, (ByHand(text),), network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        lib = "/usr/lib/x86_64-linux-gnu"

        def machine(*libraries: str, entry: str = "") -> Machine:
            machine = Machine.ubuntu2404_gpu().library(f"{lib}/libOpenCL.so.1", "libOpenCL.so.1")
            if not libraries:
                machine.remove(f"{lib}/{_LIBRARY}")
            return machine.file(_ENTRY, entry) if entry else machine

        yield Scenario(
            "no file names the library",
            machine(_LIBRARY),
            finds="host",
            ladder=(
                (
                    "low",
                    "make-directory /etc/OpenCL",
                    "make-directory /etc/OpenCL/vendors",
                    "write-file /etc/OpenCL/vendors/nvidia.icd libnvidia-opencl.so.1",
                ),
            ),
        )
        yield Scenario(
            "the directory is empty",
            machine(_LIBRARY).folder("/etc/OpenCL/vendors"),
            finds="host",
            ladder=(("low", "write-file /etc/OpenCL/vendors/nvidia.icd libnvidia-opencl.so.1"),),
        )
        yield Scenario(
            "the library is missing",
            machine(entry=f"{_LIBRARY}\n"),
            finds="host",
            alone=False,
            ladder=(("low network", "by-hand nvidia-opencl-icd --reinstall libnvidia-compute-BRANCH"),),
        )
        yield Scenario("file and library exist", machine(_LIBRARY, entry=f"{_LIBRARY}\n"))
        yield Scenario(
            "another vendor's OpenCL", machine().file("/etc/OpenCL/vendors/intel.icd", "libigdrcl.so\n"), alone=False
        )
        yield Scenario("the file cannot be read", machine(_LIBRARY).fifo(_ENTRY), unknown=True)
