"""Names that decide about the login screen. The watcher needs them too, which loads no probes."""

ETC = "/etc/systemd/system"
ALIAS = f"{ETC}/display-manager.service"
NAMED = "/etc/X11/default-display-manager"
"""Debian's answer to which display manager is wanted (debconf: shared/default-x-display-manager)."""
MANAGERS = (
    "lightdm", "gdm3", "gdm", "sddm", "lxdm", "xdm", "slim", "nodm", "wdm", "greetd", "ly", "cosmic-greeter",
    "plasmalogin", "emptty",
)  # fmt: skip
