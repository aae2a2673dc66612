"""`python -m dlhealth` is the same as `dlhealth`."""

from dlhealth.cli import main

if __name__ == "__main__":
    main()
