"""A cuDNN library that something needs is missing.

What you see
    "Could not load dynamic library 'libcudnn.so.8'; dlerror: libcudnn.so.8: cannot open shared object file", "DNN
    library is not found", or a linker that does not find -lcudnn.
Why
    The CUDA toolkit does not contain cuDNN. Either it was never installed, or its files were deleted while links,
    headers or the package's record stayed.

    PyTorch's wheels bring their own cuDNN and need none from the system.
Repair
    Reinstall the package, or install the version that the program needs.
What the repair risks
    Low: the libraries of different major versions can be installed side by side.
By hand
    ldconfig -p | grep libcudnn
    ls -l /usr/local/cuda/lib64/libcudnn* /usr/lib/*/libcudnn*
    apt-get install --reinstall libcudnn8
"""

import posixpath
from collections.abc import Iterator, Sequence

from dlhealth.api import (
    AptInstall,
    ByHand,
    CudaDriver,
    CudaToolkits,
    Cudnn,
    CudnnFolder,
    CudnnLibrary,
    CudnnNeeds,
    Evidence,
    Finding,
    Gpus,
    LoaderConfig,
    Machine,
    MakeLink,
    Plan,
    Programs,
    RefreshLoaderCache,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UnpackedCudnn,
    UnpackedCudnns,
    count,
    cudnn_package_names,
    cudnn_requirement,
    pip_cudnn,
    pip_install,
)


class CudnnRuntimeMissing(Rule):
    id = "cudnn-runtime-missing"
    title = "A cuDNN library that something needs is missing"
    stage = Stage.LOADER
    severity = Severity.ERROR
    gpu_wheels = True
    explains = ("tf-cannot-dlopen-gpu-libraries",)

    def detect(
        self,
        cudnn: Cudnn,
        loader: LoaderConfig,
        needs: CudnnNeeds | None,
        gpus: Gpus | None,
        driver: CudaDriver | None,
        unpacked: UnpackedCudnns | None,
    ) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in cudnn.problems)
        yield from (Unknown(x.problem) for x in cudnn.libraries() if x.special)
        absent = set()
        for package in cudnn.packages:
            if package.absent:
                absent |= {posixpath.basename(path) for path in package.absent}
                yield self.finding(
                    f"package:{package.package.name}",
                    f"{package.package.name} {package.package.version} is installed, but it lacks "
                    f"{count(len(package.absent), 'library', 'libraries')}: "
                    f"{', '.join(posixpath.basename(p) for p in package.absent[:3])}",
                    *(
                        Evidence(path, f"does not exist, but belongs to package {package.package.name}")
                        for path in package.absent
                    ),
                    package=package.package.name,
                    major=package.major or 0,
                )
        for folder in cudnn.folders:
            yield from self._links(folder, absent)
            yield from self._needed(folder, loader)
        yield from self._headers_alone(cudnn)
        if (gpus and gpus.gpus) or (driver and driver.versions):
            yield from self._programs(cudnn, needs, unpacked.found if unpacked else ())

    def _links(self, folder: CudnnFolder, absent: set[str]) -> Iterator[Finding]:
        broken = [x for x in folder.libraries if not x.real and not x.special]
        if not broken or any(posixpath.basename(x.target or "") in absent for x in broken):
            return
        first = min(broken, key=lambda x: (x.stem != "libcudnn", not x.suffix, x.name))
        more = f" (and {count(len(broken) - 1, 'more such link')})" if len(broken) > 1 else ""
        yield self.finding(
            f"file:{first.path}",
            f"{first.path} points to {first.target}, which does not exist{more}",
            *(Evidence(x.path, f"link to {x.target}, which does not exist") for x in broken),
            path=first.path,
            folder=folder.path,
            major=first.major or 0,
        )

    def _needed(self, folder: CudnnFolder, loader: LoaderConfig) -> Iterator[Finding]:
        """Report a part of cuDNN that another part needs and that is missing."""
        broken = {x.name for x in folder.libraries if not x.real}
        for library in folder.libraries:
            for name in library.needed:
                if (
                    name.startswith("libcudnn")
                    and name not in broken
                    and not folder.get(name)
                    and not loader.find(name)
                ):
                    yield self.finding(
                        f"file:{folder.path}/{name}",
                        f"{library.name} in {folder.path} needs {name}, which is not installed",
                        Evidence(library.real, f"NEEDED {name}"),
                        Evidence(f"{folder.path}/{name}", "does not exist"),
                        folder=folder.path,
                        major=library.major or 0,
                    )
                    return

    def _headers_alone(self, cudnn: Cudnn) -> Iterator[Finding]:
        """Report headers without a library of their major version, left over from an installation."""
        majors = {m for f in cudnn.folders for m in f.all_majors}
        broken = any(not x.real for x in cudnn.libraries())
        for headers in cudnn.headers:
            major = int(headers.version.partition(".")[0] or 0)
            if headers.main and major and not majors and not broken and not any(p.absent for p in cudnn.packages):
                yield self.finding(
                    f"file:{headers.main}",
                    f"{headers.main} is from cuDNN {headers.version}, but no libcudnn is installed",
                    Evidence(headers.source, f"cuDNN {headers.version}"),
                    Evidence("/etc/ld.so.conf", "names no directory with libcudnn"),
                    major=major,
                )
                return

    def _programs(self, cudnn: Cudnn, needs: CudnnNeeds | None, unpacked: Sequence[UnpackedCudnn]) -> Iterator[Finding]:
        for need in needs.needs if needs else ():
            have = cudnn.majors(need.user or None) | need.bundled
            # Having 8 instead of 9 is a problem of its own.
            if need.major in have or (need.major in (8, 9) and {8, 9} & have):
                continue
            elsewhere = [f.path for f in cudnn.folders if need.major in f.majors]
            copy = next((u for u in unpacked if u.major == need.major and need.user in ("", u.user)), None)
            yield self.finding(
                need.subject,
                f"{need.what} needs cuDNN {need.major}, but the loader does not find libcudnn.so.{need.major}",
                Evidence(need.source, need.shows),
                *(
                    Evidence(path, f"has libcudnn.so.{need.major}, but the loader does not search this directory")
                    for path in elsewhere
                ),
                *(
                    []
                    if elsewhere
                    else [Evidence("/etc/ld.so.conf", f"names no directory with libcudnn.so.{need.major}")]
                ),
                *([Evidence(f"{copy.folder}/{copy.name}", "unpacked, but not installed")] if copy else []),
                about=need.about,
                unpacked=copy.folder if copy else "",
                major=need.major,
                program=need.what.partition(" ")[0],
                python=need.python,
                manager=need.manager,
                requirement=need.requirement,
                path=need.path,
                site=need.site,
            )

    def remedies(
        self, finding: Finding, cudnn: Cudnn, toolkits: CudaToolkits, programs: Programs | None
    ) -> Iterator[Plan]:
        detail = finding.detail
        major = detail["major"]
        if package := detail.get("package"):
            yield Plan(f"Reinstall {package}", Risk.LOW, (AptInstall((package,), reinstall=True),), network=True)
            return
        if detail.get("program") == "torch":
            yield pip_cudnn(detail["python"], detail["manager"], detail["requirement"])
            return
        program = programs.of(detail["site"], detail["program"]) if programs and detail.get("site") else None
        if program and (requirement := cudnn_requirement(program, major)):
            summary = f"Install cuDNN {major} for {program.name} into {detail['path']}"
            yield pip_install(detail["path"], detail["python"], detail["manager"], (requirement,), summary)
        folder = next((f for f in cudnn.folders if f.path == detail.get("folder")), None)
        links = _relinked(folder) if folder and "path" in detail else ()
        if links:
            yield Plan("Point the links to the installed libraries", Risk.LOW, (*links, RefreshLoaderCache()))
        cuda = toolkits.default.version if toolkits.default else ""
        known = bool(cuda) or not toolkits.problems
        if major and known and (names := cudnn_package_names(major, cuda, development=False)):
            yield Plan(
                f"Install cuDNN {major}",
                Risk.LOW,
                (AptInstall(names), RefreshLoaderCache()),
                network=True,
            )
        if (source := detail.get("unpacked")) and toolkits.default:
            target, top = toolkits.default.path, source.rpartition("/")[0]
            text = (
                f"if you trust that archive, run: cp -P {source}/libcudnn* {target}/lib64/ && "
                f"cp -P {top}/include/cudnn*.h {target}/include/ && ldconfig"
            )
            yield Plan(f"Install the cuDNN {major} that was unpacked in {top}", Risk.LOW, (ByHand(text),))
        where = folder.path if folder else "the toolkit's lib64"
        archive = f"Copy lib/libcudnn* from NVIDIA's archive of cuDNN {major} to {where} with cp -P, then run ldconfig"
        sources = ByHand("Or add NVIDIA's repository (cuda-keyring). Debian also has nvidia-cudnn in contrib")
        yield Plan(f"Copy cuDNN {major} from its archive", Risk.LOW, (ByHand(archive), sources))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        lib, include = (f"/usr/local/cuda-12.2/targets/x86_64-linux/{name}" for name in ("lib", "include"))

        metadata = "/home/alice/venv/lib/python3.11/site-packages/torch-2.4.0.dist-info/METADATA"

        def cuda() -> Machine:
            return Machine.ubuntu2404_gpu().cuda_toolkit("12.2")

        yield Scenario(
            "the file behind a link was deleted",
            cuda().cudnn("7.6.5").remove(f"{lib}/libcudnn.so.7.6.5"),
            finds=f"file:{lib}/libcudnn.so.7",
            ladder=(
                (
                    "low",
                    "by-hand lib/libcudnn* 7 /usr/local/cuda-12.2/targets/x86_64-linux/lib -P",
                    "by-hand NVIDIA's repository cuda-keyring Debian also nvidia-cudnn",
                ),
            ),
        )
        yield Scenario(
            "a package without its files",
            cuda().cudnn_packages().remove("/usr/lib/x86_64-linux-gnu/libcudnn_ops_infer.so.8.9.7"),
            finds="package:libcudnn8",
            steps=("apt-install",),
            ladder=(("low network", "apt-install libcudnn8 reinstall"),),
        )
        yield Scenario(
            "only the headers were copied",
            cuda().file(
                f"{include}/cudnn.h", "#define CUDNN_MAJOR 7\n#define CUDNN_MINOR 6\n#define CUDNN_PATCHLEVEL 5\n"
            ),
            finds=f"file:{include}/cudnn.h",
            ladder=(
                (
                    "low",
                    "by-hand lib/libcudnn* 7 lib64 -P",
                    "by-hand NVIDIA's repository cuda-keyring Debian also nvidia-cudnn",
                ),
            ),
        )
        yield Scenario(
            "a part that another part needs",
            cuda().library(
                f"{lib}/libcudnn_cnn_infer.so.8.9.7", "libcudnn_cnn_infer.so.8", ["libcudnn_ops_infer.so.8"]
            ),
            finds=f"file:{lib}/libcudnn_ops_infer.so.8",
            steps=("apt-install", "refresh-loader-cache"),
            ladder=(
                ("low network", "apt-install libcudnn8=8.9.7.29-1+cuda12.2", "refresh-loader-cache"),
                (
                    "low",
                    "by-hand lib/libcudnn* 8 /usr/local/cuda-12.2/targets/x86_64-linux/lib -P",
                    "by-hand NVIDIA's repository cuda-keyring Debian also nvidia-cudnn",
                ),
            ),
        )
        yield Scenario(
            "OpenCV was built with cuDNN 7, which is not installed",
            cuda()
            .cudnn("9.1.0")
            .library("/usr/local/lib/libopencv_dnn.so.4.1.0", "libopencv_dnn.so.4.1", ["libcudnn.so.7"]),
            finds="file:/usr/local/lib/libopencv_dnn.so.4.1.0",
        )
        yield Scenario(
            "a link with a wrong name, and its target is missing too",
            cuda().link("/usr/lib/x86_64-linux-gnu/libcudnn.so.8", "libcuda.so.515.43.04"),
            finds="file:/usr/lib/x86_64-linux-gnu/libcudnn.so.8",
            causes=("cudnn-fake-symlink-wrong-library",),
            ladder=(
                ("low network", "apt-install libcudnn8=8.9.7.29-1+cuda12.2", "refresh-loader-cache"),
                (
                    "low",
                    "by-hand lib/libcudnn* 8 /usr/lib/x86_64-linux-gnu -P",
                    "by-hand NVIDIA's repository cuda-keyring Debian also nvidia-cudnn",
                ),
            ),
        )
        yield Scenario(
            "PyTorch without the package that it requires",
            Machine.ubuntu2404_gpu()
            .python_environment(torch="2.4.0", cuda="12.1")
            .file(metadata, "Requires-Dist: nvidia-cudnn-cu12==9.1.0.70; platform_system == 'Linux'\n", uid=1000),
            finds="python:/home/alice/venv",
            ladder=(("low network", "pip-install /home/alice/venv/bin/python nvidia-cudnn-cu12==9.1.0.70"),),
        )
        yield Scenario(
            "an archive was unpacked in a home directory and never copied",
            cuda()
            .library("/home/alice/Downloads/cudnn-9.1.0-archive/lib/libcudnn.so.9.1.0", "libcudnn.so.9")
            .python_environment(torch="2.4.0", cuda="12.1")
            .file(metadata, "Requires-Dist: nvidia-cudnn-cu12==9.1.0.70\n", uid=1000),
            finds="python:/home/alice/venv",
        )
        yield Scenario("a complete cuDNN", cuda().cudnn("8.9.7"))
        yield Scenario("NVIDIA's packages", cuda().cudnn_packages())
        yield Scenario("nothing needs cuDNN", cuda())
        yield Scenario(
            "PyTorch brings its own cuDNN",
            Machine.ubuntu2404_gpu().python_environment(torch="2.3.0+cu121", cuda="12.1"),
        )
        yield Scenario(
            "PyTorch uses the system's cuDNN",
            cuda()
            .cudnn("9.1.0")
            .python_environment(torch="2.4.0", cuda="12.1")
            .file(metadata, "Requires-Dist: nvidia-cudnn-cu12==9.1.0.70\n", uid=1000),
        )
        yield Scenario("a library is not readable", cuda().cudnn().fifo(f"{lib}/libcudnn.so.8.9.7"), unknown=True)


def _relinked(folder: CudnnFolder) -> tuple[MakeLink, ...]:
    """Links to the newest file of the same library and major version; empty unless every broken link can be repaired."""
    links = []
    for broken in (x for x in folder.libraries if not x.real):
        files = [x for x in folder.libraries if _is_file_of(x, broken)]
        if not files or any(x.special for x in files):
            return ()
        newest = max(files, key=lambda x: [int(n) for n in x.suffix.split(".")])
        links.append(MakeLink(broken.path, newest.name))
    return tuple(links)


def _is_file_of(file: CudnnLibrary, link: CudnnLibrary) -> bool:
    major = link.suffix.partition(".")[0]
    same = not major or file.suffix.partition(".")[0] == major
    return file.target is None and file.stem == link.stem and bool(file.suffix) and same
