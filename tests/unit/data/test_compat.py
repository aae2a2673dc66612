"""Version comparison, and which driver runs which CUDA, against values that were measured or read from NVIDIA."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.data import load
from dlhealth.data.compat import branch_of, lowest_driver, max_cuda, runs_cuda, version_key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("535.261.03", (535, 261, 3)),
        ("2:470.256.02-1~deb12u1", (470, 256, 2)),
        ("2.3.0+cu121", (2, 3, 0)),
        ("v12.4\n", (12, 4)),
        ("580", (580,)),
        ("", ()),
        ("unknown", ()),
        (".5", ()),
    ],
)
def test_version_key(text: str, key: tuple[int, ...]) -> None:
    assert version_key(text) == key


@given(st.text())
def test_version_key_of_anything(text: str) -> None:
    assert all(part >= 0 for part in version_key(text))


def test_version_key_is_bounded() -> None:
    assert len(version_key(".".join(["9" * 5000] * 1000))) <= 8


def test_branch() -> None:
    assert branch_of("535.261.03") == 535
    assert branch_of("") is None


@pytest.mark.parametrize(  # what cuDriverGetVersion() of these libraries answered
    ("driver", "cuda"),
    [
        ("340.108", (6, 5)),
        ("390.157", (9, 1)),
        ("418.226.00", (10, 1)),
        ("450.248.02", (11, 0)),
        ("460.106.00", (11, 2)),
        ("470.256.02", (11, 4)),
        ("525.147.05", (12, 0)),
        ("535.261.03", (12, 2)),
        ("535.274.02", (12, 2)),
        ("550.163.01", (12, 4)),
        ("555.58.02", (12, 5)),
    ],
)
def test_max_cuda_as_measured(driver: str, cuda: tuple[int, int]) -> None:
    assert max_cuda(driver) == cuda
    assert runs_cuda(driver, ".".join(map(str, cuda))) is True


@pytest.mark.parametrize("driver", ["", "537.13", "361.45", "999.1", "x"])
def test_max_cuda_of_an_unknown_branch(driver: str) -> None:
    assert max_cuda(driver) is None


@pytest.mark.parametrize(
    ("driver", "cuda", "runs"),
    [
        ("535.261.03", "11.8", True),  # a newer driver runs everything older
        ("535.261.03", "7.5", True),
        ("535.261.03", "6.5", True),
        ("535.261.03", "12.8", True),  # minor version compatibility
        ("535.261.03", "12.8.93", True),
        ("535.261.03", "13.0", False),
        ("525.60.13", "12.9", True),
        ("525.53", "12.0", False),
        ("470.256.02", "11.8", True),
        ("470.256.02", "12.1", False),
        ("450.80.02", "11.8", True),
        ("450.51.06", "11.8", False),
        ("450.51.06", "11.0", True),  # the toolkit's own driver is older than the minor minimum
        ("450.36.06", "11.0", True),
        ("418.226.00", "11.0", False),
        ("418.226.00", "10.2", False),  # no minor compatibility before 11
        ("390.157", "9.1", True),
        ("387.26", "9.1", True),  # the run file of 9.1 carries this, the release notes say 390.46
        ("390.157", "9.2", False),
        ("340.108", "7.0", False),
        ("580.65.06", "13.2", True),
        ("580.95.05", "13.5", True),
        ("575.57.08", "13.0", False),
        ("575.57.08", "12.7", True),  # a minor that was never released
        ("575.57.08", "14.0", False),  # needs at least what 13 needs
        ("615.71.09", "14.0", None),
        ("999.1", "14.0", None),
        ("", "12.1", None),
        ("535.261.03", "", None),
        ("999.1", "5.0", None),
    ],
)
def test_runs_cuda(driver: str, cuda: str, runs: bool | None) -> None:
    assert runs_cuda(driver, cuda) is runs


def test_lowest_driver() -> None:
    assert lowest_driver("12.4") == "525.60.13"
    assert lowest_driver("9.2") == "396.26"
    assert lowest_driver("13.0") == "580"
    assert lowest_driver("14.0") is None


def test_the_newest_that_a_driver_supports_it_runs() -> None:
    for branch, row in load("cuda_driver")["branches"].items():
        driver = next((t["driver"] for t in load("cuda_driver")["toolkits"] if t["cuda"] == row["max_cuda"]), "")
        if driver and branch_of(driver) == int(branch):
            assert runs_cuda(driver, row["max_cuda"]) is True


def test_every_row_has_its_source() -> None:
    table = load("cuda_driver")
    assert all(row["source"] for row in [*table["toolkits"], *table["majors"], *table["branches"].values()])


@given(st.text(), st.text())
def test_hostile_versions(driver: str, cuda: str) -> None:
    assert runs_cuda(driver, cuda) in (True, False, None)
