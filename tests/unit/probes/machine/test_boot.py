"""The kernel that the boot loader starts next, in every way that an administrator can choose one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.host.root import RootHost
from dlhealth.probes.machine.boot import next_boot, parse_menu, version_order
from dlhealth.testing import Machine

# As update-grub of Debian and Ubuntu writes it, cut to what chooses.
MENU = """\
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="@DEFAULT@"
fi
menuentry 'Ubuntu' --class ubuntu --class gnu-linux $menuentry_id_option 'gnulinux-simple-abc' {
\trecordfail
\tif [ x$feature_platform_search_hint = xy ]; then
\t  search --no-floppy --fs-uuid --set=root  abc
\tfi
\tlinux\t/boot/vmlinuz-6.8.0-50-generic root=UUID=abc ro  quiet splash $vt_handoff
\tinitrd\t/boot/initrd.img-6.8.0-50-generic
}
submenu 'Advanced options for Ubuntu' $menuentry_id_option 'gnulinux-advanced-abc' {
\tmenuentry 'Ubuntu, with Linux 6.8.0-50-generic' --class ubuntu $menuentry_id_option 'gnulinux-6.8.0-50-generic-advanced-abc' {
\t\tlinux\t/boot/vmlinuz-6.8.0-50-generic root=UUID=abc ro
\t}
\tmenuentry 'Ubuntu, with Linux 6.8.0-50-generic (recovery mode)' $menuentry_id_option 'gnulinux-6.8.0-50-generic-recovery-abc' {
\t\tlinux\t/boot/vmlinuz-6.8.0-50-generic root=UUID=abc ro recovery
\t}
\tmenuentry 'Ubuntu, with Linux 6.8.0-49-generic' --class ubuntu $menuentry_id_option 'gnulinux-6.8.0-49-generic-advanced-abc' {
\t\tlinux\t/boot/vmlinuz-6.8.0-49-generic root=UUID=abc ro
\t}
}
menuentry 'Memory test' {
\tlinux16\t/boot/memtest86+.bin
}
menuentry "Tom's kernel" --id toms {
\tlinux\t/boot/vmlinuz-7.2.13 root=/dev/sda1
}
submenu 'Older kernels' {
\tmenuentry 'The old one' {
\t\tlinux\t/boot/vmlinuz-6.8.0-49-generic root=UUID=abc ro
\t}
\tmenuentry 'A > B' {
\t\tlinux\t/boot/vmlinuz-7.2.13 root=/dev/sda1
\t}
}
menuentry '9.1 by hand' {
\tlinux\t/boot/vmlinuz-7.2.13 root=/dev/sda1
}
menuentry 'A > B' {
\tlinux\t/boot/vmlinuz-7.2.13 root=/dev/sda1
}
"""
NEW, OLD, TOMS = "6.8.0-50-generic", "6.8.0-49-generic", "7.2.13"


def machine(default: str, environment: str = "") -> Machine:
    return (
        Machine()
        .file("/boot/grub/grub.cfg", MENU.replace("@DEFAULT@", default))
        .file("/boot/grub/grubenv", f"# GRUB Environment Block\n{environment}{'#' * 80}")
        .file(f"/boot/vmlinuz-{NEW}")
        .file(f"/boot/vmlinuz-{OLD}")
    )


def chosen(described: Machine, folder: Path) -> str | None:
    return next_boot(RootHost(str(described.build(folder)))).release


@pytest.mark.parametrize(
    ("default", "expected"),
    [
        ("0", NEW),
        ("1>2", OLD),
        ("1>0", NEW),
        ("1", NEW),
        ("3", TOMS),
        ("toms", TOMS),
        ("Tom's kernel", TOMS),
        ("gnulinux-advanced-abc>gnulinux-6.8.0-49-generic-advanced-abc", OLD),
        ("Advanced options for Ubuntu>Ubuntu, with Linux 6.8.0-49-generic", OLD),
        ("gnulinux-advanced-abc>2", OLD),
        ("Advanced options for Ubuntu>gnulinux-6.8.0-49-generic-advanced-abc", OLD),
        # GRUB looks a name without its submenu up in the outermost menu only (get_entry_number in normal/menu.c).
        ("gnulinux-6.8.0-49-generic-advanced-abc", NEW),
        ("2", None),
        ("Memory test", None),
        ("no such entry", NEW),
        ("17", NEW),
        ("", NEW),
        # A submenu in which the rest of the default finds nothing starts its own first entry.
        ("4>no such entry", OLD),
        ("4>9", OLD),
        ("4", OLD),
        ("Older kernels>1", TOMS),
        # strtoul() skips spaces, knows hexadecimal and octal numbers, and stops at what is no digit.
        ("1 > 2", OLD),
        ("0x1>02", OLD),
        ("9.1 by hand", NEW),
        ("1st of all>2", OLD),
        ("-1", NEW),
        ("9.1 by hand>>old", NEW),
        ("A >> B", TOMS),
        # The first part is no entry, and the first entry is no submenu in which the rest could count.
        ("no such entry>2", NEW),
    ],
)
def test_grub_default(default: str, expected: str | None, tmp_path: Path) -> None:
    assert chosen(machine(default), tmp_path) == expected


def test_saved_and_once(tmp_path: Path) -> None:
    saved = "saved_entry=gnulinux-advanced-abc>gnulinux-6.8.0-49-generic-advanced-abc\n"
    assert chosen(machine("${saved_entry}", saved), tmp_path / "a") == OLD
    assert chosen(machine("${saved_entry}"), tmp_path / "b") == NEW
    assert chosen(machine("0", "next_entry=1>2\n"), tmp_path / "c") == OLD
    assert chosen(machine("0", "next_entry=\n"), tmp_path / "d") == NEW
    # grub-reboot of GRUB 1.99: the entry for once is in saved_entry, the one to go back to in prev_saved_entry, which the
    # header reads when the default is set already.
    assert chosen(machine("${saved_entry}", "saved_entry=1>2\nprev_saved_entry=0\n"), tmp_path / "e") == OLD
    assert chosen(machine("${saved_entry}", "saved_entry=0\nprev_saved_entry=1>2\n"), tmp_path / "f") == NEW


def test_the_last_default_that_is_executed_counts(tmp_path: Path) -> None:
    described = machine("${saved_entry}", "saved_entry=1>2\n")
    assert chosen(described.append("/boot/grub/grub.cfg", "set default=toms\n"), tmp_path / "a") == TOMS
    title = "Ubuntu, with Linux 6.8.0-49-generic"
    corrected = f"if [ \"x$default\" = '{title}' ]; then default='Advanced options for Ubuntu>{title}'; fi;\n"
    assert chosen(machine(title), tmp_path / "b") == NEW
    assert chosen(machine(title).append("/boot/grub/grub.cfg", corrected), tmp_path / "c") == OLD


FOREIGN = """\
menuentry 'Fedora Linux 40 (on /dev/sdb3)' --class fedora $menuentry_id_option 'osprober-gnulinux-simple-f00' {
\tlinux /vmlinuz-6.8.5-301.fc40.x86_64 root=UUID=f00 ro rhgb quiet
}
menuentry 'Ubuntu on another disk' $menuentry_id_option 'osprober-gnulinux-simple-f01' {
\tlinux /boot/vmlinuz-6.8.0-49-generic root=UUID=f01 ro
}
menuentry 'Arch by hand' --id arch {
\tlinux /boot/vmlinuz-linux root=UUID=f02 rw
}
"""


@pytest.mark.parametrize("default", ["osprober-gnulinux-simple-f00", "Ubuntu on another disk", "arch"])
def test_the_kernel_of_another_system_is_none_of_this_machine(default: str, tmp_path: Path) -> None:
    described = machine(default).append("/boot/grub/grub.cfg", FOREIGN).folder(f"/lib/modules/{NEW}")
    assert chosen(described, tmp_path) is None


def test_what_an_administrator_adds_in_custom_cfg(tmp_path: Path) -> None:
    sourced = "if [ -f  ${config_directory}/custom.cfg ]; then\n  source ${config_directory}/custom.cfg\nfi\n"
    mine = f"menuentry 'mine' --id mine {{\n linux /boot/vmlinuz-{OLD} root=/dev/sda1\n}}\n"

    def described(default: str, custom: str) -> Machine:
        return machine(default).append("/boot/grub/grub.cfg", sourced).file("/boot/grub/custom.cfg", custom)

    assert chosen(described("mine", mine), tmp_path / "a") == OLD
    assert chosen(described("0", f"{mine}set default=mine\n"), tmp_path / "b") == OLD
    assert chosen(described("0", mine), tmp_path / "c") == NEW
    assert chosen(machine("0").file("/boot/grub/custom.cfg", "set default='1>2'\n"), tmp_path / "d") == NEW


def test_a_menu_without_its_header(tmp_path: Path) -> None:
    bare = MENU[MENU.index("menuentry 'Ubuntu'") :]
    described = Machine().file("/boot/grub/grub.cfg", bare).file("/boot/grub/grubenv", "next_entry=1>2\n")
    assert chosen(described, tmp_path) == OLD


def test_a_link_to_the_newest_kernel(tmp_path: Path) -> None:
    described = (
        Machine()
        .file("/boot/grub/grub.cfg", "menuentry 'Linux' {\n linux /vmlinuz root=/dev/sda1\n}\n")
        .link("/vmlinuz", f"boot/vmlinuz-{OLD}")
        .file(f"/boot/vmlinuz-{NEW}")
    )
    assert chosen(described, tmp_path) == OLD


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("6.1.0-9-amd64", "6.1.0-50-amd64"),
        ("6.12~rc6-amd64", "6.12-amd64"),
        ("6.12.9+bpo-amd64", "6.12.22+bpo-amd64"),
        ("6.8.0-50-generic", "6.11.0-9-generic"),
        ("5.15.0-1.1-amd64", "5.15.0-1.10-amd64"),
    ],
)
def test_kernels_are_ordered_as_debian_orders_versions(older: str, newer: str) -> None:
    assert version_order(older) < version_order(newer)


def test_defaults_that_grub_cfg_does_not_name(tmp_path: Path) -> None:
    bare = MENU[MENU.index("menuentry 'Ubuntu'") :]
    described = (
        Machine()
        .file("/boot/grub/grub.cfg", bare)
        .file("/etc/default/grub", "GRUB_DEFAULT=0\n#GRUB_DEFAULT=3\n")
        .file("/etc/default/grub.d/50-mine.cfg", "GRUB_DEFAULT='1>2'\n")
    )
    assert chosen(described, tmp_path) == OLD


def test_no_boot_loader_means_the_newest(tmp_path: Path) -> None:
    names = ["6.1.0-9-amd64", "6.1.0-50-amd64", "6.1.0-49-amd64"]
    described = Machine()
    for name in names:
        described.file(f"/boot/vmlinuz-{name}")
    assert chosen(described, tmp_path / "a") == "6.1.0-50-amd64"
    assert chosen(Machine().folder("/boot"), tmp_path / "b") is None
    described.file("/etc/default/grub", 'GRUB_DEFAULT="Advanced options for X>X, with Linux 6.1.0-49-amd64"\n')
    assert chosen(described, tmp_path / "c") == "6.1.0-49-amd64"


@pytest.mark.parametrize("folder", ["/boot", "/efi", "/boot/efi"])
def test_systemd_boot(folder: str, tmp_path: Path) -> None:
    def described(default: str = "") -> Machine:
        return (
            Machine()
            .file(f"{folder}/loader/loader.conf", f"timeout 3\n{default}")
            .file(f"{folder}/abc/{OLD}/linux")
            .file(f"{folder}/abc/{NEW}/linux")
            .file(f"{folder}/loader/entries/abc-{OLD}.conf", f"title Debian\nversion {OLD}\nlinux /abc/{OLD}/linux\n")
            .file(f"{folder}/loader/entries/abc-{NEW}.conf", f"title Debian\nversion {NEW}\nlinux /abc/{NEW}/linux\n")
        )

    variable = "/sys/firmware/efi/efivars/LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
    once = b"\7\0\0\0" + f"abc-{OLD}.conf\0".encode("utf-16-le")
    assert chosen(described(), tmp_path / "a") == NEW
    assert chosen(described(f"default abc-{OLD}.conf\n"), tmp_path / "b") == OLD
    assert chosen(described("default *-49-*\n"), tmp_path / "c") == OLD
    assert chosen(described().file(variable, once), tmp_path / "d") == OLD
    counted = described(f"default abc-{OLD}.conf\n").remove(f"{folder}/loader/entries/abc-{OLD}.conf")
    counted.file(f"{folder}/loader/entries/abc-{OLD}+2-1.conf", f"linux /abc/{OLD}/linux\n")
    assert chosen(counted, tmp_path / "e") == OLD
    # GRUB's menu is there as well: what started the machine decides.
    both = described(f"default abc-{OLD}.conf\n").file("/boot/grub/grub.cfg", MENU.replace("@DEFAULT@", "0"))
    assert chosen(both, tmp_path / "f") == NEW
    info = b"\6\0\0\0" + "systemd-boot 252\0".encode("utf-16-le")
    assert chosen(both.file(variable.replace("EntryOneShot", "Info"), info), tmp_path / "g") == OLD


LOADER = "/sys/firmware/efi/efivars/Loader{}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


def variable(text: str) -> bytes:
    return b"\7\0\0\0" + f"{text}\0".encode("utf-16-le")


def listed(*names: str, settings: str = "") -> Machine:
    """Entries of systemd-boot, each named after its kernel."""
    described = Machine().file("/efi/loader/loader.conf", settings)
    for name in names:
        release = name.partition("+")[0]
        described.file(f"/boot/loader/entries/{name}.conf", f"linux /{release}/linux\noptions root=/dev/sda1 quiet\n")
        described.file(f"/boot/{release}/linux")
    return described


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        (listed(OLD, NEW, settings=f"default {OLD}*\n"), OLD),
        (listed(OLD, NEW, settings="default no-such*\n"), NEW),
        (listed(OLD, f"{NEW}+0-3"), OLD),
        (listed(OLD, f"{NEW}+1-2"), NEW),
        (listed(f"{OLD}+0-3", f"{NEW}+0-3"), NEW),
        (listed(OLD, NEW).remove(f"/boot/{NEW}/linux"), OLD),
        (
            listed(OLD, NEW, settings="default @saved\n").file(
                LOADER.format("EntryLastBooted"), variable(f"{OLD}.conf")
            ),
            OLD,
        ),
        (listed(OLD, NEW, settings="default @saved\n"), NEW),
        (
            listed(OLD, NEW, settings=f"default {NEW}*\n").file(LOADER.format("EntryDefault"), variable(f"{OLD}.conf")),
            OLD,
        ),
        (listed(OLD, NEW).file(LOADER.format("EntryDefault"), variable(f"{OLD}.CONF".upper())), OLD),
        (
            listed(OLD, NEW)
            .file(LOADER.format("EntryDefault"), variable(f"{NEW}.conf"))
            .file(LOADER.format("EntryOneShot"), variable(f"{OLD}.conf")),
            OLD,
        ),
        (listed(OLD, NEW).file(LOADER.format("EntryOneShot"), variable("gone.conf")), NEW),
    ],
)
def test_what_systemd_boot_chooses(described: Machine, expected: str, tmp_path: Path) -> None:
    found = next_boot(RootHost(str(described.build(tmp_path))))
    assert (found.release, found.arguments) == (expected, "root=/dev/sda1 quiet")


MACHINE = "0123456789abcdef0123456789abcdef"


def specified(*names: str, settings: str = "", key: str = "debian") -> Machine:
    """Entries as kernel-install writes them, of kernels that are there."""
    described = Machine().os_release("debian", "12").file("/boot/efi/loader/loader.conf", settings)
    for name in names:
        entry = f"version {name}\nmachine-id {MACHINE}\nsort-key {key}\nlinux /{MACHINE}/{name}/linux\n"
        described.file(f"/boot/efi/loader/entries/{MACHINE}-{name}.conf", entry)
        described.file(f"/boot/efi/{MACHINE}/{name}/linux").folder(f"/usr/lib/modules/{name}")
    return described


def fedora(described: Machine) -> Machine:
    """Another system beside it, whose kernel is newer."""
    entry = "version 6.12.5-200.fc41.x86_64\nmachine-id ffff\nsort-key fedora\nlinux /ffff/linux\n"
    return described.file("/boot/efi/loader/entries/fedora.conf", entry).file("/boot/efi/ffff/linux")


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        (specified(OLD, NEW), NEW),
        # The order is by sort-key before it is by version.
        (fedora(specified(OLD, NEW)), NEW),
        (fedora(specified(OLD, NEW, key="ubuntu")), None),
        (fedora(specified(OLD, NEW, settings="default fedora*\n")), None),
        # bootctl set-default @saved
        (
            specified(OLD, NEW)
            .file(LOADER.format("EntryDefault"), variable("@saved"))
            .file(LOADER.format("EntryLastBooted"), variable(f"{MACHINE}-{OLD}.conf")),
            OLD,
        ),
        # Windows, or the firmware's setup, once.
        (specified(OLD, NEW).file(LOADER.format("EntryOneShot"), variable("auto-windows")), None),
        (specified(OLD, NEW, settings="default auto-reboot-to-firmware-setup\n"), None),
        # Unified kernel images come before the entries that name their machine.
        (specified(NEW).folder(f"/usr/lib/modules/{OLD}").file(f"/boot/efi/EFI/Linux/{MACHINE}-{OLD}.efi"), OLD),
        (
            specified(settings=f"default {MACHINE}-{OLD}.efi\n")
            .folder("/boot/efi/loader/entries")
            .folder(f"/usr/lib/modules/{OLD}")
            .folder(f"/usr/lib/modules/{NEW}")
            .file(f"/boot/efi/EFI/Linux/{MACHINE}-{OLD}.efi")
            .file(f"/boot/efi/EFI/Linux/{MACHINE}-{NEW}+2-1.efi"),
            OLD,
        ),
    ],
)
def test_entries_of_the_boot_loader_specification(described: Machine, expected: str | None, tmp_path: Path) -> None:
    assert chosen(described, tmp_path) == expected


def image(release: str) -> bytes:
    """A kernel for x86, as far as its header says its release."""
    content = bytearray(0x3000)
    content[0x202:0x206] = b"HdrS"
    content[0x20E:0x210] = (0x2C00).to_bytes(2, "little")
    return bytes(content[:0x2E00]) + f"{release} (builder@host) #1 SMP\0".encode() + bytes(100)


@pytest.mark.parametrize(("default", "expected"), [("current", NEW), ("oldkern", OLD)])
def test_images_that_are_not_named_after_their_kernel(default: str, expected: str, tmp_path: Path) -> None:
    described = Machine().file("/boot/efi/loader/loader.conf", f"default Pop_OS-{default}\ntimeout 0\n")
    for entry, name, release in (("current", "vmlinuz.efi", NEW), ("oldkern", "vmlinuz-previous.efi", OLD)):
        described.file(
            f"/boot/efi/loader/entries/Pop_OS-{entry}.conf", f"title Pop!_OS\nlinux /EFI/Pop_OS-abc/{name}\n"
        )
        described.file(f"/boot/efi/EFI/Pop_OS-abc/{name}", image(release)).folder(f"/usr/lib/modules/{release}")
    assert chosen(described, tmp_path) == expected


def test_what_the_kernel_is_given(tmp_path: Path) -> None:
    assert next_boot(RootHost(str(machine("1>1").build(tmp_path)))).arguments == "root=UUID=abc ro recovery"


def test_a_menu_without_end_is_read_in_bounded_time() -> None:
    assert len(parse_menu("menuentry 'a' {\n" * 20_000)) == 50


def test_a_menu_that_is_no_file_makes_it_unknown(tmp_path: Path) -> None:
    described = Machine().fifo("/boot/grub/grub.cfg").file(f"/boot/vmlinuz-{NEW}")
    assert chosen(described, tmp_path) is None


@given(st.text(alphabet="menuentrysub '\"{}\n\t>$abc=()\\", max_size=400))
def test_any_menu_can_be_parsed(text: str) -> None:
    assert isinstance(parse_menu(text), list)
