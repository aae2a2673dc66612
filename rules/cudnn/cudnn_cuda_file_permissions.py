"""Users may not read files of CUDA or cuDNN.

What you see
    "cannot open shared object file: Permission denied", or "fatal error: cudnn.h: Permission denied"; as root
    everything works.
Why
    The files were copied by a root with the umask 077, or have the modes of an archive that was packed that way.
Repair
    Give everybody the right to read them, and to enter the folders.
What the repair risks
    Nothing: these files are the same for everybody who downloads them.
By hand
    chmod a+r /usr/local/cuda/include/cudnn*.h /usr/local/cuda/lib64/libcudnn*
"""

import posixpath
from collections.abc import Iterator

from dlhealth.api import (
    ChangeMode,
    CudaPermissions,
    Evidence,
    Finding,
    Machine,
    Plan,
    Restricted,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)


class CudnnCudaFilePermissions(Rule):
    id = "cudnn-cuda-file-permissions"
    title = "Users may not read files of CUDA or cuDNN"
    stage = Stage.LOADER
    severity = Severity.ERROR
    explains = (
        "cudnn-headers-missing-or-split",
        "cudnn-mixed-sublibraries",
        "ldconfig-cuda-entry-missing",
        "nvcc-not-in-path",
    )

    def detect(self, permissions: CudaPermissions) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in permissions.problems)
        for folder, files in _by_folder(permissions).items():
            first, more = files[0], len(files) - 1
            subject = first.path if not more else folder
            shows = f"{first.kind}, mode {first.mode:04o}"
            yield self.finding(
                f"file:{subject}",
                f"{first.path} ({shows}){f' and {more} more' if more else ''}: users may not "
                f"{'enter' if first.kind == 'dir' else 'read'} it",
                *(Evidence(f.path, f"{f.kind}, mode {f.mode:04o}") for f in files),
                folder=folder,
            )

    def remedies(self, finding: Finding, permissions: CudaPermissions) -> Iterator[Plan]:
        files = _by_folder(permissions)[finding.detail["folder"]]
        yield Plan("Let everybody read them", Risk.LOW, tuple(ChangeMode(f.path, f.wanted) for f in files))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        lib = "/usr/local/cuda-12.2/targets/x86_64-linux/lib"
        include = "/usr/local/cuda-12.2/targets/x86_64-linux/include"

        def cuda() -> Machine:
            return Machine.ubuntu2404_gpu().cuda_toolkit("12.2").cudnn("8.9.7")

        yield Scenario(
            "a header copied under umask 077",
            cuda().file(f"{include}/cudnn_version.h", "#define CUDNN_MAJOR 8\n#define CUDNN_MINOR 9\n", 0o600),
            finds=f"file:{include}/cudnn_version.h",
            steps=("change-mode",),
        )
        yield Scenario(
            "two libraries",
            cuda()
            .library(f"{lib}/libcudnn.so.8.9.7", "libcudnn.so.8", mode=0o750)
            .library(f"{lib}/libcudnn_ops_infer.so.8.9.7", "libcudnn_ops_infer.so.8", mode=0o750),
            finds=f"file:{lib}",
        )
        yield Scenario("the folder is closed", cuda().folder(lib, 0o700), finds=f"file:{lib}")
        yield Scenario(
            "its group may not read",
            cuda().file(f"{include}/cudnn.h", "#define CUDNN_MAJOR 8\n", 0o604, gid=100),
            finds=f"file:{include}/cudnn.h",
        )
        yield Scenario("as installed", cuda())
        yield Scenario("NVIDIA's packages", Machine.ubuntu2404_gpu().cuda_toolkit("12.2").cudnn_packages())
        yield Scenario("no CUDA", Machine.ubuntu2404_gpu())
        yield Scenario("the loader's list can't be read", cuda().fifo("/etc/ld.so.conf"), unknown=True)


def _by_folder(permissions: CudaPermissions) -> dict[str, list[Restricted]]:
    """A closed folder stands alone: what is in it is not reached at all."""
    folders: dict[str, list[Restricted]] = {}
    for item in permissions.restricted:
        folders.setdefault(item.path if item.kind == "dir" else posixpath.dirname(item.path), []).append(item)
    return folders
