"""A CUDA toolkit is installed, but nvcc is not in PATH.

What you see
    "nvcc: command not found", although /usr/local/cuda/bin/nvcc exists. The shell may add: "Command 'nvcc' not
    found, but can be installed with: sudo apt install nvidia-cuda-toolkit".
Why
    NVIDIA's packages and run file install to /usr/local/cuda-X.Y. They leave PATH to the "post-installation
    actions" of NVIDIA's guide, which nobody followed here. The shell's hint is wrong: it would install a second,
    older toolkit.

    Without a toolkit nothing is reported: PyTorch and similar programs bring their own CUDA libraries and need no
    nvcc.
Repair
    Add the directory to PATH in a file that every login shell reads, /etc/profile.d/cuda.sh.
What the repair risks
    Builds that used another CUDA version, or none, now use this one. The change takes effect at the next login.
By hand
    f=/etc/profile.d/cuda.sh
    echo 'export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"' > $f
"""

import posixpath
from collections.abc import Iterator

from dlhealth.api import (
    CudaDriver,
    CudaToolkits,
    Environments,
    Evidence,
    Finding,
    Gpus,
    ImageEnvironment,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Toolkit,
    Unknown,
    UserPaths,
    WriteFile,
)


class NvccNotInPath(Rule):
    id = "nvcc-not-in-path"
    title = "A CUDA toolkit is installed, but nvcc is not in PATH"
    stage = Stage.ENVIRONMENT
    severity = Severity.WARNING

    def detect(
        self,
        toolkits: CudaToolkits,
        environments: Environments,
        paths: UserPaths,
        gpus: Gpus | None,
        driver: CudaDriver | None,
        image: ImageEnvironment | None,
    ) -> Iterator[Finding | Unknown]:
        installed = [t for t in toolkits.toolkits if t.nvcc and not t.distribution]
        # The distribution's own nvcc is in /usr/bin.
        if not installed or any(t.nvcc and t.distribution for t in toolkits.toolkits):
            return
        folders = {posixpath.dirname(t.nvcc) for t in installed}
        if image and any(d.path in folders or d.real in folders for d in image.path):
            return  # programs in a container get PATH from the image; nobody logs in
        without, unsure = [], False
        # If only root logs in, nobody is known to compile.
        for user in dict.fromkeys(e.account.name for e in environments.logins if e.account.uid):
            if any(d.real in folders or d.path in folders for d in paths.of(user, "PATH")):
                return  # one user has it; the others may not want it
            if (user, "PATH") in paths.unclear:
                unsure = True
                yield Unknown(f"cannot find out {user}'s PATH", f"user:{user}")
            without.append(user)
        toolkit = _chosen(toolkits, installed)
        if without and not unsure:
            yield self.finding(
                "host",
                f"nvcc of CUDA {toolkit.release or toolkit.version} is in {_folder(toolkit, toolkits)}, which is in no user's PATH",
                Evidence(toolkit.nvcc, f"CUDA {toolkit.release or toolkit.version}"),
                *(Evidence(f"PATH of {user}", environments.value(user, "PATH") or "not set") for user in without),
                about=[f"user:{user}" for user in without],
                # Without a GPU and a driver, nobody is known to use CUDA here.
                severity=Severity.WARNING if (gpus and gpus.gpus) or (driver and driver.versions) else Severity.NOTE,
            )

    def remedies(self, finding: Finding, toolkits: CudaToolkits, environments: Environments) -> Iterator[Plan]:
        folder = _folder(_chosen(toolkits, [t for t in toolkits.toolkits if t.nvcc and not t.distribution]), toolkits)
        name = "cuda.sh" if "/etc/profile.d/cuda.sh" not in environments.readers else "dlhealth-cuda.sh"
        write = WriteFile(f"/etc/profile.d/{name}", f'export PATH="{folder}${{PATH:+:${{PATH}}}}"\n')
        yield Plan(f"Add {folder} to everybody's PATH", Risk.LOW, (write,))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def toolkit() -> Machine:
            return Machine.ubuntu2404_gpu().cuda_toolkit("12.2").remove("/etc/profile.d/cuda.sh")

        yield Scenario(
            "after NVIDIA's packages were installed",
            toolkit(),
            finds="host",
            steps=("write-file",),
            ladder=(("low", 'write-file /etc/profile.d/cuda.sh export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"'),),
        )
        yield Scenario(
            "without /usr/local/cuda",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("11.8", "11.8.89", default=False)
            .file("/etc/ld.so.conf.d/cuda.conf", "/usr/local/cuda-11.8/lib64\n"),
            finds="host",
            ladder=(
                ("low", 'write-file /etc/profile.d/cuda.sh export PATH="/usr/local/cuda-11.8/bin${PATH:+:${PATH}}"'),
            ),
        )
        yield Scenario(
            "a line without effect",
            toolkit().append("/home/alice/.bashrc", "export PATH = /usr/local/cuda/bin:$PATH\n"),
            finds="host",
            alone=False,  # the malformed line is reported as well
        )
        image = toolkit().file("/.dockerenv")
        yield Scenario(
            "an image that sets PATH with ENV", image.file("/proc/1/environ", "PATH=/usr/local/cuda/bin:/bin\0")
        )
        yield Scenario("set for everybody", Machine.ubuntu2404_gpu().cuda_toolkit("12.2"))
        yield Scenario(
            "set in ~/.bashrc", toolkit().append("/home/alice/.bashrc", "export PATH=$PATH:/usr/local/cuda/bin\n")
        )
        yield Scenario(
            "zsh, with the directory of one version",
            toolkit()
            .user("bob", 1001, "/bin/zsh")
            .file("/home/bob/.zshrc", "path+=(/usr/local/cuda-12.2/bin)\n", uid=1001),
        )
        yield Scenario("set in fish", toolkit().user("bob", 1001, "/usr/bin/fish").file(
            "/home/bob/.config/fish/config.fish", "set -gx PATH /usr/local/cuda/bin $PATH\n", uid=1001))  # fmt: skip
        yield Scenario(
            "a program sets PATH",
            toolkit().append("/home/alice/.bashrc", "PATH=$(site-path)\n"),
            unknown=True,
        )
        yield Scenario("no toolkit, PyTorch only", Machine.ubuntu2404_gpu())


def _chosen(toolkits: CudaToolkits, installed: list[Toolkit]) -> Toolkit:
    default = toolkits.default
    return default if default and default in installed else installed[-1]


def _folder(toolkit: Toolkit, toolkits: CudaToolkits) -> str:
    """The directory of nvcc, through /usr/local/cuda if that points to this toolkit: the link follows upgrades."""
    if toolkits.default == toolkit and any(link.path == "/usr/local/cuda" for link in toolkits.links):
        return "/usr/local/cuda/bin"
    return posixpath.dirname(toolkit.nvcc)
