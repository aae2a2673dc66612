"""jaxlib is newer than jax, so JAX cannot be imported.

What you see
    RuntimeError: jaxlib version 0.4.30 is newer than and incompatible with jax version 0.4.13. Please update your jax
    and/or jaxlib packages.
Why
    jax is the Python part of JAX, and jaxlib the compiled part. jaxlib may be somewhat older than jax, but never newer.
    An upgrade of only jaxlib, or another package that pins an old jax, separates them.

    The GPU and the driver are not the cause.
Repair
    Install the jaxlib for the installed jax. To keep the newer jaxlib, upgrade jax instead.
What the repair risks
    Low: only this environment changes.
By hand
    pip list | grep -i jax
    pip install 'jaxlib<=0.4.13'
    # Or both in their newest version:
    pip install --upgrade jax jaxlib
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    Evidence,
    Finding,
    Machine,
    Plan,
    PythonEnvironment,
    PythonEnvironments,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    pip_install,
    version_key,
)
from dlhealth.lazy import regex

_CHECKED_SINCE = (0, 3)
"""Older versions of jax do not compare."""
_PLUGIN = regex(r"jax-cuda(\d+)-plugin")
_EXTRAS_SINCE = (0, 4, 26)
"""Since then, the extra for CUDA finds everything on PyPI."""
_BUILDS = "https://storage.googleapis.com/jax-releases/jax_cuda_releases.html"
"""Where the builds with CUDA inside are."""


class JaxlibNewerThanJax(Rule):
    id = "jaxlib-newer-than-jax"
    title = "jaxlib is newer than jax, so JAX cannot be imported"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    gpu_wheels = True
    explains = ("jax-gpu-backend-unavailable",)

    def detect(self, environments: PythonEnvironments) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in environments.problems)
        for environment in environments.environments:
            jax, jaxlib = environment.packages.get("jax", ""), environment.packages.get("jaxlib", "")
            if version_key(jax) >= _CHECKED_SINCE and version_key(jaxlib) > version_key(jax):
                yield self.finding(
                    environment.subject,
                    f"jaxlib {jaxlib} in {environment.path} is newer than jax {jax}: JAX cannot be imported",
                    Evidence(environment.site, f"jax {jax}, jaxlib {jaxlib}"),
                    about=environment.about,
                    environment=environment,
                )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        environment: PythonEnvironment = finding.detail["environment"]
        jax = environment.packages["jax"]
        summary = f"Install the jaxlib for jax {jax} into {environment.path}"
        requirements = _requirements(environment, jax)
        yield pip_install(environment.path, environment.python, environment.manager, requirements, summary)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def machine(*packages: str) -> Machine:
            return Machine.ubuntu2404_gpu().python_environment(packages=packages)

        python, subject = "pip-install /home/alice/venv/bin/python", "python:/home/alice/venv"
        yield Scenario(
            "only jaxlib was upgraded",
            machine("jax-0.4.13", "jaxlib-0.4.30"),
            finds=subject,
            ladder=(("low network", f"{python} jaxlib<=0.4.13"),),
        )
        yield Scenario(
            "with a plugin for CUDA",
            machine("jax-0.6.1", "jaxlib-0.7.0", "jax_cuda12_plugin-0.6.1", "jax_cuda12_pjrt-0.6.1"),
            finds=subject,
            alone=False,  # the plugin's libraries are missing, too
            ladder=(("low network", f"{python} jax[cuda12]==0.6.1"),),
        )
        yield Scenario(
            "with CUDA inside",
            machine("jax-0.4.20", "jaxlib-0.4.23+cuda12.cudnn89"),
            finds=subject,
            ladder=(("low network", f"{python} jax[cuda12_pip]==0.4.20 -f {_BUILDS}"),),
        )
        yield Scenario(
            "the same version", machine("jax-0.6.1", "jaxlib-0.6.1", "jax_cuda12_plugin-0.6.1", "jax_cuda12_pjrt-0.6.1")
        )
        yield Scenario("jaxlib is a little older", machine("jax-0.4.8", "jaxlib-0.4.7+cuda12.cudnn88"))
        yield Scenario("a build of a day", machine("jax-0.6.0", "jaxlib-0.6.0.dev20250728", "jax_rocm60_plugin-0.6.0"))
        yield Scenario("only jaxlib", machine("jaxlib-0.4.30"))
        yield Scenario(
            "the environment is not readable",
            machine("jax-0.6.1").fifo("/home/alice/venv/pyvenv.cfg"),
            unknown=True,
        )


def _requirements(environment: PythonEnvironment, jax: str) -> tuple[str, ...]:
    """What pip installs: the parts for CUDA, too, if the environment has them."""
    plugin = next((m[1] for name in environment.packages if (m := _PLUGIN.fullmatch(name))), "")
    if plugin and version_key(jax) >= _EXTRAS_SINCE:
        return (f"jax[cuda{plugin}]=={jax}",)
    inside = re.search(r"\+cuda(\d+)", environment.packages["jaxlib"])
    if inside:
        return (f"jax[cuda{inside[1][:2]}_pip]=={jax}", "-f", _BUILDS)
    return (f"jaxlib<={jax}",)
