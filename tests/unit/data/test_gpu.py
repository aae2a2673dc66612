"""The tables of GPUs and driver branches agree with themselves and with NVIDIA's published limits."""

import re
from pathlib import Path

import pytest

import dlhealth.data
from dlhealth.data import load, lookup_gpu
from dlhealth.probes.driver.gpu import make_gpu

PATH = Path(dlhealth.data.__file__).with_name("gpus.tsv")
LINES = PATH.read_text().splitlines()
ROWS = {line.split("\t")[0]: line.split("\t")[1:] for line in LINES if not line.startswith("#")}
LAST = {"Tesla": {304, 340}, "Fermi": {390}, "Kepler": {367, 470}, "Maxwell": {580}, "Pascal": {580}, "Volta": {580}}
"""The last branches of each architecture: 304 and 367 for a few GPUs that went earlier than their architecture."""
CAPABILITIES = {
    "Fermi": "2", "Kepler": "3", "Maxwell": "5", "Pascal": "6", "Volta": "7.0", "Turing": "7.5", "Ampere": "8", "Ada": "8.9",
    "Hopper": "9.0", "Blackwell": "1",
}  # fmt: skip


def test_rows_are_sorted_ids_with_all_columns() -> None:
    assert len(ROWS) == 1479
    assert list(ROWS) == sorted(ROWS)
    assert all(re.fullmatch(r"[0-9a-f]{4}", i) for i in ROWS)
    assert {len(row) for row in ROWS.values()} == {7}
    assert all(row[-1] for row in ROWS.values()), "every GPU has a name"


def test_source_is_named() -> None:
    assert LINES[1].startswith("# Sources: ")
    assert load("driver_branches")["source"]


@pytest.mark.parametrize("architecture", LAST)
def test_old_architectures_end_and_take_the_closed_module_only(architecture: str) -> None:
    gpus = [make_gpu("", i) for i, row in ROWS.items() if row[0] == architecture]
    assert gpus
    assert {g.last_branch for g in gpus} == LAST[architecture]
    assert {g.supports_open for g in gpus} == {False}


def test_turing_and_newer_are_supported_by_every_branch_since() -> None:
    gpus = [make_gpu("", i) for i, row in ROWS.items() if row[0] in ("Turing", "Ampere", "Ada", "Hopper", "Blackwell")]
    assert len(gpus) > 400
    assert {g.last_branch for g in gpus} == {None}
    assert {g.supports_open for g in gpus} == {True}
    assert {g.architecture for g in gpus if g.needs_open} == {"Blackwell"}
    assert all(g.needs_open for g in gpus if g.architecture == "Blackwell")


def test_capabilities_are_those_of_the_architecture() -> None:
    for device, row in ROWS.items():
        if row[1]:
            assert row[1].startswith(CAPABILITIES[row[0]]), device
    for architecture in ("Pascal", "Volta", "Turing", "Ampere", "Ada"):
        assert all(row[1] for row in ROWS.values() if row[0] == architecture)


def test_bounds_are_in_order() -> None:
    for device in ROWS:
        gpu = make_gpu("", device)
        bounds = [b for b in (gpu.first_branch, gpu.listed, gpu.last_branch) if b is not None]
        assert bounds == sorted(bounds), device


@pytest.mark.parametrize(
    ("device", "architecture", "capability", "first", "last"),
    [
        ("1eb8", "Turing", "7.5", 391, None),  # Tesla T4: missing from NVIDIA's own lists since 525
        ("1b06", "Pascal", "6.1", 341, 580),
        ("1db6", "Volta", "7.0", 341, 580),
        ("1286", "Kepler", "3.5", None, 470),
        ("0fc1", "Kepler", "3.0", None, 470),  # not named as a legacy GPU in any list
        ("0de1", "Fermi", "2.1", None, 390),
        ("2204", "Ampere", "8.6", 451, None),
        ("2684", "Ada", "8.9", 471, None),
        ("2b85", "Blackwell", "12.0", 570, None),
    ],
)
def test_well_known_gpus(device: str, architecture: str, capability: str, first: int | None, last: int | None) -> None:
    gpu = make_gpu("0000:01:00.0", device)
    assert (gpu.architecture, gpu.capability, gpu.first_branch, gpu.last_branch) == (
        architecture, capability, first, last,
    )  # fmt: skip


def test_unknown_ids() -> None:
    assert lookup_gpu("fffe") is None
    assert lookup_gpu("") is None
    gpu = make_gpu("0000:01:00.0", "fffe")
    assert not gpu.known
    assert gpu.supports_open is None


def test_table_is_small() -> None:
    assert PATH.stat().st_size < 100_000


def test_branches_ascend_and_name_their_last_architectures() -> None:
    rows = load("driver_branches")["branches"]
    branches = [row["branch"] for row in rows]
    assert branches == sorted(set(branches))
    last = {a: row["branch"] for row in rows for a in row.get("last_for", ())}
    assert last == {
        "Curie": 304,
        "Tesla": 340,
        "Fermi": 390,
        "Kepler": 470,
        "Maxwell": 580,
        "Pascal": 580,
        "Volta": 580,
    }
    assert all(row["latest"].startswith(f"{row['branch']}.") for row in rows if "latest" in row)


def test_packages_install_the_branch_that_they_promise() -> None:
    table = load("driver_branches")
    systems = set(table["codenames"].values())
    known = {row["branch"] for row in table["branches"]}
    for row in table["packages"]:
        assert row["system"] in systems
        assert row["branch"] in known
        number = re.search(r"\d{3}", row["closed"])
        assert number is None or int(number[0]) == row["branch"]
        assert row["open"] is None or "open" in row["open"]


def test_no_package_that_only_leads_to_another_branch() -> None:
    names = {(row["system"], row["closed"]) for row in load("driver_branches")["packages"]}
    # An empty package that depends on nvidia-driver-535, which has no Kepler any more.
    assert ("ubuntu 24.04", "nvidia-driver-470") not in names
    assert ("ubuntu 24.04", "nvidia-driver-470-server") in names
    assert ("ubuntu 24.04", "nvidia-driver-590") not in names
