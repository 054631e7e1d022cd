"""Measures an overloaded server: `PYTHONPATH=tests python benchmarks/overload/overload.py [--before PATH] [--runs 3]`.

Each case runs in turns with the server of another working tree (`--before`) and the server of this one. The table has
the medians of the runs. `--cases WORD,...` selects the cases whose name contains one of the words.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median

from _cases import CASES, Figures, Start
from support.measuring import python_path
from support.server import ServerProcess, start_server


def state_of(tree: Path) -> Start:
    """Starts the server of a working tree, with the packages of this environment."""
    path = python_path(tree)

    def start(*flags: str) -> AbstractContextManager[ServerProcess]:
        return start_server(*flags, PYTHONPATH=path)

    return start


async def measure(cases: Sequence[str], states: dict[str, Start], runs: int) -> None:
    """Runs the cases, and prints a table. The figures of each run go to standard error."""
    print(f"| case | figure | {' | '.join(states)} |\n|{'---|' * (2 + len(states))}")
    for name in cases:
        figures_by_state: dict[str, list[Figures]] = {state: [] for state in states}
        for run in range(runs):
            for state, start in states.items():
                figures = await CASES[name](start, run)
                figures_by_state[state].append(figures)
                print(f"{name}, {state}: {figures}", file=sys.stderr, flush=True)
        for figure in figures_by_state["now"][0]:
            cells = [f"{median(run[figure] for run in figures):.3g}" for figures in figures_by_state.values()]
            print(f"| {name} | {figure} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cases", default="")
    arguments = parser.parse_args()
    states: dict[str, Start] = {}
    if arguments.before is not None:
        states["before"] = state_of(arguments.before.resolve())
    states["now"] = start_server
    words = arguments.cases.split(",")
    cases = [name for name in CASES if any(word in name for word in words)]
    asyncio.run(measure(cases, states, arguments.runs))


if __name__ == "__main__":
    main()
