"""A place is a text that knows its parts."""

import pickle

import pytest

from dlhealth.host.place import Place
from dlhealth.host.root import RootHost
from dlhealth.probes.driver.gpuswitch import GpuSwitch
from dlhealth.probes.driver.modules import ModprobeConfig
from dlhealth.testing.machine import Machine


@pytest.mark.parametrize(
    ("place", "text", "path", "line"),
    [
        (Place("/etc/profile", 3), "/etc/profile:3", "/etc/profile", 3),
        (Place("/etc/profile"), "/etc/profile", "/etc/profile", None),
        (Place("/home/a:b/.profile"), "/home/a:b/.profile", "/home/a:b/.profile", None),
        (Place("/home/a:1", 2), "/home/a:1:2", "/home/a:1", 2),
    ],
)
def test_a_place_is_its_text_and_keeps_its_parts(place, text, path, line):
    assert (place, f"{place}", place.path, place.line) == (text, text, path, line)
    again = pickle.loads(pickle.dumps(place))
    assert (again, again.path, again.line) == (text, path, line)


def test_a_colon_in_a_file_name_is_no_line(tmp_path):
    path = "/etc/modprobe.d/nvidia:off.conf"
    Machine.debian12_gpu().file(path, "# made by prime-select\nblacklist nvidia\n").build(tmp_path)
    host = RootHost(str(tmp_path))
    blockers = GpuSwitch.probe(host, ModprobeConfig.probe(host), None, None).blockers
    assert [(b.source.path, b.source.line, b.tool and b.tool.name) for b in blockers] == [(path, 2, "prime-select")]
