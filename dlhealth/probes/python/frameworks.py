"""Which libraries a TensorFlow opens, and which of them are missing."""

from dlhealth.data import load
from dlhealth.data.compat import version_key
from dlhealth.probes.machine.loader import LoaderConfig, UserPaths
from dlhealth.probes.python.pythonenv import PythonEnvironment, PythonEnvironments
from dlhealth.records import NamedTuple


class TensorFlowNeeds(NamedTuple):
    """What a TensorFlow build opens when it looks for GPUs. `finds_wheels` says whether it looks into the nvidia-*
    packages of its environment by itself: there is no tensorflow[and-cuda] for one that does not."""

    cuda: str
    cudnn: str
    sonames: tuple[str, ...]
    finds_wheels: bool


def tensorflow_needs(version: str, cuda: str = "", cudnn: str = "") -> TensorFlowNeeds | None:
    """The libraries that TensorFlow `version` needs; `cuda` and `cudnn` are what the build says of itself, if it does.
    None for a version or a CUDA that is not in the table."""
    tables = load("frameworks")
    minor = version_key(version)[:2]
    row = next((r for r in tables["tensorflow"] if version_key(r["version"]) == minor), None)
    cuda, cudnn = cuda or (row or {}).get("cuda", ""), cudnn or (row or {}).get("cudnn", "")
    key = version_key(cuda)[:2]
    matching = [r for r in tables["libraries"] if key and key[: len(version_key(r["cuda"]))] == version_key(r["cuda"])]
    if not matching or not version_key(cudnn):
        return None
    best = max(matching, key=lambda r: len(version_key(r["cuda"])))
    wheels = tables["tensorflow_finds_wheels"]
    finds = version_key(version) >= version_key(wheels["from"]) and version not in wheels["not"]
    return TensorFlowNeeds(cuda, cudnn, (*best["sonames"], f"libcudnn.so.{version_key(cudnn)[0]}"), finds)


class OpenedLibraries(NamedTuple):
    """The libraries that a TensorFlow with CUDA opens. `needs` is None if unknown; `missing` are the libraries that it
    does not find; `doubt` is a line that sets LD_LIBRARY_PATH in a way that is unknown without running it, "" if there
    is none."""

    environment: PythonEnvironment
    needs: TensorFlowNeeds | None
    missing: tuple[str, ...]
    doubt: str

    @property
    def lacks_only_cudnn(self) -> bool:
        """Whether it uses the CUDA of the system, finds all of that, and no cuDNN."""
        return bool(self.missing) and not self.environment.libraries and all("libcudnn." in x for x in self.missing)


class TensorFlowLibraries(NamedTuple):
    """One entry for each environment with a TensorFlow that is built with CUDA."""

    opened: tuple[OpenedLibraries, ...]

    @classmethod
    def probe(
        cls, environments: PythonEnvironments, loader: LoaderConfig, paths: UserPaths | None
    ) -> "TensorFlowLibraries":
        return cls(
            tuple(
                _opened(environment, loader, paths)
                for environment in environments.environments
                if environment.tensorflow and environment.tensorflow.gpu
            )
        )


def _opened(environment: PythonEnvironment, loader: LoaderConfig, paths: UserPaths | None) -> OpenedLibraries:
    tensorflow = environment.tensorflow
    needs = tensorflow_needs(tensorflow.version, tensorflow.cuda, tensorflow.cudnn) if tensorflow else None
    if needs is None:
        return OpenedLibraries(environment, None, (), "")
    user = environment.account.name if environment.account else None
    folders = {d.path: d.names for d in paths.libraries() if user in (None, d.user)} if paths else {}
    # What a conda environment holds in its lib, its Python finds by its own run path.
    own = environment.libraries if needs.finds_wheels or environment.kind == "conda" else {}
    missing = tuple(soname for soname in needs.sonames if soname not in own and not loader.find(soname, folders))
    doubt = environment.activation[0] if environment.activation else ""
    if paths is None or any(v == "LD_LIBRARY_PATH" and user in (None, u) for u, v in paths.unclear):
        doubt = doubt or "the login environment"
    return OpenedLibraries(environment, needs, missing, doubt)
