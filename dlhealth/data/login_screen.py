"""Names that decide about the login screen. The watcher, which loads no probes, needs them too."""

ETC = "/etc/systemd/system"
ALIAS = f"{ETC}/display-manager.service"
NAMED = "/etc/X11/default-display-manager"
"""The chosen display manager on Debian (debconf: shared/default-x-display-manager)."""
MANAGERS = (
    "lightdm", "gdm3", "gdm", "sddm", "lxdm", "xdm", "slim", "nodm", "wdm", "greetd", "ly", "cosmic-greeter",
    "plasmalogin", "emptty",
)  # fmt: skip
