"""Compares our token streams with those of other servers: `python benchmarks/transport/run.py`.

All servers have the same synthetic engine and get the same load in turn, in short windows. Each server is pinned to one
core and the load generator to another. Prints the cost of each server, and paired ratios with their targets; stores all
windows in results/, with a plot. README.md in the parent folder explains the method.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from transport_bench.build import Programs, build
from transport_bench.campaign import Window, run_load
from transport_bench.errors import BenchmarkError
from transport_bench.loads import LOADS
from transport_bench.machine import cores, describe
from transport_bench.plot import draw
from transport_bench.report import against_first, figures_table, less_engine, targets_table
from transport_bench.rows import BEFORE_ROWS, ENGINE_ROW, MAIN_ROWS, ROWS, SIDE_LOAD, SIDE_ROWS, Kind, Row
from transport_bench.window import Figures

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("grpcio", "protobuf", "uvloop", "fastapi", "uvicorn", "httptools", "pydantic")


def main() -> None:
    """Measures, prints, and stores the results."""
    asked = _arguments()
    programs = replace(build(), before=asked.before)
    kinds = {ROWS[name].kind for name in asked.rows or ROWS}
    for kind, text in programs.missing().items():
        if kind in kinds:
            print(text)
    os.sched_setaffinity(0, {cores()[1]})
    windows: list[Window] = []
    for name in asked.loads:
        rows = _rows(asked.rows, name, programs)
        if not rows:
            continue
        own = list(run_load(LOADS[name], rows, asked.windows, asked.seconds, programs))
        windows += own
        print(figures_table(name, [*own, *less_engine(own)]))
        if len(rows) > 1:
            print(against_first(name, own), flush=True)
        if asked.save:
            _save(asked.save, asked.windows, asked.seconds, windows)
    print(targets_table([*windows, *less_engine(windows)]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=15, help="windows of each server at each load (15)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a window (1)")
    parser.add_argument("--loads", type=_list_of(LOADS), default=list(LOADS), help=f"of {','.join(LOADS)}; all")
    parser.add_argument(
        "--rows",
        type=_list_of(ROWS),
        help=f"of {','.join(ROWS)}; all; one that is named twice is compared with itself",
    )
    parser.add_argument(
        "--before", type=_checkout, metavar="PATH", help="another checkout of this project, with a .venv"
    )
    parser.add_argument("--save", metavar="NAME", help="keep everything as results/NAME.json and results/NAME.svg")
    return parser.parse_args()


def _checkout(text: str) -> Path:
    path = Path(text).resolve()
    if not (path / ".venv/bin/python").exists():
        raise argparse.ArgumentTypeError(f"there is no .venv in {path}")
    return path


def _list_of(known: Collection[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}")
        return names

    return parse


def _rows(asked: list[str] | None, load: str, programs: Programs) -> list[Row]:
    """Returns the rows of a load. If a row is named twice, the second name gets a dash."""
    names = asked or [*MAIN_ROWS, ENGINE_ROW, *BEFORE_ROWS, *(SIDE_ROWS if load == SIDE_LOAD else ())]
    missing = programs.missing()
    rows: dict[str, Row] = {}
    for name in names:
        row = ROWS[name]
        if row.kind in missing or (row.kind is Kind.CALLBACK and load == "flood"):
            continue
        if LOADS[load].whole and row.whole_protocol is None:
            continue
        unique = name
        while unique in rows:
            unique += "'"
        rows[unique] = replace(row, name=unique)
    return list(rows.values())


def _save(name: str, rounds: int, seconds: float, windows: list[Window]) -> None:
    RESULTS.mkdir(exist_ok=True)
    kept = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe(),
        "packages": {package: version(package) for package in PACKAGES},
        "windows": rounds,
        "seconds": seconds,
        "figures": [
            {"load": window.load, "row": window.row, "round": window.round} | _known(window.figures)
            for window in windows
        ],
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    draw(windows, RESULTS / f"{name}.svg")


def _known(figures: Figures) -> dict[str, float]:
    """Returns the known figures, rounded to six digits."""
    return {name: float(f"{value:.6g}") for name, value in asdict(figures).items() if not math.isnan(value)}


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(str(error))
