"""PyTorch's cuDNN opens libnvrtc.so, but only names with version numbers exist.

What you see
    "Could not load library libcudnn_cnn_infer.so.8. Error: libnvrtc.so: cannot open shared object file", often at
    the first convolution of a program that otherwise works.
Why
    The wheels of PyTorch 1.13 and 2.0 contain their own libnvrtc under a name with a checksum, such as
    libnvrtc-672ee683.so.11.2. Their cuDNN 8 compiles some kernels at run time and opens the library as libnvrtc.so.
    Only a CUDA toolkit has a file of that name.
Repair
    Create a link of that name beside PyTorch's libnvrtc, or install a newer PyTorch, which does not need it.
What the repair risks
    Low: one link in one environment. pip does not remove it when PyTorch is uninstalled.
By hand
    cd ENVIRONMENT/lib/python3.*/site-packages/torch/lib
    ln -s libnvrtc-*.so.11.2 libnvrtc.so
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    LoaderConfig,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    TorchLibraries,
    Unknown,
    UsableGpu,
    UserPaths,
)

_NAME = "libnvrtc.so"


class LibnvrtcWithoutNumber(Rule):
    id = "libnvrtc-without-number"
    title = "PyTorch's cuDNN opens libnvrtc.so, but only names with version numbers exist"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING

    def detect(
        self, torch: TorchLibraries, loader: LoaderConfig, gpu: UsableGpu, paths: UserPaths | None
    ) -> Iterator[Finding | Unknown]:
        if not gpu.source:
            return
        for environment, folder, names in torch.inside:
            hashed = next((n for n in sorted(names) if n.startswith("libnvrtc-")), "")
            opens = next((n for n in ("libcudnn_cnn_infer.so.8", "libcudnn.so.8") if n in names), "")
            if not (hashed and opens) or _NAME in names or _NAME in environment.libraries:
                continue
            user = environment.account.name if environment.account else None
            folders = {d.path: d.names for d in paths.libraries() if user in (None, d.user)} if paths else {}
            if loader.find(_NAME, folders) or any(_NAME in d.names for d in loader.directories):
                continue
            if paths is None or any(v == "LD_LIBRARY_PATH" and user in (None, u) for u, v in paths.unclear):
                yield Unknown(
                    f"{environment.path}: cannot find out the LD_LIBRARY_PATH of its users", environment.subject
                )
                continue
            yield self.finding(
                environment.subject,
                f"PyTorch in {environment.path} has {hashed}, but its cuDNN 8 opens {_NAME}, which does not exist",
                Evidence(f"{folder}/{hashed}", "PyTorch's libnvrtc"),
                Evidence(f"{folder}/{opens}", f"opens {_NAME} to compile kernels"),
                Evidence("/etc/ld.so.conf", f"names no directory with {_NAME}"),
                about=environment.about,
                link=f"{folder}/{_NAME}",
                target=hashed,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        link, target = finding.detail["link"], finding.detail["target"]
        yield Plan(
            f"Link {_NAME} to {target}",
            Risk.LOW,
            (ByHand(f"As the owner of the environment, run: ln -s {target} {link}"),),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        lib = "/home/alice/venv/lib/python3.11/site-packages/torch/lib"

        def machine(
            nvrtc: str = "libnvrtc-672ee683.so.11.2", version: str = "2.0.1+cu118", cuda: str = "11.8"
        ) -> Machine:
            return (
                Machine.ubuntu2404_gpu()
                .python_environment(torch=version, cuda=cuda)
                .library(f"{lib}/{nvrtc}", nvrtc)
                .library(f"{lib}/libcudnn.so.8", "libcudnn.so.8")
                .library(f"{lib}/libcudnn_cnn_infer.so.8", "libcudnn_cnn_infer.so.8")
            )

        yield Scenario(
            "PyTorch 2.0 for CUDA 11.8, no toolkit",
            machine(),
            finds="python:/home/alice/venv",
            ladder=(
                (
                    "low",
                    "by-hand -s libnvrtc-672ee683.so.11.2 /home/alice/venv/lib/python3.11/site-packages/torch/lib/libnvrtc.so",
                ),
            ),
        )
        yield Scenario(
            "PyTorch 1.13 for CUDA 11.7",
            machine("libnvrtc-d833c4f3.so.11.2", "1.13.1+cu117", "11.7"),
            finds="python:/home/alice/venv",
            ladder=(
                (
                    "low",
                    "by-hand -s libnvrtc-d833c4f3.so.11.2 /home/alice/venv/lib/python3.11/site-packages/torch/lib/libnvrtc.so",
                ),
            ),
        )
        yield Scenario("the link exists", machine().link(f"{lib}/libnvrtc.so", "libnvrtc-672ee683.so.11.2"))
        yield Scenario(
            "a toolkit has the file",
            machine().library("/usr/local/cuda-11.8/lib64/libnvrtc.so.11.8.89", "libnvrtc.so.11.2")
            .link("/usr/local/cuda-11.8/lib64/libnvrtc.so", "libnvrtc.so.11.8.89")
            .file("/etc/ld.so.conf.d/cuda.conf", "/usr/local/cuda-11.8/lib64\n"),
        )  # fmt: skip
        yield Scenario("NVIDIA's wheel has a name of its own", machine("libnvrtc.so.12"))
        yield Scenario(
            "a program sets LD_LIBRARY_PATH",
            machine().append("/home/alice/.bashrc", 'export LD_LIBRARY_PATH="$(find-my-cuda)"\n'),
            unknown=True,
        )
