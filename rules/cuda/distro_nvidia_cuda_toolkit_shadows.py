"""The distribution's nvidia-cuda-toolkit hides the toolkit in /usr/local.

What you see
    "The detected CUDA version (10.1) mismatches the version that was used to compile PyTorch (11.3)", or
    "/usr/include/crt/host_config.h: #error -- unsupported GNU version!", although a newer toolkit is installed.
Why
    When nvcc is not found, the shell suggests `apt install nvidia-cuda-toolkit`. That package installs another,
    usually older toolkit into /usr. /usr/bin is in PATH; /usr/local/cuda/bin comes later or is missing.
Repair
    Put /usr/local/cuda/bin at the front of PATH, or remove the package.
What the repair risks
    To use the distribution's version you then have to call /usr/bin/nvcc by its path. Removing the package may also
    remove programs that depend on its libraries.
By hand
    command -v nvcc; dpkg -l nvidia-cuda-toolkit
    f=/etc/profile.d/dlhealth-cuda.sh
    echo 'export PATH="/usr/local/cuda/bin:$PATH"' > $f
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptRemove,
    CudaToolkits,
    Evidence,
    Finding,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UserPaths,
    WriteFile,
)


class DistroNvidiaCudaToolkitShadows(Rule):
    id = "distro-nvidia-cuda-toolkit-shadows"
    title = "The distribution's nvidia-cuda-toolkit hides the toolkit in /usr/local"
    stage = Stage.ENVIRONMENT
    severity = Severity.WARNING

    def detect(self, toolkits: CudaToolkits, paths: UserPaths) -> Iterator[Finding | Unknown]:
        own = toolkits.distribution
        others = [t for t in toolkits.toolkits if t.nvcc and not t.distribution and own and t.version != own.version]
        other = toolkits.default if toolkits.default in others else next(iter(others), None)
        if not own or not own.nvcc or not other:
            return
        if not (own.version and other.version):
            yield Unknown(f"cannot find out the CUDA version of {other.path if own.version else own.nvcc}")
            return
        hidden = []
        for user in paths.users:
            reals = [d.real for d in paths.of(user, "PATH")]
            first = next(
                (r for r in reals if r in ("/usr/bin", "/bin") or any(r == f"{t.path}/bin" for t in others)), ""
            )
            if first in ("/usr/bin", "/bin"):
                hidden.append((user, next(d for d in paths.of(user, "PATH") if d.real == first)))
            elif not first and (user, "PATH") in paths.unclear:
                yield Unknown(f"{user}'s PATH is set by a program that dlhealth does not run", f"user:{user}")
        if hidden:
            yield self.finding(
                "package:nvidia-cuda-toolkit",
                f"{', '.join(u for u, _ in hidden)}: nvcc is /usr/bin/nvcc of CUDA {own.version}, not {other.nvcc} "
                f"of CUDA {other.version}",
                Evidence(own.source, f"CUDA {own.release}"),
                Evidence(other.source, f"CUDA {other.release}"),
                *(
                    Evidence(d.source or f"PATH of {u}", f"PATH of {u}: {d.path} before {other.path}/bin")
                    for u, d in hidden
                ),
                about=[f"user:{user}" for user, _ in hidden],
                folder="/usr/local/cuda/bin" if other == toolkits.default else f"{other.path}/bin",
            )

    def remedies(self, finding: Finding, toolkits: CudaToolkits) -> Iterator[Plan]:
        folder = finding.detail["folder"]
        yield Plan(
            f"Put {folder} at the front of everybody's PATH",
            Risk.LOW,
            (WriteFile("/etc/profile.d/dlhealth-cuda.sh", f'export PATH="{folder}${{PATH:+:${{PATH}}}}"\n'),),
        )
        yield Plan(
            "Remove the distribution's toolkit", Risk.MEDIUM, (AptRemove(("nvidia-cuda-toolkit",)),), network=True
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def both() -> Machine:
            toolkit = Machine.ubuntu2404_gpu().cuda_toolkit("12.2").remove("/etc/profile.d/cuda.sh")
            return toolkit.file("/usr/bin/nvcc", "#!/bin/sh\n", 0o755).package(
                "nvidia-cuda-toolkit", "12.0.140~12.0.1-4build4", ["/usr/bin/nvcc"]
            )

        yield Scenario(
            "/usr/local is not in PATH at all",
            both(),
            finds="package:nvidia-cuda-toolkit",
            steps=("write-file",),
            alone=False,
            ladder=(
                (
                    "low",
                    'write-file /etc/profile.d/dlhealth-cuda.sh export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"',
                ),
                ("medium network", "apt-remove nvidia-cuda-toolkit"),
            ),
        )
        yield Scenario(
            "/usr/local comes last",
            both().append("/home/alice/.bashrc", "export PATH=$PATH:/usr/local/cuda/bin\n"),
            finds="package:nvidia-cuda-toolkit",
        )
        yield Scenario(
            "only the files of the package, no record of it",
            both()
            .without_package("nvidia-cuda-toolkit")
            .file("/usr/lib/cuda/version.txt", "CUDA Version 10.1.243\n")
            .append("/home/alice/.bashrc", "export PATH=$PATH:/usr/local/cuda/bin\n"),
            finds="package:nvidia-cuda-toolkit",
        )
        yield Scenario(
            "/usr/local comes first", both().append("/home/alice/.bashrc", "export PATH=/usr/local/cuda/bin:$PATH\n")
        )
        yield Scenario(
            "only the distribution's toolkit",
            Machine.ubuntu2404_gpu()
            .file("/usr/bin/nvcc", "#!/bin/sh\n", 0o755)
            .package("nvidia-cuda-toolkit", "12.0.140~12.0.1-4build4", ["/usr/bin/nvcc"]),
        )
        yield Scenario("only a toolkit in /usr/local", Machine.ubuntu2404_gpu().cuda_toolkit("12.2"))
        yield Scenario("nobody's PATH is known", both().remove("/etc/passwd"), unknown=True)
