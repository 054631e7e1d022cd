"""Prints a table of saved runs.

`python benchmarks/attack/table.py FILE.json...`, with files that `attack.py --save` has written. Runs of the same
attack on the same server share a row, even from different files. A row has their medians, and the sum of their failed
calls. With `--over`, only rows that miss the target are printed.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from figures import Figures, Run, load

COLUMNS = {
    "gap without, ms": "gap_without",
    "gap with, ms": "gap_with",
    "main thread ran, ms": "main_thread_ran",
    "waited": "main_thread_waited",
    "caller waited": "caller_waited",
    "short answers, median ms": "short_median",
    "longest": "short_longest",
    "RSS before, MiB": "rss_before",
    "highest": "rss_highest",
    "after": "rss_after",
}
MAX_EXTRA_GAP = 100.0
MAX_EXTRA_MIB = 100.0

Key = tuple[str, str, str, str, str]


def group(runs: Iterable[Run]) -> dict[Key, list[Figures]]:
    """The figures of each row, in the order in which the attacks appear in the files."""
    rows: dict[Key, list[Figures]] = {}
    for run in runs:
        key = run.attack, run.server, run.engine, run.transport, run.grpcio
        rows.setdefault(key, []).append(run.figures)
    attacks = list(dict.fromkeys(key[0] for key in rows))
    return dict(sorted(rows.items(), key=lambda row: (row[0][2], attacks.index(row[0][0]), row[0][1:])))


def middle(figures: list[Figures], name: str) -> float | None:
    """The median of a column."""
    values = [getattr(run, name) for run in figures]
    known = [value for value in values if value is not None]
    return median(known) if known else None


def misses_target(figures: list[Figures]) -> bool:
    """Whether the medians or a failed call miss the target of the README."""
    gap = median(run.gap_with for run in figures) - median(run.gap_without for run in figures)
    memory = median(run.rss_after for run in figures) - median(run.rss_before for run in figures)
    return gap > MAX_EXTRA_GAP or memory > MAX_EXTRA_MIB or any(run.failed_calls for run in figures)


def row(key: Key, figures: list[Figures]) -> str:
    """One line of the table."""
    medians = [middle(figures, name) for name in COLUMNS.values()]
    cells = [
        *key,
        str(len(figures)),
        *("-" if value is None else f"{value:.0f}" for value in medians),
        str(sum(run.failed_calls for run in figures)),
    ]
    return f"| {' | '.join(cells)} |"


def header() -> str:
    """The first two lines of the table."""
    names = ["attack", "server", "engine", "transport", "grpcio", "runs", *COLUMNS, "failed calls"]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Prints the table of saved runs.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--over", action="store_true", help="only rows that miss the target")
    arguments = parser.parse_args()
    print(header())
    rows = group(run for path in arguments.files for run in load(path))
    for key, figures in rows.items():
        if misses_target(figures) or not arguments.over:
            print(row(key, figures))


if __name__ == "__main__":
    main()
