"""Users cannot read files of CUDA or cuDNN.

What you see
    "cannot open shared object file: Permission denied", or "fatal error: cudnn.h: Permission denied". As root
    everything works.
Why
    Root copied the files with the umask 077, or the archive was packed with these modes.
Repair
    Give everybody permission to read the files and to enter the directories.
What the repair risks
    None: everybody can download these files.
By hand
    chmod a+r /usr/local/cuda/include/cudnn*.h
    chmod a+r /usr/local/cuda/lib64/libcudnn*
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
    count,
)


class CudnnCudaFilePermissions(Rule):
    id = "cudnn-cuda-file-permissions"
    title = "Users cannot read files of CUDA or cuDNN"
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
            shows = _mode(first)
            others = f" and {count(more, 'more file')}" if more else ""
            yield self.finding(
                f"file:{subject}",
                f"Users cannot {'enter' if first.kind == 'dir' else 'read'} {first.path} ({shows}){others}; "
                f"needed: mode {first.wanted:04o}",
                *(Evidence(f.path, _mode(f)) for f in files),
                folder=folder,
            )

    def remedies(self, finding: Finding, permissions: CudaPermissions) -> Iterator[Plan]:
        files = _by_folder(permissions)[finding.detail["folder"]]
        yield Plan(
            "Give everybody permission to read these files",
            Risk.LOW,
            tuple(ChangeMode(f.path, f.wanted) for f in files),
        )

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
            ladder=(("low", "change-mode /usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn_version.h 0644"),),
        )
        yield Scenario(
            "two libraries",
            cuda()
            .library(f"{lib}/libcudnn.so.8.9.7", "libcudnn.so.8", mode=0o750)
            .library(f"{lib}/libcudnn_ops_infer.so.8.9.7", "libcudnn_ops_infer.so.8", mode=0o750),
            finds=f"file:{lib}",
            ladder=(
                (
                    "low",
                    "change-mode /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so.8.9.7 0754",
                    "change-mode /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn_ops_infer.so.8.9.7 0754",
                ),
            ),
        )
        yield Scenario(
            "the directory is closed",
            cuda().folder(lib, 0o700),
            finds=f"file:{lib}",
            ladder=(("low", "change-mode /usr/local/cuda-12.2/targets/x86_64-linux/lib 0755"),),
        )
        yield Scenario(
            "its group cannot read it",
            cuda().file(f"{include}/cudnn.h", "#define CUDNN_MAJOR 8\n", 0o604, gid=100),
            finds=f"file:{include}/cudnn.h",
            ladder=(("low", "change-mode /usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn.h 0644"),),
        )
        yield Scenario("as installed", cuda())
        yield Scenario("NVIDIA's packages", Machine.ubuntu2404_gpu().cuda_toolkit("12.2").cudnn_packages())
        yield Scenario("no CUDA", Machine.ubuntu2404_gpu())
        yield Scenario("the loader's list is not readable", cuda().fifo("/etc/ld.so.conf"), unknown=True)


def _mode(item: Restricted) -> str:
    return f"{'directory' if item.kind == 'dir' else 'file'}, mode {item.mode:04o}"


def _by_folder(permissions: CudaPermissions) -> dict[str, list[Restricted]]:
    """Restricted files by directory; a closed directory is an entry of its own, because nothing in it can be reached."""
    folders: dict[str, list[Restricted]] = {}
    for item in permissions.restricted:
        folders.setdefault(item.path if item.kind == "dir" else posixpath.dirname(item.path), []).append(item)
    return folders
