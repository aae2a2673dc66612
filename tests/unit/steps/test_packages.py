"""Changes of the package set: what apt is asked for, what its simulation makes an action refuse, and that an undo
brings back the packages, their versions, configuration and marks."""

import os
from pathlib import Path

import pytest

from dlhealth.actions import AptInstall, AptPurgeReinstall, AptRemove, AptUnhold, DpkgConfigure, PipInstall
from dlhealth.steps import step_of
from dlhealth.steps.base import CommandFailed
from dlhealth.steps.packages import POOL
from tests.stand_in_root import StandInRoot

pytestmark = pytest.mark.real_programs  # the stand-ins

OURS = [
    "-q", "-y", "-oAPT::Get::Purge=false", "-oAPT::Get::AutomaticRemove=false", "-oDpkg::Options::=--force-confold",
]  # fmt: skip
APT = ["apt-get", *OURS, "-o", "DPkg::Lock::Timeout=60"]
SIMULATED = ["apt-get", "-s", *OURS]
BACK = [word.replace("=60", "=600") for word in APT]
EXCHANGE = ("install", "--reinstall", "--allow-downgrades", "--no-install-recommends")
NVTOP = (
    "Package: nvtop\\nArchitecture: amd64\\nVersion: 9-1\\nInstalled-Size: 100\\nDescription: a\\n b: c\\nSize: 3\\n"
)
DRIVER = {"libc6": "2.36-9 ii ", "nvidia-driver": "535.1-1 ii ", "libcuda1": "535.1-1 ii "}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInRoot:
    made = StandInRoot(tmp_path, monkeypatch)
    (made.folder / "var/lib/dlhealth").mkdir(parents=True)
    return made


def in_cache(root: StandInRoot, *names: str) -> None:
    for name in names:
        root.file(f"/var/cache/apt/archives/{name}")


class TestPrepare:
    """Before anything is changed: simulate, download, and have what goes."""

    def test_is_simulated_then_downloaded_then_what_goes_is_kept(self, root: StandInRoot) -> None:
        root.packages(DRIVER)
        in_cache(root, "nvidia-driver_535.1-1_amd64.deb")
        step_of(AptInstall(("nvidia-driver=550.2-1", "nvtop"), reinstall=True)).prepare(root.target)
        words = ["install", "--reinstall", "--allow-downgrades", "nvidia-driver=550.2-1", "nvtop"]
        assert root.runs == [
            [*SIMULATED, *words],
            [*APT, "--download-only", *words],
        ]
        assert root.target.names(POOL) == ["nvidia-driver_535.1-1_amd64.deb"]
        assert root.database["packages"] == DRIVER

    def test_a_removal_outside_the_repair_stops_it(self, root: StandInRoot) -> None:
        root.packages({**DRIVER, "gdm3": "43 ii "}, also_removes=["gdm3"])
        with pytest.raises(CommandFailed, match=r"^apt would also remove gdm3, which is not part of this repair$"):
            step_of(AptInstall(("nvidia-driver",))).prepare(root.target)
        assert len(root.runs) == 1  # nothing after the simulation

    def test_a_purge_outside_the_repair_stops_it(self, root: StandInRoot) -> None:
        root.packages({**DRIVER, "gdm3": "43 ii "}, also_removes=["gdm3"])
        with pytest.raises(CommandFailed, match=r"would also remove gdm3"):
            step_of(AptRemove(("libcuda1",), purge=True)).prepare(root.target)
        assert len(root.runs) == 1

    @pytest.mark.parametrize("fields", [{"may_remove": ("libcuda1",)}, {"remove": ("libcuda1",)}])
    def test_what_may_go_in_exchange_may_go(self, root: StandInRoot, fields: dict[str, tuple[str, ...]]) -> None:
        root.packages(DRIVER, also_removes=["libcuda1"])
        in_cache(root, "libcuda1_535.1-1_amd64.deb")
        step_of(AptInstall(("nvtop",), **fields)).prepare(root.target)
        assert root.target.names(POOL) == ["libcuda1_535.1-1_amd64.deb"]

    def test_a_package_that_is_not_in_the_cache_is_downloaded_as_it_was(self, root: StandInRoot) -> None:
        root.packages({"libcuda1": "2:535.1-1 ii "}, archive=["libcuda1"])
        step_of(AptRemove(("libcuda1",))).prepare(root.target)
        assert root.target.names(POOL) == ["libcuda1_2%3a535.1-1_amd64.deb"]
        assert ["apt-get", "-q", "download", "libcuda1=2:535.1-1"] in root.runs
        assert not [run for run in root.runs if "--download-only" in run]  # a removal has nothing to fetch

    @pytest.mark.parametrize("pool", [(), (f"{POOL}/libcuda1_535.1-1_amd64.deb",)], ids=["nothing kept", "amd64 kept"])
    def test_the_package_of_another_architecture_is_kept_as_itself(
        self, root: StandInRoot, pool: tuple[str, ...]
    ) -> None:
        root.packages({**DRIVER, "libcuda1:i386": "535.1-1 ii "})
        in_cache(root, "libcuda1_535.1-1_amd64.deb", "libcuda1_535.1-1_i386.deb")
        for path in pool:
            root.file(path)
        step_of(AptRemove(("libcuda1:i386",))).prepare(root.target)
        assert "libcuda1_535.1-1_i386.deb" in root.target.names(POOL)

    @pytest.mark.parametrize("folder", [POOL, "/var/cache/apt/archives"], ids=["i386 kept", "i386 in the cache"])
    def test_that_of_another_architecture_is_not_taken_for_the_machines_own(
        self, root: StandInRoot, folder: str
    ) -> None:
        root.packages(DRIVER, archive=["libcuda1"])
        root.file("/var/lib/dpkg/arch", "amd64\ni386\n")
        root.file(f"{folder}/libcuda1_535.1-1_i386.deb")
        step_of(AptRemove(("libcuda1",))).prepare(root.target)
        assert "libcuda1_535.1-1_amd64.deb" in root.target.names(POOL)

    def test_what_is_of_no_architecture_is_the_machines_own_too(self, root: StandInRoot) -> None:
        root.packages({"nvidia-common": "1 ii "})
        root.file("/var/lib/dpkg/arch", "amd64\ni386\n")
        in_cache(root, "nvidia-common_1_all.deb")
        step_of(AptRemove(("nvidia-common",))).prepare(root.target)
        assert root.target.names(POOL) == ["nvidia-common_1_all.deb"]

    def test_an_architecture_is_its_whole_name(self, root: StandInRoot) -> None:
        root.packages({"libcuda1:i386": "535.1-1 ii "})
        root.file(f"{POOL}/libcuda1_535.1-1_hurd-i386.deb")
        with pytest.raises(CommandFailed, match=r"is no longer available"):
            step_of(AptRemove(("libcuda1:i386",))).prepare(root.target)

    def test_what_can_not_be_had_any_more_is_not_given_away(self, root: StandInRoot) -> None:
        root.packages(DRIVER)
        with pytest.raises(CommandFailed, match=r"^libcuda1 535.1-1 is no longer available, .* nothing was changed$"):
            step_of(AptRemove(("libcuda1",))).prepare(root.target)
        assert root.database["packages"] == DRIVER

    def test_why_it_can_not_be_had_is_told(self, root: StandInRoot) -> None:
        root.packages(DRIVER, fails=["download"])
        with pytest.raises(CommandFailed, match=r"is no longer available \(E: told to fail\), so"):
            step_of(AptRemove(("libcuda1",))).prepare(root.target)

    def test_what_is_kept_outlives_the_cache_and_takes_no_room_of_its_own(self, root: StandInRoot) -> None:
        root.packages(DRIVER)
        cached = root.file("/var/cache/apt/archives/libcuda1_535.1-1_amd64.deb", "deb")
        step_of(AptRemove(("libcuda1",))).prepare(root.target)
        kept = root.folder / POOL.strip("/") / cached.name
        assert kept.samefile(cached)
        cached.unlink()
        assert kept.read_text() == "deb"

    @pytest.mark.parametrize(("bytes_here", "fetched"), [(3, False), (2, True), (None, True)])
    def test_archives_that_are_here_whole_are_not_asked_for_again(
        self, root: StandInRoot, bytes_here: int | None, fetched: bool
    ) -> None:
        root.packages({**DRIVER, "nvtop": "9-1 ii "})
        root.program("apt-cache", f"printf '{NVTOP}'")
        if bytes_here is not None:
            root.file("/var/cache/apt/archives/nvtop_9-1_amd64.deb", "d" * bytes_here)
        root.file(f"{POOL}/nvtop_9-1_amd64.deb", "deb")
        step_of(AptInstall(("nvtop",), reinstall=True)).prepare(root.target)
        assert ["apt-cache", "show", "nvtop=9-1"] in root.runs
        assert bool([run for run in root.runs if "--download-only" in run]) is fetched

    def test_nothing_that_was_cut_off_is_kept_for_an_undo(self, root: StandInRoot) -> None:
        """By a power cut, in the cache or in the pool."""
        root.packages({**DRIVER, "nvtop": "9-1 ii "})
        root.program("apt-cache", f"printf '{NVTOP}'")
        for folder in (POOL, "/var/cache/apt/archives"):
            root.file(f"{folder}/nvtop_9-1_amd64.deb", "de")
        with pytest.raises(CommandFailed, match=r"^nvtop 9-1 is no longer available, "):
            step_of(AptRemove(("nvtop",))).prepare(root.target)
        assert root.target.names(POOL) == []

    @pytest.mark.parametrize(
        ("status", "why"), [(0, r"received only a part of it: is the disk full\?"), (100, "E: no")]
    )
    def test_what_was_fetched_only_in_part_is_not_kept(self, root: StandInRoot, status: int, why: str) -> None:
        """apt says so or not: what it copies from a directory onto a full disk, it does not miss."""
        root.packages({**DRIVER, "nvtop": "9-1 ii "})
        root.program("apt-cache", f"printf '{NVTOP}'")
        real = (root.inside / "apt-get").rename(root.inside / "apt-get-real")
        root.program(
            "apt-get",
            f'case "$*" in *download*) printf d >nvtop_9-1_amd64.deb; echo E: no >&2; exit {status} ;; esac; exec {real} "$@"',
        )
        text = real.read_text().replace("os.path.basename(sys.argv[0])", "'apt-get'")
        real.write_text(text)
        with pytest.raises(CommandFailed, match=rf"^nvtop 9-1 is no longer available \(.*{why}\), so"):
            step_of(AptRemove(("nvtop",))).prepare(root.target)
        assert root.target.names(POOL) == []

    def test_packages_that_the_plan_takes_off_hold_may_change(self, root: StandInRoot) -> None:
        root.packages(DRIVER, held=["nvtop"])
        target = root.target
        step_of(AptUnhold(("nvtop",))).prepare(target)
        step_of(AptInstall(("nvtop",))).prepare(target)
        words = ["--allow-change-held-packages", "install", "--allow-downgrades", "nvtop"]
        assert root.runs == [[*SIMULATED, *words], [*APT, "--download-only", *words]]

    def test_what_lies_in_the_pool_is_not_fetched_again(self, root: StandInRoot) -> None:
        root.packages(DRIVER)
        root.file(f"{POOL}/libcuda1_535.1-1_amd64.deb")
        step_of(AptRemove(("libcuda1",))).prepare(root.target)
        assert [run[0] for run in root.runs] == ["apt-get"]

    def test_a_simulation_that_fails_stops_it(self, root: StandInRoot) -> None:
        root.packages(DRIVER, fails=["apt-get -s"])
        with pytest.raises(CommandFailed, match=r" install --allow-downgrades no-such: status 100: E: told to fail$"):
            step_of(AptInstall(("no-such",))).prepare(root.target)

    def test_a_download_that_fails_stops_it(self, root: StandInRoot) -> None:
        root.packages(DRIVER, fails=["--download-only"])
        with pytest.raises(CommandFailed, match=r"status 100"):
            step_of(AptInstall(("nvtop",))).prepare(root.target)
        assert root.target.names(POOL) == []


class TestApplyAndRevert:
    """What is done, and that its undo ends where it began."""

    def test_an_upgrade_is_taken_back_to_the_old_version_and_what_came_with_it_goes(self, root: StandInRoot) -> None:
        root.packages(DRIVER, auto=["libc6", "libcuda1"])
        in_cache(root, "libcuda1_535.1-1_amd64.deb")
        action = step_of(AptInstall(("libcuda1=550.2-1", "nvtop")))
        action.prepare(root.target)
        before = action.observe(root.target)
        assert before == {"packages": DRIVER, "auto": ["libc6", "libcuda1"]}
        root.forget()
        action.apply(root.target, before)
        assert [run for run in root.runs if run[0] == "apt-get"] == [
            [*APT, "install", "--allow-downgrades", "libcuda1=550.2-1", "nvtop"],
        ]
        assert action.observe(root.target)["packages"] == {**DRIVER, "libcuda1": "550.2-1 ii ", "nvtop": "9-1 ii "}
        root.change(auto=["libc6"])
        root.forget()
        action.revert(root.target, before)
        assert [*BACK, *EXCHANGE, f"{POOL}/libcuda1_535.1-1_amd64.deb", "nvtop-"] in root.runs
        assert ["dpkg", "--purge", "nvtop"] in root.runs
        assert action.observe(root.target) == before

    def test_a_second_revert_changes_nothing(self, root: StandInRoot) -> None:
        root.packages(DRIVER)
        action = step_of(AptInstall(("nvtop",)))
        before = action.observe(root.target)
        action.apply(root.target, before)
        action.revert(root.target, before)
        root.forget()
        action.revert(root.target, before)
        assert [run[0] for run in root.runs] == [
            *("dpkg-query", "apt-mark", "dpkg", "dpkg-query", "apt-mark", "dpkg-query", "apt-mark")
        ]
        assert action.observe(root.target) == before

    def test_what_is_installed_again_stays_automatic_and_on_hold(self, root: StandInRoot) -> None:
        """apt marks what it was named as wanted by a person, and dpkg takes the hold off."""
        root.packages({**DRIVER, "libcuda1": "535.1-1 hi "}, auto=["libcuda1"])
        action = step_of(AptInstall(("libcuda1=535.1-1",), reinstall=True))
        before = action.observe(root.target)
        action.apply(root.target, before)
        assert root.database["auto"] == ["libcuda1"]
        assert root.database["held"] == ["libcuda1"]
        assert root.runs[-2:] == [["apt-mark", "auto", "libcuda1"], ["apt-mark", "hold", "libcuda1"]]

    def test_a_hold_that_an_earlier_step_took_off_stays_off_and_comes_back_with_an_undo(
        self, root: StandInRoot
    ) -> None:
        root.packages({**DRIVER, "libcuda1": "535.1-1 hi "})
        root.file(f"{POOL}/libcuda1_535.1-1_amd64.deb")
        action = step_of(AptInstall(("libcuda1=550.2-1",)))
        before = action.observe(root.target)
        root.packages(DRIVER)
        action.apply(root.target, before)
        assert root.database["held"] == []
        action.revert(root.target, before)
        assert root.database["held"] == ["libcuda1"]

    @pytest.mark.parametrize("leaving", [[], ["nvtop"]])
    def test_where_apt_is_kept_from_it_dpkg_brings_the_driver_back(self, root: StandInRoot, leaving: list[str]) -> None:
        """By another apt that downloads, or by a program that it has to ask."""
        root.packages(DRIVER)
        root.file(f"{POOL}/libcuda1_535.1-1_amd64.deb")
        action = step_of(AptPurgeReinstall(("libcuda1",)))
        before = action.observe(root.target)
        root.change(fails=[" ".join([*BACK, "install"])], packages={**DRIVER, **dict.fromkeys(leaving, "1 ii ")})
        action.apply(root.target, before)
        assert root.database["packages"] == DRIVER

    @pytest.mark.parametrize("bash", ["5.2-2 ii ", None], ids=["another version", "none"])
    def test_what_others_did_meanwhile_keeps_no_driver_from_coming_back(
        self, root: StandInRoot, bash: str | None
    ) -> None:
        """As unattended upgrades, between a kill and the recovery."""
        root.packages({**DRIVER, "bash": "5.2-1 ii "})
        root.file(f"{POOL}/libcuda1_535.1-1_amd64.deb")
        action = step_of(AptRemove(("libcuda1",)))
        before = action.observe(root.target)
        left = {n: s for n, s in DRIVER.items() if n != "libcuda1"} | ({"bash": bash} if bash else {})
        root.change(packages=left)
        if bash:
            action.revert(root.target, before)
        else:
            with pytest.raises(CommandFailed, match=f"^the old package bash 5.2-1 is missing from {POOL}$"):
                action.revert(root.target, before)
        assert root.database["packages"] == {**left, "libcuda1": "535.1-1 ii "}

    def test_in_exchange_is_one_apt_transaction(self, root: StandInRoot) -> None:
        root.packages(DRIVER)
        action = step_of(AptInstall(("nvidia-open",), reinstall=True, remove=("nvidia-driver",)))
        assert action.summary() == "apt-get install --reinstall nvidia-open nvidia-driver-"
        action.apply(root.target, action.observe(root.target))
        (only,) = [run for run in root.runs if run[0] == "apt-get"]
        assert only[-5:] == ["install", "--reinstall", "--allow-downgrades", "nvidia-open", "nvidia-driver-"]
        assert root.database["packages"]["nvidia-driver"] == "535.1-1 rc "

    def test_a_removed_package_comes_back(self, root: StandInRoot) -> None:
        root.packages(DRIVER)
        in_cache(root, "libcuda1_535.1-1_amd64.deb")
        action = step_of(AptRemove(("libcuda1",)))
        assert action.summary() == "apt-get remove libcuda1"
        action.prepare(root.target)
        before = action.observe(root.target)
        action.apply(root.target, before)
        assert root.runs[-1] == [*APT, "remove", "libcuda1"]
        assert root.database["packages"]["libcuda1"] == "535.1-1 rc "
        action.revert(root.target, before)
        assert action.observe(root.target) == before

    def test_a_purged_package_comes_back_with_the_configuration_that_was_edited(self, root: StandInRoot) -> None:
        root.packages(DRIVER, conffiles={"libcuda1": ["/etc/cuda.conf"]})
        in_cache(root, "libcuda1_535.1-1_amd64.deb")
        conf = root.file("/etc/cuda.conf", "edited\n")
        conf.chmod(0o600)
        action = step_of(AptRemove(("libcuda1",), purge=True))
        assert action.summary() == "apt-get purge libcuda1"
        action.prepare(root.target)
        before = action.observe(root.target)
        action.apply(root.target, before)
        assert root.runs[-1] == [*APT, "purge", "libcuda1"]
        assert not conf.exists()
        action.revert(root.target, before)
        assert (conf.read_text(), conf.stat().st_mode & 0o777) == ("edited\n", 0o600)
        assert action.observe(root.target) == before

    def test_purge_and_reinstall_ends_whole_with_the_same_versions(self, root: StandInRoot) -> None:
        broken = {**DRIVER, "libcuda1": "535.1-1 iF "}
        root.packages(broken, conffiles={"libcuda1": ["/etc/cuda.conf"]}, auto=["libcuda1"])
        in_cache(root, "libcuda1_535.1-1_amd64.deb", "nvidia-driver_535.1-1_amd64.deb")
        root.file("/etc/cuda.conf", "broken")
        action = step_of(AptPurgeReinstall(("libcuda1", "nvidia-driver")))
        assert action.summary() == ("apt-get purge libcuda1 nvidia-driver && apt-get install libcuda1 nvidia-driver")
        action.prepare(root.target)
        before = action.observe(root.target)
        action.apply(root.target, before)
        assert root.database["packages"] == DRIVER
        assert root.database["auto"] == ["libcuda1"]
        assert not (root.folder / "etc/cuda.conf").exists()
        action.revert(root.target, before)
        assert (root.folder / "etc/cuda.conf").read_text() == "broken"

    def test_purge_and_reinstall_brings_back_what_goes_along_of_another_architecture(self, root: StandInRoot) -> None:
        """Steam's libraries need the driver of the machine's own."""
        packages = {**DRIVER, "libcuda1:i386": "535.1-1 ii "}
        root.packages(packages, also_removes=["libcuda1:i386"])
        root.file("/var/lib/dpkg/arch", "amd64\ni386\n")
        in_cache(root, "libcuda1_535.1-1_amd64.deb", "libcuda1_535.1-1_i386.deb")
        action = step_of(AptPurgeReinstall(("libcuda1",)))
        action.prepare(root.target)
        assert root.target.names(POOL) == ["libcuda1_535.1-1_amd64.deb", "libcuda1_535.1-1_i386.deb"]
        with pytest.raises(CommandFailed, match=r"^apt would also remove libcuda1:i386, which is not part"):
            step_of(AptRemove(("libcuda1",))).prepare(root.target)

    def test_purge_and_reinstall_leaves_the_configuration_of_other_packages_alone(self, root: StandInRoot) -> None:
        root.packages({**DRIVER, "old": "1 rc "}, conffiles={"old": ["/etc/old.conf"]})
        in_cache(root, "libcuda1_535.1-1_amd64.deb")
        root.file("/etc/old.conf", "an administrator's")
        action = step_of(AptPurgeReinstall(("libcuda1",)))
        action.prepare(root.target)
        action.apply(root.target, action.observe(root.target))
        assert (root.folder / "etc/old.conf").exists()
        assert root.database["packages"] == {**DRIVER, "old": "1 rc "}

    def test_where_apt_would_remove_more_dpkg_brings_the_old_set_back(self, root: StandInRoot) -> None:
        root.packages(DRIVER)
        in_cache(root, "libcuda1_535.1-1_amd64.deb")
        action = step_of(AptInstall(("libcuda1=550.2-1", "nvtop")))
        action.prepare(root.target)
        before = action.observe(root.target)
        action.apply(root.target, before)
        root.change(also_removes=["libc6"])
        root.forget()
        action.revert(root.target, before)
        assert ["dpkg", "--force-depends", "--remove", "nvtop"] in root.runs
        deb = f"{POOL}/libcuda1_535.1-1_amd64.deb"
        assert ["dpkg", "--force-depends", "--force-confold", "--install", deb] in root.runs
        assert action.observe(root.target) == before

    @pytest.mark.parametrize("came", [True, False])
    def test_dpkg_does_only_what_there_is_to_do(self, root: StandInRoot, came: bool) -> None:
        """Either something came or something went."""
        root.packages(DRIVER, fails=[" ".join([*SIMULATED[1:], "install"])])
        root.file(f"{POOL}/libcuda1_535.1-1_amd64.deb")
        action = step_of(AptRemove(("libcuda1",)))
        before = action.observe(root.target)
        packages = {**DRIVER, "nvtop": "1 ii "} if came else {n: s for n, s in DRIVER.items() if n != "libcuda1"}
        root.change(packages=packages)
        root.forget()
        action.revert(root.target, before)
        did = [run for run in root.runs if "--force-depends" in run]
        assert len(did) == 1
        assert ("--remove" if came else "--install") in did[0]
        assert action.observe(root.target) == before

    def test_the_machines_own_package_comes_back_and_not_a_foreign_one(self, root: StandInRoot) -> None:
        root.packages(DRIVER)
        root.file("/var/lib/dpkg/arch", "arm64\namd64\n")
        for architecture in ("amd64", "arm64"):
            root.file(f"{POOL}/libcuda1_535.1-1_{architecture}.deb")
        action = step_of(AptRemove(("libcuda1",)))
        before = action.observe(root.target)
        action.apply(root.target, before)
        root.forget()
        action.revert(root.target, before)
        assert [*BACK, *EXCHANGE, f"{POOL}/libcuda1_535.1-1_arm64.deb"] in root.runs
        assert action.observe(root.target) == before

    def test_an_old_package_that_is_nowhere_is_named(self, root: StandInRoot) -> None:
        root.packages(DRIVER)
        action = step_of(AptRemove(("libcuda1",)))
        before = action.observe(root.target)
        action.apply(root.target, before)
        with pytest.raises(CommandFailed, match=f"^the old package libcuda1 535.1-1 is missing from {POOL}$"):
            action.revert(root.target, before)

    def test_a_half_configured_package_is_brought_back_whole(self, root: StandInRoot) -> None:
        root.packages(DRIVER)
        root.file(f"{POOL}/libcuda1_535.1-1_amd64.deb")
        action = step_of(AptRemove(("libcuda1",)))
        before = action.observe(root.target)
        # Cut off: unpacked again in the old version, and what configures it fails.
        root.change(packages={**DRIVER, "libcuda1": "535.1-1 iF "}, fails=["--configure"])
        action.revert(root.target, before)
        assert action.observe(root.target)["packages"] == DRIVER

    @pytest.mark.parametrize("state", ["it ", "iU ", "iF ", "iHR", "iW "])
    def test_what_was_there_half_and_is_whole_now_does_not_go(self, root: StandInRoot, state: str) -> None:
        """A cut-off dpkg leaves triggers of libc-bin open, and that must not be removed by an undo."""
        root.packages({**DRIVER, "libc-bin": f"2.36-9 {state}"})
        action = step_of(AptInstall(("nvtop",)))
        before = action.observe(root.target)
        action.apply(root.target, before)
        root.change(packages={**root.database["packages"], "libc-bin": "2.36-9 ii "})
        root.forget()
        action.revert(root.target, before)
        assert root.database["packages"] == {**DRIVER, "libc-bin": "2.36-9 ii "}
        assert not [run for run in root.runs if "libc-bin-" in run]

    def test_a_package_that_was_not_whole_before_is_not_asked_back(self, root: StandInRoot) -> None:
        root.packages({**DRIVER, "left": "1 rc "})
        action = step_of(AptInstall(("nvtop",)))
        before = action.observe(root.target)
        root.forget()
        action.revert(root.target, before)
        assert not [run for run in root.runs if "left" in " ".join(run)]

    def test_the_mark_of_a_package_of_the_machines_own_architecture_is_put_back(self, root: StandInRoot) -> None:
        root.packages({"libcuda1:amd64": "535.1-1 ii "}, auto=["libcuda1", "gone"])
        action = step_of(AptInstall(("nvtop",)))
        before = action.observe(root.target)
        root.forget()
        action.revert(root.target, before)
        assert root.runs[-1] == ["apt-mark", "auto", "libcuda1"]

    def test_the_mark_is_put_back_on_another_architecture_too(self, root: StandInRoot) -> None:
        root.packages({"libcuda1:arm64": "535.1-1 ii "}, auto=["libcuda1"])
        action = step_of(AptInstall(("nvtop",)))
        before = action.observe(root.target)
        root.forget()
        action.revert(root.target, before)
        assert root.runs[-1] == ["apt-mark", "auto", "libcuda1"]

    def test_the_marks_are_read_where_apt_keeps_them(self, root: StandInRoot) -> None:
        root.packages(DRIVER, auto=["not asked"])
        root.file("/var/lib/dpkg/arch", "amd64\ni386\n")
        states = [("libc6", "amd64", 1), ("libc6", "i386", 1), ("libcuda1", "amd64", 0)]
        text = "\n".join(f"Package: {n}\nArchitecture: {a}\nAuto-Installed: {auto}\n" for n, a, auto in states)
        root.file("/var/lib/apt/extended_states", text)
        assert step_of(AptInstall(("nvtop",))).observe(root.target)["auto"] == ["libc6", "libc6:i386"]
        assert [run[0] for run in root.runs] == ["dpkg-query"]

    def test_what_fails_to_install_is_told(self, root: StandInRoot) -> None:
        root.packages(DRIVER, fails=[" ".join([*APT, "install"])])
        action = step_of(AptInstall(("nvtop",)))
        with pytest.raises(CommandFailed, match=r"status 100: E: told to fail$"):
            action.apply(root.target, action.observe(root.target))


class TestUnhold:
    """Holds are taken off and put back."""

    def test_only_what_was_held_is_held_again(self, root: StandInRoot) -> None:
        root.packages(DRIVER, held=["libcuda1", "other"])
        action = step_of(AptUnhold(("libcuda1", "nvidia-driver")))
        assert action.summary() == "apt-mark unhold libcuda1 nvidia-driver"
        assert action.prepare(root.target) is None
        before = action.observe(root.target)
        assert before == {"libcuda1": True, "nvidia-driver": False}
        action.apply(root.target, before)
        assert root.database["held"] == ["other"]
        assert action.observe(root.target) == {"libcuda1": False, "nvidia-driver": False}
        action.revert(root.target, before)
        assert root.database["held"] == ["libcuda1", "other"]

    def test_nothing_is_held_where_nothing_was(self, root: StandInRoot) -> None:
        root.packages(DRIVER)
        step_of(AptUnhold(("libcuda1",))).revert(root.target, {"libcuda1": False})
        assert root.runs == []


class TestConfigure:
    """An interrupted dpkg."""

    def test_is_finished_and_that_stays(self, root: StandInRoot) -> None:
        root.packages({**DRIVER, "libcuda1": "535.1-1 iF "})
        action = step_of(DpkgConfigure())
        assert action.summary() == "dpkg --configure -a && apt-get -f install"
        assert action.prepare(root.target) is None
        before = action.observe(root.target)
        root.forget()
        action.apply(root.target, before)
        simulated = [*SIMULATED, "-f", "install"]
        assert root.runs[2:] == [["dpkg", "--force-confold", "--configure", "-a"], simulated, [*APT, "-f", "install"]]
        # Nothing of it goes back, and that is said.
        assert (before, action.observe(root.target)) == ({"libcuda1": "F"}, {})
        assert action.left(root.target, before) == ["libcuda1 stays configured"]
        action.revert(root.target, before)
        assert root.database["packages"] == DRIVER

    def test_what_must_be_reinstalled_is_left_to_the_step_that_does_it(self, root: StandInRoot) -> None:
        """dpkg takes in its journal and fails; apt would fail too."""
        root.packages({**DRIVER, "libcuda1": "535.1-1 iUR"}, fails=["--configure", "-f install"])
        step_of(DpkgConfigure()).apply(root.target, {})
        assert root.runs[2:] == [["dpkg", "--force-confold", "--configure", "-a"]]

    def test_nothing_is_removed_for_it(self, root: StandInRoot) -> None:
        """As a program that somebody installed by hand, and that lacks a library: it would be gone for good."""
        root.packages({**DRIVER, "libcuda1": "535.1-1 iF ", "somebodys": "1 ii "}, also_removes=["somebodys"])
        step_of(DpkgConfigure()).apply(root.target, {})
        assert root.database["packages"] == {**DRIVER, "somebodys": "1 ii "}

    def test_remains_of_an_interrupted_build_go_first(self, root: StandInRoot) -> None:
        """As a power cut during apt leaves them: the package's script would fail beside them, at every try."""
        root.packages({**DRIVER, "nvidia-kernel-dkms": "535.1-1 iF "})
        tree = root.folder / "var/lib/dkms/nvidia/535.1"
        for kernel in ("6.1.0-1", "6.1.0-2"):
            (tree / kernel / "x86_64/module").mkdir(parents=True)
            (tree / kernel / "x86_64/module/nvidia.ko").touch()
        (tree / "build").mkdir()
        root.program(
            "dkms",
            '[ "$4" = 6.1.0-1 ] && echo "nvidia/535.1, 6.1.0-1, x86_64: installed" || echo "nvidia/535.1: added"',
        )
        step_of(DpkgConfigure()).apply(root.target, {})
        assert sorted(p.name for p in tree.iterdir()) == ["6.1.0-1", "build"]
        assert root.database["packages"]["nvidia-kernel-dkms"] == "535.1-1 ii "

    def test_a_package_that_does_not_configure_stops_it_before_apt(self, root: StandInRoot) -> None:
        root.packages(DRIVER, fails=["--configure"])
        with pytest.raises(CommandFailed, match=r"^dpkg --force-confold --configure -a: status 100"):
            step_of(DpkgConfigure()).apply(root.target, {})
        assert root.runs[-1][0] == "dpkg"


def test_pip_is_only_shown() -> None:
    action = PipInstall("/v/bin/python", ("torch==2.8.0", "--index-url", "x"))
    assert action.summary() == "/v/bin/python -m pip install torch==2.8.0 --index-url x"
    assert PipInstall("/v/bin/python", ("torch==2.8.0",), uv=True).summary() == (
        "uv pip install --python /v/bin/python torch==2.8.0"
    )
    assert not hasattr(action, "apply")


class TestAPackageThatDoesNotConfigure:
    """Its script builds a module, which takes minutes and fails."""

    def test_the_first_error_of_the_build_is_said(self, root: StandInRoot) -> None:
        root.packages(DRIVER, fails=["install"])
        root.file("/var/lib/dkms/nvidia/535.1/build/make.log", "old.c:1: error: of another build\n")
        os.utime(root.folder / "var/lib/dkms/nvidia/535.1/build/make.log", (1, 1))
        root.file("/var/lib/dkms/nvidia/550.1/build/make.log", "CC nv.o\nnv.c:3:9: error: no member\nmake: *** [x]\n")
        os.utime(root.folder / "var/lib/dkms/nvidia/550.1/build/make.log", (1 << 32, 1 << 32))
        with pytest.raises(
            CommandFailed, match=r"; /var/lib/dkms/nvidia/550.1/build/make.log: nv.c:3:9: error: no member$"
        ):
            step_of(AptInstall(("linux-headers-x",))).apply(root.target, {})

    def test_what_the_step_brought_is_removed_and_not_configured_again(self, root: StandInRoot) -> None:
        root.packages(DRIVER)
        step = step_of(AptInstall(("linux-headers-x",)))
        before = step.observe(root.target)
        root.change(packages={**DRIVER, "linux-headers-x": "6.1-1 iF "})
        root.forget()
        step.revert(root.target, before)
        assert ["dpkg", "--force-depends", "--remove", "linux-headers-x"] in root.runs
        assert root.database["packages"] == DRIVER

    def test_of_a_new_version_that_fails_the_old_one_comes_back_at_once(self, root: StandInRoot) -> None:
        root.packages(DRIVER, archive=["libcuda1"])
        step = step_of(AptInstall(("libcuda1",)))
        step.prepare(root.target)
        before = step.observe(root.target)
        root.change(packages={**DRIVER, "libcuda1": "9-1 iF "})
        root.forget()
        step.revert(root.target, before)
        assert not [run for run in root.runs if "--configure" in run]
        assert root.database["packages"] == DRIVER
