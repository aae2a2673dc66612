"""What the `dlhealth` program runs; `python -m dlhealth` is the same."""

import gc


def main() -> None:
    # A short life with many small objects: looking for cycles among them costs a tenth of it and finds nothing. It
    # begins with the imports, so they come afterwards.
    gc.set_threshold(100_000)
    from dlhealth.cli import main as run

    run()


if __name__ == "__main__":
    main()
