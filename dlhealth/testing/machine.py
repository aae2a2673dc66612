"""Describes a machine step by step, then builds it as a folder."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dlhealth.testing import elf

Step = Callable[[Path], None]

TRIPLET = "x86_64-linux-gnu"


class Machine:
    """A description; `build` makes the folder. Later steps overwrite earlier ones, so a scenario starts from a healthy
    machine and breaks it. Every method returns the machine itself."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._packages: dict[str, dict[str, str]] = {}
        self._package_files: dict[str, list[str]] = {}
        self._users: dict[str, str] = {}

    def build(self, folder: Path) -> Path:
        """Make the machine in an empty folder; owners are set as well, which needs root."""
        for step in self._steps:
            step(folder)
        _write(folder, "/var/lib/dpkg/status", "\n".join(_stanza(n, f) for n, f in self._packages.items()))
        for name, files in self._package_files.items():
            _write(folder, f"/var/lib/dpkg/info/{name}.list", "".join(f"{f}\n" for f in ["/.", *files]))
        return folder

    def do(self, step: Step) -> "Machine":
        """Anything that the methods below do not cover; `step` gets the root folder."""
        self._steps.append(step)
        return self

    # Files.
    def file(
        self,
        path: str,
        content: str | bytes = "",
        mode: int = 0o644,
        uid: int = 0,
        gid: int | None = None,
        mtime: float | None = None,
    ) -> "Machine":
        """A regular file; folders above it are made."""

        def make(root: Path) -> None:
            _write(root, path, content, mode)
            where = place(root, path)
            os.chown(where, uid, uid if gid is None else gid)
            os.chmod(where, mode)  # chown clears set-user-ID bits
            if mtime is not None:
                os.utime(where, (mtime, mtime))

        return self.do(make)

    def folder(self, path: str, mode: int = 0o755, uid: int = 0, gid: int | None = None) -> "Machine":
        """A folder, or new owner and mode of one that is there."""

        def make(root: Path) -> None:
            where = place(root, path)
            os.makedirs(where, exist_ok=True)
            os.chown(where, uid, uid if gid is None else gid)
            os.chmod(where, mode)

        return self.do(make)

    def link(self, path: str, target: str) -> "Machine":
        """A symbolic link, in the place of what was there."""

        def make(root: Path) -> None:
            where = place(root, path)
            where.parent.mkdir(parents=True, exist_ok=True)
            where.unlink(missing_ok=True)
            where.symlink_to(target)

        return self.do(make)

    def fifo(self, path: str) -> "Machine":
        """A FIFO in the place of a file: something that is there and can't be read."""

        def make(root: Path) -> None:
            where = place(root, path)
            where.parent.mkdir(parents=True, exist_ok=True)
            where.unlink(missing_ok=True)
            os.mkfifo(where)

        return self.do(make)

    def remove(self, path: str) -> "Machine":
        """Without a file or link that an earlier step made."""
        return self.do(lambda root: place(root, path).unlink())

    def append(self, path: str, text: str) -> "Machine":
        """More text at the end of a file."""

        def make(root: Path) -> None:
            with open(place(root, path), "a") as file:
                file.write(text)

        return self.do(make)

    def library(
        self, path: str, soname: str = "", needed: Sequence[str] = (), runpath: str = "", mode: int = 0o644
    ) -> "Machine":
        """An ELF shared library."""
        return self.file(path, elf.shared_library(soname, needed, runpath), mode)

    # Packages.
    def package(
        self,
        name: str,
        version: str,
        files: Sequence[str] = (),
        status: str = "install ok installed",
        arch: str = "amd64",
        **fields: str,
    ) -> "Machine":
        """An entry in dpkg's status file; `files` go to its list (they are not made). Fields are given in
        lower case with underscores: depends="a, b"."""
        self._packages[name] = {
            "Status": status, "Architecture": arch, "Version": version,
            **{k.replace("_", "-").title(): v for k, v in fields.items()},
        }  # fmt: skip
        same = fields.get("multi_arch") == "same"
        self._package_files[f"{name}:{arch}" if same else name] = list(files)
        return self

    def without_package(self, name: str) -> "Machine":
        """Take a package out of the status file again; its files stay."""
        del self._packages[name]
        return self

    # The base system.
    def os_release(self, distribution: str, version: str, name: str = "") -> "Machine":
        """/etc/os-release and what every Debian or Ubuntu has beside it."""
        like = "ID_LIKE=debian\n" if distribution == "ubuntu" else ""
        return (
            self.file("/etc/os-release", f'ID={distribution}\nVERSION_ID="{version}"\n{like}PRETTY_NAME="{name or distribution} {version}"\n')
            .file("/etc/hostname", "workstation\n")
            .file("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
            .file("/etc/group", "root:x:0:\n")
            .file("/etc/login.defs", "UID_MIN 1000\nUID_MAX 60000\n")
            .file("/etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n")
            .file(f"/etc/ld.so.conf.d/{TRIPLET}.conf", f"/usr/local/lib/{TRIPLET}\n/lib/{TRIPLET}\n/usr/lib/{TRIPLET}\n")
            .file("/etc/profile", PROFILE)
            .folder("/etc/profile.d")
            .folder("/tmp", 0o1777)
            .folder("/tmp/.X11-unix", 0o1777)
            .folder("/var/tmp", 0o1777)
            .folder("/usr/bin")
            .folder("/usr/sbin")
            .folder("/usr/local/bin")
            .folder("/home")
            .folder("/root", 0o700)
            .link("/bin", "usr/bin")
            .link("/sbin", "usr/sbin")
            .link("/lib", "usr/lib")
            .folder("/var/lib/dpkg/updates")
        )  # fmt: skip

    def user(self, name: str = "alice", uid: int = 1000, shell: str = "/bin/bash") -> "Machine":
        """A person with a home as adduser makes it."""
        home = f"/home/{name}"
        return (
            self.append("/etc/passwd", f"{name}:x:{uid}:{uid}:{name}:{home}:{shell}\n")
            .append("/etc/group", f"{name}:x:{uid}:\n")
            .folder(home, 0o755, uid)
            .file(f"{home}/.bashrc", BASHRC, uid=uid)
            .file(f"{home}/.profile", USER_PROFILE, uid=uid)
        )

    def kernel(
        self,
        release: str,
        *,
        running: bool = True,
        headers: bool = True,
        compiler: str = "gcc-12 (Debian 12.2.0-14) 12.2.0",
    ) -> "Machine":
        """An installed kernel; with its headers, and as the one that runs."""
        modules = f"/usr/lib/modules/{release}"
        (
            self.file(f"/boot/vmlinuz-{release}", "kernel")
            .file(f"/boot/initrd.img-{release}", b"")
            .file(f"/boot/config-{release}", f'CONFIG_CC_VERSION_TEXT="{compiler}"\nCONFIG_MODULES=y\n')
            .file(f"{modules}/modules.dep")
            .package(f"linux-image-{release}", "1")
        )
        if headers:
            source = f"/usr/src/linux-headers-{release}"
            (
                self.file(f"{source}/Makefile")
                .file(f"{source}/include/generated/utsrelease.h", f'#define UTS_RELEASE "{release}"\n')
                .link(f"{modules}/build", source)
                .package(f"linux-headers-{release}", "1", [source, f"{source}/Makefile"])
            )
        if running:
            (
                self.file("/proc/sys/kernel/osrelease", f"{release}\n")
                .file("/proc/version", f"Linux version {release} (build@host) ({compiler}, GNU ld 2.40) #1 SMP\n")
                .file("/proc/cmdline", f"BOOT_IMAGE=/boot/vmlinuz-{release} root=/dev/sda1 ro quiet\n")
                .file("/proc/modules", "ext4 991232 1 - Live 0x0000000000000000\n")
                .file("/proc/devices", "Character devices:\n  1 mem\n\nBlock devices:\n  8 sd\n")
            )
        return self

    # The GPU and its driver.
    def gpu(
        self, device: str = "1b06", address: str = "0000:01:00.0", driver: str = "nvidia", klass: str = "0x030000"
    ) -> "Machine":
        """An NVIDIA display controller as sysfs shows it; bound to `driver` unless that is empty."""
        folder = f"/sys/bus/pci/devices/{address}"
        (
            self.file(f"{folder}/vendor", "0x10de\n")
            .file(f"{folder}/device", f"0x{device}\n")
            .file(f"{folder}/class", f"{klass}\n")
            .file(f"{folder}/subsystem_vendor", "0x1043\n")
            .file(f"{folder}/boot_vga", "1\n")
        )
        if driver:
            self.folder(f"/sys/bus/pci/drivers/{driver}").link(
                f"{folder}/driver", f"../../../../bus/pci/drivers/{driver}"
            )
        return self

    def loaded_driver(self, version: str, *, open_flavour: bool = False) -> "Machine":
        """The nvidia modules in the running kernel, with their device nodes' numbers (nodes can't be made)."""
        flavour = "UNIX Open Kernel Module for x86_64" if open_flavour else "UNIX x86_64 Kernel Module"
        return (
            self.append("/proc/modules", "".join(
                f"{m} 1000000 1 - Live 0x0000000000000000 (OE)\n" for m in ("nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia")))
            .file("/proc/driver/nvidia/version",
                  f"NVRM version: NVIDIA {flavour}  {version}  Thu Jun 12 00:00:00 UTC 2025\nGCC version:  gcc version 12.2.0\n")
            .file("/proc/driver/nvidia/params", "ModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 0\nDeviceFileMode: 438\n")
            .file("/sys/module/nvidia/version", f"{version}\n")
            .file("/proc/devices", "Character devices:\n  1 mem\n195 nvidia\n195 nvidiactl\n511 nvidia-uvm\n\nBlock devices:\n  8 sd\n")
        )  # fmt: skip

    def nvidia_module(
        self,
        kernel: str,
        version: str,
        *,
        name: str = "nvidia-current.ko",
        place: str = "updates/dkms",
        open_flavour: bool = False,
        signature: bytes = b"",
        **modinfo: str,
    ) -> "Machine":
        """The driver's main kernel module on disk."""
        info = {
            "version": version,
            "license": "Dual MIT/GPL" if open_flavour else "NVIDIA",
            "alias": ["pci:v000010DEd*sv*sd*bc03sc02i00*", "pci:v000010DEd*sv*sd*bc03sc00i00*"],
            "name": "nvidia",
            "vermagic": f"{kernel} SMP preempt mod_unload modversions ",
            **modinfo,
        }
        return self.file(f"/usr/lib/modules/{kernel}/{place}/{name}", elf.kernel_module(info, signature))

    def dkms(
        self, module: str, version: str, kernels: Sequence[str], files: Mapping[str, str] | None = None
    ) -> "Machine":
        """DKMS's tree for a module: its source, and that it is built for these kernels."""
        tree, source = f"/var/lib/dkms/{module}/{version}", f"/usr/src/{module}-{version}"
        self.file(f"{source}/dkms.conf", f'PACKAGE_NAME="{module}"\nPACKAGE_VERSION="{version}"\n').link(
            f"{tree}/source", source
        )
        for kernel in kernels:
            (
                self.file(f"{tree}/{kernel}/x86_64/log/make.log", "DKMS make.log: done\n")
                .file(f"{tree}/{kernel}/x86_64/module/{module}.ko", "")
                .link(f"/var/lib/dkms/{module}/kernel-{kernel}-x86_64", f"{version}/{kernel}/x86_64")
            )
        for path, text in (files or {}).items():
            self.file(f"{tree}/{path}", text)
        return self

    def debian_driver(
        self, version: str = "535.261.03", kernels: Sequence[str] = ("6.1.0-50-amd64",), *, loaded: bool = True
    ) -> "Machine":
        """Debian's nvidia-driver, complete, built for these kernels."""
        package_version = f"{version}-1~deb12u1"
        lib, current = f"/usr/lib/{TRIPLET}", f"/usr/lib/{TRIPLET}/nvidia/current"
        libraries = {
            "libcuda1": ("libcuda.so", "libcuda.so.1"),
            "libnvidia-ml1": ("libnvidia-ml.so", "libnvidia-ml.so.1"),
            "libglx-nvidia0": ("libGLX_nvidia.so", "libGLX_nvidia.so.0"),
            "libegl-nvidia0": ("libEGL_nvidia.so", "libEGL_nvidia.so.0"),
        }
        for package, (stem, soname) in libraries.items():
            real = f"{current}/{stem}.{version}"
            alternative = f"/etc/alternatives/nvidia--{soname}-{TRIPLET}"
            (
                self.library(real, soname)
                .link(f"{current}/{soname}", f"{stem}.{version}")
                .link(alternative, f"{current}/{soname}")
                .link(f"{lib}/{soname}", alternative)
                .package(
                    package,
                    package_version,
                    [real, f"{current}/{soname}"],
                    multi_arch="same",
                    source="nvidia-graphics-drivers",
                )
            )
        core = f"{lib}/libnvidia-glcore.so.{version}"
        self.library(core, f"libnvidia-glcore.so.{version}")
        self.package("libnvidia-glcore", package_version, [core], multi_arch="same", source="nvidia-graphics-drivers")
        for name in (
            "nvidia-driver",
            "nvidia-driver-bin",
            "nvidia-driver-libs",
            "nvidia-alternative",
            "nvidia-kernel-support",
            "nvidia-vdpau-driver",
        ):
            self.package(name, package_version, source="nvidia-graphics-drivers")
        drv = "/usr/lib/nvidia/current/nvidia_drv.so"
        (
            self.package(
                "nvidia-kernel-dkms",
                package_version,
                [f"/usr/src/nvidia-current-{version}/dkms.conf"],
                source="nvidia-graphics-drivers",
            )
            .package(
                "nvidia-smi", package_version, ["/usr/lib/nvidia/current/nvidia-smi"], source="nvidia-graphics-drivers"
            )
            .package("xserver-xorg-video-nvidia", package_version, [drv], source="nvidia-graphics-drivers")
            .package("nvidia-modprobe", package_version, ["/usr/bin/nvidia-modprobe"])
            .package("glx-alternative-nvidia", "1.2.2")
            .package("glx-diversions", "1.2.2")
            .file("/usr/lib/nvidia/current/nvidia-smi", "", 0o755)
            .library(drv)
            .file("/usr/bin/nvidia-modprobe", "", 0o4755)
            .link("/etc/alternatives/nvidia--nvidia_drv.so", drv)
            .link("/etc/alternatives/glx--nvidia_drv.so", "/usr/lib/nvidia/nvidia_drv.so")
            .link("/usr/lib/nvidia/nvidia_drv.so", "/etc/alternatives/nvidia--nvidia_drv.so")
            .link("/usr/lib/xorg/modules/drivers/nvidia_drv.so", "/etc/alternatives/glx--nvidia_drv.so")
            .link("/etc/alternatives/nvidia", "/usr/lib/nvidia/current")
            .link("/etc/alternatives/glx", "/usr/lib/nvidia")
            .file(f"/etc/nvidia/nvidia-{version}/nvidia-blacklists-nouveau.conf", "blacklist nouveau\n")
            .link(
                "/etc/alternatives/nvidia--nvidia-blacklists-nouveau.conf",
                f"/etc/nvidia/nvidia-{version}/nvidia-blacklists-nouveau.conf",
            )
            .link(
                "/etc/nvidia/nvidia-blacklists-nouveau.conf", "/etc/alternatives/nvidia--nvidia-blacklists-nouveau.conf"
            )
            .link("/etc/alternatives/glx--nvidia-blacklists-nouveau.conf", "/etc/nvidia/nvidia-blacklists-nouveau.conf")
            .link(
                "/etc/modprobe.d/nvidia-blacklists-nouveau.conf",
                "/etc/alternatives/glx--nvidia-blacklists-nouveau.conf",
            )
            .dkms("nvidia-current", version, kernels)
        )
        for kernel in kernels:
            self.nvidia_module(kernel, version)
        return self.loaded_driver(version) if loaded else self

    def ubuntu_driver(
        self,
        version: str = "550.120",
        kernels: Sequence[str] = ("6.8.0-50-generic",),
        *,
        loaded: bool = True,
        open_flavour: bool = False,
    ) -> "Machine":
        """Ubuntu's nvidia-driver-NNN, complete, built for these kernels."""
        branch = version.split(".")[0]
        flavour = "-open" if open_flavour else ""
        package_version = f"{version}-0ubuntu0.24.04.1"
        source = f"nvidia-graphics-drivers-{branch}"
        lib = f"/usr/lib/{TRIPLET}"
        libraries = {
            f"libnvidia-compute-{branch}": [("libcuda.so", "libcuda.so.1"), ("libnvidia-ml.so", "libnvidia-ml.so.1")],
            f"libnvidia-gl-{branch}": [
                ("libGLX_nvidia.so", "libGLX_nvidia.so.0"),
                ("libEGL_nvidia.so", "libEGL_nvidia.so.0"),
            ],
        }
        for package, stems in libraries.items():
            files = []
            for stem, soname in stems:
                self.library(f"{lib}/{stem}.{version}", soname).link(f"{lib}/{soname}", f"{stem}.{version}")
                files += [f"{lib}/{stem}.{version}", f"{lib}/{soname}"]
            self.package(package, package_version, files, multi_arch="same", source=source)
        drv = f"{lib}/nvidia/xorg/nvidia_drv.so"
        for name in (
            f"nvidia-driver-{branch}{flavour}",
            f"nvidia-kernel-common-{branch}",
            f"nvidia-kernel-source-{branch}{flavour}",
            f"libnvidia-common-{branch}",
            f"libnvidia-cfg1-{branch}",
            f"libnvidia-decode-{branch}",
            f"libnvidia-encode-{branch}",
            f"nvidia-compute-utils-{branch}",
        ):
            self.package(name, package_version, source=source)
        (
            self.package(
                f"nvidia-dkms-{branch}{flavour}",
                package_version,
                [f"/usr/src/nvidia-{version}/dkms.conf"],
                source=source,
            )
            .package(f"nvidia-utils-{branch}", package_version, ["/usr/bin/nvidia-smi"], source=source)
            .package(f"xserver-xorg-video-nvidia-{branch}", package_version, [drv], source=source)
            .package("nvidia-modprobe", "550.54.14-0ubuntu1", ["/usr/bin/nvidia-modprobe"])
            .file("/usr/bin/nvidia-smi", "", 0o755)
            .file("/usr/bin/nvidia-modprobe", "", 0o4755)
            .library(drv)
            .file(
                "/usr/lib/modprobe.d/nvidia-graphics-drivers.conf",
                "blacklist nouveau\nblacklist lbm-nouveau\nalias nouveau off\nalias lbm-nouveau off\n",
            )
            .dkms("nvidia", version, kernels)
        )
        for kernel in kernels:
            self.nvidia_module(kernel, version, name="nvidia.ko", open_flavour=open_flavour)
        return self.loaded_driver(version, open_flavour=open_flavour) if loaded else self

    def cuda_toolkit(self, version: str = "12.2", release: str = "12.2.140", *, default: bool = True) -> "Machine":
        """A toolkit in /usr/local/cuda-X.Y as NVIDIA's installers lay it out; `default` makes /usr/local/cuda its link."""
        home = f"/usr/local/cuda-{version}"
        lib = f"{home}/targets/x86_64-linux/lib"
        major = version.split(".")[0]
        (
            self.file(f"{home}/bin/nvcc", elf.shared_library(), 0o755)
            .file(f"{home}/version.json", json.dumps({"cuda": {"name": "CUDA SDK", "version": release}}))
            .file(f"{home}/targets/x86_64-linux/include/cuda_runtime.h")
            .file(
                f"{home}/targets/x86_64-linux/include/cuda.h",
                f"#define CUDA_VERSION {major}{int(version.split('.')[1]):02d}0\n",
            )
            .library(f"{lib}/libcudart.so.{release}", f"libcudart.so.{major if int(major) > 10 else version}")
            .link(f"{lib}/libcudart.so.{major if int(major) > 10 else version}", f"libcudart.so.{release}")
            .link(f"{lib}/libcudart.so", f"libcudart.so.{major if int(major) > 10 else version}")
            .library(f"{lib}/stubs/libcuda.so", "libcuda.so.1")
            .link(f"{home}/lib64", "targets/x86_64-linux/lib")
            .link(f"{home}/include", "targets/x86_64-linux/include")
        )
        if default:
            self.link("/usr/local/cuda", home)
            self.file("/etc/ld.so.conf.d/000_cuda.conf", "/usr/local/cuda/targets/x86_64-linux/lib\n")
            self.file("/etc/profile.d/cuda.sh", 'export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"\n')
        return self

    # Whole machines, healthy.
    @classmethod
    def debian12(cls) -> "Machine":
        """Debian 12 with a user, without any NVIDIA part."""
        return cls().os_release("debian", "12", "Debian GNU/Linux").kernel("6.1.0-50-amd64").user()

    @classmethod
    def debian12_gpu(cls) -> "Machine":
        """The same with a GTX 1080 Ti and Debian's driver, loaded."""
        return cls.debian12().gpu().debian_driver()

    @classmethod
    def ubuntu2404(cls) -> "Machine":
        """Ubuntu 24.04 with a user, without any NVIDIA part."""
        return (
            cls()
            .os_release("ubuntu", "24.04", "Ubuntu")
            .kernel("6.8.0-50-generic", compiler="x86_64-linux-gnu-gcc-13 (Ubuntu 13.2.0) 13.2.0")
            .user()
        )

    @classmethod
    def ubuntu2404_gpu(cls) -> "Machine":
        """The same with a GTX 1080 Ti and Ubuntu's driver 550, loaded."""
        return cls.ubuntu2404().gpu().ubuntu_driver()


PROFILE = """\
if [ "$(id -u)" -eq 0 ]; then
  PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
else
  PATH="/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
fi
export PATH

if [ "${PS1-}" ]; then
  if [ "${BASH-}" ] && [ "$BASH" != "/bin/sh" ]; then
    if [ -f /etc/bash.bashrc ]; then
      . /etc/bash.bashrc
    fi
  fi
fi

if [ -d /etc/profile.d ]; then
  for i in /etc/profile.d/*.sh; do
    if [ -r $i ]; then
      . $i
    fi
  done
  unset i
fi
"""

BASHRC = """\
# ~/.bashrc: executed by bash(1) for non-login shells.
case $- in
    *i*) ;;
      *) return;;
esac
HISTCONTROL=ignoreboth
shopt -s histappend
if [ -x /usr/bin/dircolors ]; then
    test -r ~/.dircolors && eval "$(dircolors -b ~/.dircolors)" || eval "$(dircolors -b)"
    alias ls='ls --color=auto'
fi
if [ -f ~/.bash_aliases ]; then
    . ~/.bash_aliases
fi
"""

USER_PROFILE = """\
# ~/.profile: executed by the command interpreter for login shells.
if [ -n "$BASH_VERSION" ]; then
    if [ -f "$HOME/.bashrc" ]; then
	. "$HOME/.bashrc"
    fi
fi
if [ -d "$HOME/bin" ] ; then
    PATH="$HOME/bin:$PATH"
fi
if [ -d "$HOME/.local/bin" ] ; then
    PATH="$HOME/.local/bin:$PATH"
fi
"""


def place(root: Path, path: str) -> Path:
    """Where a path of the machine lies. Links above it are followed inside the root: an absolute one, followed by the
    kernel, would lead into the machine that runs the tests."""
    where, pending = root, path.strip("/").split("/")[::-1]
    while len(pending) > 1:
        step = where / pending.pop()
        if step.is_symlink():
            target = str(step.readlink())
            if target.startswith("/"):
                where = root
            pending += target.strip("/").split("/")[::-1]
        elif step.name == "..":
            where = root if where == root else where.parent
        else:
            where = step
    return where / pending[0]


def _write(root: Path, path: str, content: str | bytes, mode: int = 0o644) -> None:
    where = place(root, path)
    where.parent.mkdir(parents=True, exist_ok=True)
    if where.is_symlink():
        where.unlink()
    where.write_bytes(content.encode() if isinstance(content, str) else content)
    where.chmod(mode)


def _stanza(name: str, fields: Mapping[str, str]) -> str:
    return "".join(f"{key}: {value}\n" for key, value in {"Package": name, **fields}.items())
