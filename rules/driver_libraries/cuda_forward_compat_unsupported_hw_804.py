"""Programs load a cuda-compat that is newer than the driver, on a GPU that does not support it.

What you see
    Error 804: forward compatibility was attempted on non supported HW

    nvidia-smi works, but shows a CUDA version that this driver cannot have.
Why
    The packages cuda-compat-X-Y let GPUs for data centers run a newer CUDA than the driver supports. GeForce cards and
    most RTX cards cannot use them.

    Images of containers contain such a directory too, and toolkit 1.17.5 or newer puts it in front of the driver's own
    libcuda. On a host, somebody added it to LD_LIBRARY_PATH or /etc/ld.so.conf.d.
Repair
    Remove the directory from the loader's search path and run ldconfig. For the newer CUDA, upgrade the driver.
What the repair risks
    Programs that need a newer CUDA than the driver supports then fail with error 35. They need a newer driver, or an
    image for the driver's CUDA.
By hand
    ldconfig -p | grep libcuda.so.1
    cat /proc/driver/nvidia/version
    grep -rn compat /etc/ld.so.conf.d ~/.bashrc
    # Remove the directory from the line that grep finds, then:
    ldconfig
"""

from collections.abc import Iterator

from dlhealth.api import LibcudaRule, Machine, Scenario


class CudaForwardCompatUnsupportedHw804(LibcudaRule):
    id = "cuda-forward-compat-unsupported-hw-804"
    title = "A cuda-compat newer than the driver is loaded on a GPU that does not support it"
    newer = True
    explains = ("third-party-package-pulls-other-libnvidia",)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def compat(version: str, device: str = "1b06") -> Machine:
            folder, machine = "/usr/local/cuda-12.2/compat", Machine.ubuntu2404()
            return (
                (machine.gpu(device) if device else machine)
                .ubuntu_driver("550.120")
                .cuda_toolkit("12.2")
                .library(f"{folder}/libcuda.so.{version}", "libcuda.so.1")
                .link(f"{folder}/libcuda.so.1", f"libcuda.so.{version}")
                .link(f"{folder}/libcuda.so", "libcuda.so.1")
                .package("cuda-compat-12-2", "535.104.05-1", [f"{folder}/libcuda.so.{version}"])
            )

        def with_entry(machine: Machine) -> Machine:
            return machine.file("/etc/ld.so.conf.d/00-compat.conf", "# compat\n/usr/local/cuda/compat\n")

        path = "/usr/local/cuda/compat/libcuda.so.1"
        yield Scenario(
            "in ld.so.conf.d, on a GTX 1080 Ti",
            with_entry(compat("570.86.10")),
            finds=f"file:{path}",
            steps=("edit-file", "refresh-loader-cache"),
            ladder=(
                (
                    "low",
                    "edit-file /etc/ld.so.conf.d/00-compat.conf 2: -",
                    "refresh-loader-cache",
                ),
                (
                    "medium network",
                    "apt-remove cuda-compat-12-2",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario(
            "in LD_LIBRARY_PATH",
            compat("570.86.10").append(
                "/home/alice/.profile", 'export LD_LIBRARY_PATH="/usr/local/cuda-12.2/compat:$LD_LIBRARY_PATH"\n'
            ),
            finds="file:/home/alice/.profile",
            steps=("edit-file",),
            ladder=(
                (
                    "low",
                    "edit-file /home/alice/.profile 13: -",
                ),
                (
                    "medium network",
                    "apt-remove cuda-compat-12-2",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario("newer than the driver, on a Tesla V100", with_entry(compat("570.86.10", "1db1")))
        yield Scenario(
            "newer than the driver, on a mounted disk without a visible GPU",
            with_entry(compat("570.86.10", "")),
            unknown=True,
        )
        yield Scenario("only the package", compat("570.86.10"))
        yield Scenario("older than the driver", with_entry(compat("535.104.05")))
        yield Scenario(
            "no version in its name",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .library("/usr/local/cuda-12.2/compat/libcuda.so.1", "libcuda.so.1")
            .file("/etc/ld.so.conf.d/00-compat.conf", "/usr/local/cuda-12.2/compat\n"),
            unknown=True,
        )
