"""Which distribution this is."""

from dlhealth.host import Host, Unreadable


def os_release(host: Host) -> dict[str, str]:
    """The values of os-release(5), without quotes; empty where it is not there or can't be read."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            text = host.text(path)
        except Unreadable:
            continue
        if text is not None:
            pairs = (line.partition("=") for line in text.splitlines())
            return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}
    return {}
