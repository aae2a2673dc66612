"""Draws docs/screenshot.svg: what `dlhealth doctor` prints for the disk of a composed machine.

python docs/screenshot.py, as root: the disk is mounted at /mnt in a mount namespace of its own.
"""

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.text import Text

from dlhealth.testing import Machine

PICTURE = Path(__file__).parent / "screenshot.svg"
COMMAND = "dlhealth doctor --root /mnt"
COLUMNS, ROWS = 80, 60
CELL = 12.2
"""The width of a column in Rich's pictures."""
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Rich refers to fonts on the network. Every terminal font does."""
INDENTED = re.compile(r'x="([\d.]+)" y="([\d.]+)" textLength="([\d.]+)"([^>]*)>((?:&#160;)+)')
"""A text that begins with spaces. Not every program that draws SVG shows them."""


def machine() -> Machine:
    """A login loop: /etc/environment has a line that only a shell understands."""
    return Machine.debian12_gpu().file("/etc/environment", "PATH=/usr/local/cuda/bin:$PATH\n").login_loop()


def printed() -> str:
    """The report as a terminal gets it, with its colours."""
    with tempfile.TemporaryDirectory() as disk:
        machine().build(Path(disk))
        line = f"stty cols {COLUMNS} rows {ROWS}; exec {sys.executable} -P -m {COMMAND}"
        script = 'mount --bind "$1" /mnt && exec script -qec "$2" /dev/null'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", disk, line],
            env={"TERM": "xterm-256color", "LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
    if done.returncode != 3:
        raise SystemExit(f"{COMMAND}: status {done.returncode}, not 3\n{done.stdout}")
    return done.stdout.replace("\r", "")


def picture(report: str) -> str:
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(f"# {COMMAND}\n{report.rstrip()}"))
    return INDENTED.sub(moved, FONTS.sub("", console.export_svg(title="dlhealth", unique_id="dlhealth")))


def moved(text: re.Match[str]) -> str:
    """The text without its leading spaces, so much to the right."""
    indent = text[5].count("&") * CELL
    x, width = float(text[1]) + indent, float(text[3]) - indent
    return f'x="{x:.1f}" y="{text[2]}" textLength="{width:.1f}"{text[4]}>'


def shown(svg: str) -> list[str]:
    """The lines of the text in a picture. Spaces between two colours are missing in it: the position says how many."""
    pieces = [t for t in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text") if t.get("textLength")]
    lines: dict[str, str] = {}
    for piece in pieces:
        column = round(float(piece.get("x", "0")) / CELL)
        row = piece.get("y", "")
        lines[row] = lines.get(row, "").ljust(column) + (piece.text or "").replace("\xa0", " ")
    return [line.rstrip() for line in lines.values()]


def main() -> None:
    PICTURE.write_text(picture(printed()))


if __name__ == "__main__":
    main()
