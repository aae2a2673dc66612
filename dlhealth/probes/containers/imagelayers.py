"""Layers of Docker's images that contain libraries of NVIDIA's driver."""

from dlhealth.host import Host, Unreadable
from dlhealth.probes import Unavailable
from dlhealth.probes.containers.docker import Docker
from dlhealth.records import NamedTuple

_LAYERS = "/var/lib/docker/overlay2"
_LIMIT = 400
_OF_A_CONTAINER = "-init"
"""The end of the name of a layer that Docker makes for each container, beside the container's own."""
_LIBRARIES = tuple(
    f"{folder}/{name}"
    for folder in ("usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib/aarch64-linux-gnu")
    for name in ("libnvidia-ml.so.1", "libcuda.so.1")
)


class ImageLayers(NamedTuple):
    """The libraries of the driver in layers of images, as paths on this machine."""

    libraries: tuple[str, ...]

    @classmethod
    def probe(cls, host: Host, docker: Docker) -> "ImageLayers":
        if not docker.engine:
            return cls(())
        try:
            names = host.listdir(_LAYERS)
            own = {name.removesuffix(_OF_A_CONTAINER) for name in names if name.endswith(_OF_A_CONTAINER)}
            layers = [n for n in names if n not in own and not n.endswith(_OF_A_CONTAINER)][:_LIMIT]
            paths = (f"{_LAYERS}/{layer}/diff/{library}" for layer in layers for library in _LIBRARIES)
            return cls(tuple(path for path in paths if host.lstat(path)))
        except Unreadable as problem:
            raise Unavailable(f"cannot tell what Docker's images contain: {problem}") from problem
