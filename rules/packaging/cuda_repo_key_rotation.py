"""apt lacks the key that signs NVIDIA's repository.

What you see
    The following signatures couldn't be verified because the public key is not available: NO_PUBKEY A4B469963BF863CC

    E: The repository 'https://developer.download.nvidia.com/... InRelease' is no longer signed.
Why
    NVIDIA replaced the key of its CUDA repositories on 27 April 2022. A machine that was set up before has only the old
    key (7FA2AF80). The repository for Debian 13 uses a third key.

    apt then takes no updates from this repository, and apt-get update ends with an error.
Repair
    Name the right keyring, if it is on the machine. Otherwise install NVIDIA's package cuda-keyring, which has the key.
    If nothing comes from this repository any more, switch it off instead.
What the repair risks
    Nothing. Never switch off the check of signatures: then anybody on the network can replace packages.
By hand
    # cuda-keyring_1.1-1_all.deb is in the directory of the repository:
    # https://developer.download.nvidia.com/compute/cuda/repos/
    dpkg -i cuda-keyring_1.1-1_all.deb
    # Where apt-key still exists (Debian 12, Ubuntu 24.04 and older):
    apt-key del 7fa2af80
    # Then:
    apt-get update
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    CUDA_KEYRING,
    AptFailures,
    ByHand,
    EditFile,
    Evidence,
    Finding,
    Machine,
    NeededKey,
    NvidiaKeys,
    Packages,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)

FROM_THERE = ("cuda-*", "libcudnn*", "libnccl*", "libnvinfer*", "nvidia-*", "libnvidia-*")


KEYS = ("A4B469963BF863CC", "97A5D4CB8793F200")
"""That sign NVIDIA's repositories of CUDA since 2022."""


class CudaRepoKeyRotation(Rule):
    id = "cuda-repo-key-rotation"
    title = "apt lacks the key of NVIDIA's repository"
    stage = Stage.SOURCES
    severity = Severity.WARNING

    def detect(self, keys: NvidiaKeys | None, failures: AptFailures | None) -> Iterator[Finding | Unknown]:
        lacking = tuple(failures.all_of("no-key")) if failures else ()
        if keys is None:
            if said := next((f for f in lacking if any(key in f.text for key in KEYS)), None):
                title = "apt lacks the key that signs NVIDIA's repository, so it takes no updates from there"
                yield self.finding("host", title, Evidence(said.source, said.text))
            else:
                yield Unknown("cannot read apt's sources")
            return
        for needed in keys.needed:
            if needed.present is None:
                yield Unknown(f"cannot read the keyrings for {needed.source.source}")
            elif not needed.present:
                yield self.finding(
                    f"file:{needed.source.source.path}",
                    f"apt lacks the key {needed.key} for {needed.source.uri}, so it takes no updates from there",
                    Evidence(needed.source.source, f"Signed-By: {needed.source.signed_by or 'not set'}"),
                    *_keyrings(needed),
                    *[Evidence(f.source, f.text) for f in lacking if needed.key in f.text][:1],
                    needed=needed,
                    packaged=needed.key in keys.packaged,
                )

    def remedies(self, finding: Finding, packages: Packages | None) -> Iterator[Plan]:
        needed = finding.detail.get("needed")
        if not isinstance(needed, NeededKey):
            yield _install("")
            return
        source, line = needed.source, ""
        if not _used(packages):
            line, why = f"# {source.text}", f"Comment out {source.source}: no package of it is installed"
        elif finding.detail["packaged"]:
            line, why = _signed(source.text), f"Use {CUDA_KEYRING} for {source.source}: it has the key"
        if line and source.text and source.source.line:
            yield Plan(why, Risk.LOW, (EditFile(source.source.path, ((source.source.line, source.text, line),)),))
        yield _install(source.uri)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        url = "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64/"
        path = "/etc/apt/sources.list.d/cuda.list"
        old, new = "F60F4B3D7FA2AF80", "A4B469963BF863CC"

        def machine(line: str) -> Machine:
            return Machine.ubuntu2404_gpu().package("cuda-nvcc-12-4", "12.4.131-1").file(path, f"{line}\n")

        yield Scenario(
            "only the key of before 2022",
            machine(f"deb {url} /").apt_key("/etc/apt/trusted.gpg", old),
            finds=f"file:{path}",
            ladder=(("low network", "by-hand dpkg -i cuda-keyring_1.1-1_all.deb"),),
        )
        yield Scenario(
            "cuda-keyring is installed, but the entry does not name its keyring",
            machine(f"deb [arch=amd64] {url} /")
            .apt_key(CUDA_KEYRING, new)
            .apt_key("/etc/apt/trusted.gpg.d/cuda.gpg", old),
            finds=f"file:{path}",
            steps=("edit-file",),
            ladder=(
                ("low", f"edit-file {path} 1: deb [arch=amd64 signed-by={CUDA_KEYRING}] {url} /"),
                ("low network", "by-hand dpkg -i cuda-keyring_1.1-1_all.deb"),
            ),
        )
        yield Scenario(
            "the keyring that the entry names does not exist",
            machine(f"deb [signed-by=/etc/apt/keyrings/cuda.gpg] {url} /").apt_key("/etc/apt/trusted.gpg", new),
            finds=f"file:{path}",
        )
        debian13 = url.replace("ubuntu2404", "debian13")
        yield Scenario(
            "Debian 13 with the key of the other releases",
            Machine.debian12_gpu()
            .package("cuda-nvcc-12-9", "12.9.86-1")
            .file(path, f"deb [signed-by={CUDA_KEYRING}] {debian13} /\n")
            .apt_key(CUDA_KEYRING, new),
            finds=f"file:{path}",
        )
        yield Scenario(
            "a forgotten entry without installed packages",
            Machine.debian12()
            .file(path, f"deb {url} /\n")
            .apt_key("/etc/apt/trusted.gpg.d/debian-archive-bookworm-stable.gpg", "F8D2585B8783D481"),
            finds=f"file:{path}",
            ladder=(
                ("low", f"edit-file {path} 1: # deb {url} /"),
                ("low network", "by-hand dpkg -i cuda-keyring_1.1-1_all.deb"),
            ),
        )
        yield Scenario(
            "an armored keyring with both keys",
            machine(f"deb {url} /").apt_key("/etc/apt/trusted.gpg.d/nvidia.gpg", old, new),
        )
        yield Scenario(
            "the keyring of the package", machine(f"deb [signed-by={CUDA_KEYRING}] {url} /").apt_key(CUDA_KEYRING, new)
        )
        yield Scenario(
            "a local repository, with a key of its own", machine("deb file:/var/cuda-repo-ubuntu2404-12-4-local /")
        )
        yield Scenario("another repository", machine("deb https://download.example.org/apt stable main"))
        yield Scenario("the entry is switched off", machine(f"# deb {url} /"))
        yield Scenario(
            "a keyring that cannot be read",
            machine(f"deb {url} /").fifo("/etc/apt/trusted.gpg.d/cuda.gpg"),
            unknown=True,
        )
        yield Scenario("a copy without any keyring", machine(f"deb {url} /"), unknown=True)
        yield Scenario(
            "the key itself in the entry",
            machine("").file(
                "/etc/apt/sources.list.d/cuda.sources",
                f"Types: deb\nURIs: {url}\nSuites: /\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n",
            ),
            unknown=True,
        )


def _keyrings(needed: NeededKey) -> Iterator[Evidence]:
    for path, keys in list(needed.keys.items())[:6]:
        yield Evidence(path, "does not exist" if keys is None else f"has the keys {', '.join(keys) or 'none'}")


def _used(packages: Packages | None) -> bool:
    """Whether something that may come from NVIDIA's repository is installed. Unknown packages may."""
    return packages is None or any(packages.installed(pattern) for pattern in FROM_THERE)


def _signed(line: str) -> str:
    """The entry with the keyring of cuda-keyring; "" for a stanza, which has no line of its own."""
    found = re.match(r"(\s*deb\s+)(?:\[([^\]]*)\]\s*)?(.*)", line)
    if found is None:
        return ""
    others = [word for word in (found[2] or "").split() if not word.lower().startswith("signed-by=")]
    return f"{found[1]}[{' '.join((*others, f'signed-by={CUDA_KEYRING}'))}] {found[3]}"


def _install(uri: str) -> Plan:
    where = uri or "the directory of this release below https://developer.download.nvidia.com/compute/cuda/repos/"
    texts = (
        f"download cuda-keyring_1.1-1_all.deb from {where.replace('http://', 'https://')}",
        "dpkg -i cuda-keyring_1.1-1_all.deb, remove the old entry, then apt-get update",
    )
    return Plan("Install NVIDIA's package cuda-keyring", Risk.LOW, (ByHand("; ".join(texts)),), network=True)
