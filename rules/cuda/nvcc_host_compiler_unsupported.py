"""The default gcc is newer than nvcc takes.

What you see
    "#error -- unsupported GNU version! gcc versions later than 11 are not supported!" from crt/host_config.h, for
    every .cu file.
Why
    nvcc compiles the host's part of a program with the gcc of PATH. Each toolkit refuses what is newer than the
    compilers of its time, and the distribution's default went on.
Repair
    Install an older gcc and g++ beside the default and name it to nvcc: nvcc -ccbin, CUDAHOSTCXX for CMake, or
    NVCC_PREPEND_FLAGS for everything.
What the repair risks
    Nothing of the system changes. Switching the gcc of the whole system by update-alternatives instead breaks the
    next build of the kernel module, and -allow-unsupported-compiler only trades one error for hundreds.
By hand
    grep -n '__GNUC__ >' /usr/local/cuda/include/crt/host_config.h; gcc -dumpversion
    apt-get install gcc-11 g++-11; export NVCC_PREPEND_FLAGS='-ccbin g++-11'
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
    title = "The default gcc is newer than nvcc takes"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING

    def detect(
        self, toolkits: CudaToolkits, compilers: Compilers, variables: CudaVariables | None, paths: UserPaths | None
    ) -> Iterator[Finding | Unknown]:
        toolkit, gcc = toolkits.default, compilers.gcc or compilers.gxx
        # The distribution's own package is built for its default compiler, or names another one to nvcc itself.
        if not toolkit or not toolkit.nvcc or toolkit.host_compiler or not gcc or toolkit.path not in compilers.limits:
            return
        if not gcc.version:
            yield Unknown(f"of which version {gcc.path} is can't be told without starting it")
            return
        limit = compilers.limits[toolkit.path]
        told = {v.user for v in variables.variables if _names_compiler(v.name, v.value)} if variables else set()
        affected = [u for u in paths.users if u not in told] if paths else []
        if limit.allows(gcc.version) or (told and not affected):
            return
        yield self.finding(
            f"file:{toolkit.nvcc}",
            f"nvcc of CUDA {toolkit.version} takes gcc up to {limit.newest}, and {gcc.path} is gcc {gcc.version}",
            Evidence(limit.source, f"gcc versions later than {limit.newest} are refused"),
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
            f"Name it to nvcc: export NVCC_PREPEND_FLAGS='-ccbin {name}' (in ~/.profile), or CUDAHOSTCXX={name} for CMake"
        )
        if best:
            yield Plan(f"Let nvcc use {name}, which is installed", Risk.LOW, (tell,))
        else:
            yield Plan(
                f"Install gcc {newest} beside the default and let nvcc use it",
                Risk.LOW,
                (AptInstall((f"gcc-{newest}", f"g++-{newest}")), tell),
                network=True,
            )
            yield Plan(
                "Use a newer toolkit",
                Risk.MEDIUM,
                (
                    ByHand(
                        "Where the distribution no longer has that gcc: install a CUDA toolkit that takes the default one"
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
        yield Scenario("CUDA 11.8 and gcc 13", machine("11.8", "13"), finds=nvcc)
        yield Scenario(
            "the header says 10, and g++ 10 is there",
            machine("11.8", "12")
            .file("/usr/bin/x86_64-linux-gnu-g++-10", "", 0o755)
            .link("/usr/bin/g++-10", "x86_64-linux-gnu-g++-10")
            .file(
                "/usr/local/cuda-11.8/include/crt/host_config.h",
                "#if defined(__GNUC__)\n\n#if __GNUC__ > 10\n\n#error -- unsupported GNU version!\n",
            ),
            finds=nvcc,
        )
        yield Scenario(
            "by alternatives",
            machine("11.8", "12")
            .link("/usr/bin/gcc", "/etc/alternatives/gcc")
            .link("/etc/alternatives/gcc", "/usr/bin/gcc-12"),
            finds=nvcc,
        )
        yield Scenario("CUDA 12.4 and gcc 13", machine("12.4", "13"))
        yield Scenario(
            "a person told nvcc",
            machine("11.8", "13").append("/home/alice/.bashrc", "export NVCC_PREPEND_FLAGS='-ccbin g++-11'\n"),
        )
        yield Scenario(
            "the toolkit has its own link",
            machine("11.8", "13")
            .file("/usr/bin/gcc-11", "", 0o755)
            .link("/usr/local/cuda-11.8/bin/gcc", "/usr/bin/gcc-11"),
        )
        yield Scenario(
            "somebody took the limit out of the header",
            machine("11.8", "13").file(
                "/usr/local/cuda-11.8/include/crt/host_config.h", "#if defined(__GNUC__)\n#endif\n"
            ),
        )
        yield Scenario(
            "the distribution's own",
            Machine.debian12_gpu()
            .file("/usr/bin/nvcc", "", 0o755)
            .package("nvidia-cuda-toolkit", "11.8.89~11.8.0-5~deb12u1", ["/usr/bin/nvcc"])
            .file("/usr/bin/gcc-12", "", 0o755)
            .link("/usr/bin/gcc", "gcc-12"),
        )
        yield Scenario("no gcc", Machine.ubuntu2404_gpu().cuda_toolkit("11.8"))
        yield Scenario("a gcc without a version", machine("11.8", "12").file("/usr/bin/gcc", "", 0o755), unknown=True)


def _names_compiler(variable: str, value: str) -> bool:
    """Whether a variable tells nvcc its host compiler; CUDAHOSTCXX and NVCC_CCBIN have nothing else in them."""
    flags = ("-ccbin", "--compiler-bindir", "-allow-unsupported-compiler")
    return variable in ("CUDAHOSTCXX", "NVCC_CCBIN") or (
        variable.startswith("NVCC_") and any(f in value for f in flags)
    )
