"""/usr/local/cuda, or a person's CUDA_HOME, names a toolkit that is gone, or not the one that PyTorch needs.

What you see
    nvcc: command not found, "libcudart.so.11.0: cannot open shared object file", or an extension that does not build
    because CUDA_HOME does not exist, although a toolkit is installed. Or "The detected CUDA version (11.8) mismatches
    the version that was used to compile PyTorch (12.1)", where an extension of PyTorch is built.
Why
    /usr/local/cuda is a link: the packages keep it with the alternatives system, the run file and many guides make it
    by hand. When the toolkit behind it is removed, a link made by hand stays, and so does a CUDA_HOME in a shell's
    start file. Several toolkits side by side, and a link to one that is not the newest, are normal and not reported;
    only where no PyTorch of a person is of that toolkit's CUDA, and the toolkit for it is there as well, a note says so.
Repair
    Point the link to a toolkit that is there (by update-alternatives where that keeps it). A variable is corrected in
    the file that sets it. For PyTorch a CUDA_HOME is enough, where the extension is built.
What the repair risks
    Everything that uses /usr/local/cuda uses that toolkit from then on. A project that needs another one is better
    served by its own CUDA_HOME.
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
"""Packages that build extensions of PyTorch while they run, or are there for that."""


class CudaSymlinkWrongVersion(Rule):
    id = "cuda-symlink-wrong-version"
    title = "/usr/local/cuda or CUDA_HOME names a toolkit that is gone, or not the one that PyTorch needs"
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
            f"{path} leads to {removed}, which does not exist{also}",
            Evidence(path, f"link to {target}"),
            Evidence(removed, "does not exist"),
            *(Evidence(t.path, f"CUDA {t.release or 'of unknown version'}") for t in there),
            # Where no toolkit is left nothing else is broken by it.
            severity=Severity.ERROR if main and there else Severity.WARNING,
            path=path,
        )

    def _without_compiler(self, real: str, target: str, toolkits: CudaToolkits) -> Iterator[Finding]:
        """A removed toolkit leaves its folder when something was copied into it, cuDNN for example."""
        others = [t for t in _installed(toolkits) if t.path != real and t.nvcc]
        named = toolkits.at(real)
        if not others or (named and named.nvcc):
            return
        what = "a toolkit without nvcc" if named else "what is left of a removed toolkit"
        yield self.finding(
            "file:/usr/local/cuda",
            f"/usr/local/cuda leads to {real}, {what}; with nvcc: {', '.join(t.path for t in others)}",
            Evidence("/usr/local/cuda", f"link to {target}"),
            Evidence(f"{real}/bin/nvcc", "does not exist"),
            *(Evidence(t.nvcc, f"CUDA {t.release or 'of unknown version'}") for t in others),
            severity=Severity.WARNING if named else Severity.ERROR,
            path="/usr/local/cuda",
        )

    def _variables(self, toolkits: CudaToolkits, variables: CudaVariables | None) -> Iterator[Finding]:
        dangling = [link.path for link in toolkits.links if not link.real]
        by_line: dict[tuple[str, str, str, str], list[str]] = {}
        for v in variables.variables if variables else ():
            if v.name not in ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT") or "cuda" not in v.value.lower():
                continue
            through = any(f"{v.value}/".startswith(f"{path}/") for path in dangling)
            if v.value.startswith("/") and (not v.real or v.real in toolkits.leftovers) and not through:
                by_line.setdefault((v.source, v.name, v.value, v.line), []).append(v.user)
        for (source, name, value, line), users in by_line.items():
            yield self.finding(
                f"file:{source.rpartition(':')[0] or source}",
                f"{name}={value} in {source}: there is no toolkit",
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
        """Whose extensions of PyTorch would be built with a toolkit for none of his or her PyTorchs."""
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
                f"PyTorch {torch.version} in {environment.path} is built with CUDA {torch.cuda}, and {source} leads to CUDA "
                f"{toolkit.version}: {builder or 'PyTorch'} can't build extensions",
                Evidence(torch.source, torch.shows),
                Evidence(source, shows),
                *([Evidence(fit.nvcc, f"CUDA {fit.version}")] if fit else []),
                *([Evidence(environment.site, f"{builder} {environment.packages[builder]}")] if builder else []),
                # Nothing but the building of extensions needs a toolkit.
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
                f"Install the toolkit of CUDA {cuda} beside the other (package cuda-toolkit-{cuda.replace('.', '-')} of "
                f"NVIDIA's repository, or conda's cuda-toolkit in {path}), and set CUDA_HOME to it where the extension is "
                "built; or install a PyTorch that is built with the CUDA of the toolkit that is there"
            )
            yield Plan(f"Give {path} a toolkit of CUDA {cuda}", Risk.LOW, (ByHand(text),), network=True)
            return
        if path := finding.detail.get("extensions"):
            text = f"export CUDA_HOME={path} PATH={path}/bin:$PATH, in the shell where the extension is built"
            yield Plan(f"Build extensions with the toolkit in {path}", Risk.LOW, (ByHand(text),))
            return
        if "name" in finding.detail:
            yield self._correction(finding, toolkits)
            return
        path = finding.detail["path"]
        name = path.rpartition("/")[2]
        alternative = any(link.alternative and link.path == path for link in toolkits.links)
        # /usr/local/cuda-11 is for a CUDA 11 and no other.
        version = version_key(name.removeprefix("cuda").lstrip("-"))
        for toolkit in (t for t in _installed(toolkits) if version_key(t.version)[: len(version)] == version):
            yield Plan(
                f"Let {path} lead to {toolkit.path} (CUDA {toolkit.release})",
                Risk.MEDIUM,
                (SetAlternative(name, toolkit.path) if alternative else MakeLink(path, toolkit.path),),
            )
        yield Plan(f"Remove the link {path}", Risk.MEDIUM, (MoveAside(path),))

    def _correction(self, finding: Finding, toolkits: CudaToolkits) -> Plan:
        name, value, source, line = (finding.detail[key] for key in ("name", "value", "source", "line"))
        best = toolkits.default or next(iter(_installed(toolkits)), None)
        summary = f"Let {name} in {source} name {best.path}" if best else f"Take {name} out of {source}"
        if value not in line:
            return Plan(summary, Risk.LOW, (ByHand(f"{summary}, instead of {value}"),))
        path, _, number = source.rpartition(":")
        change = (int(number), line, line.replace(value, best.path) if best else None)
        return Plan(summary, Risk.LOW, (EditFile(path, (change,)),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        link = "/usr/local/cuda"
        yield Scenario(
            "a link by hand to a removed toolkit",
            Machine.ubuntu2404_gpu().cuda_toolkit("12.2").link(link, "/usr/local/cuda-11.8"),
            finds=f"file:{link}",
            steps=("make-link",),
        )
        yield Scenario(
            "the alternative's toolkit was deleted by hand",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .link("/etc/alternatives/cuda", "/usr/local/cuda-12.4")
            .link(link, "/etc/alternatives/cuda"),
            finds=f"file:{link}",
            steps=("set-alternative",),
        )
        yield Scenario(
            "DeepSpeed with CUDA_HOME of another major than PyTorch's",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .append("/home/alice/.bashrc", "export CUDA_HOME=/usr/local/cuda-12.2\n")
            .python_environment(packages=["deepspeed-0.12.3"], torch="2.1.0+cu118", cuda="11.8"),
            finds="python:/home/alice/venv",
        )
        yield Scenario(
            "CUDA_HOME of another major, and nobody builds extensions",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .append("/home/alice/.bashrc", "export CUDA_HOME=/usr/local/cuda-12.2\n")
            .python_environment(torch="2.1.0+cu118", cuda="11.8"),
        )
        yield Scenario(
            "the link of a major version, of which no toolkit is left",
            Machine.ubuntu2404_gpu().cuda_toolkit("12.2").link("/usr/local/cuda-11", "/usr/local/cuda-11.8"),
            finds="file:/usr/local/cuda-11",
            steps=("move-aside",),
        )
        yield Scenario(
            "only cuDNN is left in the toolkit",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .link(link, "/usr/local/cuda-11.8")
            .folder("/usr/local/cuda-11.8/lib64/pkgconfig"),
            finds=f"file:{link}",
        )
        yield Scenario(
            "CUDA_HOME of a removed toolkit",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .append("/home/alice/.bashrc", "export CUDA_HOME=/usr/local/cuda-10.1\n"),
            finds="file:/home/alice/.bashrc",
        )
        yield Scenario(
            "three toolkits, the link names an older one",
            Machine.ubuntu2404_gpu().cuda_toolkit("12.2").cuda_toolkit("12.4", default=False).cuda_toolkit("11.8"),
        )
        yield Scenario(
            "extensions of PyTorch would be built with another CUDA",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("11.8")
            .cuda_toolkit("12.2", default=False)
            .python_environment(torch="2.4.0", cuda="12.1"),
            finds="python:/home/alice/venv",
        )
        yield Scenario(
            "CUDA_HOME is for PyTorch, the link for others",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("11.8")
            .cuda_toolkit("12.2", default=False)
            .python_environment(torch="2.4.0", cuda="12.1")
            .append("/home/alice/.bashrc", "export CUDA_HOME=/usr/local/cuda-12.2\n"),
        )
        yield Scenario(
            "PyTorch of another CUDA, for which there is no toolkit",
            Machine.ubuntu2404_gpu().cuda_toolkit("11.8").python_environment(torch="2.4.0", cuda="12.1"),
        )
        yield Scenario("no toolkit at all", Machine.ubuntu2404_gpu())
        yield Scenario(
            "CUDA_HOME in the start file of a machine without CUDA",
            Machine.debian12().append("/home/alice/.bashrc", "export CUDA_HOME=/usr/local/cuda\n"),
        )
        yield Scenario(
            "the version can't be read",
            Machine.ubuntu2404_gpu().cuda_toolkit("12.2").fifo("/usr/local/cuda-12.2/version.json"),
            unknown=True,
        )


def _for_extensions(
    user: str, toolkits: CudaToolkits, variables: CudaVariables | None, paths: UserPaths
) -> tuple[Toolkit | None, str, str]:
    """The toolkit that PyTorch builds a person's extensions with, and what leads to it: the order is PyTorch's own."""
    for variable in variables.of(user, "CUDA_HOME", "CUDA_PATH") if variables else ():
        return toolkits.at(variable.real), variable.source, f"{variable.name}={variable.value}"
    for folder in paths.of(user, "PATH"):
        for toolkit in toolkits.toolkits:
            if toolkit.nvcc and toolkit.nvcc == f"{folder.real}/nvcc":
                return toolkit, folder.source or "PATH", f"{folder.path} in PATH"
    return toolkits.default, "/usr/local/cuda", toolkits.default.path if toolkits.default else ""


def _installed(toolkits: CudaToolkits) -> list[Toolkit]:
    """Toolkits that the link could name, those with a compiler first."""
    own = [t for t in toolkits.toolkits if not t.distribution]
    return sorted(own, key=lambda t: not t.nvcc)
