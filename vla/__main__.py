"""`python -m vla` is the `vla` command."""

from vla.cli import main

if __name__ == "__main__":
    main()
