"""Completion works in each shell with the line that docs/completion.md names."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent.parent / "docs/completion.md"
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


def completed(shell: str, words: str, home: Path) -> list[str]:
    program = shutil.which(shell)
    if not program:
        pytest.skip(f"needs {shell}")
    ask = ASK[shell].format(words=words, last=len(words.split()) - 1)
    script = f"{BEFORE.get(shell, '')}\n{LINES[shell]}\n{ask}"
    done = subprocess.run(
        [program, *["-f"] * (shell == "zsh"), "-c", script],
        env={"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}", "HOME": str(home), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [re.split(r"[\t:]", line)[0] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", ASK)
@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("dlhealth doc", ["doctor"]),
        ("dlhealth doctor --nex", ["--next-boot"]),
        ("dlhealth config ch", ["check"]),
        ("dlhealth rules new x --layer cud", ["cuda", "cudnn"]),
    ],
)
def test_tab_completes(shell: str, words: str, completions: list[str], tmp_path: Path) -> None:
    assert completed(shell, words, tmp_path) == completions
