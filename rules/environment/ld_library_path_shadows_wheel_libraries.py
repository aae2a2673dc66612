"""LD_LIBRARY_PATH makes a Python package load a CUDA library that is too old.

What you see
    When PyTorch is imported, although it was installed correctly: "undefined symbol: __nvJitLinkComplete_12_4,
    version libnvJitLink.so.12", "undefined symbol: ncclCommRegister", or "undefined symbol:
    cublasLtGetStatusString".
Why
    PyPI packages bring their own CUDA libraries and find them with a RUNPATH, but the loader searches
    LD_LIBRARY_PATH first. If that names a toolkit older than the package's libraries, it lacks functions that the
    package needs. A newer one works.

    PyTorch 2.6 and newer loads its own libnvJitLink and libnvrtc first.
Repair
    Remove the directory from LD_LIBRARY_PATH. Python packages do not need it, and programs that were built with the
    toolkit find it with /etc/ld.so.conf.
What the repair risks
    Your own programs that find their libraries only with LD_LIBRARY_PATH need the variable on their own command
    line.
By hand
    env -u LD_LIBRARY_PATH python -c 'import torch'
    cd; grep -n LD_LIBRARY_PATH .bashrc .profile /etc/environment
    # edit that line and remove the directory
"""

from collections.abc import Iterator

from dlhealth.api import (
    CudaToolkits,
    Environments,
    Evidence,
    Finding,
    Machine,
    Plan,
    Programs,
    PythonEnvironment,
    PythonEnvironments,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UserDirectory,
    UserPaths,
    count,
    out_of_variable,
    version_key,
    wheel_name,
)
from dlhealth.records import NamedTuple

_PRELOADED = ("libnvJitLink", "libnvrtc")


class Shadowed(NamedTuple):
    """A library of an environment, and the older one from LD_LIBRARY_PATH that is loaded instead."""

    soname: str
    path: str
    version: str
    folder: UserDirectory
    found: str


class LdLibraryPathShadowsWheelLibraries(Rule):
    id = "ld-library-path-shadows-wheel-libraries"
    title = "LD_LIBRARY_PATH makes a Python package load a CUDA library that is too old"
    stage = Stage.ENVIRONMENT
    severity = Severity.ERROR
    explains = ("ld-library-path-malformed",)

    def detect(
        self,
        pythons: PythonEnvironments,
        programs: Programs,
        environments: Environments,
        paths: UserPaths,
        toolkits: CudaToolkits | None,
    ) -> Iterator[Finding | Unknown]:
        for python in pythons.environments:
            owned = _owned(python, programs)
            users = [python.account.name] if python.account else list(paths.users)
            for user in users if owned else ():
                if (user, "LD_LIBRARY_PATH") in paths.unclear:
                    reason = f"{user}'s LD_LIBRARY_PATH is set by a program that dlhealth does not run"
                    yield Unknown(reason, f"user:{user}")
                found: dict[str, list[Shadowed]] = {}
                for soname, (path, version) in owned.items():
                    if shadowed := _shadowed(soname, path, version, paths.of(user, "LD_LIBRARY_PATH"), toolkits):
                        found.setdefault(shadowed.folder.source, []).append(shadowed)
                yield from (self._finding(python, several, environments) for several in found.values())

    def _finding(self, python: PythonEnvironment, several: list[Shadowed], environments: Environments) -> Finding:
        # The names of nvJitLink's functions contain its version, so an older one never works.
        several.sort(key=lambda s: not s.soname.startswith("libnvJitLink"))
        first, folder = several[0], several[0].folder
        subject, about = environments.subject(folder.source)
        more = f" and {count(len(several) - 1, 'more library', 'more libraries')}" if len(several) > 1 else ""
        return self.finding(
            subject,
            f"{folder.source} makes {python.path} load {first.soname} {first.found}{more} from {folder.path}; needed: "
            f"{first.version} or newer",
            Evidence(folder.source, f"{folder.path} in LD_LIBRARY_PATH"),
            *(
                evidence
                for s in several
                for evidence in (
                    Evidence(f"{s.folder.path}/{s.soname}", f"version {s.found}"),
                    Evidence(s.path, f"version {s.version}"),
                )
            ),
            about=(
                *about,
                f"line:{folder.source}",
                python.subject,
                *([] if subject.startswith("user:") else python.about),
            ),
            source=folder.source,
            folder=folder.path,
        )

    def remedies(self, finding: Finding, paths: UserPaths) -> Iterator[Plan]:
        yield out_of_variable(finding.detail["folder"], finding.detail["source"], paths)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        site = "/home/alice/venv/lib/python3.11/site-packages"
        lib = "/usr/local/cuda-12.1/targets/x86_64-linux/lib"
        line = "export LD_LIBRARY_PATH=/usr/local/cuda-12.1/lib64\n"

        def machine(
            name: str, wheel: str, system: str, *, torch: str = "2.5.1+cu124", rpath: str = "", text: str = line
        ) -> Machine:
            soname = f"{name}.so.12"
            package = {"libnvJitLink": "nvjitlink", "libcublas": "cublas"}[name]
            return (
                Machine.ubuntu2404_gpu()
                .cuda_toolkit("12.1")
                .library(f"{lib}/{soname}.{system}", soname)
                .link(f"{lib}/{soname}", f"{soname}.{system}")
                .python_environment(packages=[f"nvidia_{package}_cu12-{wheel}"], torch=torch, cuda="12.4")
                .library(f"{site}/nvidia/{package}/lib/{soname}", soname)
                .library(
                    f"{site}/nvidia/cusparse/lib/libcusparse.so.12",
                    "libcusparse.so.12",
                    [soname],
                    "" if rpath else "$ORIGIN/../../nvjitlink/lib",
                    rpath=rpath,
                )
                .append("/home/alice/.bashrc", text)
            )

        yield Scenario(
            "nvJitLink 12.1 before 12.4",
            machine("libnvJitLink", "12.4.127", "1.105"),
            finds="user:alice",
            steps=("edit-file",),
            ladder=(("low", "edit-file /home/alice/.bashrc 15: -"),),
        )
        yield Scenario("cuBLAS 12.1 before 12.4", machine("libcublas", "12.4.5.8", "1.3.1"), finds="user:alice")
        yield Scenario(
            "set for everybody, in a line with an empty element",
            machine("libnvJitLink", "12.4.127", "1.105", text="").file(
                "/etc/profile.d/cuda-lib.sh", "export LD_LIBRARY_PATH=/usr/local/cuda-12.1/lib64:$LD_LIBRARY_PATH\n"
            ),
            finds="file:/etc/profile.d/cuda-lib.sh",
            ladder=(("low", "edit-file /etc/profile.d/cuda-lib.sh 1: -"),),
        )
        yield Scenario("only the patch differs", machine("libnvJitLink", "12.4.127", "4.99"))
        yield Scenario("a newer version", machine("libnvJitLink", "12.4.127", "8.93"))
        yield Scenario(
            "an RPATH comes first", machine("libcublas", "12.4.5.8", "1.3.1", rpath="$ORIGIN/../../cublas/lib")
        )
        yield Scenario(
            "PyTorch 2.6 loads its own library first", machine("libnvJitLink", "12.4.127", "1.105", torch="2.6.0+cu124")
        )
        yield Scenario("not in LD_LIBRARY_PATH", machine("libnvJitLink", "12.4.127", "1.105", text=""))
        yield Scenario(
            "a program sets LD_LIBRARY_PATH",
            machine("libnvJitLink", "12.4.127", "1.105", text='export LD_LIBRARY_PATH="$(find-my-cuda)"\n'),
            unknown=True,
        )


def _owned(python: PythonEnvironment, programs: Programs) -> dict[str, tuple[str, str]]:
    """The libraries of NVIDIA's packages that LD_LIBRARY_PATH can hide, by SONAME, with path and version. cuDNN has its
    own rule; libraries from conda are found by RPATH, which comes first."""
    owned = {}
    consumers = programs.consumers.get(python.site, ())
    torch = version_key(python.torch.version) if python.torch else ()
    for soname, path in python.libraries.items():
        stem = soname.partition(".so")[0]
        package = wheel_name(soname)
        named = (
            v
            for n, v in python.packages.items()
            if package and n.removesuffix("-cu11").removesuffix("-cu12") == package
        )
        version = next(named, "")
        needing = [c for c in consumers if soname in c.needed]
        fixed = bool(needing) and all(c.fixed for c in needing)
        preloaded = stem in _PRELOADED and torch >= (2, 6)
        if version and ".so." in soname and not (stem.startswith("libcudnn") or fixed or preloaded):
            owned[soname] = (path, version)
    return owned


def _shadowed(
    soname: str, path: str, version: str, folders: tuple[UserDirectory, ...], toolkits: CudaToolkits | None
) -> Shadowed | None:
    folder = next((d for d in folders if soname in d.names), None)
    if folder is None or folder.real == path.rpartition("/")[0]:
        return None
    stem = soname.partition(".so.")[0]
    named = {n.removeprefix(f"{stem}.so.") for n in folder.names if n.startswith(f"{soname}.")}
    full = [n for n in named if len(version_key(n)) >= 3]
    toolkit = toolkits.holding(folder.real) if toolkits else None
    follows = stem in ("libcudart", "libnvJitLink", "libnvrtc")  # they have the toolkit's version
    found = full[0] if len(full) == 1 else toolkit.release if toolkit and follows else ""
    if not found or version_key(found)[:2] >= version_key(version)[:2]:
        return None
    return Shadowed(soname, path, version, folder, found)
