"""Prints tables and JSON."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import click
from rich import box
from rich.table import Table
from rich.text import Text

from doherty.cli._console import make_console
from doherty.cli._terminal import brief, harmless_json

Row = tuple[str, ...]

_UNBOUNDED = 10_000
"""The number of columns without a terminal, so large that each row is one line."""


def print_json(value: dict[str, Any], *, indent: int | None = 2) -> None:
    """Prints one JSON object; without `indent` on one line."""
    click.echo(harmless_json(json.dumps(value, ensure_ascii=False, indent=indent)))


def make_table(rows: Sequence[Row], *, headings: Row = ()) -> Table:
    """Creates a table whose rows have a name and values. With headings, the values are numbers."""
    table = Table(box=box.SIMPLE, show_header=bool(headings), pad_edge=False, show_edge=False)
    for place in range(len(rows[0])):
        heading = headings[place] if headings else ""
        table.add_column(heading, justify="right" if headings and place else "left", style="" if place else "bold")
    for row in rows:
        table.add_row(*(Text(brief(cell)) for cell in row))
    return table


def print_table(rows: Sequence[Row], *, headings: Row = (), err: bool = False) -> None:
    """Prints such a table, on stderr if `err` is True."""
    stream = sys.stderr if err else sys.stdout
    console = make_console(stderr=err, width=None if stream.isatty() else _UNBOUNDED)
    with console.capture() as captured:
        console.print(make_table(rows, headings=headings))
    # Rich fills the last column up with spaces.
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()), err=err)


def milliseconds(seconds: float | None) -> str:
    """Formats a duration for a table."""
    return "-" if seconds is None else f"{seconds * 1000:.1f}"


def percent(share: float | None) -> str:
    """Formats a share for a table."""
    return "-" if share is None else f"{share:.0%}"
