"""JAX has no usable CUDA plugin, although the machine has an NVIDIA GPU.

What you see
    "An NVIDIA GPU may be present on this machine, but a CUDA-enabled jaxlib is not installed. Falling back to cpu",
    or "JAX plugin jax_cuda12_plugin version … is not compatible with the installed jaxlib version".

    Or jax.devices() lists only the CPU.
Why
    "pip install jax" installs only CPU support. The GPU needs jax-cuda12-plugin or jax-cuda13-plugin in the same
    version as jaxlib, and a driver for that CUDA version: 525 or newer for CUDA 12, 580 or newer for 13.

    Upgrading only jax leaves an older plugin behind.
Repair
    Install JAX with its plugin into the same environment.
What the repair risks
    Low: only this environment changes.
By hand
    pip list | grep -i jax
    python -c 'import jax; print(jax.devices())'
    pip install --upgrade 'jax[cuda12]'
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    CudaDriver,
    DriverUpgrade,
    Evidence,
    Finding,
    Machine,
    Plan,
    PythonEnvironment,
    PythonEnvironments,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UsableGpu,
    lowest_driver,
    pip_install,
    version_key,
)

_PLUGINS = {"jax-cuda12-plugin": "12", "jax-cuda13-plugin": "13"}
_OTHER_BACKENDS = ("jax-rocm", "jax-metal", "libtpu", "jax-cuda")
_BRING_JAX = ("mediapipe", "tensorflowjs")
"""Packages that depend on JAX and use it on the CPU."""


class JaxGpuBackendUnavailable(Rule):
    id = "jax-gpu-backend-unavailable"
    title = "JAX has no usable CUDA plugin, although the machine has an NVIDIA GPU"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING
    gpu_wheels = True

    def detect(
        self, environments: PythonEnvironments, gpu: UsableGpu, driver: CudaDriver
    ) -> Iterator[Finding | Unknown]:
        if not gpu.source:
            return
        yield from (Unknown(problem) for problem in environments.problems)
        for environment in environments.environments:
            if "jax" in environment.packages and "jaxlib" in environment.packages:
                yield from self._environment(environment, gpu, driver)

    def _environment(
        self, environment: PythonEnvironment, gpu: UsableGpu, driver: CudaDriver
    ) -> Iterator[Finding | Unknown]:
        packages = environment.packages
        jax, jaxlib = packages["jax"], packages["jaxlib"]
        plugins = [name for name in _PLUGINS if name in packages]
        shows = [Evidence(environment.site, f"jax {jax}, jaxlib {jaxlib}"), Evidence(gpu.source, gpu.shows)]
        if not plugins:
            inside = "+cuda" in jaxlib or "cuda" in environment.conda.get("jaxlib", "")
            if inside or any(name.startswith(_OTHER_BACKENDS) for name in packages):
                return
            by_others = environment.kind == "system" or any(name in packages for name in _BRING_JAX)
            yield self.finding(
                environment.subject,
                f"JAX {jax} in {environment.path} has no CUDA plugin: it uses the CPU",
                *shows,
                severity=Severity.NOTE if by_others else Severity.WARNING,
                about=environment.about,
                site=environment.site,
            )
            return
        for name in plugins:
            cuda = _PLUGINS[name]
            others = {n: packages[n] for n in (name, f"jax-cuda{cuda}-pjrt") if n in packages}
            wrong = {n: v for n, v in others.items() if version_key(v) != version_key(jaxlib)}
            if wrong:
                text = " and ".join(f"{n} {v}" for n, v in wrong.items())
                yield self.finding(
                    environment.subject,
                    f"JAX in {environment.path} ignores {text}: the plugin must have the version of jaxlib, {jaxlib}",
                    *shows,
                    *(Evidence(environment.site, f"{n} {v}") for n, v in wrong.items()),
                    severity=Severity.ERROR,
                    about=environment.about,
                    site=environment.site,
                )
            elif len(plugins) == 1 and driver.runs(cuda) is False:
                yield self.finding(
                    environment.subject,
                    f"{name} in {environment.path} needs driver {lowest_driver(cuda)} or newer; installed: "
                    f"{driver.numbers[0]}",
                    *shows,
                    *(Evidence(source, version) for version, source in driver.versions),
                    severity=Severity.ERROR,
                    about=environment.about,
                    site=environment.site,
                )

    def remedies(
        self, finding: Finding, environments: PythonEnvironments, driver: CudaDriver, upgrade: DriverUpgrade
    ) -> Iterator[Plan]:
        environment = environments.at(finding.detail["site"])
        if environment is None:
            return
        plugin = next((_PLUGINS[n] for n in _PLUGINS if n in environment.packages), "12")
        cuda = next((c for c in dict.fromkeys((plugin, "12")) if driver.runs(c) is not False), "")
        if not cuda:
            text = f"{upgrade.to(lowest_driver('12'))}; then run: pip install --upgrade 'jax[cuda12]'"
            yield Plan("Upgrade the driver first", Risk.HIGH, (ByHand(text),), reboot=upgrade.reboots, network=True)
            return
        # Since 0.4.26 the extra "cuda12" finds everything on PyPI.
        version = environment.packages["jax"]
        requirement = f"jax[cuda{cuda}]" + (f"=={version}" if version_key(version) >= (0, 4, 26) else "")
        summary = f"Install JAX's plugin for CUDA {cuda} into {environment.path}"
        yield pip_install(environment.path, environment.python, environment.manager, (requirement,), summary)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def machine(*packages: str) -> Machine:
            return Machine.ubuntu2404_gpu().python_environment(packages=packages)

        subject = "python:/home/alice/venv"
        yield Scenario(
            "only jax and jaxlib",
            machine("jax-0.6.1", "jaxlib-0.6.1"),
            finds=subject,
            ladder=(("low network", "pip-install /home/alice/venv/bin/python jax[cuda12]==0.6.1"),),
        )
        yield Scenario(
            "an older plugin",
            machine("jax-0.6.1", "jaxlib-0.6.1", "jax_cuda12_plugin-0.5.3", "jax_cuda12_pjrt-0.5.3"),
            finds=subject,
            alone=False,
            ladder=(("low network", "pip-install /home/alice/venv/bin/python jax[cuda12]==0.6.1"),),
        )
        yield Scenario(
            "the plugin of jaxlib's version",
            machine("jax-0.6.1", "jaxlib-0.6.1", "jax_cuda12_plugin-0.6.1", "jax_cuda12_pjrt-0.6.1"),
        )
        yield Scenario("a jaxlib that contains CUDA", machine("jax-0.4.25", "jaxlib-0.4.25+cuda12.cudnn89"))
        yield Scenario(
            "mediapipe depends on it", machine("jax-0.6.1", "jaxlib-0.6.1", "mediapipe-0.10.21"), finds=subject
        )
        yield Scenario("jax without jaxlib", machine("jax-0.6.1"))
        yield Scenario("a JAX for TPUs", machine("jax-0.6.1", "jaxlib-0.6.1", "libtpu-0.0.15"))
        yield Scenario(
            "no GPU", Machine.debian12().folder("/sys/bus/pci/devices").python_environment(packages=["jax-0.6.1", "jaxlib-0.6.1"])
        )  # fmt: skip
        yield Scenario(
            "the disk of a machine without a driver",
            Machine.debian12().python_environment(packages=["jax-0.6.1", "jaxlib-0.6.1"]),
            unknown=True,
        )
