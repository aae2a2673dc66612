"""What a transaction adds to the change that it makes, beside the same change by hand. Run as root:

python -m tests.bench.repair
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dlhealth.actions import EditFile
from dlhealth.steps.base import Target
from dlhealth.txn.execute import apply, undo
from dlhealth.txn.store import Store

ROUNDS = 30
BOUND = 0.030
"""Seconds that the journal, the copies and the syncs may take for one line of one file."""


def main() -> int:
    """Print what one edited line costs; the exit status says whether the bound holds."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder)
        (root / "etc").mkdir()
        file = root / "etc/environment"
        store = Store(folder)
        edit = [EditFile("/etc/environment", ((1, "PATH=/bad", "PATH=/usr/bin"),))]

        def by_hand() -> None:
            file.write_text("PATH=/usr/bin\n")

        def repaired() -> None:
            with store.locked():
                apply(store, Target(folder, "ab"), "ab", edit, {}, lambda: None, False, lambda text: None)

        def undone() -> None:
            with store.locked():
                undo(store, Target(folder, "ab"), store.ended()[-1])

        plain = _median(lambda: _write(file), by_hand)
        changed = _median(lambda: _write(file), repaired)
        back = _median(lambda: (_write(file), repaired()), undone)
        size = sum(p.stat().st_size for p in (root / "var").rglob("*") if p.is_file()) / (2 * ROUNDS)
    print(f"{'one line of one file':28} {'ms':>8}")
    for name, seconds in (("written by hand", plain), ("as a transaction", changed), ("taken back", back)):
        print(f"{name:28} {seconds * 1e3:8.2f}")
    print(f"kept of each: {size:.0f} bytes")
    return 0 if changed - plain <= BOUND else 1


def _write(file: Path) -> None:
    file.write_text("PATH=/bad\n")


def _median(prepare: Callable[[], object], work: Callable[[], None]) -> float:
    samples = []
    for _ in range(ROUNDS):
        prepare()
        started = time.monotonic()
        work()
        samples.append(time.monotonic() - started)
    return statistics.median(samples)


if __name__ == "__main__":
    sys.exit(main())
