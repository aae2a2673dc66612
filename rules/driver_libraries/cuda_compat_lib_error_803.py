"""Programs load the libcuda of another driver version, usually from cuda-compat, before the driver's own.

What you see
    Error 803: system has unsupported display driver / cuda driver combination

    nvidia-smi works.
Why
    The packages cuda-compat-X-Y contain the libcuda of a driver, in the toolkit's directory compat/. It only works with
    an older driver than its own, so an upgrade of the driver makes it useless.

    Programs load it only if somebody added that directory to LD_LIBRARY_PATH or /etc/ld.so.conf.d.

    A libcuda that was copied from another machine or an older driver causes the same error, if LD_LIBRARY_PATH leads
    to it.
Repair
    Remove the directory from the loader's search path and run ldconfig. The package itself does no harm.
What the repair risks
    Low: programs then use the driver's own libcuda.
By hand
    ldconfig -p | grep libcuda.so.1
    cat /proc/driver/nvidia/version
    grep -rn compat /etc/ld.so.conf.d ~/.bashrc
    # Remove the directory from the line that grep finds, then:
    ldconfig
"""

from collections.abc import Iterator

from dlhealth.api import LibcudaRule, Machine, Scenario


class CudaCompatLibError803(LibcudaRule):
    id = "cuda-compat-lib-error-803"
    title = "A libcuda of another driver version is loaded before the driver's own"
    newer = False
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
            "in ld.so.conf.d, older than the driver",
            with_entry(compat("535.104.05")),
            finds=f"file:{path}",
            steps=("edit-file", "refresh-loader-cache"),
            ladder=(
                ("low", "edit-file /etc/ld.so.conf.d/00-compat.conf 2: -", "refresh-loader-cache"),
                ("medium network", "apt-remove cuda-compat-12-2", "refresh-loader-cache"),
            ),
        )
        yield Scenario(
            "older than the driver, on a Tesla V100", with_entry(compat("535.104.05", "1db1")), finds=f"file:{path}"
        )
        yield Scenario(
            "in LD_LIBRARY_PATH",
            compat("535.104.05").append(
                "/home/alice/.profile", 'export LD_LIBRARY_PATH="/usr/local/cuda-12.2/compat:$LD_LIBRARY_PATH"\n'
            ),
            finds="file:/home/alice/.profile",
            steps=("edit-file",),
            ladder=(
                ("low", "edit-file /home/alice/.profile 13: -"),
                ("medium network", "apt-remove cuda-compat-12-2", "refresh-loader-cache"),
            ),
        )
        yield Scenario(
            "an old driver's libcuda, copied into a home directory",
            Machine.ubuntu2404_gpu()
            .library("/home/alice/lib/libcuda.so.515.65.01", "libcuda.so.1")
            .link("/home/alice/lib/libcuda.so.1", "libcuda.so.515.65.01")
            .append("/home/alice/.bashrc", "export LD_LIBRARY_PATH=$HOME/lib\n"),
            finds="file:/home/alice/.bashrc",
            ladder=(("low", "by-hand /home/alice/.bashrc /home/alice/lib"),),
        )
        yield Scenario(
            "the driver's own libcuda in LD_LIBRARY_PATH",
            Machine.ubuntu2404_gpu().append(
                "/home/alice/.bashrc", "export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu\n"
            ),
        )
        yield Scenario("only the package", compat("535.104.05"))
        yield Scenario("newer than the driver", with_entry(compat("570.86.10")))
        yield Scenario("the same version as the driver", with_entry(compat("550.120")))
        yield Scenario(
            "after the driver's own libcuda",
            compat("535.104.05").file("/etc/ld.so.conf.d/zz.conf", "/usr/local/cuda/compat\n"),
        )
        yield Scenario(
            "no version in its name",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .library("/usr/local/cuda-12.2/compat/libcuda.so.1", "libcuda.so.1")
            .file("/etc/ld.so.conf.d/00-compat.conf", "/usr/local/cuda-12.2/compat\n"),
            unknown=True,
        )
