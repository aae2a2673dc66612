"""Every program uses libraries of conda, or of another vendor, instead of the system's.

What you see
    "ssh: /home/alice/anaconda3/lib/libcrypto.so.1.0.0: no version information available (required by ssh)", "symbol
    lookup error: undefined symbol", or "init.c(556):ERROR:161: Cannot initialize TCL". git, curl or apt fail.
Why
    Every shell gets a lib directory of conda in LD_LIBRARY_PATH, often as a workaround for a missing GLIBCXX
    version. Or /etc/ld.so.conf.d names the directory.

    That directory contains its own libssl, libcurl, libtinfo and others under the same names as the system's. They
    win for every program, also for system programs that were built with other versions. In ld.so.conf.d this
    affects apt, the login screen and all services.
Repair
    Remove the directory. If a conda environment needs the variable, set it only there: `conda env config vars set
    LD_LIBRARY_PATH=…`.
What the repair risks
    A program outside the environment that relied on the directory no longer finds its library.
By hand
    env -u LD_LIBRARY_PATH ssh -V
    cd; grep -n LD_LIBRARY_PATH .bashrc .profile /etc/environment
    # edit that line and remove conda's directory
"""

import re
from collections.abc import Collection, Iterator

from dlhealth.api import (
    Environments,
    Evidence,
    Finding,
    LoaderConfig,
    Machine,
    Plan,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UserPaths,
    out_of_configuration,
    out_of_variable,
)
from dlhealth.lazy import regex

_CONDA = regex(r"/(\w*conda\d*|miniforge\d*|mambaforge|micromamba|envs)/", re.IGNORECASE)
_SYSTEM = regex(
    r"lib(ssl|crypto|curl|tinfow?|ncursesw?|readline|tcl8\.\d|sqlite3|z|glib-2\.0|gio-2\.0|dbus-1|ffi|lzma|expat|"
    r"gssapi_krb5|krb5|xml2|X11|xcb|systemd)\.so(\.\d+)*"
)
"""Libraries that system programs of every Debian and Ubuntu use. A newer libstdc++ is harmless and often wanted."""


class LdLibraryPathCondaBreaksSystem(Rule):
    id = "ld-library-path-conda-breaks-system"
    title = "Every program uses libraries of conda, or of another vendor, instead of the system's"
    stage = Stage.ENVIRONMENT
    severity = Severity.WARNING

    def detect(
        self, environments: Environments | None, paths: UserPaths | None, loader: LoaderConfig
    ) -> Iterator[Finding | Unknown]:
        for directory in loader.directories:
            shadowed = _shadowed(directory.path, directory.real, directory.names, loader)
            if directory.source and not directory.built_in and shadowed:
                yield self.finding(
                    f"file:{directory.source.path}",
                    f"{directory.source} adds {directory.path} for every program, which hides the system's {_list(shadowed)}",
                    Evidence(directory.source, directory.path),
                    Evidence(directory.path, ", ".join(shadowed)),
                    severity=Severity.ERROR,
                    source=directory.source,
                    folder=directory.path,
                    everybody=True,
                )
        if not environments or not paths:
            return
        seen: set[tuple[str, str]] = set()
        for folder in paths.libraries():
            shadowed = _shadowed(folder.path, folder.real, folder.names, loader)
            if shadowed and (folder.source, folder.path) not in seen:
                seen.add((folder.source, folder.path))
                subject, about = environments.subject(folder.source)
                yield self.finding(
                    subject,
                    f"{folder.source} adds {folder.path} to LD_LIBRARY_PATH, which hides the system's {_list(shadowed)}",
                    Evidence(folder.source, f"{folder.path} in LD_LIBRARY_PATH"),
                    Evidence(folder.path, ", ".join(shadowed)),
                    severity=Severity.ERROR if _at_login(environments, folder.user, folder.path) else Severity.WARNING,
                    about=about,
                    source=folder.source,
                    folder=folder.path,
                    everybody=False,
                )
        for user, variable in paths.unclear:
            if variable == "LD_LIBRARY_PATH":
                reason = f"{user}'s LD_LIBRARY_PATH is set by a program that dlhealth does not run"
                yield Unknown(reason, f"user:{user}")

    def remedies(self, finding: Finding, loader: LoaderConfig, paths: UserPaths | None) -> Iterator[Plan]:
        folder, source = finding.detail["folder"], finding.detail["source"]
        if finding.detail["everybody"]:
            yield out_of_configuration(folder, loader)
            return
        yield out_of_variable(
            folder,
            source,
            paths,
            f"Remove {folder} from line {source.line} of {source.path}. If a conda environment needs it, run there: conda "
            "env config vars set LD_LIBRARY_PATH=...",
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        conda = "/home/alice/anaconda3/lib"
        system = "/usr/lib/x86_64-linux-gnu"

        def machine(*names: str) -> Machine:
            built = Machine.debian12_gpu().folder("/home/alice/anaconda3", uid=1000)
            for name in ("libssl.so.3", "libcrypto.so.3", "libtinfo.so.6", "libstdc++.so.6"):
                built.library(f"{system}/{name}", name)
            for name in names or ("libssl.so.3", "libcrypto.so.3", "libtinfo.so.6"):
                built.library(f"{conda}/{name}", name)
            return built

        export = f"export LD_LIBRARY_PATH={conda}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\n"
        yield Scenario(
            "set in ~/.bashrc",
            machine().append("/home/alice/.bashrc", export),
            finds="user:alice",
            steps=("edit-file",),
            ladder=(("low", "edit-file /home/alice/.bashrc 15: -"),),
        )
        yield Scenario(
            "set in profile.d",
            machine().file("/etc/profile.d/conda-libs.sh", export),
            finds="file:/etc/profile.d/conda-libs.sh",
            ladder=(("low", "edit-file /etc/profile.d/conda-libs.sh 1: -"),),
        )
        yield Scenario(
            "named in ld.so.conf.d",
            machine().file("/etc/ld.so.conf.d/000-conda.conf", f"{conda}\n"),
            finds="file:/etc/ld.so.conf.d/000-conda.conf",
            steps=("edit-file", "refresh-loader-cache"),
            alone=False,
            ladder=(("low", "edit-file /etc/ld.so.conf.d/000-conda.conf 1: -", "refresh-loader-cache"),),
        )
        yield Scenario(
            "a conda environment, set in csh",
            machine().user("bob", 1001, "/bin/tcsh").file("/home/bob/.cshrc", "setenv LD_LIBRARY_PATH /opt/conda/envs/tf/lib\n", uid=1001)
            .library("/opt/conda/envs/tf/lib/libcurl.so.4", "libcurl.so.4"),
            finds="user:bob",
            ladder=(('low', 'by-hand /opt/conda/envs/tf/lib 1 /home/bob/.cshrc LD_LIBRARY_PATH='),),
        )  # fmt: skip
        yield Scenario("only CUDA's libraries", machine("libcudart.so.12").append("/home/alice/.bashrc", export))
        yield Scenario("only a newer libstdc++", machine("libstdc++.so.6").append("/home/alice/.bashrc", export))
        yield Scenario(
            "conda is installed and only in PATH",
            machine().append("/home/alice/.bashrc", f"export PATH={conda[:-4]}/bin:$PATH\n"),
        )
        yield Scenario(
            "ROS has only its own libraries",
            Machine.debian12().library("/opt/ros/humble/lib/librclcpp.so", "librclcpp.so").append(
                "/home/alice/.bashrc", "export LD_LIBRARY_PATH=/opt/ros/humble/lib\n"),
        )  # fmt: skip
        yield Scenario("~/.bashrc is not readable", machine().fifo("/home/alice/.bashrc"), unknown=True)


def _shadowed(path: str, real: str, names: Collection[str], loader: LoaderConfig) -> list[str]:
    """The system's libraries that another vendor's directory also contains."""
    if not real or real.startswith(("/usr/lib", "/lib", "/usr/local/lib")):
        return []
    candidates = sorted(n for n in names if _SYSTEM.fullmatch(n) and re.search(r"\.so\.\d", n))
    if not _CONDA.search(f"{path}/") and not _CONDA.search(f"{real}/"):
        own = {n for d in loader.directories if d.real.startswith(("/usr/lib", "/lib")) for n in d.names}
        candidates = [n for n in candidates if n in own]
    return candidates


def _list(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")


def _at_login(environments: Environments, user: str, folder: str) -> bool:
    """Whether the whole session gets the directory, not only a terminal."""
    kinds = ("pam", "graphical")
    return any(
        element.rstrip("/") == folder
        for login in environments.of(user)
        if login.kind in kinds
        for element, _ in login.lists.get("LD_LIBRARY_PATH", ())
    )
