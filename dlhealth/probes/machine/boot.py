"""Which kernel the boot loader will start next, told from its files."""

import posixpath
import re

from dlhealth.host import Host, Unreadable
from dlhealth.host.place import Place
from dlhealth.lazy import fits, regex
from dlhealth.probes.machine.system import os_release
from dlhealth.records import NamedTuple

GRUB = "/boot/grub/grub.cfg"
GRUB_CUSTOM = "/boot/grub/custom.cfg"
GRUB_ENVIRONMENT = "/boot/grub/grubenv"
ESP = ("/boot", "/efi", "/boot/efi")
NO_KERNEL = "/boot has no kernel"
# Set by systemd-boot and bootctl (Boot Loader Interface of systemd).
LOADER_VARIABLES = "/sys/firmware/efi/efivars/Loader{}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


class NextBoot(NamedTuple):
    """`release` is None if unknown; `source` is its source, or why there is none. `arguments` are the known parameters
    that the boot loader passes to the kernel; `initramfs` the image, if it may be another one than that in /boot."""

    release: str | None
    source: str
    arguments: str = ""
    initramfs: str = ""


class _Entry(NamedTuple):
    """One menu entry: its titles and ids from the outermost submenu inwards, its place in each, and its kernel (empty
    for anything that is no Linux of this machine) with what it is given."""

    titles: tuple[str, ...]
    ids: tuple[str, ...]
    places: tuple[int, ...]
    release: str
    arguments: str


def next_boot(host: Host) -> NextBoot:
    """What starts next; the newest installed kernel where no boot loader says anything else."""
    for read in (_systemd_boot, _grub):
        try:
            found = read(host)
        except Unreadable as problem:
            return NextBoot(None, str(problem))
        if found:
            return _of_this_machine(host, found)
    images = [n.removeprefix("vmlinuz-") for n in host.listdir("/boot") if n.startswith("vmlinuz-")]
    wanted, source = _configured(host)
    for release in sorted(images, key=version_order, reverse=True):
        # There is no menu to look it up in, but titles and ids of entries name their kernel.
        if wanted.endswith(release) or f"-{release}-" in wanted:
            return NextBoot(release, source)
    newest = max(images, key=version_order, default=None)
    return NextBoot(newest, "/boot: the newest kernel" if newest else NO_KERNEL)


def _of_this_machine(host: Host, found: NextBoot) -> NextBoot:
    """Nothing is known about the kernel of another system, which boot loaders start as well."""
    installed = host.listdir("/lib/modules")
    if (
        not found.release
        or not installed
        or found.release in installed
        or host.exists(f"/boot/vmlinuz-{found.release}")
    ):
        return found
    return NextBoot(None, f"{found.source}: {found.release} is not a kernel of this machine")


def version_order(release: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    """A key that sorts as Debian's versions do (deb-version(7)): numbers by value, `~` before everything."""
    return tuple(
        ((*map(_rank, text), 0), int(number[:18] or 0)) for text, number in re.findall(r"([^0-9]*)([0-9]*)", release)
    )


def _rank(character: str) -> int:
    if character == "~":
        return -1
    return ord(character) + (0 if character.isalpha() else 1 << 21)


# GRUB.


def _grub(host: Host) -> NextBoot | None:
    menu = host.text(GRUB)
    if menu is None:
        return None
    # 41_custom has a file of the administrator's read at the end, if there is one.
    custom = host.text(GRUB_CUSTOM) or "" if "custom.cfg" in menu else ""
    entries = [_named(host, entry) for entry in parse_menu(f"{menu}\n{custom}")]
    environment = parse_environment(host.text(GRUB_ENVIRONMENT) or "")
    wanted, source = _default(host, menu, custom)
    if wanted == "saved":
        # An old grub-reboot leaves the former one in prev_saved_entry; the header looks at that after the default is set.
        wanted = environment.get("saved_entry") or "0"
        source = f"{GRUB_ENVIRONMENT}: saved_entry={wanted}"
    # A menu that sets no default at all is a part of one: then grub-reboot counts as it does with the usual header.
    once = environment.get("next_entry", "")
    if once and ("next_entry" in menu or not _SET_DEFAULT.search(menu)):
        wanted, source = once, f"{GRUB_ENVIRONMENT}: next_entry={once}"
    wanted = _corrections(menu).get(wanted, wanted)
    chosen, exact = _choose(entries, wanted)
    if chosen is None:
        return NextBoot(None, f"{GRUB}: no entry")
    if not exact:
        source = f"{source} ({wanted} is not an entry, so GRUB starts the first)"
    if not chosen.release:
        return NextBoot(None, f"{source} is {chosen.titles[-1]}, which starts no Linux of this machine")
    return NextBoot(chosen.release, source, chosen.arguments)


_SET_DEFAULT = regex(r"""^\s*set default=(?:"([^"\n]*)"|'([^'\n]*)'|([^\s;]+))""", re.MULTILINE)
_CORRECTION = regex(r"""if \[ "x\$default" = '([^'\n]*)' \]; then default='([^'\n]*)'; fi""")
_GRUB_DEFAULT = regex(r"""^\s*(?:export )?GRUB_DEFAULT=(?:"([^"\n]*)"|'([^'\n]*)'|([^\s#]*))""", re.MULTILINE)


def _default(host: Host, menu: str, custom: str) -> tuple[str, str]:
    """What grub.cfg was made with decides; /etc/default/grub only takes effect with the next update-grub."""
    value, source = "", ""
    for path, content in ((GRUB, menu), (GRUB_CUSTOM, custom)):
        for match in _SET_DEFAULT.finditer(content):
            # The first is inside `if [ "${next_entry}" ]`; of the others, the last that is executed.
            text = match[1] or match[2] or match[3] or ""
            if "next_entry" not in text:
                value, source = text, Place(path, content.count("\n", 0, match.start(0)) + 1)
    if not source:
        return _configured(host)
    return "saved" if "saved_entry" in value else value, source


def _corrections(menu: str) -> dict[str, str]:
    """The old forms of a default that update-grub found in /etc/default/grub, and what grub.cfg turns them into."""
    return {match[1]: match[2] for match in _CORRECTION.finditer(menu)}


def _configured(host: Host) -> tuple[str, str]:
    wanted, source = "0", "GRUB's own default"
    for path in ("/etc/default/grub", *host.glob("/etc/default/grub.d/*.cfg")):
        text = host.text(path) or ""
        for match in _GRUB_DEFAULT.finditer(text):
            wanted = match[1] or match[2] or match[3] or "0"
            source = Place(path, text.count("\n", 0, match.start(0)) + 1)
    return wanted, source


_TOKEN = regex(
    r"""^\s*(?:
        (?P<kind>menuentry|submenu)\s+(?:'(?P<single>(?:[^']|'\\'')*)'|"(?P<double>[^"]*)"|(?P<bare>\S+))(?P<rest>.*)
        |(?P<linux>linux(?:16|efi)?)\s+(?P<image>\S+)(?P<arguments>.*)
    )""",
    re.VERBOSE,
)
_DEPTH = 50
"""How many blocks may be open where an entry begins. update-grub's own are two deep."""
_ID = regex(r"""(?:\$\{?menuentry_id_option\}?|--id)[\s=]+(?:'([^']*)'|"([^"]*)"|([^\s'"{]+))""")


def parse_menu(text: str) -> list[_Entry]:
    """The entries of a grub.cfg, submenus flattened but with their places; `release` is the image's path as it stands
    there."""
    entries: list[_Entry] = []
    # Of each open block: what it is, its title, its id, its place, and how many entries it holds so far.
    stack: list[tuple[str, str, str, int, list[int]]] = []
    top = [0]
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        m = _TOKEN.match(line)
        if m and m["kind"] and len(stack) < _DEPTH:
            title = (m["single"] or m["double"] or m["bare"] or "").replace("'\\''", "'")
            found = _ID.search(m["rest"])
            identity = (found[1] or found[2] or found[3] or "") if found else ""
            counter = next((s[4] for s in reversed(stack) if s[0] == "submenu"), top)
            stack.append((m["kind"], title, identity, counter[0], [0]))
            counter[0] += 1
            if m["kind"] == "menuentry":
                menus = [s for s in stack if s[0] != "block"]
                titles, identities = tuple(s[1] for s in menus), tuple(s[2] for s in menus)
                entries.append(_Entry(titles, identities, tuple(s[3] for s in menus), "", ""))
        elif m and m["linux"]:
            if entries and any(s[0] == "menuentry" for s in stack):
                entries[-1] = entries[-1]._replace(release=m["image"].strip("'\""), arguments=m["arguments"].strip())
        elif line.rstrip().endswith("{"):
            stack.append(("block", "", "", 0, [0]))
        ends = line.strip() == "}" or (m and m["kind"] and line.rstrip().endswith("}"))
        if ends and stack:
            stack.pop()
    return entries


def _named(host: Host, entry: _Entry) -> _Entry:
    """With the kernel's release in the place of its image. /vmlinuz is Debian's link to the newest; what os-prober found
    is another system, whose kernel may have the same name."""
    image = "" if entry.ids[0].startswith("osprober-") else entry.release
    if posixpath.basename(image) in ("vmlinuz", "vmlinuz.old"):
        image = host.readlink(image) or host.readlink(f"/boot{image}") or ""
    return entry._replace(release=image.rpartition("vmlinuz-")[2] if "vmlinuz-" in image else "")


def parse_environment(text: str) -> dict[str, str]:
    """The variables of a grubenv file."""
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, equals, value in lines if equals}


_PART = regex(r"((?:[^>]|>>)*)>?(.*)", re.DOTALL)
_NUMBER = regex(r"\s*(?:0x([0-9a-f]{1,8})|(0[0-7]{1,9})|(\d{1,9}))", re.IGNORECASE)


def _choose(entries: list[_Entry], wanted: str) -> tuple[_Entry | None, bool]:
    """The entry, and whether it is the one that was meant: by number, title or id, each part after `>` one submenu further
    in (`>>` is a `>` of a title). What is none of a menu, or is not said, means the first of that menu. So does GRUB in
    get_entry_number and grub_menu_execute_entry (grub-core/normal/menu.c)."""
    exact, depth = True, 0
    while entries:
        part = _PART.match(wanted)
        name, wanted = (part[1].replace(">>", ">"), part[2]) if part else ("", "")
        within = [e for e in entries if _is_named(e, depth, name)]
        exact = exact and (bool(within) or (not name and depth > 0))
        place = (within or entries)[0].places[depth]
        entries = [e for e in entries if e.places[depth] == place]
        depth += 1
        if len(entries[0].places) == depth:
            return entries[0], exact
    return None, False


def _is_named(entry: _Entry, depth: int, name: str) -> bool:
    # A name that begins with a number is that number, whatever follows: strtoul() stops there.
    if number := _NUMBER.match(name):
        bases = zip(number.groups(), (16, 8, 10), strict=True)
        return entry.places[depth] == next(int(text, base) for text, base in bases if text)
    return bool(name) and name in (entry.titles[depth], entry.ids[depth])


# systemd-boot.


_IMAGE = regex(r"vmlinuz-([^/\s]+)$|/([^/\s]+)/(?:linux|vmlinuz)$")
_COUNTER = regex(r"\+(\d{1,9})(?:-\d+)?\.(conf|efi)$")


def _systemd_boot(host: Host) -> NextBoot | None:
    there = [f for f in ESP if host.exists(f"{f}/loader/entries")]
    # Where both are installed, the one that started the machine says so.
    if not there or (host.exists(GRUB) and not _variable(host, "Info").startswith("systemd-boot")):
        return None
    # Kernels may have a partition of their own (XBOOTLDR), on which the settings are not.
    entries = [e for f in ESP for n in host.listdir(f"{f}/loader/entries") if (e := _listed(host, f, n))]
    entries += [e for f in ESP for n in host.listdir(f"{f}/EFI/Linux") if (e := _unified(host, n))]
    if not entries:
        return None
    settings = next((p for f in ESP if host.exists(p := f"{f}/loader/loader.conf")), f"{there[0]}/loader/loader.conf")
    wanted = [
        (_variable(host, "EntryOneShot"), "the one-shot entry of the firmware"),
        (_variable(host, "EntryDefault"), "the default entry of the firmware"),
        (_fields(host.text(settings) or "").get("default", ""), f"{settings}: default"),
    ]
    # As config_entry_compare of systemd-boot does: by sort-key, machine and version; without a sort-key by name only.
    entries.sort(key=lambda e: (version_order(e.version), version_order(e.name)), reverse=True)
    entries.sort(key=lambda e: (e.bad, not e.sort_key, e.sort_key, e.machine))
    for pattern, source in wanted:
        if pattern == "@saved":
            pattern, source = _variable(host, "EntryLastBooted"), f"{source} @saved"
        if pattern.startswith("auto-"):
            return NextBoot(None, f"{source} {pattern} starts no Linux of this machine")
        for entry in entries:
            low = pattern.lower()
            if pattern and (fits(entry.name, low) or fits(entry.name.rpartition(".")[0], low)):
                return NextBoot(entry.release, f"{source} {pattern}", entry.arguments, entry.initramfs)
    first = entries[0]
    return NextBoot(first.release, f"{there[0]}/loader/entries: the newest", first.arguments, first.initramfs)


class _Listed(NamedTuple):
    """One entry of the Boot Loader Specification. `bad` when all attempts to start it have failed; `version` and
    `machine` as far as they count for its place."""

    name: str
    release: str
    arguments: str
    initramfs: str
    bad: bool
    sort_key: str
    machine: str
    version: str


def _listed(host: Host, base: str, name: str) -> _Listed | None:
    if not name.endswith(".conf"):
        return None
    fields = _fields(host.text(f"{base}/loader/entries/{name}") or "")
    path = fields.get("linux", "")
    named, there = _IMAGE.search(path), posixpath.join(base, path.lstrip("/"))
    if not path or not host.exists(there):
        return None  # no Linux, or its image is gone: systemd-boot leaves it out
    release = fields.get("version") or (named and (named[1] or named[2])) or ""
    if not release or not host.exists(f"/lib/modules/{release}"):
        release = _release_inside(host, there) or release
    if not release:
        return None
    key = fields.get("sort-key", "")
    place = (key, fields.get("machine-id", ""), fields.get("version", "")) if key else ("", "", "")
    entry, bad = _counted(name)
    # Microcode comes in images of its own, before this one.
    initrd = fields.get("initrd", "")
    image = posixpath.join(base, initrd.lstrip("/")) if initrd else ""
    return _Listed(entry, release, fields.get("options", ""), image, bad, *place)


def _unified(host: Host, name: str) -> _Listed | None:
    """A kernel, its initramfs and its command line in one file. It is named after the kernel by kernel-install, dracut
    and ukify."""
    release = max((r for r in host.listdir("/lib/modules") if r in name), key=len, default="")
    if not name.endswith(".efi") or not release:
        return None
    entry, bad = _counted(name)
    return _Listed(entry, release, "", "", bad, os_release(host).get("ID", ""), "", "")


def _counted(name: str) -> tuple[str, bool]:
    """The name of an entry from that of its file, and whether all attempts to start it have failed."""
    # The counter of boot attempts ("+3-1") is no part of an entry's name, and no name has capitals.
    counter = _COUNTER.search(name)
    bad = counter is not None and int(counter[1]) == 0
    return _COUNTER.sub(r".\2", name).lower(), bad


def _release_inside(host: Host, path: str) -> str:
    """What a kernel for x86 says of itself, whatever its file is called; the field kernel_version of its header."""
    head = host.head(path, 64 << 10) or b""
    if head[0x202:0x206] != b"HdrS":
        return ""
    at = 0x200 + int.from_bytes(head[0x20E:0x210], "little")
    return head[at : at + 200].partition(b"\0")[0].partition(b" ")[0].decode(errors="replace")


def _fields(text: str) -> dict[str, str]:
    words = (line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {w[0]: w[1].strip() for w in words if len(w) == 2}


def _variable(host: Host, name: str) -> str:
    """An EFI variable's text: four bytes of attributes, then UTF-16 with a NUL at its end."""
    content = host.read(LOADER_VARIABLES.format(name)) or b""
    return content[4:].decode("utf-16-le", errors="replace").rstrip("\0")
