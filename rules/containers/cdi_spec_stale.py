"""A CDI specification names driver files that no longer exist, or two of them describe the same GPU.

What you see
    failed to inject CDI devices: unresolvable CDI devices nvidia.com/gpu=all

    Or the container does not start because a file like libcuda.so.535.161.07 does not exist.
Why
    CDI specifications in /etc/cdi and /var/run/cdi list the files and devices that a container gets. They contain the
    driver's version in file names. An upgrade of the driver removes those files, but does not change a specification
    in /etc/cdi.

    Two specifications in the same directory that describe the same device also stop the container: neither is used.
    A specification in /var/run/cdi is used before one in /etc/cdi.
Repair
    Write the specification again with nvidia-ctk. If a complete one exists in /var/run/cdi, move the old one out of
    the way.
What the repair risks
    Low: running containers keep what they have.
By hand
    nvidia-ctk cdi list
    nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml
    # Toolkit 1.18 or newer keeps /var/run/cdi/nvidia.yaml up to date:
    systemctl enable --now nvidia-cdi-refresh.path nvidia-cdi-refresh.service
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    CdiSpec,
    CdiSpecs,
    DriverLibraries,
    Evidence,
    Finding,
    Machine,
    MoveAside,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    count,
)


class CdiSpecStale(Rule):
    id = "cdi-spec-stale"
    title = "A CDI specification names files that no longer exist"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING
    explained_by = ("partial-driver-install", "libcuda-missing-from-loader", "runfile-uninstall-leftovers")

    def detect(self, cdi: CdiSpecs, libraries: DriverLibraries | None) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in cdi.problems)
        for spec in cdi.specs:
            twin = next(
                (s for s in cdi.specs if _conflict(s, spec) and (s.mtime, s.path) > (spec.mtime, spec.path)), None
            )
            better = twin or cdi.better(spec)
            if spec.missing:
                yield self._stale(spec, better, libraries)
            elif twin:
                names = ", ".join(f"{spec.kind}={name}" for name in sorted(spec.names & twin.names)[:3])
                yield self.finding(
                    f"file:{spec.path}",
                    f"{spec.path} and {twin.path} both describe {names}: containers cannot use them",
                    Evidence(spec.path, names),
                    Evidence(twin.path, names),
                    path=spec.path,
                    better=twin.path,
                )

    def _stale(self, spec: CdiSpec, better: CdiSpec | None, libraries: DriverLibraries | None) -> Finding:
        written_for = next((m[1] for p in spec.missing if (m := re.search(r"\.so\.(\d+\.\d+(?:\.\d+)?)$", p))), "")
        installed = libraries.version if libraries else None
        age = f"; written for driver {written_for}, installed: {installed}" if written_for and installed else ""
        more = f" and {count(len(spec.missing) - 1, 'more file')}" if len(spec.missing) > 1 else ""
        return self.finding(
            f"file:{spec.path}",
            f"{spec.path} names {spec.missing[0]}{more}, which do{'' if more else 'es'} not exist{age}",
            *(Evidence(path, f"does not exist; {spec.path} names it") for path in spec.missing[:3]),
            *(
                [Evidence(better.path, f"describes the same devices of {spec.kind}, and is used before it")]
                if better
                else []
            ),
            # The better one counts, as long as it is there: what lies in /run is gone after a restart.
            severity=Severity.NOTE if better and not better.missing else Severity.WARNING,
            path=spec.path,
            better=better.path if better and not better.missing else "",
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        path, better = finding.detail["path"], finding.detail["better"]
        if better:
            yield Plan(f"Use only {better}", Risk.LOW, (MoveAside(path),))
        text = f"nvidia-ctk cdi generate --output={path}"
        yield Plan(f"Write {path} for the installed driver", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def spec(version: str, *names: str, kind: str = "nvidia.com/gpu") -> str:
            devices = "".join(
                f'- containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia0\n  name: "{name}"\n'
                for name in names or ("0", "all")
            )
            mounts = "".join(
                f"  - containerPath: /usr/lib/x86_64-linux-gnu/{name}.{version}\n"
                f"    hostPath: /usr/lib/x86_64-linux-gnu/{name}.{version}\n"
                for name in ("libcuda.so", "libnvidia-ml.so")
            )
            return (
                f"---\ncdiVersion: 0.5.0\ncontainerEdits:\n  deviceNodes:\n  - path: /dev/nvidia-uvm\n"
                f"  - path: /dev/nvidiactl\n  hooks:\n  - hookName: createContainer\n    path: /usr/bin/nvidia-ctk\n"
                f"  mounts:\n{mounts}devices:\n{devices}kind: {kind}\n"
            )

        def machine(path: str = "/etc/cdi/nvidia.yaml", text: str = "", mtime: float = 1.7e9) -> Machine:
            return Machine.ubuntu2404_gpu().file(path, text or spec("535.161.07"), mtime=mtime)

        old = "/etc/cdi/nvidia.yaml"
        yield Scenario(
            "from before the upgrade of the driver",
            machine(),
            finds=f"file:{old}",
            ladder=(("low", f"by-hand nvidia-ctk --output={old}"),),
        )
        yield Scenario(
            "two in the same directory",
            machine(text=spec("550.120")).file("/etc/cdi/nvidia-gpu.yaml", spec("550.120"), mtime=1.8e9),
            finds=f"file:{old}",
            steps=("move-aside",),
            ladder=(("low", f"move-aside {old}"), ("low", f"by-hand nvidia-ctk --output={old}")),
        )
        yield Scenario(
            "the service of the toolkit wrote a new one",
            machine().file("/run/cdi/nvidia.yaml", spec("550.120")),
            finds=f"file:{old}",
            ladder=(("low", f"move-aside {old}"), ("low", f"by-hand nvidia-ctk --output={old}")),
        )
        yield Scenario(
            "as JSON",
            machine(
                "/etc/cdi/nvidia.json",
                '{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "all", "containerEdits": '
                '{"mounts": [{"hostPath": "/usr/lib/x86_64-linux-gnu/libcuda.so.535.161.07"}]}}]}',
            ),
            finds="file:/etc/cdi/nvidia.json",
        )
        yield Scenario("of the installed driver", machine(text=spec("550.120")))
        yield Scenario("another vendor's", machine("/etc/cdi/amd.yaml", spec("535.161.07", kind="amd.com/gpu")))
        yield Scenario(
            "two with different devices",
            machine(text=spec("550.120", "0")).file("/etc/cdi/nvidia-1.yaml", spec("550.120", "1"), mtime=1.8e9),
        )
        yield Scenario("no specification", Machine.ubuntu2404_gpu())
        yield Scenario("in a container", machine().file("/.dockerenv"), unknown=True)
        yield Scenario("not readable", Machine.ubuntu2404_gpu().fifo(old), unknown=True)


def _conflict(one: CdiSpec, other: CdiSpec) -> bool:
    """Whether both describe a device of the same name in the same directory."""
    return (
        one.path != other.path
        and one.folder == other.folder
        and one.kind == other.kind
        and bool(one.names & other.names)
    )
