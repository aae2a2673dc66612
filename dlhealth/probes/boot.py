"""Which kernel the boot loader will start next, told from its files."""

import re
from fnmatch import fnmatchcase

from dlhealth.host import Host, Unreadable
from dlhealth.lean import NamedTuple, regex

GRUB = "/boot/grub/grub.cfg"
GRUB_ENVIRONMENT = "/boot/grub/grubenv"
ESP = ("/boot", "/efi", "/boot/efi")
# Set by systemd-boot and bootctl (Boot Loader Interface of systemd).
LOADER_VARIABLES = "/sys/firmware/efi/efivars/Loader{}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


class NextBoot(NamedTuple):
    """`release` is None where it can't be told; `source` says what told it, or why nothing could."""

    release: str | None
    source: str


class _Entry(NamedTuple):
    """One menu entry: its titles and ids from the outermost submenu inwards, its place in each, and its kernel."""

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
    newest = max(images, key=_order, default=None)
    return NextBoot(newest, "/boot: the newest kernel" if newest else "there is no kernel in /boot")


def _order(release: str) -> tuple[tuple[int, int, str], ...]:
    """As GRUB's and Debian's version sorting order kernels: numbers by value, everything else by text."""
    return tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in re.findall(r"\d+|[^\d.+-]+", release))


# GRUB.


def _grub(host: Host) -> NextBoot | None:
    menu = host.text(GRUB)
    if menu is None:
        return None
    entries = parse_menu(menu)
    environment = parse_environment(host.text(GRUB_ENVIRONMENT) or "")
    once = environment.get("next_entry", "")
    if once and "next_entry" in menu:
        chosen, source = _choose(entries, once), f"{GRUB_ENVIRONMENT}: next_entry={once}"
        if chosen:
            return NextBoot(chosen, source)
    wanted, source = _default(host, menu)
    if wanted == "saved":
        wanted, source = environment.get("saved_entry", "") or "0", f"{GRUB_ENVIRONMENT}: saved_entry"
    chosen = _choose(entries, wanted)
    if chosen is None and wanted != "0":
        # GRUB starts the first entry when it does not find the one that it was told.
        chosen, source = _choose(entries, "0"), f"{source} ({wanted} is no entry, so GRUB starts the first)"
    return NextBoot(chosen, source) if chosen else NextBoot(None, f"{GRUB}: no entry with a kernel")


def _default(host: Host, menu: str) -> tuple[str, str]:
    """What grub.cfg was made with decides; /etc/default/grub only takes effect with the next update-grub."""
    baked = [
        (m[1] or m[2] or m[3] or "", number)
        for number, line in enumerate(menu.splitlines(), 1)
        if (m := re.match(r"""\s*set default=(?:"([^"]*)"|'([^']*)'|(\S+))""", line))
    ]
    for value, number in baked:
        if value in ("${saved_entry}", "$saved_entry"):
            return "saved", f"{GRUB}:{number}"
    # The first is inside `if [ "${next_entry}" ]`; what GRUB_DEFAULT made is the one that is no variable.
    plain = [(value, number) for value, number in baked if not value.startswith("$")]
    if plain:
        return plain[-1][0], f"{GRUB}:{plain[-1][1]}"
    wanted, source = "0", "GRUB's own default"
    for path in ("/etc/default/grub", *host.glob("/etc/default/grub.d/*.cfg")):
        for number, line in enumerate((host.text(path) or "").splitlines(), 1):
            if m := re.match(r"""\s*GRUB_DEFAULT=(?:"([^"]*)"|'([^']*)'|(\S*))""", line):
                wanted, source = m[1] or m[2] or m[3] or "0", f"{path}:{number}"
    return wanted, source


_TOKEN = regex(
    r"""^\s*(?:
        (?P<kind>menuentry|submenu)\s+(?:'(?P<single>(?:[^']|'\\'')*)'|"(?P<double>[^"]*)"|(?P<bare>\S+))(?P<rest>.*)
        |(?P<linux>linux(?:16|efi)?)\s+(?P<image>\S+)
    )""",
    re.VERBOSE,
)
_ID = regex(r"(?:\$\{?menuentry_id_option\}?|--id)\s+['\"]?([^\s'\"{]+)")


def parse_menu(text: str) -> list[_Entry]:
    """The entries of a grub.cfg, submenus flattened but with their places."""
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
            counter = next((s[4] for s in reversed(stack) if s[0] == "submenu"), top)
            stack.append((m["kind"], title, found[1] if found else "", counter[0], [0]))
            counter[0] += 1
        elif m and m["linux"]:
            menus = [s for s in stack if s[0] in ("submenu", "menuentry")]
            if menus and menus[-1][0] == "menuentry" and "vmlinuz-" in m["image"]:
                entries.append(
                    _Entry(
                        tuple(s[1] for s in menus),
                        tuple(s[2] for s in menus),
                        tuple(s[3] for s in menus),
                        m["image"].rpartition("vmlinuz-")[2],
                    )
                )
        elif line.strip().endswith("{"):
            stack.append(("block", "", "", 0, [0]))
        if line.strip() == "}" and stack:
            stack.pop()
    return entries


def parse_environment(text: str) -> dict[str, str]:
    """The variables of a grubenv file."""
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, equals, value in lines if equals}


def _choose(entries: list[_Entry], wanted: str) -> str | None:
    """By number, title or id, each part after `>` one submenu further in. A submenu itself means its first entry."""
    parts = [p for p in wanted.split(">") if p]
    for entry in entries:
        names = zip(parts, entry.titles, entry.ids, entry.places, strict=False)
        if len(parts) <= len(entry.places) and all(
            part in (title, identity) or (part.isdigit() and int(part) == place)
            for part, title, identity, place in names
        ):
            return entry.release
    if len(parts) == 1 and not parts[0].isdigit():
        # An id or a title alone is also found inside a submenu by a bare --id in older grub.cfg files.
        return next((e.release for e in entries if parts[0] in (e.titles[-1], e.ids[-1])), None)
    return None


# systemd-boot.


def _systemd_boot(host: Host) -> NextBoot | None:
    base = next((f for f in ESP if host.exists(f"{f}/loader/entries")), None)
    if base is None or host.exists(GRUB):
        return None
    entries = {}
    for name in host.listdir(f"{base}/loader/entries"):
        if name.endswith(".conf"):
            fields = _fields(host.text(f"{base}/loader/entries/{name}") or "")
            image = fields.get("linux", "")
            release = fields.get("version") or (image.rpartition("vmlinuz-")[2] if "vmlinuz-" in image else "")
            if release:
                entries[name] = release
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
    newest = sorted(entries, key=lambda n: _order(entries[n]), reverse=True)
    for pattern, source in wanted:
        for name in newest:
            if pattern and (fnmatchcase(name, pattern) or fnmatchcase(name.removesuffix(".conf"), pattern)):
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
