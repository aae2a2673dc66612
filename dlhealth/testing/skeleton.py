"""The file that a new rule begins with."""

import os

from dlhealth.model import Layer

_TEXT = '''"""{title}.

What you see
    The message or behavior that a person notices, word for word.

Why
    What is wrong on the machine, and how it came about.

Repair
    What the repair does, the mildest one first.

What the repair risks
    What it changes, and what may go wrong.

By hand
    the-same --as-a-command
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    DriverLibraries,
    Evidence,
    Finding,{layer_import}
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)


class {name}(Rule):
    id = "{identity}"
    title = "{title}"{layer_line}
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    risk = Risk.LOW
    # The faults that follow directly from this one, and those that it follows directly from.
    explains = ()
    explained_by = ()

    def detect(self, libraries: DriverLibraries) -> Iterator[Finding | Unknown]:
        # Each parameter is a fact, named by its annotation; dlhealth/api.py lists them. With "| None" the rule runs
        # without the fact, too.
        if libraries.version is None:
            yield Unknown("the version of the driver's libraries is not known")
            return
        if libraries.version.startswith("0."):
            yield self.finding(
                "host",
                f"One line with the values: {{libraries.version}} is installed, 1.0 or newer is needed",
                Evidence("the file or command", f"what it showed: {{libraries.version}}"),
                # Any further value goes to remedies(), in finding.detail.
                installed=libraries.version,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        text = f"what a person does about {{finding.detail['installed']}}"
        yield Plan("One line that says what the repair does", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario("the fault", Machine.debian12_gpu(), finds="host")
        yield Scenario("the fault, come about in another way", Machine.ubuntu2404_gpu(), finds="host")
        yield Scenario("a healthy machine", Machine.debian12_gpu())
        yield Scenario("a machine that can't be judged", Machine.debian12(), unknown=True)
'''


def write_skeleton(identity: str, layer: Layer, folder: str) -> str:
    """Write the beginning of a rule; its path. Below a checkout's `rules` it goes to the directory of its layer,
    elsewhere into `folder` itself. Raises FileExistsError."""
    inside = f"{folder}/rules/{layer.value.replace('-', '_')}"
    built_in = os.path.isdir(inside)
    path = f"{inside if built_in else folder}/{identity.replace('-', '_')}.py"
    text = _TEXT.format(
        identity=identity,
        name="".join(word.capitalize() for word in identity.split("-")),
        title=identity.replace("-", " ").capitalize(),
        layer_import="" if built_in else "\n    Layer,",
        layer_line="" if built_in else f"\n    layer = Layer.{layer.name}",
    )
    with open(path, "x") as file:
        file.write(text)
    return path
