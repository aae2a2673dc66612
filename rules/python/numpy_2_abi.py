"""NumPy 2 is installed, but compiled packages were built for NumPy 1.

What you see
    A module that was compiled using NumPy 1.x cannot be run in NumPy 2.0.0 as it may crash.

    AttributeError: _ARRAY_API not found

    RuntimeError: Numpy is not available (when a tensor is converted to an array), or: Could not infer dtype of
    numpy.float32
Why
    NumPy 2 changed its binary interface. Compiled code that was built for NumPy 1 does not run with it. An upgrade of
    another package, or "pip install numpy" without a version, brought NumPy 2 into an environment with older packages.

    The GPU and the driver are not the cause, although the message often appears at "import torch".
Repair
    Install NumPy 1.26 or older into this environment. Or upgrade the packages to versions that work with NumPy 2.
What the repair risks
    Low: only this environment changes. A package that requires NumPy 2 may then fail; pip names it.
By hand
    pip list | grep -i -E 'numpy|torch|tensorflow|opencv'
    pip install 'numpy<2'
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Machine,
    NumpyClash,
    NumpyClashes,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    pip_install,
)


class Numpy2Abi(Rule):
    id = "numpy-2-abi"
    title = "NumPy 2 is installed, but compiled packages were built for NumPy 1"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR

    def detect(self, numpy: NumpyClashes) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in numpy.problems)
        for clash in numpy.clashes:
            environment = clash.environment
            names = " and ".join(f"{p.name} {p.version}" for p in clash.packages)
            yield self.finding(
                environment.subject,
                f"NumPy {clash.numpy} in {environment.path} does not work with {names}, built for NumPy 1",
                Evidence(environment.site, f"numpy {clash.numpy}"),
                *(
                    Evidence(environment.site, f"{p.name} {p.version}; {p.first} is the first for NumPy 2")
                    for p in clash.packages
                ),
                about=environment.about,
                clash=clash,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        clash: NumpyClash = finding.detail["clash"]
        path = clash.environment.path
        summary = f"Install NumPy 1 into {path}"
        yield pip_install(path, clash.environment.python, clash.environment.manager, ("numpy<2",), summary)
        newer = " ".join(f"'{p.name}>={p.first}'" for p in clash.packages)
        text = f"With the pip of {path}, run: pip install --upgrade {newer}"
        yield Plan("Upgrade the packages instead", Risk.MEDIUM, (ByHand(text),), network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def machine(*packages: str, torch: str = "") -> Machine:
            return Machine.ubuntu2404_gpu().python_environment(
                packages=packages, torch=torch, cuda="12.1" if torch else ""
            )

        def without_environment(folder: str) -> Machine:
            machine = Machine.ubuntu2404_gpu()
            for package in ("numpy-2.0.2", "scipy-1.11.4"):
                machine.file(f"{folder}/{package}.dist-info/METADATA")
            return machine

        yield Scenario(
            "PyTorch 2.2",
            machine("numpy-2.1.0", torch="2.2.2+cu121"),
            finds="python:/home/alice/venv",
            ladder=(
                ("low network", "pip-install /home/alice/venv/bin/python numpy<2"),
                ("medium network", "by-hand --upgrade torch>=2.3.0"),
            ),
        )
        yield Scenario(
            "an old OpenCV beside a PyTorch for NumPy 2",
            machine("numpy-2.0.2", "opencv_python-4.9.0.80", torch="2.3.0+cu121"),
            finds="python:/home/alice/venv",
        )
        yield Scenario(
            "packages of pip in /usr/local",
            without_environment("/usr/local/lib/python3.12/dist-packages"),
            finds="python:/usr/local",
            ladder=(
                ("low network", "by-hand /usr/local numpy<2"),
                ("medium network", "by-hand --upgrade scipy>=1.13.0"),
            ),
        )
        yield Scenario("the first versions for NumPy 2", machine("numpy-2.1.0", "scipy-1.13.0", torch="2.3.0+cu121"))
        yield Scenario("NumPy 1", machine("numpy-1.26.4", "opencv_python-4.9.0.80", torch="2.2.2+cu121"))
        yield Scenario("NumPy 2 alone", machine("numpy-2.1.0"))
        yield Scenario("compiled by the distribution", without_environment("/usr/lib/python3/dist-packages"))
        yield Scenario(
            "the environment is not readable",
            machine("numpy-2.1.0").fifo("/home/alice/venv/pyvenv.cfg"),
            unknown=True,
        )
