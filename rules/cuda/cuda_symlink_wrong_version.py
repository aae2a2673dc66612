"""/usr/local/cuda or CUDA_HOME names a missing toolkit, or not the one that PyTorch needs.

What you see
    "nvcc: command not found", "libcudart.so.11.0: cannot open shared object file", or an extension does not build
    because CUDA_HOME does not exist, although a toolkit is installed.

    Or, when an extension of PyTorch is built: "The detected CUDA version (11.8) mismatches the version that was
    used to compile PyTorch (12.1)".
Why
    /usr/local/cuda is a link. The packages maintain it with the alternatives system; the run file and many guides
    create it by hand. When its toolkit is removed, a link made by hand stays, and so does CUDA_HOME in a shell's
    start-up file.

    Several toolkits side by side, and a link to one that is not the newest, are normal and not reported. A note
    appears only if none of a user's PyTorch installations was built with the CUDA version of that toolkit, and a
    toolkit with the right version is installed.
Repair
    Point the link to an installed toolkit, with update-alternatives if that maintains the link. Correct the
    variable in the file that sets it. For PyTorch it is enough to set CUDA_HOME in the shell that builds the
    extension.
What the repair risks
    Everything that uses /usr/local/cuda uses the other toolkit from then on. For a project that needs a different
    one, set CUDA_HOME for that project.
By hand
    ls -d /usr/local/cuda-*; update-alternatives --display cuda
    ln -sfn /usr/local/cuda-12.2 /usr/local/cuda
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    CudaToolkits,
    CudaVariables,
    EditFile,
    Evidence,
    Finding,
    Machine,
    MakeLink,
    MoveAside,
    Place,
    Plan,
    PythonEnvironment,
    PythonEnvironments,
    Risk,
    Rule,
    Scenario,
    SetAlternative,
    Severity,
    Stage,
    Toolkit,
    Unknown,
    UserPaths,
    version_key,
)

_BUILDERS = ("deepspeed", "apex", "ninja")
"""Packages that build extensions of PyTorch at run time, or help to build them."""


class CudaSymlinkWrongVersion(Rule):
    id = "cuda-symlink-wrong-version"
    title = "/usr/local/cuda or CUDA_HOME names a missing toolkit, or not the one that PyTorch needs"
    stage = Stage.LOADER
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("nvcc-not-in-path", "ldconfig-cuda-entry-missing")

    def detect(
        self,
        toolkits: CudaToolkits,
        variables: CudaVariables | None,
        environments: PythonEnvironments | None,
        paths: UserPaths | None,
    ) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in toolkits.problems)
        for link in toolkits.links:
            if not link.real:
                yield self._dangling(link.path, link.target, link.removed, toolkits)
            elif link.path == "/usr/local/cuda":
                yield from self._without_compiler(link.real, link.target, toolkits)
        if toolkits.toolkits or toolkits.links:
            yield from self._variables(toolkits, variables)
        if toolkits.toolkits and environments and paths:
            yield from self._extensions(toolkits, variables, environments, paths)

    def _dangling(self, path: str, target: str, removed: str, toolkits: CudaToolkits) -> Finding:
        there = _installed(toolkits)
        main = path == "/usr/local/cuda"
        also = f"; installed: {', '.join(t.path for t in there)}" if there else ""
        return self.finding(
            f"file:{path}",
            f"{path} points to {removed}, which does not exist{also}",
            Evidence(path, f"link to {target}"),
            Evidence(removed, "does not exist"),
            *(Evidence(t.path, f"CUDA {t.release or 'of unknown version'}") for t in there),
            # Without any toolkit, the broken link breaks nothing else.
            severity=Severity.ERROR if main and there else Severity.WARNING,
            path=path,
        )

    def _without_compiler(self, real: str, target: str, toolkits: CudaToolkits) -> Iterator[Finding]:
        """A removed toolkit leaves its directory behind if something was copied into it, such as cuDNN."""
        others = [t for t in _installed(toolkits) if t.path != real and t.nvcc]
        named = toolkits.at(real)
        if not others or (named and named.nvcc):
            return
        what = "a toolkit without nvcc" if named else "the remains of a removed toolkit"
        yield self.finding(
            "file:/usr/local/cuda",
            f"/usr/local/cuda points to {real}, {what}; toolkits with nvcc: {', '.join(t.path for t in others)}",
            Evidence("/usr/local/cuda", f"link to {target}"),
            Evidence(f"{real}/bin/nvcc", "does not exist"),
            *(Evidence(t.nvcc, f"CUDA {t.release or 'of unknown version'}") for t in others),
            severity=Severity.WARNING if named else Severity.ERROR,
            path="/usr/local/cuda",
        )

    def _variables(self, toolkits: CudaToolkits, variables: CudaVariables | None) -> Iterator[Finding]:
        dangling = [link.path for link in toolkits.links if not link.real]
        by_line: dict[tuple[Place, str, str, str], list[str]] = {}
        for v in variables.variables if variables else ():
            if v.name not in ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT") or "cuda" not in v.value.lower():
                continue
            through = any(f"{v.value}/".startswith(f"{path}/") for path in dangling)
            if v.value.startswith("/") and (not v.real or v.real in toolkits.leftovers) and not through:
                by_line.setdefault((v.source, v.name, v.value, v.line), []).append(v.user)
        for (source, name, value, line), users in by_line.items():
            yield self.finding(
                f"file:{source.path}",
                f"{source} sets {name}={value}, but there is no toolkit in that directory",
                Evidence(source, f"{name}={value}"),
                Evidence(value, "no toolkit"),
                about=[f"user:{user}" for user in users],
                name=name,
                value=value,
                source=source,
                line=line,
            )

    def _extensions(
        self,
        toolkits: CudaToolkits,
        variables: CudaVariables | None,
        environments: PythonEnvironments,
        paths: UserPaths,
    ) -> Iterator[Finding]:
        """Users whose PyTorch extensions would be built with a toolkit that fits none of their PyTorch installations."""
        by_user: dict[str, list[PythonEnvironment]] = {}
        for environment in environments.environments:
            if environment.account and environment.torch and environment.torch.cuda:
                by_user.setdefault(environment.account.name, []).append(environment)
        for user, mine in by_user.items():
            toolkit, source, shows = _for_extensions(user, toolkits, variables, paths)
            built = {version_key(e.torch.cuda or "")[:1]: (e, e.torch) for e in mine if e.torch}
            if toolkit is None or toolkit.major is None or (toolkit.major,) in built:
                continue
            fit = next((t for t in toolkits.toolkits if t.nvcc and (t.major,) in built), None)
            builds = [(e, t) for e, t in built.values() if any(name in e.packages for name in _BUILDERS)]
            if fit is None and not builds:
                continue  # nobody is known to build extensions here
            environment, torch = built[(fit.major or 0,)] if fit else builds[0]
            builder = next((name for name in _BUILDERS if name in environment.packages), "")
            yield self.finding(
                environment.subject,
                f"PyTorch {torch.version} in {environment.path} needs CUDA {torch.cuda} to build extensions, but {source} "
                f"selects CUDA {toolkit.version}: {builder or 'PyTorch'} cannot build extensions",
                Evidence(torch.source, torch.shows),
                Evidence(source, shows),
                *([Evidence(fit.nvcc, f"CUDA {fit.version}")] if fit else []),
                *([Evidence(environment.site, f"{builder} {environment.packages[builder]}")] if builder else []),
                # PyTorch needs a toolkit only to build extensions.
                severity=Severity.WARNING if builder else Severity.NOTE,
                about=[f"user:{user}"],
                extensions=fit.path if fit else "",
                cuda=torch.cuda or "",
                path=environment.path,
            )

    def remedies(self, finding: Finding, toolkits: CudaToolkits) -> Iterator[Plan]:
        if finding.detail.get("extensions") == "":
            cuda, path = finding.detail["cuda"], finding.detail["path"]
            text = (
                f"Install the toolkit of CUDA {cuda} too (package cuda-toolkit-{cuda.replace('.', '-')} from NVIDIA's "
                f"repository, or conda's cuda-toolkit in {path}), and set CUDA_HOME to it in the shell that builds the "
                "extension. Or install a PyTorch that was built with the CUDA version of the installed toolkit"
            )
            yield Plan(f"Install a toolkit of CUDA {cuda} for {path}", Risk.LOW, (ByHand(text),), network=True)
            return
        if path := finding.detail.get("extensions"):
            text = f"In the shell that builds the extension, run: export CUDA_HOME={path} PATH={path}/bin:$PATH"
            yield Plan(f"Build extensions with the toolkit in {path}", Risk.LOW, (ByHand(text),))
            return
        if "name" in finding.detail:
            yield self._correction(finding, toolkits)
            return
        path = finding.detail["path"]
        name = path.rpartition("/")[2]
        alternative = any(link.alternative and link.path == path for link in toolkits.links)
        # /usr/local/cuda-11 must point to a CUDA 11.
        version = version_key(name.removeprefix("cuda").lstrip("-"))
        for toolkit in (t for t in _installed(toolkits) if version_key(t.version)[: len(version)] == version):
            yield Plan(
                f"Point {path} to {toolkit.path} (CUDA {toolkit.release})",
                Risk.MEDIUM,
                (SetAlternative(name, toolkit.path) if alternative else MakeLink(path, toolkit.path),),
            )
        yield Plan(f"Remove the link {path}", Risk.MEDIUM, (MoveAside(path),))

    def _correction(self, finding: Finding, toolkits: CudaToolkits) -> Plan:
        name, value, source, line = (finding.detail[key] for key in ("name", "value", "source", "line"))
        best = toolkits.default or next(iter(_installed(toolkits)), None)
        summary = f"Set {name} to {best.path} in {source}" if best else f"Remove {name} from {source}"
        if value not in line or source.line is None:
            return Plan(summary, Risk.LOW, (ByHand(f"{summary} (now: {value})"),))
        change = (source.line, line, line.replace(value, best.path) if best else None)
        return Plan(summary, Risk.LOW, (EditFile(source.path, (change,)),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        link = "/usr/local/cuda"
        yield Scenario(
            "a link made by hand to a removed toolkit",
            Machine.ubuntu2404_gpu().cuda_toolkit("12.2").link(link, "/usr/local/cuda-11.8"),
            finds=f"file:{link}",
            steps=("make-link",),
            ladder=(
                ("medium", "make-link /usr/local/cuda /usr/local/cuda-12.2"),
                ("medium", "move-aside /usr/local/cuda"),
            ),
        )
        yield Scenario(
            "the alternative's toolkit was deleted by hand",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .link("/etc/alternatives/cuda", "/usr/local/cuda-12.4")
            .link(link, "/etc/alternatives/cuda"),
            finds=f"file:{link}",
            steps=("set-alternative",),
            ladder=(("medium", "set-alternative cuda /usr/local/cuda-12.2"), ("medium", "move-aside /usr/local/cuda")),
        )
        yield Scenario(
            "DeepSpeed, with CUDA_HOME of another major version than PyTorch's",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .append("/home/alice/.bashrc", "export CUDA_HOME=/usr/local/cuda-12.2\n")
            .python_environment(packages=["deepspeed-0.12.3"], torch="2.1.0+cu118", cuda="11.8"),
            finds="python:/home/alice/venv",
            ladder=(("low network", "by-hand 11.8 cuda-toolkit-11-8 /home/alice/venv CUDA_HOME"),),
        )
        yield Scenario(
            "CUDA_HOME of another major version, but nobody builds extensions",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .append("/home/alice/.bashrc", "export CUDA_HOME=/usr/local/cuda-12.2\n")
            .python_environment(torch="2.1.0+cu118", cuda="11.8"),
        )
        yield Scenario(
            "the link of a major version without any toolkit",
            Machine.ubuntu2404_gpu().cuda_toolkit("12.2").link("/usr/local/cuda-11", "/usr/local/cuda-11.8"),
            finds="file:/usr/local/cuda-11",
            steps=("move-aside",),
            ladder=(("medium", "move-aside /usr/local/cuda-11"),),
        )
        yield Scenario(
            "only cuDNN is left in the toolkit's directory",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .link(link, "/usr/local/cuda-11.8")
            .folder("/usr/local/cuda-11.8/lib64/pkgconfig"),
            finds=f"file:{link}",
        )
        yield Scenario(
            "CUDA_HOME names a removed toolkit",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .append("/home/alice/.bashrc", "export CUDA_HOME=/usr/local/cuda-10.1\n"),
            finds="file:/home/alice/.bashrc",
            ladder=(("low", "edit-file /home/alice/.bashrc 15: export CUDA_HOME=/usr/local/cuda-12.2"),),
        )
        yield Scenario(
            "three toolkits, the link points to an older one",
            Machine.ubuntu2404_gpu().cuda_toolkit("12.2").cuda_toolkit("12.4", default=False).cuda_toolkit("11.8"),
        )
        yield Scenario(
            "extensions of PyTorch would be built with another CUDA version",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("11.8")
            .cuda_toolkit("12.2", default=False)
            .python_environment(torch="2.4.0", cuda="12.1"),
            finds="python:/home/alice/venv",
            ladder=(("low", "by-hand CUDA_HOME=/usr/local/cuda-12.2 PATH=/usr/local/cuda-12.2/bin:$PATH"),),
        )
        yield Scenario(
            "CUDA_HOME fits PyTorch, the link serves others",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("11.8")
            .cuda_toolkit("12.2", default=False)
            .python_environment(torch="2.4.0", cuda="12.1")
            .append("/home/alice/.bashrc", "export CUDA_HOME=/usr/local/cuda-12.2\n"),
        )
        yield Scenario(
            "PyTorch of another CUDA version, without a toolkit for it",
            Machine.ubuntu2404_gpu().cuda_toolkit("11.8").python_environment(torch="2.4.0", cuda="12.1"),
        )
        yield Scenario("no toolkit at all", Machine.ubuntu2404_gpu())
        yield Scenario(
            "CUDA_HOME in the start-up file of a machine without CUDA",
            Machine.debian12().append("/home/alice/.bashrc", "export CUDA_HOME=/usr/local/cuda\n"),
        )
        yield Scenario(
            "the version is not readable",
            Machine.ubuntu2404_gpu().cuda_toolkit("12.2").fifo("/usr/local/cuda-12.2/version.json"),
            unknown=True,
        )


def _for_extensions(
    user: str, toolkits: CudaToolkits, variables: CudaVariables | None, paths: UserPaths
) -> tuple[Toolkit | None, str, str]:
    """The toolkit that PyTorch builds a user's extensions with, and what selects it, in the order that PyTorch uses."""
    for variable in variables.of(user, "CUDA_HOME", "CUDA_PATH") if variables else ():
        return toolkits.at(variable.real), variable.source, f"{variable.name}={variable.value}"
    for folder in paths.of(user, "PATH"):
        for toolkit in toolkits.toolkits:
            if toolkit.nvcc and toolkit.nvcc == f"{folder.real}/nvcc":
                return toolkit, folder.source or "PATH", f"{folder.path} in PATH"
    return toolkits.default, "/usr/local/cuda", toolkits.default.path if toolkits.default else ""


def _installed(toolkits: CudaToolkits) -> list[Toolkit]:
    """Toolkits that the link could point to, those with a compiler first."""
    own = [t for t in toolkits.toolkits if not t.distribution]
    return sorted(own, key=lambda t: not t.nvcc)
