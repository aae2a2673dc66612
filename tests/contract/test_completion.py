"""Completion works in each shell with the line that docs/completion.md names, and with the installed file."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = DOCS / "completion.md"
FILES = {
    "bash": f". {DOCS}/completions/dlhealth",
    "zsh": f"fpath=({DOCS}/completions $fpath); autoload -Uz _dlhealth; compdef _dlhealth dlhealth",
    "fish": f"source {DOCS}/completions/dlhealth.fish",
}
"""By shell: how it loads the file by itself."""
LINES = {
    shell: line.replace(r"\|", "|")
    for shell, line in re.findall(r"^\| (bash|zsh|fish) \| `(.+?)` \|", PAGE.read_text(), re.MULTILINE)
}
"""By shell, the line of its start-up file."""
ASK = {
    "bash": "COMP_WORDS=({words}); COMP_CWORD={last}; _dlhealth_completion dlhealth; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
    "zsh": "words=({words}); CURRENT=$(({last} + 1)); $_comps[dlhealth]",
    "fish": "complete -C '{words}'",
}
"""By shell, the question that the Tab key asks."""
BEFORE = {
    # Outside its line editor, zsh has no menu: the two functions that fill it list instead.
    "zsh": "autoload -Uz compinit; compinit -D; "
    "_describe() { print -l -- ${(P)@[3]} }; compadd() { print -l -- ${(P)@[-1]} }; "
}


def completed(shell: str, load: str, words: str, home: Path) -> list[str]:
    program = shutil.which(shell)
    if not program:
        pytest.skip(f"needs {shell}")
    ask = ASK[shell].format(words=words, last=len(words.split()) - 1)
    script = f"{BEFORE.get(shell, '')}\n{load}\n{ask}"
    done = subprocess.run(
        [program, *["-f"] * (shell == "zsh"), "-c", script],
        env={"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}", "HOME": str(home), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [re.split(r"[\t:]", line)[0] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("shell", "load"),
    [*LINES.items(), *FILES.items()],
    ids=[*(f"{shell}-line" for shell in LINES), *(f"{shell}-file" for shell in FILES)],
)
@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("dlhealth doc", ["doctor"]),
        ("dlhealth doctor --nex", ["--next-boot"]),
        ("dlhealth config ch", ["check"]),
        ("dlhealth rules new x --layer cud", ["cuda", "cudnn"]),
    ],
)
def test_tab_completes(shell: str, load: str, words: str, completions: list[str], tmp_path: Path) -> None:
    assert completed(shell, load, words, tmp_path) == completions
