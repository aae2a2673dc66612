"""An extension needs a newer libstdc++ than its conda environment has.

What you see
    ImportError: /home/alice/miniconda3/envs/train/lib/libstdc++.so.6: version `GLIBCXX_3.4.30' not found (required by …)
Why
    The extension was compiled with the system's g++, which is newer than the libstdc++ of the conda environment. A
    Python from conda loads the libstdc++ of its own environment first.
Repair
    Install a newer libstdc++ into the environment with conda.
What the repair risks
    Low: only this environment changes; a newer libstdc++ also runs programs that were built with an older one. Do not
    replace the file with a link to the system's: the next upgrade of the system breaks the environment.
By hand
    strings /home/alice/miniconda3/envs/train/lib/libstdc++.so.6 | grep GLIBCXX | tail -3
    conda install -p /home/alice/miniconda3/envs/train -c conda-forge 'libstdcxx-ng>=12'
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    StdcxxNeeds,
    Unknown,
    version_key,
)

_GCC = ((30, "12"), (32, "13"), (33, "14"), (34, "15"))
"""The last part of a GLIBCXX version, and the first GCC whose libstdc++ has it (libstdc++ manual, ABI policy)."""


class CondaLibstdcxxTooOld(Rule):
    id = "conda-libstdcxx-too-old"
    title = "An extension needs a newer libstdc++ than its conda environment has"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR

    def detect(self, stdcxx: StdcxxNeeds) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in stdcxx.problems)
        for found in stdcxx.too_new:
            environment = found.environment
            yield self.finding(
                environment.subject,
                f"{found.path} needs {found.needs}; the libstdc++ of {environment.path} ends at {found.has}",
                Evidence(found.path, f"requires {found.needs}"),
                Evidence(found.library, f"goes up to {found.has}"),
                about=environment.about,
                path=environment.path,
                needs=found.needs,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        path, needs = finding.detail["path"], finding.detail["needs"]
        number = version_key(needs.removeprefix("GLIBCXX_"))[-1]
        gcc = next((gcc for last, gcc in _GCC if number <= last), "")
        wanted = f"'libstdcxx-ng>={gcc}'" if gcc else "libstdcxx-ng"
        text = f"conda install -p {path} -c conda-forge {wanted}"
        yield Plan(f"Install a libstdc++ with {needs} into {path}", Risk.LOW, (ByHand(text),), network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        conda = "/home/alice/miniconda3/envs/train"
        site = f"{conda}/lib/python3.11/site-packages"

        def machine(has: int, needs: int, path: str) -> Machine:
            versions = ("GLIBCXX_3.4", f"GLIBCXX_3.4.{needs}")
            return (
                Machine.ubuntu2404_gpu()
                .folder("/home/alice/.cache", uid=1000)
                .python_environment(conda, torch="2.3.0+cu121", cuda="12.1")
                .remove(f"{conda}/pyvenv.cfg")
                .file(f"{conda}/conda-meta/history", uid=1000)
                .library(f"{conda}/lib/libstdc++.so.6.0.{has}", "libstdc++.so.6")
                .link(f"{conda}/lib/libstdc++.so.6", f"libstdc++.so.6.0.{has}")
                .library(f"{conda}/lib/libcudart.so.12", "libcudart.so.12")
                .library(path, "", ("libstdc++.so.6", "libcudart.so.12"), versions=versions)
            )

        module = f"{site}/my_cuda.cpython-311-x86_64-linux-gnu.so"
        compiled = "/home/alice/.cache/torch_extensions/py311_cu121/fused/fused.so"
        yield Scenario(
            "an extension that was built with the system's g++ 12",
            machine(29, 30, module),
            finds=f"python:{conda}",
            ladder=(("low network", f"by-hand conda -p {conda} libstdcxx-ng>=12"),),
        )
        yield Scenario(
            "an extension that PyTorch compiled at its first use", machine(28, 32, compiled), finds=f"python:{conda}"
        )
        yield Scenario("a newer libstdc++ in the environment", machine(33, 30, module))
        yield Scenario("exactly the needed one", machine(30, 30, module))
        yield Scenario(
            "no conda environment",
            Machine.ubuntu2404_gpu().python_environment(torch="2.3.0+cu121", cuda="12.1"),
        )
        yield Scenario("the environment is not readable", machine(29, 30, module).fifo(module), unknown=True)
