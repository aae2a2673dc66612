"""A library of the driver, CUDA or cuDNN is empty, truncated, or not a library.

What you see
    error while loading shared libraries: libcudnn.so.8: file too short

    invalid ELF header

    cannot read file data
Why
    The disk was full or the power failed while the file was written. Or a Git LFS pointer or a web page was saved
    under the name of the library.
Repair
    Reinstall the package that owns the file. If no package owns it, copy the file again.
What the repair risks
    Little: the same version is reinstalled. Check for a full disk first. dlhealth reports one.
By hand
    ls -l FILE
    file FILE
    dpkg -S FILE
    apt-get install --reinstall PACKAGE
    # In a Python environment:
    pip install --force-reinstall --no-deps PACKAGE==VERSION
"""

import posixpath
from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    Cudnn,
    DriverLibraries,
    Evidence,
    Finding,
    Machine,
    Packages,
    PipInstall,
    Plan,
    Programs,
    RefreshLoaderCache,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    Unowned,
    owner_of,
    wheel_name,
)


class LibraryDamaged(Rule):
    id = "library-damaged"
    title = "A library of the driver, CUDA or cuDNN is damaged"
    stage = Stage.LOADER
    severity = Severity.ERROR
    gpu_wheels = True
    explains = (
        "cudnn-mixed-sublibraries",
        "cudnn-runtime-missing",
        "libcuda-missing-from-loader",
        "partial-driver-install",
        "program-cuda-major-missing",
        "tf-cannot-dlopen-gpu-libraries",
    )

    def detect(
        self,
        cudnn: Cudnn | None,
        driver: DriverLibraries | None,
        programs: Programs | None,
        packages: Packages | None,
    ) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in (programs.problems if programs else ()))
        damaged: dict[str, str] = {}
        for x in cudnn.libraries() if cudnn else ():
            if x.special:
                yield Unknown(x.problem)
            elif x.problem and x.real and x.suffix:
                damaged[x.real] = x.problem
        for library in driver.libraries if driver else ():
            if library.problem and library.real_path and "ELF" in library.problem:
                damaged[library.real_path] = library.problem
        for path, problem in damaged.items():
            owner = owner_of(packages, path)
            yield self.finding(
                f"file:{path}",
                f"{posixpath.basename(path)} in {posixpath.dirname(path)} is damaged, so no program can load it",
                Evidence(path, problem.removeprefix(f"{path}: ")),
                path=path,
                owner=owner,
            )
        for environment, path, problem in programs.damaged if programs else ():
            name = wheel_name(posixpath.basename(path))
            wheel = next((n for n in environment.packages if name and (n == name or n.startswith(f"{name}-cu"))), "")
            yield self.finding(
                environment.subject,
                f"{posixpath.basename(path)} in {environment.path} is damaged, so no program can load it",
                Evidence(path, problem),
                about=environment.about,
                path=path,
                python=environment.python,
                manager=environment.manager,
                requirement=f"{wheel}=={environment.packages[wheel]}" if wheel else "",
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        detail = finding.detail
        owner = detail.get("owner", Unowned.NOBODY)
        if isinstance(owner, str):
            actions = (AptInstall((owner,), reinstall=True), RefreshLoaderCache())
            yield Plan(f"Reinstall {owner}", Risk.LOW, actions, network=True)
            return
        if owner is Unowned.UNKNOWN:
            text = f"Find the package of {detail['path']} with dpkg -S, then: apt-get install --reinstall PACKAGE"
            yield Plan("Reinstall the package of the library", Risk.LOW, (ByHand(text),), network=True)
            return
        requirement, manager = detail.get("requirement", ""), detail.get("manager", "")
        options = ("--force-reinstall", "--no-deps", requirement)
        if requirement and manager in ("pip", "uv"):
            install = PipInstall(detail["python"], options, uv=manager == "uv")
            yield Plan(f"Reinstall {requirement}", Risk.LOW, (install,), network=True)
        elif requirement:
            text = f"with the pip of this environment: pip install {' '.join(options)}"
            yield Plan(f"Reinstall {requirement}", Risk.LOW, (ByHand(text),), network=True)
        else:
            text = f"copy {detail['path']} again from its original source, then run ldconfig"
            yield Plan("Copy the library again", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        site = "/home/alice/venv/lib/python3.11/site-packages"
        lib = "/usr/local/cuda-12.2/targets/x86_64-linux/lib"

        def wheel(content: bytes | str) -> Machine:
            return (
                Machine.ubuntu2404_gpu()
                .python_environment(packages=["nvidia_cudnn_cu12-9.1.0.70"])
                .library(f"{site}/nvidia/cudnn/lib/libcudnn.so.9", "libcudnn.so.9")
                .file(f"{site}/nvidia/cudnn/lib/libcudnn_cnn.so.9", content, uid=1000)
            )

        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"
        numbers = ((1 << 20, 8), (0, 10), (64, 2), (30, 2), (0, 2))  # the sections begin after the end of the file
        header = b"\x7fELF\x02\x01\x01" + bytes(33) + b"".join(n.to_bytes(size, "little") for n, size in numbers)
        yield Scenario(
            "a cuDNN library is truncated",
            wheel(header + bytes(4000)),
            finds="python:/home/alice/venv",
            ladder=(
                ("low", "by-hand /home/alice/venv/lib/python3.11/site-packages/nvidia/cudnn/lib/libcudnn_cnn.so.9"),
            ),
        )
        yield Scenario("a Git LFS pointer", wheel(pointer), finds="python:/home/alice/venv")
        yield Scenario(
            "the system's cuDNN is empty",
            Machine.ubuntu2404_gpu().cuda_toolkit("12.2").cudnn("8.9.7").file(f"{lib}/libcudnn_ops_infer.so.8.9.7", ""),
            finds=f"file:{lib}/libcudnn_ops_infer.so.8.9.7",
            ladder=(("low", "by-hand /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn_ops_infer.so.8.9.7"),),
        )
        packaged = "/usr/lib/x86_64-linux-gnu/libcudnn_ops_infer.so.8.9.7"
        yield Scenario(
            "a library of a package is empty",
            Machine.ubuntu2404_gpu().cuda_toolkit("12.2").cudnn_packages().file(packaged, ""),
            finds=f"file:{packaged}",
            steps=("apt-install", "refresh-loader-cache"),
            ladder=(("low network", "apt-install libcudnn8 reinstall", "refresh-loader-cache"),),
        )
        driver = "/usr/lib/x86_64-linux-gnu/libcuda.so.550.120"
        yield Scenario(
            "a library of the driver is a web page",
            Machine.ubuntu2404_gpu().file(driver, "<html></html>"),
            finds=f"file:{driver}",
            steps=("apt-install", "refresh-loader-cache"),
            ladder=(("low network", "apt-install libnvidia-compute-550 reinstall", "refresh-loader-cache"),),
        )
        yield Scenario(
            "a library of the driver is a web page, and dpkg has no lists of files",
            Machine.ubuntu2404_gpu()
            .file(driver, "<html></html>")
            .remove("/var/lib/dpkg/info/libnvidia-compute-550:amd64.list"),
            finds=f"file:{driver}",
            ladder=(("low network", "by-hand /usr/lib/x86_64-linux-gnu/libcuda.so.550.120 -S --reinstall"),),
        )
        yield Scenario("all libraries are intact", Machine.ubuntu2404_gpu().cuda_toolkit("12.2").cudnn("8.9.7"))
        yield Scenario(
            "a library that cannot be read",
            Machine.ubuntu2404_gpu().cuda_toolkit("12.2").cudnn().fifo(f"{lib}/libcudnn_ops_infer.so.8.9.7"),
            unknown=True,
        )
