"""The default gcc is too new for nvcc.

What you see
    For every .cu file: "#error -- unsupported GNU version! gcc versions later than 11 are not supported!" from
    crt/host_config.h.
Why
    nvcc compiles the CPU part of a program with the gcc from PATH. Each toolkit refuses compilers that are newer
    than itself, and the distribution's default gcc has moved on.
Repair
    Install an older gcc and g++ beside the default and tell nvcc to use it: with nvcc -ccbin, with CUDAHOSTCXX for
    CMake, or with NVCC_PREPEND_FLAGS for everything.
What the repair risks
    The rest of the system does not change. Do not switch the gcc of the whole system with update-alternatives: the
    next build of the kernel module would fail. Do not use -allow-unsupported-compiler either: it replaces one error
    with hundreds.
By hand
    f=/usr/local/cuda/include/crt/host_config.h
    grep -n '__GNUC__ >' $f; gcc -dumpversion
    apt-get install gcc-11 g++-11
    export NVCC_PREPEND_FLAGS='-ccbin g++-11'
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    Compilers,
    CudaToolkits,
    CudaVariables,
    Evidence,
    Finding,
    HostLimit,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UserPaths,
)


class NvccHostCompilerUnsupported(Rule):
    id = "nvcc-host-compiler-unsupported"
    title = "The default gcc is too new for nvcc"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING

    def detect(
        self, toolkits: CudaToolkits, compilers: Compilers, variables: CudaVariables | None, paths: UserPaths | None
    ) -> Iterator[Finding | Unknown]:
        toolkit, gcc = toolkits.default, compilers.gcc or compilers.gxx
        # The distribution's own package fits its default compiler, or selects another one for nvcc.
        if not toolkit or not toolkit.nvcc or toolkit.host_compiler or not gcc or toolkit.path not in compilers.limits:
            return
        if not gcc.version:
            yield Unknown(f"cannot find out the version of {gcc.path} without running it")
            return
        limit = compilers.limits[toolkit.path]
        told = {v.user for v in variables.variables if _names_compiler(v.name, v.value)} if variables else set()
        affected = [u for u in paths.users if u not in told] if paths else []
        if limit.allows(gcc.version) or (told and not affected):
            return
        yield self.finding(
            f"file:{toolkit.nvcc}",
            f"nvcc of CUDA {toolkit.version} needs gcc {limit.newest} or older; {gcc.path} is gcc {gcc.version}",
            Evidence(limit.source, f"refuses gcc versions later than {limit.newest}"),
            Evidence(gcc.source, f"gcc {gcc.version}"),
            about=[f"user:{user}" for user in affected] if told else (),
            limit=limit.newest,
            toolkit=toolkit.path,
        )

    def remedies(self, finding: Finding, compilers: Compilers) -> Iterator[Plan]:
        newest = finding.detail["limit"]
        best = compilers.best(HostLimit(newest, ""))
        name = best.path if best else f"/usr/bin/g++-{newest}"
        tell = ByHand(
            f"Add to ~/.profile: export NVCC_PREPEND_FLAGS='-ccbin {name}' (CMake: export CUDAHOSTCXX={name})"
        )
        if best:
            yield Plan(f"Make nvcc use {name}, which is installed", Risk.LOW, (tell,))
        else:
            yield Plan(
                f"Install gcc {newest} beside the default and make nvcc use it",
                Risk.LOW,
                (AptInstall((f"gcc-{newest}", f"g++-{newest}")), tell),
                network=True,
            )
            yield Plan(
                "Use a newer toolkit",
                Risk.MEDIUM,
                (
                    ByHand(
                        "If the distribution no longer has that gcc, install a CUDA toolkit that supports the default gcc"
                    ),
                ),
            )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def machine(cuda: str, gcc: str) -> Machine:
            return (
                Machine.ubuntu2404_gpu()
                .cuda_toolkit(cuda, f"{cuda}.89")
                .file(f"/usr/bin/x86_64-linux-gnu-gcc-{gcc}", "", 0o755)
                .link(f"/usr/bin/gcc-{gcc}", f"x86_64-linux-gnu-gcc-{gcc}")
                .link("/usr/bin/gcc", f"gcc-{gcc}")
            )

        nvcc = "file:/usr/local/cuda-11.8/bin/nvcc"
        yield Scenario(
            "CUDA 11.8 and gcc 13",
            machine("11.8", "13"),
            finds=nvcc,
            ladder=(
                (
                    "low network",
                    "apt-install gcc-11 g++-11",
                    "by-hand ~/.profile NVCC_PREPEND_FLAGS='-ccbin /usr/bin/g++-11 CUDAHOSTCXX=/usr/bin/g++-11",
                ),
                ("medium", "by-hand distribution longer that install CUDA toolkit"),
            ),
        )
        yield Scenario(
            "the header says 10, and g++ 10 is installed",
            machine("11.8", "12")
            .file("/usr/bin/x86_64-linux-gnu-g++-10", "", 0o755)
            .link("/usr/bin/g++-10", "x86_64-linux-gnu-g++-10")
            .file(
                "/usr/local/cuda-11.8/include/crt/host_config.h",
                "#if defined(__GNUC__)\n\n#if __GNUC__ > 10\n\n#error -- unsupported GNU version!\n",
            ),
            finds=nvcc,
            ladder=(
                ("low", "by-hand ~/.profile NVCC_PREPEND_FLAGS='-ccbin /usr/bin/g++-10 CUDAHOSTCXX=/usr/bin/g++-10"),
            ),
        )
        yield Scenario(
            "gcc selected by the alternatives system",
            machine("11.8", "12")
            .link("/usr/bin/gcc", "/etc/alternatives/gcc")
            .link("/etc/alternatives/gcc", "/usr/bin/gcc-12"),
            finds=nvcc,
        )
        yield Scenario("CUDA 12.4 and gcc 13", machine("12.4", "13"))
        yield Scenario(
            "a user set the host compiler for nvcc",
            machine("11.8", "13").append("/home/alice/.bashrc", "export NVCC_PREPEND_FLAGS='-ccbin g++-11'\n"),
        )
        yield Scenario(
            "the toolkit has its own link",
            machine("11.8", "13")
            .file("/usr/bin/gcc-11", "", 0o755)
            .link("/usr/local/cuda-11.8/bin/gcc", "/usr/bin/gcc-11"),
        )
        yield Scenario(
            "somebody removed the limit from the header",
            machine("11.8", "13").file(
                "/usr/local/cuda-11.8/include/crt/host_config.h", "#if defined(__GNUC__)\n#endif\n"
            ),
        )
        yield Scenario(
            "the distribution's own toolkit",
            Machine.debian12_gpu()
            .file("/usr/bin/nvcc", "", 0o755)
            .package("nvidia-cuda-toolkit", "11.8.89~11.8.0-5~deb12u1", ["/usr/bin/nvcc"])
            .file("/usr/bin/gcc-12", "", 0o755)
            .link("/usr/bin/gcc", "gcc-12"),
        )
        yield Scenario("no gcc", Machine.ubuntu2404_gpu().cuda_toolkit("11.8"))
        yield Scenario("a gcc without a version", machine("11.8", "12").file("/usr/bin/gcc", "", 0o755), unknown=True)


def _names_compiler(variable: str, value: str) -> bool:
    """Whether a variable sets nvcc's host compiler; CUDAHOSTCXX and NVCC_CCBIN contain nothing else."""
    flags = ("-ccbin", "--compiler-bindir", "-allow-unsupported-compiler")
    return variable in ("CUDAHOSTCXX", "NVCC_CCBIN") or (
        variable.startswith("NVCC_") and any(f in value for f in flags)
    )
