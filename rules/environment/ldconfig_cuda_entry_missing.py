"""The loader does not search the directory of the toolkit's libraries.

What you see
    "libcudart.so.12: cannot open shared object file: No such file or directory", or `=> not found` in the output of
    ldd. Often it works in a terminal and fails in a service, in cron or in Jupyter.
Why
    NVIDIA's packages add the toolkit to /etc/ld.so.conf.d; the run file and archives do not. Then every user's
    LD_LIBRARY_PATH must name the directory.

    Or the entry exists, but ldconfig has not run since, so the loader's cache does not contain the library.
Repair
    Add the directory to /etc/ld.so.conf.d if it is missing, then run ldconfig.
What the repair risks
    All programs can find the libraries in that directory. Their names are unique, so they hide no other library.
By hand
    f=/etc/ld.so.conf.d/dlhealth-cuda.conf
    echo /usr/local/cuda/lib64 > $f
    ldconfig; ldconfig -p | grep libcudart
"""

from collections.abc import Iterator

from dlhealth.api import (
    CudaToolkits,
    Evidence,
    Finding,
    LoaderConfig,
    Machine,
    Plan,
    RefreshLoaderCache,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UserPaths,
    WriteFile,
)


class LdconfigCudaEntryMissing(Rule):
    id = "ldconfig-cuda-entry-missing"
    title = "The loader does not search the directory of the toolkit's libraries"
    stage = Stage.LOADER
    severity = Severity.WARNING
    explains = ("tf-cannot-dlopen-gpu-libraries", "libcupti-not-on-path", "cudnn-runtime-missing")

    def detect(
        self, toolkits: CudaToolkits, loader: LoaderConfig, paths: UserPaths | None
    ) -> Iterator[Finding | Unknown]:
        toolkit = toolkits.default
        if not toolkit or not toolkit.runtime:
            return
        if loader.cache_problem or loader.problems:
            yield Unknown(loader.cache_problem or "; ".join(loader.problems))
            return
        if loader.find(toolkit.runtime):
            return
        library = Evidence(toolkit.runtime_path, f"{toolkit.runtime} of CUDA {toolkit.release}")
        entry = next((d for real in toolkit.libraries if (d := loader.configured(real))), None)
        if entry:
            yield self.finding(
                f"file:{toolkit.runtime_path}",
                f"The loader's cache lacks {toolkit.runtime}, although {entry.source} names {entry.path}: ldconfig has not "
                "run since",
                library,
                Evidence(entry.source or entry.path, entry.path),
                Evidence("/etc/ld.so.cache", f"does not contain {toolkit.runtime}"),
            )
            return
        if paths is None:
            yield Unknown("cannot find out whether a user's LD_LIBRARY_PATH names the toolkit")
            return
        if any((user, "LD_LIBRARY_PATH") in paths.unclear for user in paths.users):
            yield Unknown("a user's LD_LIBRARY_PATH is set by a program that dlhealth does not run")
            return
        covered = {u for real in toolkit.libraries for u in paths.users_with(real)}
        without = [u for u in paths.users if u not in covered]
        if covered and not without:
            return
        folder = self._folder(toolkits)
        yield self.finding(
            f"file:{toolkit.runtime_path}",
            f"No program finds {toolkit.runtime} of CUDA {toolkit.version}: the loader does not search {folder}"
            if not covered
            else f"Only {', '.join(sorted(covered))} can load {toolkit.runtime} of CUDA {toolkit.version} (with "
            f"LD_LIBRARY_PATH); {', '.join(without)} and services cannot",
            library,
            Evidence("/etc/ld.so.conf", f"neither it nor the files it includes name {folder}"),
            Evidence(
                "LD_LIBRARY_PATH", f"set by {', '.join(sorted(covered))}" if covered else "set by no user's login"
            ),
            about=[f"user:{user}" for user in without] if covered else (),
            folder=folder,
        )

    def _folder(self, toolkits: CudaToolkits) -> str:
        """The directory through its link, so that it stays right when the link changes."""
        toolkit = toolkits.default
        linked = toolkit and any(x.path == "/usr/local/cuda" and x.real == toolkit.path for x in toolkits.links)
        home = "/usr/local/cuda" if linked else toolkit.path if toolkit else ""
        real = toolkit.libraries[0] if toolkit else ""
        return f"{home}/lib64" if not real.endswith("/lib") or "/targets/" in real else f"{home}/lib"

    def remedies(self, finding: Finding, loader: LoaderConfig) -> Iterator[Plan]:
        folder = finding.detail.get("folder")
        if not folder:
            yield Plan("Update the loader's cache (ldconfig)", Risk.LOW, (RefreshLoaderCache(),))
            return
        yield Plan(
            f"Add {folder} to the loader's path",
            Risk.LOW,
            (WriteFile("/etc/ld.so.conf.d/dlhealth-cuda.conf", f"{folder}\n"), RefreshLoaderCache()),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def runfile() -> Machine:
            return Machine.ubuntu2404_gpu().cuda_toolkit("12.2").remove("/etc/ld.so.conf.d/000_cuda.conf")

        library = "/usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudart.so.12"
        export = "export LD_LIBRARY_PATH=/usr/local/cuda-12.2/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\n"
        yield Scenario(
            "the run file, without its post-installation steps",
            runfile(),
            finds=f"file:{library}",
            steps=("write-file", "refresh-loader-cache"),
            ladder=(
                (
                    "low",
                    "write-file /etc/ld.so.conf.d/dlhealth-cuda.conf /usr/local/cuda/lib64",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario(
            "CUDA 8, and only one of two users sets LD_LIBRARY_PATH",
            Machine.ubuntu1604_runfile().user("bob", 1001),
            finds="file:/usr/local/cuda-8.0/targets/x86_64-linux/lib/libcudart.so.8.0",
        )
        yield Scenario(
            "the entry exists, the cache is older",
            Machine.ubuntu2404_gpu().cuda_toolkit("12.2").file("/etc/ld.so.cache", EMPTY_CACHE),
            finds=f"file:{library}",
            steps=("refresh-loader-cache",),
            alone=False,  # an empty cache lacks the driver's libraries too
            ladder=(("low", "refresh-loader-cache"),),
        )
        yield Scenario("NVIDIA's packages", Machine.ubuntu2404_gpu().cuda_toolkit("12.2"))
        yield Scenario("everybody sets LD_LIBRARY_PATH", runfile().append("/home/alice/.bashrc", export))
        yield Scenario("CUDA 8 by the run file, with the guide's exports in .bashrc", Machine.ubuntu1604_runfile())
        yield Scenario("no toolkit, Python packages bring their own", Machine.ubuntu2404_gpu())
        yield Scenario("ld.so.conf is not readable", runfile().fifo("/etc/ld.so.conf"), unknown=True)


EMPTY_CACHE = b"glibc-ld.so.cache1.1" + bytes(28)
