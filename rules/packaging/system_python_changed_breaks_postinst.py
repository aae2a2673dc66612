"""/usr/bin/python3 is not the distribution's Python.

What you see
    File "/usr/bin/quirks-handler", line 26: ModuleNotFoundError: No module named 'Quirks'

    ModuleNotFoundError: No module named 'apt_pkg'

    The configuration of nvidia-dkms-NNN fails, and ubuntu-drivers fails too.
Why
    Somebody made another version the default with update-alternatives or a link, or deleted the link.

    The distribution's scripts start with #!/usr/bin/python3. Their modules are built only for the distribution's
    version.

    dlhealth reports it as the cause of a failed configuration only if a log shows that.
Repair
    Restore the link. Use other versions through virtual environments, pyenv or conda. dlhealth does not change them.
What the repair risks
    A user's program that expects another version under /usr/bin/python3 must name that version.
By hand
    # Debian 12: python3.11; Ubuntu 22.04: python3.10, 24.04: python3.12
    ln -sfn python3.11 /usr/bin/python3
    dpkg --configure -a
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
            missing = "the distribution's Python version" if not python.expected else "the version of /usr/bin/python3"
            yield Unknown(f"cannot find out {missing}")
            return
        if python.version == python.expected:
            return
        unfinished = [p for p in (packages.installed() if packages else ()) if p.gpu and p.state != "installed"]
        failure = failures.of("python") if failures else None
        evidence = [
            Evidence("/usr/bin/python3", " -> ".join(python.chain) or "does not exist"),
            Evidence(python.expected_source, f"needs Python {python.expected}"),
        ]
        if failure:
            evidence.append(Evidence(failure.source, failure.text))
        evidence += [Evidence("/var/lib/dpkg/status", f"{p.name} is {p.state}") for p in unfinished[:3]]
        other = f"Python {python.version} instead of the distribution's {python.expected}"
        found = other if python.version else f"missing (the distribution's is Python {python.expected})"
        works = "packages of the driver cannot be configured" if failure else "package scripts may fail"
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
            text = f"if a package script fails because of this: ln -sfn python{expected} /usr/bin/python3"
            yield Plan(f"If it causes errors, link /usr/bin/python3 to Python {expected}", Risk.LOW, (ByHand(text),))
            return
        steps: list[Action] = [MakeLink("/usr/bin/python3", f"python{expected}")]
        if not python.expected_there:
            steps.insert(0, AptInstall((f"python{expected}-minimal",), reinstall=True))
        if finding.detail["unfinished"]:
            steps.append(DpkgConfigure())
        yield Plan(
            f"Link /usr/bin/python3 to Python {expected}", Risk.LOW, tuple(steps), network=not python.expected_there
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
            "changed by update-alternatives, and the DKMS package failed",
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
            ladder=(("low", "make-link /usr/bin/python3 python3.12", "dpkg-configure"),),
        )
        yield Scenario(
            "a link made by hand, and only os-release shows the distribution",
            Machine.ubuntu2404_gpu().file("/usr/bin/python3.13", b"\x7fELF").link("/usr/bin/python3", "python3.13"),
            finds="file:/usr/bin/python3",
            steps=("apt-install", "make-link"),
            ladder=(
                ("low network", "apt-install python3.12-minimal reinstall", "make-link /usr/bin/python3 python3.12"),
            ),
        )
        yield Scenario(
            "the link was deleted, its package is installed",
            python(Machine.ubuntu2404_gpu()).remove("/usr/bin/python3"),
            finds="file:/usr/bin/python3",
            steps=("make-link",),
            ladder=(("low", "make-link /usr/bin/python3 python3.12"),),
        )
        yield Scenario(
            "another Python, but packages are half-configured for another reason",
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
            ladder=(("low", "by-hand -sfn python3.12 /usr/bin/python3"),),
        )
        yield Scenario("the distribution's Python", python(Machine.ubuntu2404_gpu()))
        yield Scenario("without Python", Machine.ubuntu2404_gpu(), unknown=True)
        yield Scenario(
            "the right version through an alternative",
            python(Machine.ubuntu2404_gpu())
            .link("/etc/alternatives/python3", "/usr/bin/python3.12")
            .link("/usr/bin/python3", "/etc/alternatives/python3"),
        )
        yield Scenario(
            "another Python in /usr/local, which these scripts do not use",
            python(Machine.ubuntu2404_gpu())
            .file("/usr/local/bin/python3.9", b"\x7fELF", 0o755)
            .link("/usr/local/bin/python3", "python3.9"),
        )
        yield Scenario(
            "no NVIDIA software",
            Machine.ubuntu2404().file("/usr/bin/python3.9", b"\x7fELF").link("/usr/bin/python3", "python3.9"),
        )
        yield Scenario(
            "a file of unknown version",
            python(Machine.ubuntu2404_gpu()).remove("/usr/bin/python3").file("/usr/bin/python3", b"\x7fELF"),
            unknown=True,
        )


def _severity(python: SystemPython, unfinished: bool, failure: bool) -> Severity:
    """It is the cause of unconfigured packages only if a log says so, or if there is no Python at all."""
    if failure or (unfinished and not python.version):
        return Severity.ERROR
    return Severity.NOTE if unfinished else Severity.WARNING
