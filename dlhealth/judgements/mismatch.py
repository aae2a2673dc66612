"""What programs said in posted outputs, where nothing else of the machine shows it."""

import re

from dlhealth.host import Host, Symptom
from dlhealth.lazy import regex
from dlhealth.model import Evidence
from dlhealth.probes.driver.driverlog import messages
from dlhealth.probes.machine.journal import Journal
from dlhealth.records import NamedTuple

_API = regex(
    r"API mismatch: the client (?:'[^']*' \(pid \d+\) )?has the version (?P<client>\d+\.[\d.]*\d),? but "
    r"this kernel module has the version (?P<module>\d+\.[\d.]*\d)"
)


class PostedFailure(NamedTuple):
    """Where it was posted that nvidia-smi, which comes with the driver's libraries, found no driver: `evidence`."""

    evidence: Evidence | None

    @classmethod
    def probe(cls, host: Host) -> "PostedFailure":
        said = next((s for s in host.symptoms if s.symptom is Symptom.NO_DRIVER), None)
        return cls(Evidence(said.source, said.text) if said else None)


class PostedMismatch(NamedTuple):
    """The versions of the loaded module and of the libraries, as NVML or the module itself say: "" if they do not
    name one. `evidence` is what they say; None if neither said that the versions differ."""

    module: str
    library: str
    evidence: Evidence | None

    @classmethod
    def probe(cls, host: Host, journal: Journal | None) -> "PostedMismatch":
        for message in messages(journal.kernel("NVRM", last_boot=True)) if journal else ():
            if found := _API.search(message.text):
                return cls(found["module"], found["client"], Evidence(message.line.source, found[0]))
        said = next((s for s in host.symptoms if s.symptom is Symptom.MISMATCH), None)
        if said is None:
            return cls("", "", None)
        # NVML prints only the first two numbers of its version.
        return cls("", re.sub(r"\.$", "", said.version), Evidence(said.source, said.text))
