"""What the `dlhealth` program runs; `python -m dlhealth` is the same."""

import gc

from dlhealth.lean import postpone


def main() -> None:
    # A short life with many small objects: looking for cycles among them costs a tenth of it and finds nothing. It
    # begins with the imports, so they come afterwards.
    gc.set_threshold(100_000)
    # Click imports it, with a parser of Python, for what only a page of help uses: a twelfth of a diagnosis.
    postpone("inspect")
    from dlhealth.cli import main as run

    run()


if __name__ == "__main__":
    main()
