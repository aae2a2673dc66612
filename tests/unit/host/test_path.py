"""No path leads out of a root."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dlhealth.host.path import Root


@pytest.fixture(params=["openat2", "walk"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Root:
    """A root with a secret beside it, opened by the kernel's own resolution and by ours."""
    (tmp_path / "secret").write_text("outside")
    inside = tmp_path / "root"
    (inside / "etc").mkdir(parents=True)
    (inside / "etc/file").write_text("inside")
    (inside / "secret").write_text("the root's own")
    for name, target in {
        "absolute": "/etc/file",
        "relative": "etc/file",
        "climb": "../../../../secret",
        "climb-absolute": "/../secret",
        "loop": "loop",
        "dangling": "/nowhere",
        "folder": "/etc",
        "top": "/",
    }.items():
        (inside / name).symlink_to(target)
    result = Root(str(inside))
    result._has_openat2 = request.param == "openat2"
    return result


def content(root: Root, path: str) -> str:
    fd = root.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "path", ["/etc/file", "etc/file", "/absolute", "/relative", "/folder/file", "/top/top/etc/./file"]
)
def test_finds_what_is_inside(root: Root, path: str) -> None:
    assert content(root, path) == "inside"


@pytest.mark.parametrize("path", ["/climb", "/climb-absolute", "/../secret", "/etc/../../secret", "/top/../secret"])
def test_never_leaves(root: Root, path: str) -> None:
    assert content(root, path) == "the root's own"


def test_renames_elsewhere_keep_nobody_from_following_a_path(root: Root, tmp_path: Path) -> None:
    """openat2(2): EAGAIN, where the kernel could not be sure of a `..` meanwhile."""
    (tmp_path / "a").mkdir()
    code = "import os, sys; os.chdir(sys.argv[1])\nwhile True: os.rename('a', 'b'); os.rename('b', 'a')"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path]) as busy:
        try:
            for _ in range(20_000):
                assert content(root, "/climb") == "the root's own"
        finally:
            busy.kill()


@pytest.mark.parametrize(
    ("path", "error"),
    [("/loop", errno.ELOOP), ("/dangling", errno.ENOENT), ("/etc/file/more", errno.ENOTDIR), ("/none", errno.ENOENT)],
)
def test_says_what_open_would_say(root: Root, path: str, error: int) -> None:
    with pytest.raises(OSError) as caught:
        root.open(path, os.O_RDONLY)
    assert caught.value.errno == error


def test_a_link_itself_can_be_looked_at(root: Root) -> None:
    fd = root.open("/absolute", os.O_PATH | os.O_NOFOLLOW)
    assert os.readlink("", dir_fd=fd) == "/etc/file"
    os.close(fd)


@pytest.mark.parametrize("path", ["/", "", "/top", "/etc/.."])
def test_the_top(root: Root, path: str) -> None:
    fd = root.open(path, os.O_RDONLY | os.O_DIRECTORY)
    assert "secret" in os.listdir(fd)
    os.close(fd)


def test_leaves_no_descriptor_open(root: Root) -> None:
    before = psutil.Process().num_fds()
    for path in ("/etc/file", "/climb", "/folder/file", "/top"):
        os.close(root.open(path, os.O_RDONLY))
    for path in ("/loop", "/dangling"):
        with pytest.raises(OSError, match=r"."):
            root.open(path, os.O_RDONLY)
    assert psutil.Process().num_fds() == before
