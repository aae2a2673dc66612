"""Posted outputs about Python environments: pip, conda, and the collectors of PyTorch and TensorFlow."""

import re
from collections.abc import Iterable, Iterator

from dlhealth.host.posted.hardware import model
from dlhealth.host.posted.known import Output, Pieces
from dlhealth.lazy import regex

_NOWHERE = "/path/to/environment"
"""An environment whose place is unknown."""
_PIP_LIST = regex(r"^Package +Version(?: +.*)?\n-[- ]+\n(?P<rows>(?:[A-Za-z0-9][\w.-]* +\S.*(?:\n|$))+)", re.MULTILINE)
_PINNED = regex(r"^(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[0-9][\w.+!-]*)(?: *;.*)?$", re.MULTILINE)
_FRAMEWORKS = ("torch", "tensorflow", "tensorflow-gpu", "jax", "jaxlib", "onnxruntime-gpu", "tensorflow-cpu")
_CONDA = regex(
    r"^# packages in environment at (?P<path>/\S+?):?\n(?:#.*\n)*(?P<rows>(?:[a-z0-9_][\w.-]* +\S+.*(?:\n|$))+)",
    re.MULTILINE,
)
_COLLECTED = regex(r"^PyTorch version:? (?P<version>\d\S*)$", re.MULTILINE)
"""Old collectors wrote no colon."""
_COLLECTED_PIP = regex(
    r"^\[(?P<by>pip3?|conda)\] (?P<name>[A-Za-z0-9][\w.-]*)(?:==| +)(?P<version>\d\S*)(?: +(?P<build>\S+))?",
    re.MULTILINE,
)
_SHOWN = regex(r"^Name: (?P<name>[A-Za-z0-9][\w.-]*)\nVersion: (?P<version>\d\S*)$", re.MULTILINE)
_ASKED = regex(
    r"\b(?:(?P<torch>torch\.__version__)|(?P<tensorflow>(?:tf|tensorflow)\.(?:__version__|VERSION))"
    r"|(?P<cuda>torch\.version\.cuda)|(?P<usable>torch\.cuda\.is_available\(\)))"
)
_BESIDE = regex(r"[\s)\"'}]*(?:[:=#]|[-=]>|→)?[\s\"']*(?P<value>\d+\.\d+[\w.+-]*)[\"']?\s*$")
"""An answer in the line of its question."""
_ANSWERS = {
    "torch": regex(r"\d+\.\d+\.\d+[\w.+-]*"),
    "tensorflow": regex(r"\d+\.\d+\.\d+[\w.+-]*"),
    "cuda": regex(r"\d+\.\d+|None"),
    "usable": regex(r"True|False"),
}
_NO_ANSWER = regex(r"\s*(?:$|>>>|\.\.\. ?$|In ?\[|#|```|print\b|import |from |python|with |if |exit)")
_LONGEST_LINE = 2000
_TF_VERSION = regex(
    r"^(?:tf\.version\.VERSION = |== tensorflow import =+\n(?:.*\n){0,6}?tf\.version\.VERSION = )(?P<version>\d\S*)",
    re.MULTILINE,
)


def pip(output: Output, pieces: Pieces) -> bool:
    """`pip list` and `pip freeze`."""
    rows: list[tuple[str, str]] = []
    if match := _PIP_LIST.search(output.text):
        rows = [
            (w[0], w[1]) for line in match["rows"].splitlines() if len(w := line.split()) > 1 and w[1][:1].isdigit()
        ]
    elif any(m["name"].lower() in _FRAMEWORKS for m in _PINNED.finditer(output.text)):
        rows = [(m["name"], m["version"]) for m in _PINNED.finditer(output.text)]
    if not rows:
        return False
    _environment(pieces, _NOWHERE, rows, "", output.source("pip list"))
    return True


def shown(output: Output, pieces: Pieces) -> bool:
    """`pip show`."""
    rows = [(m["name"], m["version"]) for m in _SHOWN.finditer(output.text)]
    if not any(name.lower() in _FRAMEWORKS for name, _ in rows):
        return False
    if _NOWHERE not in pieces.pythons:
        _environment(pieces, _NOWHERE, rows, "", output.source("pip show"))
    return True


def answered(output: Output, pieces: Pieces) -> bool:
    """What Python said of torch.__version__, torch.version.cuda and tf.__version__. The first answers count: those are
    of before a repair."""
    found: dict[str, str] = {}
    for question, answer in _answers(output.text):
        found.setdefault(question, answer)
    rows = [(name, found[name]) for name in ("torch", "tensorflow") if name in found]
    if not rows:
        return False
    if _NOWHERE not in pieces.pythons:
        source = output.source("Python")
        site = _environment(pieces, _NOWHERE, rows, "", source)
        if "torch" in found and "cuda" in found:
            built = None if found["cuda"] == "None" else found["cuda"]
            pieces.file(f"{site}/torch/version.py", f"__version__ = {found['torch']!r}\ncuda = {built!r}\n", source)
    return True


def _answers(text: str) -> Iterator[tuple[str, str]]:
    """Each question that a line asks, with its answer beside it, or in the lines that follow the questions."""
    asked: list[str] = []
    for line in text.split("\n"):
        questions = list(_ASKED.finditer(line)) if len(line) < _LONGEST_LINE else []
        if len(questions) == 1 and (beside := _BESIDE.fullmatch(line, questions[0].end())):
            yield questions[0].lastgroup or "", beside["value"]
            asked = []
        elif questions:
            asked += [question.lastgroup or "" for question in questions]
        elif asked and not _NO_ANSWER.match(line):
            for word in re.sub(r"^\s*Out ?\[\d+\]:", "", line).split():
                if not asked or not _ANSWERS[asked[0]].fullmatch(word.strip("'\"(),")):
                    asked = []
                    break
                yield asked.pop(0), word.strip("'\"(),")


def conda(output: Output, pieces: Pieces) -> bool:
    """`conda list`, which names the environment."""
    found = list(_CONDA.finditer(output.text))
    for match in found:
        source, path = output.source("conda list"), match["path"]
        of_pip, version = [], ""
        for line in match["rows"].splitlines():
            words = line.split()
            if len(words) < 3 or not words[1][:1].isdigit():
                continue
            name, number, build = words[:3]
            version = ".".join(number.split(".")[:2]) if name == "python" else version
            if words[3:4] == ["pypi"] or build in ("pypi_0", "<pip>"):
                of_pip.append((name, number))
            else:
                pieces.file(f"{path}/conda-meta/{name}-{number}-{build}.json", "{}", source)
                if name in ("pytorch", "tensorflow", "jaxlib"):
                    of_pip.append(("torch" if name == "pytorch" else name, number))
        pieces.listed(f"{path}/conda-meta", source)
        _environment(pieces, path, of_pip, version, source)
    return bool(found)


def collected(output: Output, pieces: Pieces) -> bool:
    """`python -m torch.utils.collect_env`, which also shows the system and the driver."""
    match = _COLLECTED.search(output.text)
    if match is None:
        return False
    source, text = output.source("collect_env"), output.text
    rows = {m["name"]: m["version"] for m in _COLLECTED_PIP.finditer(text) if m["by"] != "conda"}
    builds = [m for m in _COLLECTED_PIP.finditer(text) if m["by"] == "conda" and m["build"]]
    path = _NOWHERE
    if builds and "torch" not in rows:
        for m in builds:
            pieces.file(f"{path}/conda-meta/{m['name']}-{m['version']}-{m['build']}.json", "{}", source)
        pieces.listed(f"{path}/conda-meta", source)
    rows.setdefault("torch", match["version"])
    python = _value(text, "Python version")
    version = found[1] if (found := re.match(r"(\d\.\d+)", python)) else ""
    site = _environment(pieces, path, rows.items(), version, source)
    cuda = _value(text, "CUDA used to build PyTorch")
    hip = _value(text, "ROCM used to build PyTorch")
    if cuda and cuda != "Could not collect":
        built = f"'{cuda}'" if cuda[:1].isdigit() else "None"
        hip = f"'{hip}'" if hip[:1].isdigit() else "None"
        pieces.file(
            f"{site}/torch/version.py", f"__version__ = '{match['version']}'\ncuda = {built}\nhip = {hip}\n", source
        )
    _system(text, source, pieces)
    return True


def _system(text: str, source: str, pieces: Pieces) -> None:
    if release := re.match(r"Linux-(\d\S+?)-(?:x86_64|aarch64|ppc64le)-with", _value(text, "Python platform")):
        pieces.guess("/proc/sys/kernel/osrelease", f"{release[1]}\n", source)
    if named := re.match(r"(Ubuntu|Debian)\b\D*(\d+(?:\.\d+)?)", _value(text, "O[Ss]")):
        pieces.guess("/etc/os-release", f'ID={named[1].lower()}\nVERSION_ID="{named[2]}"\n', source)
    driver = _value(text, "Nvidia driver version")
    if driver[:1].isdigit():
        pieces.guess("/sys/module/nvidia/version", f"{driver}\n", source)
    block = re.search(r"^GPU models and configuration:(.*(?:\nGPU \d+:.*)*)", text, re.MULTILINE)
    for number, name in re.findall(r"GPU (\d+): (.+)", block[1]) if block else ():
        model(pieces, f"GPU {number}", name.partition(" (UUID")[0], source)
        pieces.listed("/proc/driver/nvidia/gpus", source)


def _value(text: str, name: str) -> str:
    found = re.search(rf"^{name}: *(.*?)\s*$", text, re.MULTILINE)
    return found[1] if found else ""


def tensorflow(output: Output, pieces: Pieces) -> bool:
    """TensorFlow's tf_env_collect.sh: what it prints of the version; its list of pip is read by itself."""
    match = _TF_VERSION.search(output.text)
    if match is None:
        return False
    _environment(pieces, _NOWHERE, [("tensorflow", match["version"])], "", output.source("tf_env_collect.sh"))
    return True


def _environment(pieces: Pieces, path: str, rows: Iterable[tuple[str, str]], version: str, source: str) -> str:
    """An environment with these packages. Returns the directory that holds them."""
    known = next((p for p in pieces.paths if p.startswith(f"{path}/lib/python")), "")
    site = known.partition("/site-packages/")[0] if known else f"{path}/lib/python{version or '3'}"
    site += "/site-packages"
    for name, number in rows:
        pieces.file(f"{site}/{name}-{number}.dist-info/METADATA", "", source)
    if path == _NOWHERE and not any(p.startswith(f"{path}/conda-meta/") for p in pieces.paths):
        pieces.file(f"{path}/pyvenv.cfg", "", source)
    else:
        pieces.missing(f"{path}/pyvenv.cfg", source)
    pieces.directory(f"{path}/bin", source)
    for directory in (site, f"{path}/lib", f"{path}/envs", path):
        pieces.listed(directory, source)
    if path not in pieces.pythons:
        pieces.pythons.append(path)
    return site
