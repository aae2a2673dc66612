"""Which kernel the boot loader will start next, told from its files."""

import posixpath
import re

from dlhealth.host import Host, Unreadable
from dlhealth.lean import NamedTuple, fits, regex

GRUB = "/boot/grub/grub.cfg"
GRUB_ENVIRONMENT = "/boot/grub/grubenv"
ESP = ("/boot", "/efi", "/boot/efi")
NO_KERNEL = "there is no kernel in /boot"
# Set by systemd-boot and bootctl (Boot Loader Interface of systemd).
LOADER_VARIABLES = "/sys/firmware/efi/efivars/Loader{}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


class NextBoot(NamedTuple):
    """`release` is None where it can't be told; `source` says what told it, or why nothing could."""

    release: str | None
    source: str


class _Entry(NamedTuple):
    """One menu entry: its titles and ids from the outermost submenu inwards, its place in each, and its kernel (empty
    for anything that is no Linux of this machine)."""

    titles: tuple[str, ...]
    ids: tuple[str, ...]
    places: tuple[int, ...]
    release: str


def next_boot(host: Host) -> NextBoot:
    """What starts next; the newest installed kernel where no boot loader says anything else."""
    for read in (_systemd_boot, _grub):
        try:
            found = read(host)
        except Unreadable as problem:
            return NextBoot(None, str(problem))
        if found:
            return found
    images = [n.removeprefix("vmlinuz-") for n in host.listdir("/boot") if n.startswith("vmlinuz-")]
    wanted, source = _configured(host)
    for release in sorted(images, key=version_order, reverse=True):
        # There is no menu to look it up in, but titles and ids of entries name their kernel.
        if wanted.endswith(release) or f"-{release}-" in wanted:
            return NextBoot(release, source)
    newest = max(images, key=version_order, default=None)
    return NextBoot(newest, "/boot: the newest kernel" if newest else NO_KERNEL)


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
    entries = [_named(host, entry) for entry in parse_menu(menu)]
    environment = parse_environment(host.text(GRUB_ENVIRONMENT) or "")
    wanted, source = _default(host, menu)
    if wanted == "saved":
        wanted = environment.get("prev_saved_entry") or environment.get("saved_entry") or "0"
        source = f"{GRUB_ENVIRONMENT}: saved_entry={wanted}"
    # A menu that sets no default at all is a part of one: then grub-reboot counts as it does with the usual header.
    once = environment.get("next_entry", "")
    if once and ("next_entry" in menu or not _SET_DEFAULT.search(menu)):
        wanted, source = once, f"{GRUB_ENVIRONMENT}: next_entry={once}"
    chosen = _choose(entries, _corrections(menu).get(wanted, wanted))
    if chosen is None:
        # What is no entry of the menu counts as the first one.
        chosen, source = _choose(entries, "0"), f"{source} ({wanted} is no entry, so GRUB starts the first)"
    if chosen is None:
        return NextBoot(None, f"{GRUB}: no entry")
    if not chosen.release:
        return NextBoot(None, f"{source}: {chosen.titles[-1]} starts no Linux of this machine")
    return NextBoot(chosen.release, source)


_SET_DEFAULT = regex(r"""^\s*set default=(?:"([^"\n]*)"|'([^'\n]*)'|([^\s;]+))""", re.MULTILINE)
_CORRECTION = regex(r"""if \[ "x\$default" = '([^'\n]*)' \]; then default='([^'\n]*)'; fi""")
_GRUB_DEFAULT = regex(r"""^\s*(?:export )?GRUB_DEFAULT=(?:"([^"\n]*)"|'([^'\n]*)'|([^\s#]*))""", re.MULTILINE)


def _default(host: Host, menu: str) -> tuple[str, str]:
    """What grub.cfg was made with decides; /etc/default/grub only takes effect with the next update-grub."""
    value, line = "", 0
    for match in _SET_DEFAULT.finditer(menu):
        # The first is inside `if [ "${next_entry}" ]`; of the others, the last that is executed.
        text = match[1] or match[2] or match[3] or ""
        if "next_entry" not in text:
            value, line = text, menu.count("\n", 0, match.start(0)) + 1
    if not line:
        return _configured(host)
    return "saved" if "saved_entry" in value else value, f"{GRUB}:{line}"


def _corrections(menu: str) -> dict[str, str]:
    """The old forms of a default that update-grub found in /etc/default/grub, and what grub.cfg turns them into."""
    return {match[1]: match[2] for match in _CORRECTION.finditer(menu)}


def _configured(host: Host) -> tuple[str, str]:
    wanted, source = "0", "GRUB's own default"
    for path in ("/etc/default/grub", *host.glob("/etc/default/grub.d/*.cfg")):
        text = host.text(path) or ""
        for match in _GRUB_DEFAULT.finditer(text):
            wanted = match[1] or match[2] or match[3] or "0"
            source = f"{path}:{text.count(chr(10), 0, match.start(0)) + 1}"
    return wanted, source


_TOKEN = regex(
    r"""^\s*(?:
        (?P<kind>menuentry|submenu)\s+(?:'(?P<single>(?:[^']|'\\'')*)'|"(?P<double>[^"]*)"|(?P<bare>\S+))(?P<rest>.*)
        |(?P<linux>linux(?:16|efi)?)\s+(?P<image>\S+)
    )""",
    re.VERBOSE,
)
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
        if m and m["kind"]:
            title = (m["single"] or m["double"] or m["bare"] or "").replace("'\\''", "'")
            found = _ID.search(m["rest"])
            identity = (found[1] or found[2] or found[3] or "") if found else ""
            counter = next((s[4] for s in reversed(stack) if s[0] == "submenu"), top)
            stack.append((m["kind"], title, identity, counter[0], [0]))
            counter[0] += 1
            if m["kind"] == "menuentry":
                menus = [s for s in stack if s[0] != "block"]
                titles, identities = tuple(s[1] for s in menus), tuple(s[2] for s in menus)
                entries.append(_Entry(titles, identities, tuple(s[3] for s in menus), ""))
        elif m and m["linux"]:
            if entries and any(s[0] == "menuentry" for s in stack):
                entries[-1] = entries[-1]._replace(release=m["image"].strip("'\""))
        elif line.strip().endswith("{"):
            stack.append(("block", "", "", 0, [0]))
        ends = line.strip() == "}" or (m and m["kind"] and line.rstrip().endswith("}"))
        if ends and stack:
            stack.pop()
    return entries


def _named(host: Host, entry: _Entry) -> _Entry:
    """With the kernel's release in the place of its image. /vmlinuz is Debian's link to the newest."""
    image = entry.release
    if posixpath.basename(image) in ("vmlinuz", "vmlinuz.old"):
        image = host.readlink(image) or host.readlink(f"/boot{image}") or ""
    return entry._replace(release=image.rpartition("vmlinuz-")[2] if "vmlinuz-" in image else "")


def parse_environment(text: str) -> dict[str, str]:
    """The variables of a grubenv file."""
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, equals, value in lines if equals}


def _choose(entries: list[_Entry], wanted: str) -> _Entry | None:
    """By number, title or id, each part after `>` one submenu further in (`>>` is a `>` of a title). A submenu itself
    means its first entry."""
    parts = [p.replace(">>", ">") for p in re.split(r"(?<!>)>(?!>)", wanted) if p]
    for entry in entries:
        names = zip(parts, entry.titles, entry.ids, entry.places, strict=False)
        if len(parts) <= len(entry.places) and all(
            part in (title, identity) or (part.isascii() and part.isdigit() and int(part[:9]) == place)
            for part, title, identity, place in names
        ):
            return entry
    return None


# systemd-boot.


_IMAGE = regex(r"vmlinuz-([^/\s]+)$|/([^/\s]+)/(?:linux|vmlinuz)$")
_COUNTER = regex(r"\+\d+(?:-\d+)?\.conf$")


def _systemd_boot(host: Host) -> NextBoot | None:
    base = next((f for f in ESP if host.exists(f"{f}/loader/entries")), None)
    # Where both are installed, the one that started the machine says so.
    if base is None or (host.exists(GRUB) and not _variable(host, "Info").startswith("systemd-boot")):
        return None
    entries = {}
    for name in host.listdir(f"{base}/loader/entries"):
        if name.endswith(".conf"):
            fields = _fields(host.text(f"{base}/loader/entries/{name}") or "")
            image = _IMAGE.search(fields.get("linux", ""))
            if release := fields.get("version") or (image and (image[1] or image[2])):
                # The counter of boot attempts ("+3-1") is no part of an entry's name.
                entries[_COUNTER.sub(".conf", name)] = release
    if not entries:
        return None
    wanted = [
        (_variable(host, "EntryOneShot"), "the one-shot entry of the firmware"),
        (_variable(host, "EntryDefault"), "the default entry of the firmware"),
        (
            _fields(host.text(f"{base}/loader/loader.conf") or "").get("default", ""),
            f"{base}/loader/loader.conf: default",
        ),
    ]
    newest = sorted(entries, key=lambda n: version_order(entries[n]), reverse=True)
    for pattern, source in wanted:
        for name in newest:
            if pattern and (fits(name, pattern) or fits(name.removesuffix(".conf"), pattern)):
                return NextBoot(entries[name], f"{source} {pattern}")
    return NextBoot(entries[newest[0]], f"{base}/loader/entries: the newest")


def _fields(text: str) -> dict[str, str]:
    words = (line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {w[0]: w[1].strip() for w in words if len(w) == 2}


def _variable(host: Host, name: str) -> str:
    """An EFI variable's text: four bytes of attributes, then UTF-16 with a NUL at its end."""
    try:
        content = host.read(LOADER_VARIABLES.format(name)) or b""
    except Unreadable:
        return ""
    return content[4:].decode("utf-16-le", errors="replace").rstrip("\0")
