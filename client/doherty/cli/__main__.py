"""Runs the command where its script is not on the path: `python -m doherty.cli`."""

from doherty.cli import main

main()
