"""/usr/bin/python3 is not the distribution's Python any more.

What you see
    File "/usr/bin/quirks-handler", line 26: ModuleNotFoundError: No module named 'Quirks'
    ModuleNotFoundError: No module named 'apt_pkg'
    The configuration of nvidia-dkms-NNN fails, and so does ubuntu-drivers.
Why
    Somebody made another version the default, with update-alternatives or a link, or deleted the link. The
    distribution's own scripts begin with #!/usr/bin/python3 and use modules that are built only for the version that
    came with it. It is called the cause of a failed configuration only where a log says so.
Repair
    Restore the link. Other versions are for virtual environments, pyenv or conda; they are not touched.
What the repair risks
    A user's program that relied on /usr/bin/python3 being the other version has to name it.
By hand
    ln -sfn python3.11 /usr/bin/python3 (Debian 12; Ubuntu 22.04: python3.10, 24.04: python3.12); dpkg --configure -a
"""

from collections.abc import Iterator

from dlhealth.api import (
    Action,
    AptFailures,
    AptInstall,
    ByHand,
    DpkgConfigure,
    Evidence,
    Finding,
    Gpus,
    Machine,
    MakeLink,
    Packages,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    SystemPython,
    Unknown,
)


class SystemPythonChangedBreaksPostinst(Rule):
    id = "system-python-changed-breaks-postinst"
    title = "/usr/bin/python3 is not the distribution's Python"
    stage = Stage.PACKAGE_STATE
    severity = Severity.WARNING
    explains = ("half-configured-driver-packages",)

    def detect(
        self, python: SystemPython, packages: Packages | None, failures: AptFailures | None, gpus: Gpus | None
    ) -> Iterator[Finding | Unknown]:
        concerned = any(p.gpu for p in packages.all()) if packages else False
        if not concerned and not (gpus and gpus.gpus):
            return
        if not python.expected or (python.chain and not python.version):
            missing = (
                "which Python the distribution's is" if not python.expected else "the version behind /usr/bin/python3"
            )
            yield Unknown(f"{missing} could not be found out")
            return
        if python.version == python.expected:
            return
        unfinished = [p for p in (packages.installed() if packages else ()) if p.gpu and p.state != "installed"]
        failure = failures.of("python") if failures else None
        evidence = [
            Evidence("/usr/bin/python3", " -> ".join(python.chain) or "not there"),
            Evidence(python.expected_source, f"made for Python {python.expected}"),
        ]
        if failure:
            evidence.append(Evidence(failure.source, failure.text))
        evidence += [Evidence("/var/lib/dpkg/status", f"{p.name} is {p.state}") for p in unfinished[:3]]
        other = f"Python {python.version} instead of the distribution's {python.expected}"
        found = other if python.version else f"not there (the distribution's is Python {python.expected})"
        works = "packages of the driver can't be configured" if failure else "scripts of packages may fail"
        yield self.finding(
            "file:/usr/bin/python3",
            f"/usr/bin/python3 is {found}: {works}",
            *evidence,
            severity=_severity(python, bool(unfinished), bool(failure)),
            expected=python.expected,
            unfinished=bool(unfinished),
        )

    def remedies(self, finding: Finding, python: SystemPython) -> Iterator[Plan]:
        expected = finding.detail["expected"]
        if finding.severity is Severity.NOTE:
            text = f"where a script of a package fails for this reason: ln -sfn python{expected} /usr/bin/python3"
            yield Plan(f"Make /usr/bin/python3 Python {expected} again, if it does harm", Risk.LOW, (ByHand(text),))
            return
        steps: list[Action] = [MakeLink("/usr/bin/python3", f"python{expected}")]
        if not python.expected_there:
            steps.insert(0, AptInstall((f"python{expected}-minimal",), reinstall=True))
        if finding.detail["unfinished"]:
            steps.append(DpkgConfigure())
        yield Plan(
            f"Make /usr/bin/python3 Python {expected} again", Risk.LOW, tuple(steps), network=not python.expected_there
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def python(machine: Machine) -> Machine:
            return (
                machine.package("python3-minimal", "3.12.3-0ubuntu2")
                .file("/usr/bin/python3.12", b"\x7fELF", 0o755)
                .link("/usr/bin/python3", "python3.12")
            )

        yield Scenario(
            "by update-alternatives, the DKMS package failed",
            python(Machine.ubuntu2404_gpu())
            .file("/usr/bin/python3.9", b"\x7fELF", 0o755)
            .link("/etc/alternatives/python3", "/usr/bin/python3.9")
            .link("/usr/bin/python3", "/etc/alternatives/python3")
            .package("nvidia-dkms-550", "550.120-0ubuntu0.24.04.1", status="install ok half-configured")
            .file(
                "/var/log/apt/term.log",
                "Log started: 2025-02-02  10:00:00\nSetting up nvidia-dkms-550 (550.120-0ubuntu0.24.04.1) ...\n"
                '  File "/usr/bin/quirks-handler", line 26, in <module>\n    import Quirks.quirkapplier\n'
                "ModuleNotFoundError: No module named 'Quirks'\n",
            ),
            finds="file:/usr/bin/python3",
            steps=("make-link", "dpkg-configure"),
            alone=True,
        )
        yield Scenario(
            "a link by hand; the distribution is known from os-release only",
            Machine.ubuntu2404_gpu().file("/usr/bin/python3.13", b"\x7fELF").link("/usr/bin/python3", "python3.13"),
            finds="file:/usr/bin/python3",
            steps=("apt-install", "make-link"),
        )
        yield Scenario(
            "the link was deleted, its package is there",
            python(Machine.ubuntu2404_gpu()).remove("/usr/bin/python3"),
            finds="file:/usr/bin/python3",
            steps=("make-link",),
        )
        yield Scenario(
            "another Python since long, and packages that another fault keeps half-configured",
            python(Machine.ubuntu2404_gpu())
            .file("/usr/bin/python3.13", b"\x7fELF", 0o755)
            .link("/usr/bin/python3", "python3.13")
            .package("nvidia-dkms-550", "550.120-0ubuntu0.24.04.1", status="install ok half-configured")
            .file(
                "/var/log/apt/term.log",
                "Log started: 2025-02-02  10:00:00\nError! Bad return status for module build\n",
            ),
            finds="file:/usr/bin/python3",
            alone=False,
        )
        yield Scenario("as installed", python(Machine.ubuntu2404_gpu()))
        yield Scenario("without Python", Machine.ubuntu2404_gpu(), unknown=True)
        yield Scenario(
            "the right version by way of an alternative",
            python(Machine.ubuntu2404_gpu())
            .link("/etc/alternatives/python3", "/usr/bin/python3.12")
            .link("/usr/bin/python3", "/etc/alternatives/python3"),
        )
        yield Scenario(
            "another Python in /usr/local, which these scripts don't use",
            python(Machine.ubuntu2404_gpu())
            .file("/usr/local/bin/python3.9", b"\x7fELF", 0o755)
            .link("/usr/local/bin/python3", "python3.9"),
        )
        yield Scenario(
            "no NVIDIA software",
            Machine.ubuntu2404().file("/usr/bin/python3.9", b"\x7fELF").link("/usr/bin/python3", "python3.9"),
        )
        yield Scenario(
            "a file of unknown version in its place",
            python(Machine.ubuntu2404_gpu()).remove("/usr/bin/python3").file("/usr/bin/python3", b"\x7fELF"),
            unknown=True,
        )


def _severity(python: SystemPython, unfinished: bool, failure: bool) -> Severity:
    """Packages that are not configured are its doing where a log says so, or where there is no Python at all."""
    if failure or (unfinished and not python.version):
        return Severity.ERROR
    return Severity.NOTE if unfinished else Severity.WARNING
