"""A CUDA toolkit is installed, but no terminal finds nvcc.

What you see
    "nvcc: command not found", although /usr/local/cuda/bin/nvcc is there. The shell may go on: "Command 'nvcc' not
    found, but can be installed with: sudo apt install nvidia-cuda-toolkit".
Why
    NVIDIA's packages and run file install to /usr/local/cuda-X.Y and leave PATH to their "post-installation actions",
    which were skipped. The shell's hint is wrong here: it would add a second, older toolkit.
    Without a toolkit there is nothing to find: PyTorch and the like bring their own CUDA libraries and need no nvcc.
Repair
    Name the folder in a file that every login shell reads, /etc/profile.d/cuda.sh.
What the repair risks
    Builds that took another CUDA, or none, now take this one. It counts from the next login.
By hand
    echo 'export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"' > /etc/profile.d/cuda.sh
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
    title = "A CUDA toolkit is installed, but no terminal finds nvcc"
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
            return  # what a container starts has it from its image; nobody logs in
        without, unsure = [], False
        # Where only root logs in, nobody is known to compile.
        for user in dict.fromkeys(e.account.name for e in environments.logins if e.account.uid):
            if any(d.real in folders or d.path in folders for d in paths.of(user, "PATH")):
                return  # somebody is set up; others may not want it
            if environments.value(user, "PATH", "interactive") is None:
                unsure = True
                yield Unknown(f"PATH of {user} can't be told without running something", f"user:{user}")
            without.append(user)
        toolkit = _chosen(toolkits, installed)
        if without and not unsure:
            yield self.finding(
                "host",
                f"nvcc of CUDA {toolkit.release or toolkit.version} is in {_folder(toolkit, toolkits)}, which is in nobody's PATH",
                Evidence(toolkit.nvcc, f"CUDA {toolkit.release or toolkit.version}"),
                *(Evidence(f"PATH of {user}", environments.value(user, "PATH") or "not set") for user in without),
                about=[f"user:{user}" for user in without],
                # Without a GPU and a driver nobody is known to work with it here.
                severity=Severity.WARNING if (gpus and gpus.gpus) or (driver and driver.versions) else Severity.NOTE,
            )

    def remedies(self, finding: Finding, toolkits: CudaToolkits, environments: Environments) -> Iterator[Plan]:
        folder = _folder(_chosen(toolkits, [t for t in toolkits.toolkits if t.nvcc and not t.distribution]), toolkits)
        there = {file for login in environments.logins for file in login.files}
        name = "cuda.sh" if "/etc/profile.d/cuda.sh" not in there else "dlhealth-cuda.sh"
        write = WriteFile(f"/etc/profile.d/{name}", f'export PATH="{folder}${{PATH:+:${{PATH}}}}"\n')
        yield Plan(f"Put {folder} into everybody's PATH", Risk.LOW, (write,))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def toolkit() -> Machine:
            return Machine.ubuntu2404_gpu().cuda_toolkit("12.2").remove("/etc/profile.d/cuda.sh")

        yield Scenario("as NVIDIA's packages leave it", toolkit(), finds="host", steps=("write-file",))
        yield Scenario(
            "without /usr/local/cuda",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("11.8", "11.8.89", default=False)
            .file("/etc/ld.so.conf.d/cuda.conf", "/usr/local/cuda-11.8/lib64\n"),
            finds="host",
        )
        yield Scenario(
            "a line that does nothing",
            toolkit().append("/home/alice/.bashrc", "export PATH = /usr/local/cuda/bin:$PATH\n"),
            finds="host",
            alone=False,  # the malformed line is reported as well
        )
        image = toolkit().file("/.dockerenv")
        yield Scenario("an image whose ENV has it", image.file("/proc/1/environ", "PATH=/usr/local/cuda/bin:/bin\0"))
        yield Scenario("for everybody", Machine.ubuntu2404_gpu().cuda_toolkit("12.2"))
        yield Scenario(
            "in ~/.bashrc", toolkit().append("/home/alice/.bashrc", "export PATH=$PATH:/usr/local/cuda/bin\n")
        )
        yield Scenario(
            "by the version's own folder, for zsh",
            toolkit()
            .user("bob", 1001, "/bin/zsh")
            .file("/home/bob/.zshrc", "path+=(/usr/local/cuda-12.2/bin)\n", uid=1001),
        )
        yield Scenario("for fish", toolkit().user("bob", 1001, "/usr/bin/fish").file(
            "/home/bob/.config/fish/config.fish", "set -gx PATH /usr/local/cuda/bin $PATH\n", uid=1001))  # fmt: skip
        yield Scenario(
            "a PATH that is not written down",
            toolkit().append("/home/alice/.bashrc", "PATH=$(site-path)\n"),
            unknown=True,
        )
        yield Scenario("no toolkit, PyTorch only", Machine.ubuntu2404_gpu())


def _chosen(toolkits: CudaToolkits, installed: list[Toolkit]) -> Toolkit:
    default = toolkits.default
    return default if default and default in installed else installed[-1]


def _folder(toolkit: Toolkit, toolkits: CudaToolkits) -> str:
    """Through /usr/local/cuda where that leads there: it follows upgrades."""
    if toolkits.default == toolkit and any(link.path == "/usr/local/cuda" for link in toolkits.links):
        return "/usr/local/cuda/bin"
    return posixpath.dirname(toolkit.nvcc)
