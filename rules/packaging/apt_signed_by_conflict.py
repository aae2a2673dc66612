"""Two entries of apt's sources name the same repository with different keys, so apt reads no source at all.

What you see
    E: Conflicting values set for option Signed-By regarding source
    https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2204/x86_64/ /:
    /usr/share/keyrings/cuda-archive-keyring.gpg !=

    E: The list of sources could not be read.
Why
    Every entry of one repository must name the same key (Signed-By). This goes wrong if a guide adds a line, for example
    with add-apt-repository, and a package such as cuda-keyring brings an entry of its own.

    Until one entry is gone, apt installs, upgrades and removes nothing, from no repository.
Repair
    Comment out the duplicate. dlhealth keeps the entry whose keyring exists. If both have one, it keeps the entry of a
    package.
What the repair risks
    Nothing: the entry that stays names the same repository.
By hand
    grep -rn developer.download.nvidia.com /etc/apt/sources.list*
    # Put "# " before the duplicate line, then:
    apt-get update
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptFailures,
    AptSource,
    AptSources,
    ByHand,
    EditFile,
    Evidence,
    Finding,
    Keyrings,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)


class AptSignedByConflict(Rule):
    id = "apt-signed-by-conflict"
    title = "Two entries of one repository name different keys, so apt cannot work"
    stage = Stage.SOURCES
    severity = Severity.ERROR
    explains = ("cuda-repo-key-rotation",)

    def detect(
        self, sources: AptSources | None, keyrings: Keyrings | None, failures: AptFailures | None
    ) -> Iterator[Finding | Unknown]:
        said = failures.of("signed-by") if failures else None
        if sources is None and said is None:
            yield Unknown("cannot read apt's sources")
        for problem in sources.problems if sources else ():
            yield Unknown(problem)
        for first, second in _conflicts(sources) if sources else ():
            keep, drop = sorted((first, second), key=lambda s: _weight(s, keyrings), reverse=True)
            yield self.finding(
                f"file:{drop.source.path}",
                f"apt cannot read its sources: {first.source} and {second.source} name different keys for {first.uri}",
                *(
                    Evidence(s.source, f"{s.uri} {' '.join(s.suites)}, Signed-By: {s.signed_by or 'not set'}")
                    for s in (first, second)
                ),
                *([Evidence(said.source, said.text)] if said else []),
                about=[f"file:{keep.source.path}"],
                keep=keep,
                drop=drop,
            )
            return  # apt stops at the first, and its repair may resolve the next
        if said and sources is None:
            yield self.finding(
                "host", "apt cannot read its sources: two entries of one repository name different keys",
                Evidence(said.source, said.text),
            )  # fmt: skip

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        keep, drop = (finding.detail.get(name) for name in ("keep", "drop"))
        if not isinstance(keep, AptSource) or not isinstance(drop, AptSource):
            text = (
                "find the two entries: grep -rn URI /etc/apt/sources.list*; put '# ' before the one without a keyring"
            )
            yield Plan("Comment out the duplicate entry", Risk.LOW, (ByHand(text),))
        elif drop.text and drop.source.line and set(drop.components) <= set(keep.components):
            edit = EditFile(drop.source.path, ((drop.source.line, drop.text, f"# {drop.text}"),))
            yield Plan(f"Comment out {drop.source}: {keep.source} names the same repository", Risk.LOW, (edit,))
        elif drop.text:
            wanted = f"signed-by={keep.signed_by}"
            text = f"in {drop.source}, use the key of {keep.source}: write [{wanted}] after deb, or move its components there"
            yield Plan(f"Use one key for {keep.uri}", Risk.LOW, (ByHand(text),))
        else:
            text = (
                f"in {drop.source.path}, add the line Enabled: no to the entry that begins at line {drop.source.line}"
            )
            yield Plan(f"Switch off {drop.source}: {keep.source} names the same repository", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        url = "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64"
        ring = "/usr/share/keyrings/cuda-archive-keyring.gpg"
        folder = "/etc/apt/sources.list.d"
        keyring = f"deb [signed-by={ring}] {url}/ /\n"

        def two(first: str, second: str) -> Machine:
            machine = Machine.ubuntu2404_gpu().apt_key(ring, "A4B469963BF863CC")
            return machine.file(f"{folder}/a.list", first).file(f"{folder}/b.list", second)

        yield Scenario(
            "cuda-keyring's entry, and one of add-apt-repository after it",
            two(keyring, f"deb {url}/ /\n"),
            finds=f"file:{folder}/b.list",
            steps=("edit-file",),
            ladder=(("low", f"edit-file {folder}/b.list 1: # deb {url}/ /"),),
        )
        yield Scenario(
            "two keyrings, and the first does not exist",
            two(f"deb [arch=amd64 signed-by=/etc/apt/keyrings/cuda.gpg] {url} /\n", f"# CUDA\n{keyring}"),
            finds=f"file:{folder}/a.list",
            steps=("edit-file",),
        )
        yield Scenario(
            "the source code of the same repository, without a key",
            two("deb [signed-by=/k.gpg] https://download.example.org/apt stable main\n",
                "deb-src https://download.example.org/apt stable main\n"),
            finds=f"file:{folder}/b.list",
        )  # fmt: skip
        yield Scenario(
            "an entry with more components",
            two("deb [signed-by=/k.gpg] https://download.example.org/apt stable main\n",
                "deb https://download.example.org/apt stable main edge\n"),
            finds=f"file:{folder}/b.list",
            ladder=(("low", "by-hand signed-by=/k.gpg"),),
        )  # fmt: skip
        yield Scenario(
            "the newer form of entries",
            two(keyring, "").file(f"{folder}/cuda.sources", f"Types: deb\nURIs: {url}/\nSuites: /\n"),
            finds=f"file:{folder}/cuda.sources",
            ladder=(("low", "by-hand Enabled:"),),
        )
        yield Scenario(
            "what apt said, posted without its sources",
            Machine().os_release("ubuntu", "24.04").file(
                "/var/log/apt/term.log",
                f"E: Conflicting values set for option Signed-By regarding source {url}/ /: {ring} != \n",
            ).fifo("/etc/apt/sources.list"),
            unknown=True,
        )  # fmt: skip
        yield Scenario(
            "an entry without a key before the one with it, which apt accepts", two(f"deb {url}/ /\n", keyring)
        )
        yield Scenario("the same key twice", two(keyring, keyring))
        yield Scenario(
            "two suites of one archive with keys of their own",
            two("deb [signed-by=/k.gpg] http://x.example.org/y stable main\n",
                "deb http://x.example.org/y stable-updates main\n"),
        )  # fmt: skip
        yield Scenario(
            "the duplicate is switched off",
            two(keyring, f"# deb {url}/ /\n").file(
                f"{folder}/cuda.sources", f"Enabled: no\nTypes: deb\nURIs: {url}/\nSuites: /\n"
            ),
        )
        yield Scenario("a file that cannot be read", two(keyring, "").fifo(f"{folder}/c.list"), unknown=True)


def _conflicts(sources: AptSources) -> Iterator[tuple[AptSource, AptSource]]:
    """Pairs that apt refuses. An entry without a key is accepted before one with it, not after it."""
    known: dict[tuple[str, str], AptSource] = {}
    for source in sorted((*sources.sources, *sources.code), key=_place):
        for suite in source.suites:
            key = source.uri.rstrip("/").replace("http://", "https://"), suite
            before = known.setdefault(key, source)
            if before.signed_by and before.signed_by != source.signed_by:
                yield before, source
            elif not before.signed_by:
                known[key] = source


def _place(source: AptSource) -> tuple[bool, str, int]:
    """In apt's order: sources.list first, then the others by name."""
    return source.source.path != "/etc/apt/sources.list", source.source.path, source.source.line or 0


def _weight(source: AptSource, keyrings: Keyrings | None) -> tuple[bool, bool, bool]:
    """The entry with the greater weight stays."""
    exists = bool(keyrings and source.signed_by in keyrings.existing)
    return exists, exists and bool(keyrings and source.signed_by in keyrings.packaged), bool(source.signed_by)
