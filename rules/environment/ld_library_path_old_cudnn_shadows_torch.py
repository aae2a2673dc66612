"""LD_LIBRARY_PATH makes PyTorch, JAX or TensorFlow load a cuDNN that is too old.

What you see
    "cuDNN version incompatibility: PyTorch was compiled against (8, 3, 2) but found runtime version (8, 0, 3)", or
    "Looks like your LD_LIBRARY_PATH contains incompatible version of cudnn".

    JAX warns that the loaded runtime CuDNN library is older than the one it was compiled with.
Why
    Python packages find their own libraries with a RUNPATH, but the loader searches LD_LIBRARY_PATH first. A
    libcudnn of the same major version in one of its directories wins. An older cuDNN lacks functions that the
    framework needs; a newer one works.
Repair
    Remove that directory from LD_LIBRARY_PATH: Python packages do not need it. Other programs find the system's
    cuDNN with /etc/ld.so.conf. Or upgrade the cuDNN in that directory to the version of the package or newer.
What the repair risks
    Your own programs that were linked to the cuDNN in that directory need it in ld.so.conf, or the variable on
    their own command line.
By hand
    p='import torch; print(torch.backends.cudnn.version())'
    env -u LD_LIBRARY_PATH python -c "$p"
    cd; grep -n LD_LIBRARY_PATH .bashrc .profile /etc/environment
    # edit that line and remove the directory
"""

from collections.abc import Iterator

from dlhealth.api import (
    Cudnn,
    Environments,
    Evidence,
    Finding,
    Machine,
    Plan,
    PythonEnvironment,
    PythonEnvironments,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UserDirectory,
    UserPaths,
    out_of_variable,
    version_key,
)
from dlhealth.records import NamedTuple


class LdLibraryPathOldCudnnShadowsTorch(Rule):
    id = "ld-library-path-old-cudnn-shadows-torch"
    title = "LD_LIBRARY_PATH makes PyTorch, JAX or TensorFlow load a cuDNN that is too old"
    stage = Stage.ENVIRONMENT
    severity = Severity.ERROR
    explains = ("tf-cannot-dlopen-gpu-libraries",)

    def detect(
        self, pythons: PythonEnvironments, environments: Environments, paths: UserPaths, cudnn: Cudnn | None
    ) -> Iterator[Finding | Unknown]:
        seen: set[tuple[str, str]] = set()
        bundles = [b for python in pythons.environments for b in _bundles(python)]
        for bundle in bundles:
            users = [bundle.python.account.name] if bundle.python.account else list(paths.users)
            for user in users:
                if (user, "LD_LIBRARY_PATH") in paths.unclear:
                    reason = f"{user}'s LD_LIBRARY_PATH is set by a program that dlhealth does not run"
                    yield Unknown(reason, f"user:{user}")
                folder = next((d for d in paths.of(user, "LD_LIBRARY_PATH") if bundle.soname in d.names), None)
                if folder is None or folder.real == bundle.folder or (folder.source, bundle.python.path) in seen:
                    continue
                found = _version(folder, bundle, cudnn)
                if not found:
                    yield Unknown(f"cannot find out the version of {folder.path}/{bundle.soname}", f"user:{user}")
                elif version_key(found)[:3] < version_key(bundle.version)[:3]:
                    seen.add((folder.source, bundle.python.path))
                    yield self._shadowed(folder, bundle, found, environments)

    def _shadowed(self, folder: UserDirectory, bundle: "_Bundle", found: str, environments: Environments) -> Finding:
        subject, about = environments.subject(folder.source)
        python = bundle.python
        return self.finding(
            subject,
            f"{folder.source} makes {python.path} load cuDNN {found} from {folder.path}; needed: {bundle.version} or newer",
            Evidence(folder.source, f"{folder.path} in LD_LIBRARY_PATH"),
            Evidence(f"{folder.path}/{bundle.soname}", f"cuDNN {found}"),
            Evidence(bundle.source, f"cuDNN {bundle.version}"),
            about=(*about, python.subject, *([] if subject.startswith("user:") else python.about)),
            source=folder.source,
            folder=folder.path,
        )

    def remedies(self, finding: Finding, paths: UserPaths) -> Iterator[Plan]:
        yield out_of_variable(finding.detail["folder"], finding.detail["source"], paths)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def machine(bundled: str, system: str, line: str = "") -> Machine:
            site = "/home/alice/venv/lib/python3.11/site-packages"
            major = bundled.split(".")[0]
            lib = f"{site}/nvidia/cudnn/lib"
            other = system.split(".")[0]
            folder = "/opt/cudnn/lib"
            text = line or f"export LD_LIBRARY_PATH={folder}:/opt/other/lib\n"
            return (
                Machine.ubuntu2404_gpu()
                .append("/home/alice/.bashrc", text)
                .folder("/home/alice/venv", uid=1000)
                .file("/home/alice/venv/pyvenv.cfg", "home = /usr/bin\nversion = 3.11.2\n", uid=1000)
                .link("/home/alice/venv/bin/python", "/usr/bin/python3")
                .file(f"{site}/nvidia_cudnn_cu12-{bundled}.dist-info/METADATA", f"Name: nvidia-cudnn-cu12\nVersion: {bundled}\n")
                .library(f"{lib}/libcudnn.so.{major}", f"libcudnn.so.{major}")
                .library(f"{folder}/libcudnn.so.{system}", f"libcudnn.so.{other}")
                .link(f"{folder}/libcudnn.so.{other}", f"libcudnn.so.{system}")
                .folder("/opt/other/lib")
            )  # fmt: skip

        yield Scenario(
            "8.0 before 8.9",
            machine("8.9.2.26", "8.0.3"),
            finds="user:alice",
            steps=("edit-file",),
            alone=False,
            ladder=(("low", "edit-file /home/alice/.bashrc 15: export LD_LIBRARY_PATH=/opt/other/lib"),),
        )
        yield Scenario(
            "set for everybody",
            machine("9.1.0.70", "9.0.0", "\n").file(
                "/etc/profile.d/cudnn.sh", "export LD_LIBRARY_PATH=/opt/cudnn/lib\n"
            ),
            finds="file:/etc/profile.d/cudnn.sh",
            alone=False,
            ladder=(("low", "edit-file /etc/profile.d/cudnn.sh 1: -"),),
        )
        yield Scenario("a newer version works", machine("8.9.2.26", "8.9.7"))
        yield Scenario("the same version", machine("8.9.2.26", "8.9.2"))
        yield Scenario("another major version has other file names", machine("9.1.0.70", "8.0.3"))
        yield Scenario("not in LD_LIBRARY_PATH", machine("8.9.2.26", "8.0.3", "\n"))
        yield Scenario(
            "unset again", machine("8.9.2.26", "8.0.3").append("/home/alice/.bashrc", "unset LD_LIBRARY_PATH\n")
        )
        yield Scenario(
            "~/.bashrc is not readable", machine("8.9.2.26", "8.0.3").fifo("/home/alice/.bashrc"), unknown=True
        )


class _Bundle(NamedTuple):
    """The cuDNN of one Python environment."""

    python: PythonEnvironment
    version: str
    soname: str
    folder: str
    source: str


def _bundles(python: PythonEnvironment) -> Iterator[_Bundle]:
    # A conda package of cuDNN is found by RPATH, which comes before LD_LIBRARY_PATH.
    for name, version in python.packages.items():
        if name.startswith("nvidia-cudnn-cu") and version_key(version):
            soname = f"libcudnn.so.{version_key(version)[0]}"
            folder = python.libraries.get(soname, "").rpartition("/")[0]
            yield _Bundle(python, version, soname, folder, f"{name} in {python.site}")


def _version(folder: UserDirectory, bundle: _Bundle, cudnn: Cudnn | None) -> str:
    """The version, from the name of a file beside the link or from the facts about the directory."""
    prefix = f"{bundle.soname}."
    named = [n.removeprefix("libcudnn.so.") for n in folder.names if n.startswith(prefix)]
    full = [n for n in named if len(version_key(n)) >= 3]
    if len(full) == 1:
        return full[0]
    known = next((f for f in cudnn.folders if f.path == folder.real), None) if cudnn else None
    return known.version(version_key(bundle.version)[0]) if known else ""
