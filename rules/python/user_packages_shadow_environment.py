"""Python loads a framework from ~/.local or PYTHONPATH instead of the one in the environment.

What you see
    The environment has the right PyTorch (conda list shows it), but torch.__version__ is another one.

    torch.cuda.is_available() is False in an environment with CUDA, or errors name files below ~/.local/lib.
Why
    Python searches the directories of PYTHONPATH first, then ~/.local/lib/python3.X/site-packages (what
    "pip install --user" or pip without an environment installed), then the environment. A conda environment with the
    same version of Python sees both. A virtual environment sees only PYTHONPATH.
Repair
    Keep this environment away from ~/.local with PYTHONNOUSERSITE=1, or remove the directory from PYTHONPATH.
What the repair risks
    Programs that use a package in ~/.local from this environment no longer find it: install it into the environment.
By hand
    python -c 'import torch; print(torch.__version__, torch.__file__)'
    conda env config vars set PYTHONNOUSERSITE=1 -n ENVIRONMENT
    /usr/bin/python3 -m pip uninstall torch
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
    Shadow,
    Shadows,
    Stage,
    Unknown,
)


class UserPackagesShadowEnvironment(Rule):
    id = "user-packages-shadow-environment"
    title = "Python loads a framework from ~/.local or PYTHONPATH instead of the environment"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING

    def detect(self, shadows: Shadows) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in shadows.problems)
        for shadow in shadows.found:
            environment = shadow.environment
            yield self.finding(
                environment.subject,
                f"{environment.path} has {shadow.framework} {shadow.hidden}, but Python loads {shadow.shown} from "
                f"{shadow.site}",
                Evidence(environment.site, f"{shadow.framework} {shadow.hidden}"),
                Evidence(shadow.site, f"{shadow.framework} {shadow.shown}"),
                *([Evidence(shadow.variable, f"PYTHONPATH has {shadow.site}")] if shadow.variable else []),
                about=environment.about,
                shadow=shadow,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        shadow: Shadow = finding.detail["shadow"]
        if shadow.variable:
            text = f"take {shadow.site} out of PYTHONPATH ({shadow.variable})"
            yield Plan("Remove the directory from PYTHONPATH", Risk.LOW, (ByHand(text),))
            return
        path = shadow.environment.path
        text = f"conda env config vars set PYTHONNOUSERSITE=1 -p {path}"
        if shadow.environment.kind != "conda":
            text = f"set PYTHONNOUSERSITE=1 where programs of {path} start"
        yield Plan("Keep the environment away from ~/.local", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        conda = "/home/alice/miniconda3/envs/train"

        def machine(user: str, torch: str = "2.4.1", python: str = "3.11") -> Machine:
            machine = Machine.ubuntu2404_gpu()
            for site, version in ((f"{conda}/lib/python3.11", torch), (f"/home/alice/.local/lib/python{python}", user)):
                machine.file(f"{site}/site-packages/torch-{version}.dist-info/METADATA", uid=1000)
            return machine.file(f"{conda}/conda-meta/history", uid=1000)

        yield Scenario(
            "pip install --user",
            machine("2.1.0+cu118"),
            finds=f"python:{conda}",
            alone=False,
            ladder=(("low", f"by-hand conda PYTHONNOUSERSITE=1 {conda}"),),
        )
        yield Scenario(
            "PYTHONPATH before a virtual environment",
            Machine.ubuntu2404_gpu()
            .python_environment(torch="2.4.1+cu121", cuda="12.1")
            .file("/opt/old/torch-1.13.1.dist-info/METADATA")
            .append("/home/alice/.bashrc", "export PYTHONPATH=/opt/old:$PYTHONPATH\n"),
            finds="python:/home/alice/venv",
            alone=False,
            ladder=(("low", "by-hand /opt/old PYTHONPATH"),),
        )
        yield Scenario("the same version", machine("2.4.1"), alone=False)
        yield Scenario("of another Python", machine("2.1.0+cu118", python="3.12"), alone=False)
        yield Scenario(
            "the environment is isolated",
            machine("2.1.0+cu118").file(
                f"{conda}/conda-meta/state", '{"env_vars": {"PYTHONNOUSERSITE": "1"}}', uid=1000
            ),
            alone=False,
        )
        yield Scenario(
            "for all programs",
            machine("2.1.0+cu118").append("/home/alice/.bashrc", "export PYTHONNOUSERSITE=1\n"),
            alone=False,
        )
        yield Scenario(
            "the environment is not readable",
            Machine.ubuntu2404_gpu().python_environment(torch="2.4.1").fifo("/home/alice/venv/pyvenv.cfg"),
            unknown=True,
        )
