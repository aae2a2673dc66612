"""Plans that take a directory out of the dynamic loader's search."""

import posixpath

from dlhealth.actions import ByHand, EditFile, RefreshLoaderCache
from dlhealth.host.place import Place
from dlhealth.model import Plan, Risk
from dlhealth.probes.machine.loader import LoaderConfig, UserPaths, without_element


def out_of_variable(folder: str, source: Place, paths: UserPaths | None, instead: str = "") -> Plan:
    """Remove a directory from the LD_LIBRARY_PATH that a line of a start-up file sets. It is done by hand unless the line
    does nothing else; `instead` is better advice for a person."""
    summary = f"Remove {folder} from LD_LIBRARY_PATH in {source}"
    found = (d.line for d in paths.libraries() if d.source == source and d.path == folder) if paths else iter(())
    line = next(found, "")
    changed = without_element(line, folder)
    if source.line is None or changed == line:
        return Plan(summary, Risk.LOW, (ByHand(instead or f"{summary}, then log in again"),))
    return Plan(summary, Risk.LOW, (EditFile(source.path, ((source.line, line, changed),)),))


def out_of_configuration(folder: str, loader: LoaderConfig) -> Plan:
    """Remove a directory from ld.so.conf or ld.so.conf.d. Where no line has it, only the loader's cache is old."""
    line = next((d for d in loader.directories if d.path == folder and d.source.line), None)
    if line is None or line.source.line is None:
        return Plan("Update the loader's cache (ldconfig)", Risk.LOW, (RefreshLoaderCache(),))
    edit = EditFile(line.source.path, ((line.source.line, line.line, None),))
    return Plan(f"Remove {folder} from {line.source.path}", Risk.LOW, (edit, RefreshLoaderCache()))


def link_and_file(path: str, real_path: str) -> tuple[str, ...]:
    """What to move so that the loader no longer finds a library: also the file in the same directory that a link points
    to, because ldconfig would make the link again from it."""
    beside = posixpath.dirname(path) == posixpath.dirname(real_path)
    return tuple(dict.fromkeys((path, real_path))) if beside else (path,)
