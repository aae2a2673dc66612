"""The files of the driver's packages and installers that a diagnosis reads.

Debian's from the packages of 535.261.03-1, Ubuntu's from Canonical's packaging, the installer's from its records.
"""

TRIPLET = "x86_64-linux-gnu"
LIB = f"/usr/lib/{TRIPLET}"
CURRENT = f"{LIB}/nvidia/current"

DEBIAN_LIBRARIES = {
    "libcuda1": ("libcuda.so.1",),
    "libnvidia-ml1": ("libnvidia-ml.so.1",),
    "libnvidia-cfg1": ("libnvidia-cfg.so.1",),
    "libnvidia-ptxjitcompiler1": ("libnvidia-ptxjitcompiler.so.1",),
    "libglx-nvidia0": ("libGLX_nvidia.so.0",),
    "libegl-nvidia0": ("libEGL_nvidia.so.0",),
}
"""Package -> the name that programs load; reached through the nvidia alternative."""

DEBIAN_PLAIN_LIBRARIES = ("libnvidia-eglcore", "libnvidia-glcore", "libnvidia-glvkspirv")
"""Packages of one library NAME.so.VERSION in the loader's directory."""

DEBIAN_METAPACKAGES = {
    "nvidia-driver": "nvidia-driver-libs (= {v}), nvidia-driver-bin (= {v}), xserver-xorg-video-nvidia (= {v}), "
    "nvidia-vdpau-driver (= {v}), nvidia-alternative (= {v}), nvidia-kernel-dkms (= {v}) | nvidia-kernel-{u}, nvidia-support",
    "nvidia-driver-bin": "nvidia-kernel-support (= {v}) | nvidia-kernel-support--v1",
    "nvidia-driver-libs": "libgl1-nvidia-glvnd-glx (= {v}), nvidia-egl-icd (= {v})",
    "nvidia-alternative": "glx-alternative-nvidia (>= 1.2)",
    "nvidia-kernel-support": "nvidia-kernel-common (>= 20151021)",
    "nvidia-vdpau-driver": "nvidia-alternative (= {v})",
    "nvidia-egl-common": "",
    "nvidia-egl-icd": "nvidia-egl-common, libegl-nvidia0 (= {v})",
    "libgl1-nvidia-glvnd-glx": "libgl1 (>= 0.2.999), libglx-nvidia0 (= {v})",
    "nvidia-legacy-check": "",
    "firmware-nvidia-gsp": "",
}
DEBIAN_HELPERS = {
    "nvidia-support": "20220217+3~deb12u1",
    "nvidia-kernel-common": "20220217+3~deb12u1",
    "nvidia-installer-cleanup": "20220217+3~deb12u1",
    "nvidia-modprobe": "535.161.07-1~deb12u1",
    "nvidia-persistenced": "535.171.04-1~deb12u1",
    "libnvidia-egl-wayland1": "1:1.1.10-1",
    "glx-alternative-nvidia": "1.2.2",
    "glx-alternative-mesa": "1.2.2",
    "glx-diversions": "1.2.2",
    "update-glx": "1.2.2",
    "libgl1": "1.6.0-1",
    "libegl1": "1.6.0-1",
    "libglx-mesa0": "22.3.6-1+deb12u1",
    "xserver-xorg-core": "2:21.1.7-3+deb12u10",
}
"""Packages with version numbers of their own."""

DEBIAN_NVIDIA_CONF = """\
install nvidia modprobe -i nvidia-current $CMDLINE_OPTS

install nvidia-modeset modprobe nvidia ; modprobe -i nvidia-current-modeset $CMDLINE_OPTS

install nvidia-drm modprobe nvidia-modeset ; modprobe -i nvidia-current-drm $CMDLINE_OPTS

install nvidia-uvm modprobe nvidia ; modprobe -i nvidia-current-uvm $CMDLINE_OPTS

install nvidia-peermem modprobe nvidia ; modprobe -i nvidia-current-peermem $CMDLINE_OPTS

# unloading needs the internal names (i.e. upstream's names, not our renamed files)

remove nvidia modprobe -r -i nvidia-drm nvidia-modeset nvidia-peermem nvidia-uvm nvidia

remove nvidia-modeset modprobe -r -i nvidia-drm nvidia-modeset


alias char-major-195* nvidia

# These aliases are defined in *all* nvidia modules.
# Duplicating them here sets higher precedence and ensures the selected
# module gets loaded instead of a random first match if more than one
# version is installed. See #798207.
alias	pci:v000010DEd00000E00sv*sd*bc04sc80i00*	nvidia
alias	pci:v000010DEd00000AA3sv*sd*bc0Bsc40i00*	nvidia
alias	pci:v000010DEd*sv*sd*bc03sc02i00*		nvidia
alias	pci:v000010DEd*sv*sd*bc03sc00i00*		nvidia
"""
DEBIAN_BLACKLIST = """\
# You need to run "update-initramfs -u" after editing this file.

# see #580894
blacklist nouveau
"""
OUTPUT_CLASS = """\
Section "OutputClass"
    Identifier     "nvidia"
    MatchDriver    "nvidia-drm"
    Driver         "nvidia"
EndSection
"""
DEBIAN_FILES = {
    "nvidia-blacklists-nouveau.conf": DEBIAN_BLACKLIST,
    "nvidia-drm-outputclass.conf": OUTPUT_CLASS,
    "nvidia-load.conf": "nvidia-drm\n",
    "nvidia-modprobe.conf": DEBIAN_NVIDIA_CONF,
    "nvidia-options.conf": "#options nvidia-current NVreg_DeviceFileUID=0 NVreg_DeviceFileGID=44 NVreg_DeviceFileMode=0660\n",
}
"""In /etc/nvidia/current."""

DEBIAN_GLX_SLAVES = {
    f"libEGL.so.1-{TRIPLET}": (f"{LIB}/libEGL.so.1", f"/usr/lib/mesa-diverted/{TRIPLET}/libEGL.so.1"),
    f"libGL.so.1-{TRIPLET}": (f"{LIB}/libGL.so.1", f"/usr/lib/mesa-diverted/{TRIPLET}/libGL.so.1"),
    f"libGLX_indirect.so.0-{TRIPLET}": (f"{LIB}/libGLX_indirect.so.0", f"{LIB}/libGLX_nvidia.so.0"),
    "libglxserver_nvidia.so": (
        "/usr/lib/xorg/modules/extensions/libglxserver_nvidia.so", "/usr/lib/nvidia/libglxserver_nvidia.so"),
    f"libnvidia-cfg.so.1-{TRIPLET}": (f"{LIB}/libnvidia-cfg.so.1", f"{LIB}/nvidia/libnvidia-cfg.so.1"),
    "nvidia-blacklists-nouveau.conf": (
        "/etc/modprobe.d/nvidia-blacklists-nouveau.conf", "/etc/nvidia/nvidia-blacklists-nouveau.conf"),
    "nvidia-drm-outputclass.conf": (
        "/usr/share/X11/xorg.conf.d/nvidia-drm-outputclass.conf", "/etc/nvidia/nvidia-drm-outputclass.conf"),
    "nvidia-load.conf": ("/etc/modules-load.d/nvidia.conf", "/etc/nvidia/nvidia-load.conf"),
    "nvidia-modprobe.conf": ("/etc/modprobe.d/nvidia.conf", "/etc/nvidia/nvidia-modprobe.conf"),
    "nvidia_drv.so": ("/usr/lib/xorg/modules/drivers/nvidia_drv.so", "/usr/lib/nvidia/nvidia_drv.so"),
}  # fmt: skip
"""The glx alternative's slaves: name -> (link, its target if NVIDIA's is chosen)."""

UBUNTU_LIBRARIES = {
    "libnvidia-compute": ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1", "libnvidia-opencl.so.1",
                          "libcudadebugger.so.1"),
    "libnvidia-gl": ("libGLX_nvidia.so.0", "libEGL_nvidia.so.0"),
    "libnvidia-cfg1": ("libnvidia-cfg.so.1",),
    "libnvidia-decode": ("libnvcuvid.so.1",),
    "libnvidia-encode": ("libnvidia-encode.so.1",),
    "libnvidia-fbc1": ("libnvidia-fbc.so.1",),
    "libnvidia-extra": (),
}  # fmt: skip
UBUNTU_PLAIN_LIBRARIES = {
    "libnvidia-gl": ("libnvidia-glcore", "libnvidia-eglcore", "libnvidia-glsi", "libnvidia-tls"),
}
UBUNTU_DEPENDS = {
    "nvidia-driver-{b}{o}": "libnvidia-gl-{b} (= {v}), nvidia-dkms-{b}{o} (<= {u}-1), nvidia-dkms-{b}{o} (>= {u}), "
    "nvidia-kernel-common-{b} (<= {u}-1), nvidia-kernel-common-{b} (>= {u}), nvidia-kernel-source-{b}{o} (= {v}), "
    "libnvidia-compute-{b} (= {v}), libnvidia-extra-{b} (= {v}), nvidia-compute-utils-{b} (= {v}), "
    "libnvidia-decode-{b} (= {v}), libnvidia-encode-{b} (= {v}), nvidia-utils-{b} (= {v}), "
    "xserver-xorg-video-nvidia-{b} (= {v}), libnvidia-cfg1-{b} (= {v}), libnvidia-fbc1-{b} (= {v})",
    "nvidia-kernel-common-{b}": "nvidia-firmware-{b}-{u}",
    "nvidia-kernel-source-{b}{o}": "",
    "nvidia-firmware-{b}-{u}": "",
    "libnvidia-common-{b}": "",
    "nvidia-compute-utils-{b}": "libnvidia-compute-{b}",
}
UBUNTU_BLACKLIST = "blacklist nouveau\nblacklist lbm-nouveau\nalias nouveau off\nalias lbm-nouveau off\n"

RUNFILE_LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-cfg.so.1", "libnvidia-ptxjitcompiler.so.1",
                     "libnvidia-opencl.so.1", "libnvcuvid.so.1", "libnvidia-encode.so.1", "libnvidia-fbc.so.1",
                     "libGLX_nvidia.so.0", "libEGL_nvidia.so.0")  # fmt: skip
RUNFILE_PLAIN_LIBRARIES = ("libnvidia-glcore", "libnvidia-eglcore", "libnvidia-glsi", "libnvidia-tls",
                           "libnvidia-fatbinaryloader", "libnvidia-compiler")  # fmt: skip
RUNFILE_LOG = """\
nvidia-installer log file '/var/log/nvidia-installer.log'
creation time: Thu May 18 10:12:44 2017
installer version: {version}

PATH: /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

nvidia-installer command line:
    ./nvidia-installer
    --dkms

Using: nvidia-installer ncurses v6 user interface
-> Detected 8 CPUs online; setting concurrency level to 8.
-> License accepted.
-> Installing NVIDIA driver version {version}.
-> Installing DKMS kernel module:
-> done.
-> Installation of the kernel module for the NVIDIA Accelerated Graphics Driver for Linux-x86_64 (version {version}) is now complete.
"""
RUNFILE_BLACKLIST = "# generated by nvidia-installer\nblacklist nouveau\noptions nouveau modeset=0\n"

GLX_DIVERTED = ("libGL.so.1", "libGL.so.1.7.0", "libEGL.so.1", "libEGL.so.1.1.0", "libGLX_indirect.so.0")
"""Files of libglvnd and Mesa that Debian's glx-diversions puts into /usr/lib/mesa-diverted."""


def stem(soname: str) -> str:
    """The name "libcuda.so" for "libcuda.so.1"."""
    return soname.partition(".so.")[0] + ".so"
