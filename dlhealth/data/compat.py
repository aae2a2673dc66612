"""Which driver runs which CUDA. The facts are in data/cuda_driver.json."""

import re

from dlhealth.data import load

Version = tuple[int, ...]


def version_key(text: str) -> Version:
    """The leading dotted numbers of a version, for comparison: "535.261.03-1~deb12u1" is (535, 261, 3).

    An epoch before a colon is not part of it, nor is anything that is not a number. Without any number it is empty,
    which is lower than every version.
    """
    match = re.match(r"\s*(?:\d+:)?v?(\d+(?:\.\d+)*)", text, re.ASCII)
    if match is None:
        return ()
    return tuple(int(part[:18]) for part in match[1].split(".")[:8])


def branch_of(version: str) -> int | None:
    """The branch of a driver version: 535 of "535.261.03"; None if it has no number."""
    return next(iter(version_key(version)), None)


def max_cuda(driver: str) -> tuple[int, int] | None:
    """The newest CUDA that a driver supports completely, as nvidia-smi prints it; None for an unknown branch."""
    branch = branch_of(driver)
    known = load("cuda_driver")["branches"].get(str(branch))
    if known is None:
        return None
    major, minor = version_key(known["max_cuda"])
    return major, minor


def lowest_driver(cuda: str) -> str | None:
    """The lowest driver on which a program built with this CUDA ("12.1") starts; None if unknown.

    From CUDA 11 on, every driver of the same major version runs it, with limits ("minor version compatibility").
    Before, only a driver as new as the toolkit's own does.
    """
    table = load("cuda_driver")
    wanted = version_key(cuda)[:2]
    if not wanted:
        return None
    drivers = [row["driver"] for row in table["toolkits"] if version_key(row["cuda"]) == wanted]
    drivers += [row["driver"] for row in table["majors"] if (row["cuda"],) == wanted[:1]]
    return min(drivers, key=version_key) if drivers else None


def runs_cuda(driver: str, cuda: str) -> bool | None:
    """Whether a driver runs programs that were built with a CUDA version, completely or with the limits of minor
    version compatibility; None if unknown. A cuda-compat package is not considered."""
    have, wanted = version_key(driver), version_key(cuda)[:2]
    if not have or not wanted:
        return None
    lowest = lowest_driver(cuda)
    if lowest is not None:
        return have >= version_key(lowest)
    newest = max_cuda(driver)
    if newest is not None and wanted <= newest:
        return True  # a newer driver always runs older toolkits
    last = load("cuda_driver")["majors"][-1]
    if wanted > (last["cuda"],) and have < version_key(last["driver"]):
        return False  # a CUDA newer than the table needs at least the driver of the table's newest
    return None
