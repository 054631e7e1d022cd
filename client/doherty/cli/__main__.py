"""Runs the command where its script is not on the path: `python -m doherty.cli`."""

from doherty.cli import main

if __name__ == "__main__":  # an engine's own processes import this module, too
    main()
