"""What DKMS keeps of its builds, and the remains of builds that were interrupted."""

from collections.abc import Iterator

from dlhealth.steps.base import Target

FOLDER = "/var/lib/dkms"
_STATUS_SECONDS = 900.0


def is_built(target: Target, name: str, kernel: str) -> bool:
    """Whether dkms lists a module ("name/version") as built for a kernel. It does not list the remains of an interrupted
    build."""
    if not target.names(f"{FOLDER}/{name}/{kernel}"):
        return False
    said = target.command("dkms", "status", name, "-k", kernel, timeout=_STATUS_SECONDS, check=False).stdout
    return any(state in said for state in (": built", ": installed"))


def clear_interrupted(target: Target) -> None:
    """Remove what interrupted builds left of their modules, so that a package's script can build them: dkms refuses to
    build beside such remains, and has no command to remove them."""
    for name, kernel in _begun(target):
        if not is_built(target, name, kernel):
            target.remove_tree(f"{FOLDER}/{name}/{kernel}")


def _begun(target: Target) -> Iterator[tuple[str, str]]:
    """Each module and kernel for which dkms began to keep built modules."""
    for module in target.names(FOLDER):
        for version in target.names(f"{FOLDER}/{module}"):
            name = f"{module}/{version}"
            for kernel in target.names(f"{FOLDER}/{name}"):
                places = target.names(f"{FOLDER}/{name}/{kernel}") if kernel not in ("build", "source") else []
                if any("module" in target.names(f"{FOLDER}/{name}/{kernel}/{place}") for place in places):
                    yield name, kernel
