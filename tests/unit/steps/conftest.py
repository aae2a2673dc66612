"""The machine of the tests of steps."""

from pathlib import Path

import pytest

from dlhealth.steps.packages import POOL
from tests.stand_in_root import DRIVER, StandInRoot


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInRoot:
    made = StandInRoot(tmp_path, monkeypatch)
    made.packages(DRIVER)
    for folder in (POOL, "/boot", "/usr", "/lib/modules", "/var/lib/dkms", "/var/cache/apt/archives"):
        (made.folder / folder.strip("/")).mkdir(parents=True, exist_ok=True)
    for name in DRIVER:
        made.file(f"{POOL}/{name}_535.1-1_amd64.deb")
    return made
