"""GPUs that no installed CUDA toolkit compiles for."""

from dlhealth.data import load
from dlhealth.data.compat import version_key
from dlhealth.model import Unknown
from dlhealth.probes.cuda.toolkits import CudaToolkits, Toolkit
from dlhealth.probes.driver.gpu import Gpu, Gpus
from dlhealth.records import NamedTuple


class UncompiledGpu(NamedTuple):
    """`first` is the first CUDA that compiles for the GPU, `without` the first that no longer does ("" for none);
    `toolkit` is the nearest installed one."""

    gpu: Gpu
    toolkit: Toolkit
    first: str
    without: str

    @property
    def too_old(self) -> bool:
        """Whether the toolkit is older than the GPU."""
        return version_key(self.toolkit.version) < version_key(self.first)


class UncompiledGpus(NamedTuple):
    """One entry for each such GPU. `doubts` are unknowns, each with its subject."""

    found: tuple[UncompiledGpu, ...]
    doubts: tuple[Unknown, ...]

    @classmethod
    def probe(cls, toolkits: CudaToolkits, gpus: Gpus) -> "UncompiledGpus":
        compilers = [t for t in toolkits.toolkits if t.nvcc]
        if not compilers:
            return cls((), ())
        found, doubts = [], [Unknown(problem) for problem in toolkits.problems]
        known = load("toolkit_gpus")["gpus"]
        for gpu in gpus.gpus:
            row = known.get(gpu.capability)
            if gpu.driver == "vfio-pci" or row is None:
                continue
            if not all(t.version for t in compilers):
                doubts.append(Unknown("the version of an installed CUDA toolkit is not known", f"gpu:{gpu.address}"))
                continue
            first, without = row["first"], row.get("without", "")
            newest = compilers[0]
            if not any(_compiles(t.version, first, without) for t in compilers):
                found.append(UncompiledGpu(gpu, newest, first, without))
        return cls(tuple(found), tuple(doubts))


def _compiles(version: str, first: str, without: str) -> bool:
    have = version_key(version)[:2]
    return have >= version_key(first) and (not without or have < version_key(without))
