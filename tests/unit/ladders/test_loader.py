"""Plans that take a directory out of the loader's search."""

from pathlib import Path

import pytest

from dlhealth.actions import ByHand, EditFile, RefreshLoaderCache
from dlhealth.engine.facts import Facts
from dlhealth.host.place import Place
from dlhealth.host.root import RootHost
from dlhealth.ladders.loader import out_of_configuration, out_of_variable
from dlhealth.probes import Options
from dlhealth.probes.machine.loader import LoaderConfig, UserPaths
from dlhealth.testing import Machine

RC = "/home/alice/.bashrc"


def facts(tmp_path: Path, line: str) -> Facts:
    machine = (
        Machine.debian12_gpu()
        .user("alice")
        .file(RC, f"{line}\n")
        .file("/etc/ld.so.conf.d/own.conf", "# mine\n/opt/own\n")
    )
    return Facts(RootHost(str(machine.build(tmp_path / "root"))), Options())


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        (
            "export LD_LIBRARY_PATH=/opt/own:/opt/other:$LD_LIBRARY_PATH",
            "export LD_LIBRARY_PATH=/opt/other:$LD_LIBRARY_PATH",
        ),
        ("export LD_LIBRARY_PATH=/opt/own:$LD_LIBRARY_PATH", None),
    ],
)
def test_a_line_that_only_sets_the_variable_is_edited(line: str, changed: str | None, tmp_path: Path) -> None:
    plan = out_of_variable("/opt/own", Place(RC, 1), facts(tmp_path, line).get(UserPaths))
    assert plan.actions == (EditFile(RC, ((1, line, changed),)),)


@pytest.mark.parametrize(
    "line", ["export LD_LIBRARY_PATH=/opt/own; echo hello", "[ -d /opt/own ] && export LD_LIBRARY_PATH=/opt/own"]
)
def test_a_line_that_does_more_is_for_a_person(line: str, tmp_path: Path) -> None:
    paths = facts(tmp_path, line).get(UserPaths)
    (action,) = out_of_variable("/opt/own", Place(RC, 1), paths).actions
    assert isinstance(action, ByHand)
    assert out_of_variable("/opt/own", Place(RC, 1), paths, "do it so").actions == (ByHand("do it so"),)


def test_the_line_of_ld_so_conf_goes_or_the_cache_is_old(tmp_path: Path) -> None:
    loader = facts(tmp_path, "").get(LoaderConfig)
    edit = EditFile("/etc/ld.so.conf.d/own.conf", ((2, "/opt/own", None),))
    assert out_of_configuration("/opt/own", loader).actions == (edit, RefreshLoaderCache())
    assert out_of_configuration("/opt/gone", loader).actions == (RefreshLoaderCache(),)
