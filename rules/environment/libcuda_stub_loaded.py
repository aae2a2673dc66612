"""Programs load the toolkit's stub of libcuda instead of the driver's library.

What you see
    "CUDA driver is a stub library" (CUDA_ERROR_STUB_LIBRARY, 34), numba's CudaAPIError [34], or CUPTI does not
    start, although nvidia-smi works.
Why
    The toolkit's directory stubs/ contains an empty libcuda.so, used to link programs on machines without a driver.
    Somebody added that directory to LD_LIBRARY_PATH or /etc/ld.so.conf.d, or created a libcuda.so.1 that points to
    it.
Repair
    Remove the directory from the loader's path, or move the link out of the way; then run ldconfig. The directory
    may stay in LIBRARY_PATH and in a linker's -L option.
What the repair risks
    A build that relied on this must use -L/usr/local/cuda/lib64/stubs instead.
By hand
    ldconfig -p | grep libcuda
    cd; grep -rn stubs /etc/ld.so.conf.d .bashrc .profile
    # edit that file and remove the directory
    ldconfig
"""

import posixpath
from collections.abc import Iterator

from dlhealth.api import (
    CudaDriver,
    DriverLibraries,
    Evidence,
    Finding,
    Gpus,
    Libcuda,
    LibcudaChoice,
    LoaderConfig,
    Machine,
    MakeLink,
    MoveAside,
    Plan,
    RefreshLoaderCache,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UsableGpu,
    UserPaths,
    link_and_file,
    out_of_configuration,
    out_of_variable,
)


class LibcudaStubLoaded(Rule):
    id = "libcuda-stub-loaded"
    title = "Programs load the toolkit's stub of libcuda instead of the driver's library"
    stage = Stage.LOADER
    severity = Severity.ERROR
    explains = ("libcuda-missing-from-loader",)

    def detect(
        self, libcuda: LibcudaChoice, driver: CudaDriver | None, gpus: Gpus | None, usable: UsableGpu | None
    ) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in libcuda.problems)
        if not (driver and driver.versions) and not (gpus and gpus.gpus) and not (usable and usable.source):
            if gpus is None and usable is None:
                yield Unknown("cannot find out whether the machine has a GPU")
            return  # a machine that only builds programs has nothing but the stub
        groups: dict[str, list[Libcuda]] = {}
        for x in (*libcuda.common, *libcuda.personal):
            if x.kind == "stub":
                # A link in another directory is the problem itself, however many paths lead to that directory.
                key = x.place if not _in_stubs(x) else x.source if x.user else x.path
                groups.setdefault(key, []).append(x)
        for group in groups.values():
            stub, users = group[0], [x.user for x in group if x.user]
            listed = users if _in_stubs(stub) else []
            before = () if users else libcuda.common[: libcuda.common.index(stub)]
            better = next((x for x in before if x.kind == "driver" and x.runtime), None)
            yield self.finding(
                f"file:{stub.source.rpartition(':')[0] or stub.path}" if listed else f"file:{stub.path}",
                f"{stub.path} is the toolkit's stub, and "
                + (f"LD_LIBRARY_PATH of {', '.join(users)} names its directory" if users else "the loader searches it"),
                Evidence(stub.source, stub.path),
                Evidence(
                    stub.path, f"link to {stub.real}" if stub.real != stub.path else "the stub itself, or a copy of it"
                ),
                *([Evidence(better.path, f"library of driver {better.version}, found first")] if better else []),
                # After the driver's library it does nothing until the order changes.
                severity=Severity.WARNING if better else Severity.ERROR,
                about=[f"user:{user}" for user in users],
                path=stub.path,
                place=stub.place,
                real=stub.real,
                source=stub.source,
                personal=bool(listed),
            )

    def remedies(
        self, finding: Finding, loader: LoaderConfig, paths: UserPaths | None, libraries: DriverLibraries | None
    ) -> Iterator[Plan]:
        path, source = finding.detail["path"], finding.detail["source"]
        folder = path.rpartition("/")[0]
        if finding.detail["personal"]:
            yield out_of_variable(folder, source, paths)
        elif folder.endswith("/stubs"):
            yield out_of_configuration(folder, loader)
        elif own := _drivers_own(folder, libraries):
            yield Plan(f"Point {path} to {own}", Risk.LOW, (MakeLink(path, own), RefreshLoaderCache()))
        else:
            aside = link_and_file(finding.detail["place"], finding.detail["real"])
            yield Plan(
                f"Move {' and '.join(aside)} out of the way", Risk.LOW, (*map(MoveAside, aside), RefreshLoaderCache())
            )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def cuda() -> Machine:
            return Machine.ubuntu2404_gpu().cuda_toolkit("12.2")

        stubs, lib = "/usr/local/cuda/lib64/stubs", "/usr/lib/x86_64-linux-gnu"
        yield Scenario(
            "stubs in LD_LIBRARY_PATH",
            cuda().append("/home/alice/.bashrc", f"export LD_LIBRARY_PATH={stubs}:$LD_LIBRARY_PATH\n"),
            finds="file:/home/alice/.bashrc",
            steps=("edit-file",),
            ladder=(("low", "edit-file /home/alice/.bashrc 15: -"),),
        )
        yield Scenario(
            "stubs in ld.so.conf.d, before the driver's directory",
            cuda().append("/etc/ld.so.conf.d/000_cuda.conf", f"{stubs}\n"),
            finds=f"file:{stubs}/libcuda.so",
            steps=("edit-file", "refresh-loader-cache"),
            ladder=(("low", "edit-file /etc/ld.so.conf.d/000_cuda.conf 2: -", "refresh-loader-cache"),),
        )
        yield Scenario(
            "stubs in ld.so.conf.d, after the driver's directory",
            cuda().file("/etc/ld.so.conf.d/zz-stubs.conf", f"{stubs}\n"),
            finds=f"file:{stubs}/libcuda.so",
            ladder=(("low", "edit-file /etc/ld.so.conf.d/zz-stubs.conf 1: -", "refresh-loader-cache"),),
        )
        yield Scenario(
            "libcuda.so.1 made by hand",
            cuda().link("/usr/local/cuda-12.2/lib64/libcuda.so.1", "stubs/libcuda.so"),
            finds="file:/usr/local/cuda/targets/x86_64-linux/lib/libcuda.so.1",
            steps=("move-aside", "refresh-loader-cache"),
            ladder=(
                (
                    "low",
                    "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcuda.so.1",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario(
            "libcuda.so.1 made by hand, in a directory that LD_LIBRARY_PATH needs",
            cuda()
            .link("/usr/local/cuda-12.2/lib64/libcuda.so.1", "stubs/libcuda.so")
            .append("/home/alice/.bashrc", "export LD_LIBRARY_PATH=/usr/local/cuda/lib64\n"),
            finds="file:/usr/local/cuda/targets/x86_64-linux/lib/libcuda.so.1",
        )
        copy = "/usr/local/lib/x86_64-linux-gnu"
        yield Scenario(
            "a copy of the stub, to which ldconfig made the link",
            cuda().library(f"{copy}/libcuda.so", "libcuda.so.1").link(f"{copy}/libcuda.so.1", "libcuda.so"),
            finds=f"file:{copy}/libcuda.so.1",
            steps=("move-aside", "refresh-loader-cache"),
            ladder=(
                ("low", f"move-aside {copy}/libcuda.so.1", f"move-aside {copy}/libcuda.so", "refresh-loader-cache"),
            ),
        )
        yield Scenario(
            "the link replaces the driver's",
            cuda().link(f"{lib}/libcuda.so.1", f"{stubs}/libcuda.so"),
            finds=f"file:{lib}/libcuda.so.1",
            alone=False,
            ladder=(
                ("low", "make-link /usr/lib/x86_64-linux-gnu/libcuda.so.1 libcuda.so.550.120", "refresh-loader-cache"),
            ),  # the driver's own link is gone as well
        )
        yield Scenario("stubs in LIBRARY_PATH", cuda().append("/home/alice/.bashrc", f"export LIBRARY_PATH={stubs}\n"))
        yield Scenario("the toolkit as installed", cuda())
        yield Scenario(
            "a build container",
            Machine.debian12().cuda_toolkit("12.2").file("/etc/ld.so.conf.d/stubs.conf", f"{stubs}\n"),
        )
        yield Scenario("libcuda is not a file", cuda().fifo(f"{lib}/libcuda.so.1"), unknown=True)


def _in_stubs(libcuda: Libcuda) -> bool:
    return posixpath.dirname(libcuda.place).endswith("/stubs")


def _drivers_own(folder: str, libraries: DriverLibraries | None) -> str | None:
    """The name of the driver's libcuda in the same directory."""
    paths = [x.real_path for x in libraries.libraries if x.bits == 64 and x.version] if libraries else []
    here = (posixpath.basename(p) for p in paths if posixpath.dirname(p) == folder)
    return next((name for name in here if name.startswith("libcuda.so.")), None)
