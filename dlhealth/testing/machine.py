"""Describes a machine step by step, then builds it as a directory."""

import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from dlhealth.testing import elf, layouts, logs, signing, smi

if TYPE_CHECKING:  # pathlib costs more than this module, and every rule imports it
    from pathlib import Path

Step = Callable[["_Tree"], None]

TRIPLET = layouts.TRIPLET


class Machine:
    """A description; `build` makes the directory. Later steps overwrite earlier ones, so a scenario starts from a
    healthy machine and breaks it. Every method returns the machine itself."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._packages: dict[str, dict[str, str]] = {}
        self._package_files: dict[str, list[str]] = {}
        self._users: dict[str, str] = {}
        self._modules = "/usr/lib/modules"

    def build(self, folder: "Path") -> "Path":
        """Make the machine in an empty directory. It also sets owners, which needs root. dpkg's records come first, so
        that a step may damage them."""
        tree = _Tree(folder)
        if self._packages:
            tree.write("/var/lib/dpkg/status", "\n".join(_stanza(n, f) for n, f in self._packages.items()))
        for name, files in self._package_files.items():
            tree.write(f"/var/lib/dpkg/info/{name}.list", "".join(f"{f}\n" for f in ["/.", *files]))
        for step in self._steps:
            step(tree)
        return folder

    def do(self, step: Callable[["Path"], None]) -> "Machine":
        """Anything that the methods below do not cover; `step` gets the root directory."""

        def make(tree: _Tree) -> None:
            step(tree.root)
            tree.forget()

        return self._then(make)

    def _then(self, step: Step) -> "Machine":
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
        """A regular file; directories above it are made."""

        def make(tree: _Tree) -> None:
            where = tree.write(path, content, mode, uid, uid if gid is None else gid)
            if mtime is not None:
                os.utime(where, (mtime, mtime))

        return self._then(make)

    def folder(self, path: str, mode: int = 0o755, uid: int = 0, gid: int | None = None) -> "Machine":
        """A directory, or new owner and mode of an existing one."""

        def make(tree: _Tree) -> None:
            where = tree.of(path)
            os.makedirs(where, exist_ok=True)
            os.chown(where, uid, uid if gid is None else gid)
            os.chmod(where, mode)

        return self._then(make)

    def link(self, path: str, target: str) -> "Machine":
        """A symbolic link; it replaces an existing file."""
        return self._then(lambda tree: os.symlink(target, tree.cleared(path)))

    def fifo(self, path: str) -> "Machine":
        """A FIFO in place of a file: something that exists and cannot be read."""
        return self._then(lambda tree: os.mkfifo(tree.cleared(path)))

    def node(self, path: str, major: int, minor: int = 0, mode: int = 0o666, uid: int = 0, gid: int = 0) -> "Machine":
        """A character device; needs root."""

        def make(tree: _Tree) -> None:
            where = tree.cleared(path)
            os.mknod(where, stat.S_IFCHR | 0o600, os.makedev(major, minor))
            os.chown(where, uid, gid)
            os.chmod(where, mode)

        return self._then(make)

    def remove(self, path: str) -> "Machine":
        """Remove a file, a link or a directory that an earlier step made."""

        def make(root: "Path") -> None:
            where = place(root, path)
            if where.is_dir() and not where.is_symlink():
                shutil.rmtree(where)
            else:
                where.unlink()

        return self.do(make)

    def append(self, path: str, text: str) -> "Machine":
        """Append text to a file."""

        def make(tree: _Tree) -> None:
            with open(tree.of(path), "a") as file:
                file.write(text)

        return self._then(make)

    def library(
        self,
        path: str,
        soname: str = "",
        needed: Sequence[str] = (),
        runpath: str = "",
        mode: int = 0o644,
        *,
        rpath: str = "",
        versions: Sequence[str] = (),
        bits: int = 64,
    ) -> "Machine":
        """An ELF shared library; `versions` are of symbols that it takes from the first of `needed`."""
        library = elf.shared_library(soname, needed, runpath, rpath=rpath, versions=versions, bits=bits)
        return self.file(path, library, mode)

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
        lower case with underscores: depends="a, b". One of another architecture is a package of its own, "name:i386"."""
        foreign = arch not in ("amd64", "all")
        self._packages[f"{name}:{arch}" if foreign else name] = {
            "Status": status, "Architecture": arch, "Version": version,
            **{k.replace("_", "-").title(): v for k, v in fields.items()},
        }  # fmt: skip
        same = fields.get("multi_arch") == "same"
        self._package_files[f"{name}:{arch}" if same else name] = list(files)
        return self

    def mark(self, pattern: str, status: str) -> "Machine":
        """Another status for every package whose name matches a shell pattern."""
        for name, fields in self._packages.items():
            if fnmatchcase(name, pattern):
                fields["Status"] = status
        return self

    def without_package(self, name: str) -> "Machine":
        """Remove a package from the status file; its files stay."""
        del self._packages[name]
        return self

    def apt_key(self, path: str, *keys: str) -> "Machine":
        """A keyring with keys of these IDs: each a key packet without content, and its own signature."""
        packets = b""
        for key in keys:
            issuer = b"\x09\x10" + bytes.fromhex(key)
            signature = b"\4\x13\1\x0a\0\0" + len(issuer).to_bytes(2, "big") + issuer
            packets += b"\x98\1\4" + b"\x88" + bytes([len(signature)]) + signature
        return self.file(path, packets)

    def locked(self, path: str, pid: int, command: str) -> "Machine":
        """A lock file that a running process holds; without a command, a process whose name cannot be read."""

        def make(root: "Path") -> None:
            where = place(root, path)
            where.parent.mkdir(parents=True, exist_ok=True)
            where.write_bytes(b"")
            status = where.stat()
            device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
            with open(place(root, "/proc/locks"), "a") as file:
                file.write(f"1: POSIX  ADVISORY  WRITE {pid} {device}:{status.st_ino} 0 EOF\n")

        self.folder("/proc").do(make)
        return self.file(f"/proc/{pid}/comm", f"{command}\n") if command else self

    # The base system.
    def os_release(self, distribution: str, version: str, name: str = "", *, usrmerge: bool = True) -> "Machine":
        """/etc/os-release and the other basic files of every Debian or Ubuntu. `usrmerge`: /lib is a link to
        usr/lib."""
        like = "ID_LIKE=debian\n" if distribution == "ubuntu" else ""
        self._modules = "/usr/lib/modules" if usrmerge else "/lib/modules"
        for top in ("bin", "sbin", "lib"):
            if usrmerge:
                self.folder(f"/usr/{top}").link(f"/{top}", f"usr/{top}")
            else:
                self.folder(f"/{top}")
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
            .folder("/var/lib/dpkg/updates")
        )  # fmt: skip

    def user(self, name: str = "alice", uid: int = 1000, shell: str = "/bin/bash") -> "Machine":
        """A user with a home in the form of adduser."""
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
        """An installed kernel; optionally with its headers, and as the running one."""
        modules = f"{self._modules}/{release}"
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
        """An NVIDIA display controller in sysfs; bound to `driver` unless that is empty."""
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
        """The nvidia modules in the running kernel, used by a display, with the numbers of their device nodes (nodes
        cannot be made)."""
        flavour = "UNIX Open Kernel Module for x86_64" if open_flavour else "UNIX x86_64 Kernel Module"
        return (
            self.append("/proc/modules", PROC_MODULES)
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
        """One of the driver's kernel modules on disk, the main one unless `name` is another."""
        info = {
            "version": version,
            "license": "Dual MIT/GPL" if open_flavour else "NVIDIA",
            "alias": ["pci:v000010DEd*sv*sd*bc03sc02i00*", "pci:v000010DEd*sv*sd*bc03sc00i00*"],
            "name": name.partition(".")[0].replace("-current", "").replace("-", "_"),
            "vermagic": f"{kernel} SMP preempt mod_unload modversions ",
            **modinfo,
        }
        return self.file(f"{self._modules}/{kernel}/{place}/{name}", elf.kernel_module(info, signature))

    def secure_boot(
        self,
        on: bool = True,
        *,
        validation: bool = True,
        signed_by: int | None = None,
        enrolled: Sequence[int] = (),
        shim_key: int | None = None,
    ) -> "Machine":
        """A firmware with Secure Boot, and certificates (by serial number) that its owner enrolled. `signed_by` signs
        the previously made NVIDIA modules with DKMS's key of that number; `shim_key` is the number of Ubuntu's own
        key."""
        variables, shim = "/sys/firmware/efi/efivars", "605dab50-e046-4300-abb6-3dd810dd8b23"
        self.file(f"{variables}/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", bytes([6, 0, 0, 0, on]))
        if not validation:
            self.file(f"{variables}/MokSBStateRT-{shim}", bytes([6, 0, 0, 0, 1]))
        if enrolled:
            self.file(f"{variables}/MokListRT-{shim}", signing.mok_list(tuple(enrolled)))
        if shim_key is not None:
            self.file("/var/lib/shim-signed/mok/MOK.der", signing.certificate(shim_key))
        if signed_by is None:
            return self

        def sign(root: "Path") -> None:
            for path in place(root, self._modules).rglob("nvidia*.ko"):
                path.write_bytes(elf.signed(path.read_bytes(), signing.signature(signed_by)))

        return self.file("/var/lib/dkms/mok.pub", signing.certificate(signed_by)).do(sign)

    def initramfs(
        self,
        kernel: str,
        files: Mapping[str, str],
        *,
        nvidia: str = "",
        mtime: float | None = None,
        folder: str = "/boot",
    ) -> "Machine":
        """An initramfs with these files and the NVIDIA module of a version. Names have no leading slash; a name that
        ends with "@" is a link, and its text the target."""
        content = {name: text.encode() for name, text in files.items()}
        if nvidia:
            path = f"usr/lib/modules/{kernel}/updates/dkms/nvidia.ko"
            content[path] = elf.kernel_module({"version": nvidia, "name": "nvidia"})
        import gzip

        microcode = _cpio({"kernel/x86/microcode/GenuineIntel.bin": b"\1" * 100})
        image = microcode + bytes(512) + gzip.compress(_cpio(content), 1)
        return self.file(f"{folder}/initrd.img-{kernel}", image, mtime=mtime)

    def dkms(
        self, module: str, version: str, kernels: Sequence[str], files: Mapping[str, str] | None = None
    ) -> "Machine":
        """DKMS's tree for a module: its source, and the kernels that it is built for."""
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
        package_version = f"{version}-1"
        lib, current, admin = layouts.LIB, layouts.CURRENT, "/etc/alternatives"
        source = {"source": "nvidia-graphics-drivers"}
        slaves: dict[str, tuple[str, str]] = {}
        for package, sonames in layouts.DEBIAN_LIBRARIES.items():
            files = []
            for soname in sonames:
                real = f"{current}/{layouts.stem(soname)}.{version}"
                self.library(real, soname).link(f"{current}/{soname}", f"{layouts.stem(soname)}.{version}")
                files += [real, f"{current}/{soname}"]
                # The configuration library is behind both alternatives.
                link = f"{lib}/nvidia/{soname}" if package == "libnvidia-cfg1" else f"{lib}/{soname}"
                slaves[f"{soname}-{TRIPLET}"] = link, f"{current}/{soname}"
            self.package(package, package_version, files, multi_arch="same", **source)
        for name in layouts.DEBIAN_PLAIN_LIBRARIES:
            self.library(f"{lib}/{name}.so.{version}", f"{name}.so.{version}")
            self.package(name, package_version, [f"{lib}/{name}.so.{version}"], multi_arch="same", **source)
        for name, depends in layouts.DEBIAN_METAPACKAGES.items():
            self.package(name, package_version, depends=depends.format(v=package_version, u=version), **source)
        for name, own_version in layouts.DEBIAN_HELPERS.items():
            self.package(name, own_version, ["/usr/bin/nvidia-modprobe"] if name == "nvidia-modprobe" else [])
        for name, text in layouts.DEBIAN_FILES.items():
            self.file(f"/etc/nvidia/current/{name}", text)
            link = "/etc/modprobe.d/nvidia-options.conf" if name == "nvidia-options.conf" else f"/etc/nvidia/{name}"
            slaves[name] = link, f"/etc/nvidia/nvidia-{version}/{name}"
        folder = "/usr/lib/nvidia/current"
        slaves["nvidia-smi"] = "/usr/bin/nvidia-smi", f"{folder}/nvidia-smi"
        slaves["nvidia_drv.so"] = "/usr/lib/nvidia/nvidia_drv.so", f"{folder}/nvidia_drv.so"
        slaves["libglxserver_nvidia.so"] = "/usr/lib/nvidia/libglxserver_nvidia.so", f"{folder}/libglxserver_nvidia.so"
        (
            self.link(f"/etc/nvidia/nvidia-{version}", "current")
            .file(f"{folder}/nvidia-smi", elf.shared_library(), 0o755)
            .library(f"{folder}/nvidia_drv.so")
            .library(f"{folder}/libglxserver_nvidia.so.{version}", "libglxserver_nvidia.so")
            .link(f"{folder}/libglxserver_nvidia.so", f"libglxserver_nvidia.so.{version}")
            .file("/usr/bin/nvidia-modprobe", elf.shared_library(), 0o4755)
            .library("/usr/lib/xorg/modules/extensions/libglx.so")
            .package("nvidia-smi", package_version, [f"{folder}/nvidia-smi"],
                     depends=f"libnvidia-ml1 (= {package_version}), nvidia-alternative (= {package_version})", **source)
            .package("xserver-xorg-video-nvidia", package_version, [
                f"{folder}/nvidia_drv.so", f"{folder}/libglxserver_nvidia.so.{version}"], **source)
            .package("nvidia-kernel-dkms", package_version, [
                f"/usr/src/nvidia-current-{version}", f"/usr/src/nvidia-current-{version}/dkms.conf"],
                depends="dkms, nvidia-installer-cleanup, nvidia-kernel-support", **source)
            .alternative("nvidia", "/usr/lib/nvidia/nvidia", {folder: 535}, slaves)
            .alternative("glx", "/usr/lib/glx", {"/usr/lib/mesa-diverted": 5, "/usr/lib/nvidia": 100},
                         layouts.DEBIAN_GLX_SLAVES)
            .link("/usr/lib/nvidia/nvidia", f"{admin}/nvidia")
            .dkms("nvidia-current", version, kernels)
        )  # fmt: skip
        diversions = ""
        for name in layouts.GLX_DIVERTED:
            diverted = f"/usr/lib/mesa-diverted/{TRIPLET}/{name}"
            diversions += f"{lib}/{name}\n{diverted}\nglx-diversions\n"
            if re.search(r"\.\d+\.\d+\.\d+$", name):
                self.library(diverted).link(diverted.rpartition(".")[0].rpartition(".")[0], name)
        self.file("/var/lib/dpkg/diversions", diversions)
        for kernel in kernels:
            self._driver_modules(kernel, version, "nvidia-current", "updates/dkms")
        return self.loaded_driver(version) if loaded else self

    def alternative(
        self, name: str, link: str, choices: Mapping[str, int], slaves: Mapping[str, tuple[str, str]]
    ) -> "Machine":
        """A link group of update-alternatives in automatic mode: the choice with the highest priority, and the slaves
        (name -> link, target) that come with it."""
        best = max(choices, key=lambda c: choices[c])
        names = {f"{name}--{slave}": value for slave, value in slaves.items()}
        record = ["auto", link, *(part for slave, (where, _) in names.items() for part in (slave, where)), ""]
        for choice, priority in choices.items():
            record += [choice, str(priority), *(target if choice == best else "" for _, target in names.values())]
        self.file(f"/var/lib/dpkg/alternatives/{name}", "\n".join([*record, "", ""]))
        self.link(f"/etc/alternatives/{name}", best)
        for slave, (where, target) in names.items():
            self.link(f"/etc/alternatives/{slave}", target).link(where, f"/etc/alternatives/{slave}")
        return self

    def _driver_modules(self, kernel: str, version: str, stem: str, place: str, open_flavour: bool = False) -> None:
        self.nvidia_module(kernel, version, name=f"{stem}.ko", place=place, open_flavour=open_flavour)
        for part in ("modeset", "drm", "uvm", "peermem"):
            file = f"{stem}-{part}.ko"
            self.nvidia_module(
                kernel, version, name=file, place=place, open_flavour=open_flavour, alias="", depends="nvidia"
            )

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
        source = {"source": f"nvidia-graphics-drivers-{branch}"}
        lib = layouts.LIB
        for package, sonames in layouts.UBUNTU_LIBRARIES.items():
            files = []
            for soname in sonames:
                real = f"{lib}/{layouts.stem(soname)}.{version}"
                self.library(real, soname).link(f"{lib}/{soname}", f"{layouts.stem(soname)}.{version}")
                files += [real, f"{lib}/{soname}"]
            for name in layouts.UBUNTU_PLAIN_LIBRARIES.get(package, ()):
                self.library(f"{lib}/{name}.so.{version}", f"{name}.so.{version}")
                files.append(f"{lib}/{name}.so.{version}")
            self.package(f"{package}-{branch}", package_version, files, multi_arch="same", **source)
        texts = {"b": branch, "o": flavour, "u": version, "v": package_version}
        for name, depends in layouts.UBUNTU_DEPENDS.items():
            self.package(name.format(**texts), package_version, depends=depends.format(**texts), **source)
        xorg = f"{lib}/nvidia/xorg"
        blacklist = "/usr/lib/modprobe.d/nvidia-graphics-drivers.conf"
        src = f"/usr/src/nvidia-{version}"
        (
            self.package(f"nvidia-dkms-{branch}{flavour}", package_version, [src, f"{src}/dkms.conf"],
                depends=f"nvidia-kernel-source-{branch}{flavour} (>= {version}), nvidia-kernel-common-{branch} (>= {version}), dkms",
                **source)
            .package(f"nvidia-kernel-common-{branch}", package_version, [
                "/lib/modprobe.d/nvidia-graphics-drivers.conf", "/lib/udev/rules.d/71-nvidia.rules"],
                depends=f"nvidia-firmware-{branch}-{version}", **source)
            .package(f"nvidia-utils-{branch}", package_version, ["/usr/bin/nvidia-smi"],
                     depends=f"libnvidia-compute-{branch}", **source)
            .package(f"xserver-xorg-video-nvidia-{branch}", package_version, [
                f"{xorg}/nvidia_drv.so", f"{xorg}/libglxserver_nvidia.so", f"{xorg}/libglxserver_nvidia.so.{version}"],
                depends=f"libnvidia-cfg1-{branch} (= {package_version})", **source)
            .package("nvidia-modprobe", "550.54.14-0ubuntu1", ["/usr/bin/nvidia-modprobe"])
            .package("libnvidia-egl-wayland1", "1:1.1.13-1build1")
            .file("/usr/bin/nvidia-smi", elf.shared_library(), 0o755)
            .file("/usr/bin/nvidia-modprobe", elf.shared_library(), 0o4755)
            .library(f"{xorg}/nvidia_drv.so")
            .library(f"{xorg}/libglxserver_nvidia.so.{version}", "libglxserver_nvidia.so")
            .link(f"{xorg}/libglxserver_nvidia.so", f"libglxserver_nvidia.so.{version}")
            .file("/usr/share/X11/xorg.conf.d/10-nvidia.conf", layouts.OUTPUT_CLASS.replace(
                "EndSection", f'    ModulePath "{xorg}"\nEndSection'))
            .file(blacklist, layouts.UBUNTU_BLACKLIST)
            .file("/etc/modprobe.d/nvidia-graphics-drivers-kms.conf",
                  f"# This file was generated by nvidia-driver-{branch}\n"
                  "# Set value to 0 to disable modesetting\noptions nvidia-drm modeset=1\n")
            .dkms("nvidia", version, kernels)
        )  # fmt: skip
        for kernel in kernels:
            self._driver_modules(kernel, version, "nvidia", "updates/dkms", open_flavour)
        return self.loaded_driver(version, open_flavour=open_flavour) if loaded else self

    def runfile_driver(
        self, version: str = "381.22", kernels: Sequence[str] = ("4.4.0-78-generic",), *, loaded: bool = True
    ) -> "Machine":
        """The driver as NVIDIA's .run file installs it with --dkms: everything, without packages."""
        lib, lib32 = layouts.LIB, "/usr/lib/i386-linux-gnu"
        extensions = "/usr/lib/xorg/modules/extensions"
        files = ["/usr/bin/nvidia-installer", "/usr/bin/nvidia-smi", "/usr/bin/nvidia-modprobe"]
        files += ["/usr/lib/xorg/modules/drivers/nvidia_drv.so", f"{extensions}/libglx.so.{version}"]
        links = {"/usr/bin/nvidia-uninstall": "nvidia-installer", f"{extensions}/libglx.so": f"libglx.so.{version}"}
        for soname in layouts.RUNFILE_LIBRARIES:
            stem = layouts.stem(soname)
            self.library(f"{lib}/{stem}.{version}", soname)
            self.file(f"{lib32}/{stem}.{version}", elf.shared_library(soname, bits=32))
            files += [f"{place}/{stem}.{version}" for place in (lib, lib32)]
            links |= {f"{place}/{soname}": f"{stem}.{version}" for place in (lib, lib32)}
        for name in layouts.RUNFILE_PLAIN_LIBRARIES:
            self.library(f"{lib}/{name}.so.{version}", f"{name}.so.{version}")
            files.append(f"{lib}/{name}.so.{version}")
        for path, target in links.items():
            self.link(path, target)
        manifest = [version, f"NVIDIA Accelerated Graphics Driver for Linux-x86_64 ({version})"]
        manifest += [line for path in files for line in (f"1: {path}", "2903476193")]
        manifest += [line for path, target in links.items() for line in (f"0: {path}", target)]
        (
            self.file("/usr/bin/nvidia-installer", elf.shared_library(), 0o755)
            .file("/usr/bin/nvidia-smi", elf.shared_library(), 0o755)
            .file("/usr/bin/nvidia-modprobe", elf.shared_library(), 0o4755)
            .library("/usr/lib/xorg/modules/drivers/nvidia_drv.so")
            .library(f"{extensions}/libglx.so.{version}", "libglx.so")
            .file("/var/log/nvidia-installer.log", layouts.RUNFILE_LOG.format(version=version))
            .file("/var/lib/nvidia/log", "\n".join([*manifest, ""]), 0o600)
            .file("/etc/modprobe.d/nvidia-installer-disable-nouveau.conf", layouts.RUNFILE_BLACKLIST)
            .dkms("nvidia", version, kernels)
        )
        for kernel in kernels:
            self._driver_modules(kernel, version, "nvidia", "kernel/drivers/video")
        return self.loaded_driver(version) if loaded else self

    def cuda_toolkit(self, version: str = "12.2", release: str = "", *, default: bool = True) -> "Machine":
        """A toolkit in /usr/local/cuda-X.Y in the layout of NVIDIA's installers; with `default`, /usr/local/cuda is a
        link to it."""
        release = release or f"{version}.140"
        home = f"/usr/local/cuda-{version}"
        lib = f"{home}/targets/x86_64-linux/lib"
        major = version.split(".")[0]
        # CUDA 12 removed the minor version from the SONAME; all of CUDA 11 kept that of 11.0.
        soname = f"libcudart.so.{'11.0' if major == '11' else major if int(major) > 11 else version}"
        (
            self.file(f"{home}/bin/nvcc", elf.shared_library(), 0o755)
            .file(f"{home}/version.json", json.dumps({"cuda": {"name": "CUDA SDK", "version": release}}))
            .file(f"{home}/targets/x86_64-linux/include/cuda_runtime.h")
            .file(
                f"{home}/targets/x86_64-linux/include/cuda.h",
                f"#define CUDA_VERSION {major}{int(version.split('.')[1]):02d}0\n",
            )
            .library(f"{lib}/libcudart.so.{release}", soname)
            .link(f"{lib}/{soname}", f"libcudart.so.{release}")
            .link(f"{lib}/libcudart.so", soname)
            .library(f"{lib}/stubs/libcuda.so", "libcuda.so.1")
            .link(f"{home}/lib64", "targets/x86_64-linux/lib")
            .link(f"{home}/include", "targets/x86_64-linux/include")
        )
        if default:
            self.link("/usr/local/cuda", home)
            self.file("/etc/ld.so.conf.d/000_cuda.conf", "/usr/local/cuda/targets/x86_64-linux/lib\n")
            self.file("/etc/profile.d/cuda.sh", 'export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"\n')
        return self

    def python_environment(
        self,
        path: str = "/home/alice/venv",
        packages: Sequence[str] = (),
        *,
        torch: str = "",
        cuda: str = "",
        python: str = "3.11",
        uid: int = 1000,
    ) -> "Machine":
        """A virtual environment with distributions ("numpy-1.26.4"). `torch` is a version of PyTorch like "2.3.0+cu121",
        `cuda` the CUDA that its version.py names ("" for None)."""
        site = f"{path}/lib/python{python}/site-packages"
        self.file(
            f"{path}/pyvenv.cfg",
            f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}.2\n",
            uid=uid,
        )
        self.link(f"{path}/bin/python", "/usr/bin/python3")
        for package in [*packages, *([f"torch-{torch}"] if torch else [])]:
            name, _, version = package.rpartition("-")
            text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            self.file(f"{site}/{package}.dist-info/METADATA", text, uid=uid)
        if torch:
            built = f"'{cuda}'" if cuda else "None"
            self.file(
                f"{site}/torch/version.py",
                "from typing import Optional\n\n"
                "__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip']\n"
                f"__version__ = '{torch}'\ndebug = False\ncuda: Optional[str] = {built}\n"
                "git_version = '97ff6cfd9c86c5c09d7ce775ab64ec5c99230f5d'\nhip: Optional[str] = None\n",
                uid=uid,
            )
        return self

    # What somebody posted.
    def posted_report(self, *cards: dict[str, str]) -> "Machine":
        """The output of `nvidia-smi -q`; each GPU with the values that are not those of a sound one (see smi.CARD)."""
        return self.file("/nvidia-smi-q.txt", smi.report(*cards))

    # Logs.
    def journal(self, entries: Sequence[logs.Entry], *, traditional: bool = False) -> "Machine":
        """Lines in the text logs of rsyslog, in its ISO 8601 or its traditional format."""
        return self.do(lambda root: logs.write_text(root, entries, traditional=traditional))

    def says(self, identifier: str, text: str, seconds: float = 5000.0, uid: int = 0) -> "Machine":
        """One such line, so many seconds after the boot."""
        return self.journal([logs.Entry(seconds, identifier, text, 3000, uid)])

    def login(
        self, user: str = "alice", manager: str = "lightdm", *, begin: float = 100.0, seconds: float | None = None
    ) -> "Machine":
        """One graphical login of "lightdm", "gdm" or "sddm" in the logs; it does not end if `seconds` is None."""
        return self.journal(logs.session(user, begin, seconds, manager, number=int(begin)))

    def login_loop(self, user: str = "alice", manager: str = "lightdm", *, tries: int = 4) -> "Machine":
        """The greeter returns two seconds after each login."""
        for number in range(tries):
            self.login(user, manager, begin=1000.0 + 30 * number, seconds=2.0)
        return self

    def cudnn(
        self, version: str = "8.9.7", *, lib: str = "/usr/local/cuda/lib64", include: str = "/usr/local/cuda/include"
    ) -> "Machine":
        """cuDNN as in its archive: libraries with their links, and all headers."""
        major = int(version.split(".")[0])
        for stem in CUDNN_LIBRARIES.get(major, ("libcudnn",)):
            (
                self.library(f"{lib}/{stem}.so.{version}", f"{stem}.so.{major}")
                .link(f"{lib}/{stem}.so.{major}", f"{stem}.so.{version}")
                .link(f"{lib}/{stem}.so", f"{stem}.so.{major}")
            )
        for name, text in cudnn_headers(version).items():
            self.file(f"{include}/{name}", text)
        return self

    def cudnn_packages(self, version: str = "8.9.7.29-1+cuda12.2", *, development: bool = True) -> "Machine":
        """cuDNN 7 or 8 from NVIDIA's repository, with the alternative for its headers."""
        short = ".".join(version.split(".")[:3])
        major = int(version.split(".")[0])
        lib, include = f"/usr/lib/{TRIPLET}", f"/usr/include/{TRIPLET}"
        files = []
        for stem in CUDNN_LIBRARIES.get(major, ("libcudnn",)):
            self.library(f"{lib}/{stem}.so.{short}", f"{stem}.so.{major}")
            self.link(f"{lib}/{stem}.so.{major}", f"{stem}.so.{short}")
            files += [f"{lib}/{stem}.so.{short}", f"{lib}/{stem}.so.{major}"]
        self.package(f"libcudnn{major}", version, files, depends="libc6")
        if development:
            headers = []
            for name, text in cudnn_headers(short).items():
                versioned = f"{include}/{name.removesuffix('.h')}_v{major}.h"
                alternative = "libcudnn" if name == "cudnn.h" else f"libcudnn_{name.removesuffix('.h')}"
                self.file(versioned, text).link(f"/etc/alternatives/{alternative}", versioned)
                self.link(f"/usr/include/{name}", f"/etc/alternatives/{alternative}")
                headers.append(versioned)
            self.link("/etc/alternatives/libcudnn_so", f"{lib}/libcudnn.so.{major}")
            self.link(f"{lib}/libcudnn.so", "/etc/alternatives/libcudnn_so")
            self.package(f"libcudnn{major}-dev", version, headers, depends=f"libcudnn{major} (= {version})")
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

    @classmethod
    def ubuntu1604_runfile(cls) -> "Machine":
        """Ubuntu 16.04 with a GTX 1080 Ti, its driver and CUDA 8.0 from NVIDIA's .run files, cuDNN 5.1 copied into the
        toolkit, and the exports of its guide in ~/.bashrc: the typical deep learning machine of 2017."""
        release = "4.4.0-78-generic"
        cuda = "/usr/local/cuda-8.0"
        compiler = "gcc version 5.4.0 20160609 (Ubuntu 5.4.0-6ubuntu1~16.04.4)"
        return (
            cls()
            .os_release("ubuntu", "16.04", "Ubuntu", usrmerge=False)
            .kernel(release, compiler=compiler)
            .file("/proc/version", f"Linux version {release} (buildd@lgw01-11) ({compiler} ) #99-Ubuntu SMP\n")
            .file(f"/boot/config-{release}", "CONFIG_MODULES=y\nCONFIG_MODVERSIONS=y\n")
            .user()
            .gpu()
            .runfile_driver("381.22", (release,))
            .cuda_toolkit("8.0", "8.0.61", default=False)
            .remove(f"{cuda}/version.json")
            .file(f"{cuda}/version.txt", "CUDA Version 8.0.61\n")
            .link("/usr/local/cuda", cuda)
            .library(f"{cuda}/lib64/libcudnn.so.5.1.10", "libcudnn.so.5")
            .link(f"{cuda}/lib64/libcudnn.so.5", "libcudnn.so.5.1.10")
            .link(f"{cuda}/lib64/libcudnn.so", "libcudnn.so.5")
            .file(f"{cuda}/include/cudnn.h",
                  "#define CUDNN_MAJOR      5\n#define CUDNN_MINOR      1\n#define CUDNN_PATCHLEVEL 10\n")
            .append("/home/alice/.bashrc",
                    "export PATH=/usr/local/cuda/bin${PATH:+:${PATH}}\n"
                    "export LD_LIBRARY_PATH=/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}}\n")
            .file("/usr/bin/x86_64-linux-gnu-gcc-5", elf.shared_library(), 0o755)
            .file("/usr/bin/x86_64-linux-gnu-g++-5", elf.shared_library(), 0o755)
            .link("/usr/bin/gcc-5", "x86_64-linux-gnu-gcc-5")
            .link("/usr/bin/g++-5", "x86_64-linux-gnu-g++-5")
            .link("/usr/bin/gcc", "gcc-5")
            .link("/usr/bin/g++", "g++-5")
            .package("gcc-5", "5.4.0-6ubuntu1~16.04.4", ["/usr/bin/gcc-5"])
            .package("g++-5", "5.4.0-6ubuntu1~16.04.4", ["/usr/bin/g++-5"])
            .package("dkms", "2.2.0.3-2ubuntu11.3")
            .file("/usr/bin/python3.5", elf.shared_library(), 0o755)
            .link("/usr/bin/python3", "python3.5")
            .package("python3-minimal", "3.5.1-3")
            .file("/usr/sbin/lightdm", elf.shared_library(), 0o755)
            .file("/etc/X11/default-display-manager", "/usr/sbin/lightdm\n")
            .package("lightdm", "1.18.3-0ubuntu1.1")
        )  # fmt: skip


PROC_MODULES = """\
nvidia_uvm 688128 0 - Live 0x0000000000000000 (POE)
nvidia_drm 77824 4 - Live 0x0000000000000000 (POE)
nvidia_modeset 1306624 8 nvidia_drm, Live 0x0000000000000000 (POE)
nvidia 56770560 512 nvidia_uvm,nvidia_modeset, Live 0x0000000000000000 (POE)
"""

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


CUDNN_LIBRARIES = {
    8: ("libcudnn", *(f"libcudnn_{part}_{use}" for part in ("ops", "cnn", "adv") for use in ("infer", "train"))),
    9: (
        "libcudnn",
        *(
            f"libcudnn_{part}"
            for part in (
                "graph",
                "ops",
                "cnn",
                "adv",
                "heuristic",
                "engines_precompiled",
                "engines_runtime_compiled",
            )
        ),
    ),
}


def cudnn_headers(version: str) -> dict[str, str]:
    """The headers of a cuDNN version: only their version and their includes."""
    major, minor, patch = version.split(".")
    macros = f"#define CUDNN_MAJOR {major}\n#define CUDNN_MINOR {minor}\n#define CUDNN_PATCHLEVEL {patch}\n"
    if int(major) < 8:
        return {"cudnn.h": macros}
    parts = ("ops", "cnn", "adv", "graph") if int(major) > 8 else (
        "ops_infer", "ops_train", "cnn_infer", "cnn_train", "adv_infer", "adv_train")  # fmt: skip
    names = [f"cudnn_{part}.h" for part in (*parts, "backend")]
    includes = "".join(f'#include "{name}"\n' for name in ["cudnn_version.h", *names])
    return {"cudnn.h": includes, "cudnn_version.h": macros, **dict.fromkeys(names, '#include "cudnn_version.h"\n')}


def place(root: "Path", path: str) -> "Path":
    """The host's own path of a machine's path. Links above it are followed inside the root: the kernel would follow an
    absolute one into the machine that runs the tests."""
    return root / _place(os.fspath(root), path)


def _place(root: str, path: str) -> str:
    top, _, name = path.strip("/").rpartition("/")
    where, pending = root, top.split("/")[::-1] if top else []
    while pending:
        part = pending.pop()
        step = f"{where}/{part}"
        if part == "..":
            where = where if where == root else os.path.dirname(where)
        elif os.path.islink(step):
            target = os.readlink(step)
            if target.startswith("/"):
                where = root
            pending += target.strip("/").split("/")[::-1]
        else:
            where = step
    return f"{where}/{name}"


class _Tree:
    """The directory of a machine that is being built. A build makes hundreds of files, most of them in the same few
    directories, so their real paths are kept."""

    def __init__(self, root: "Path") -> None:
        self.root = root
        self._known: dict[str, str] = {}

    def of(self, path: str) -> str:
        """The real path of a machine's path; the directory above it is made."""
        top = path.strip("/").rpartition("/")[0]
        if top not in self._known:
            where = _place(os.fspath(self.root), path)
            self._known[top] = os.path.dirname(where)
            os.makedirs(self._known[top], exist_ok=True)
        return f"{self._known[top]}/{path.rstrip('/').rpartition('/')[2]}"

    def cleared(self, path: str) -> str:
        """The same, after an existing file was removed."""
        where = self.of(path)
        try:
            os.unlink(where)
        except FileNotFoundError:
            return where
        self.forget()  # it may have been a link to a directory
        return where

    def write(self, path: str, content: str | bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> str:
        """Write a file in place of a link or another file; its real path."""
        where = self.of(path)
        if os.path.islink(where):
            self.cleared(path)
        with open(os.open(where, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            os.fchown(file.fileno(), uid, gid)
            os.fchmod(file.fileno(), mode)  # after chown, which clears set-user-ID bits
        return where

    def forget(self) -> None:
        """Resolve all directories again: a step may have changed a link."""
        self._known.clear()


def _stanza(name: str, fields: Mapping[str, str]) -> str:
    plain = name.partition(":")[0]
    return "".join(f"{key}: {value}\n" for key, value in {"Package": plain, **fields}.items())


def _cpio(files: Mapping[str, bytes]) -> bytes:
    """A "newc" archive, in the form that the kernel unpacks. A name that ends with "@" is a link, whose content is its
    target."""
    archive = bytearray()
    for number, (entry, content) in enumerate([*files.items(), ("TRAILER!!!", b"")]):
        name = entry.removesuffix("@")
        mode = 0 if name == "TRAILER!!!" else 0o120777 if entry.endswith("@") else 0o100644
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(f"{f:08x}".encode() for f in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
