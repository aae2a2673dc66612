"""Posted outputs about CUDA's compiler and about Docker."""

import re

from dlhealth.host.posted.known import Output, Pieces
from dlhealth.lazy import regex

_NVCC = regex(r"^Cuda compilation tools, release \d+\.\d+, V[\d.]+", re.MULTILINE)
_DOCKER_KINDS = (
    ("Docker Desktop on Windows", regex(r"^ *OS/Arch: +windows/|^(?:PS )?[A-Z]:\\[^\n>]*> ?docker |//\./pipe/docker", re.MULTILINE)),
    ("Docker Desktop", regex(r"^ *Operating System: Docker Desktop|^ *Context: +desktop-linux|^desktop-linux \*", re.MULTILINE)),
    (
        "a snap",
        regex(r"^ *Docker Root Dir: /var/snap/docker/|^docker +\S+ +\d+ +latest/\S+ +canonical|^/snap/bin/docker$", re.MULTILINE),
    ),
)  # fmt: skip
_DOCKER = regex(r"^ *(?:Storage Driver|Runtimes|Default Runtime|Docker Root Dir): \S", re.MULTILINE)


def compiler(output: Output, pieces: Pieces) -> bool:
    """`nvcc --version`, which does not show where the toolkit is."""
    return _NVCC.search(output.text) is not None


def docker(output: Output, pieces: Pieces) -> bool:
    """`docker info`, `docker version`, `docker context ls`, `snap list`: whether Docker is one that does not use the host's toolkit."""
    kind = next((kind for kind, mark in _DOCKER_KINDS if mark.search(output.text)), "")
    if kind:
        pieces.outputs.setdefault("docker info", kind)
    return bool(kind or _DOCKER.search(output.text))
