"""Measures the overhead of our server and of vLLM's own servers over the bare engine, in one run on one machine.

The steps of `python benchmarks/gpu/overhead.py [--engine vllm|synthetic] [--plan NAME] [STEP...]`, by default all of
them, are `start` (all servers at the same time, each with its own model), `cells`, `questions`, `cancel` and `stop`.
The servers keep running until `stop`. The targets and the results are in benchmarks/README.md.
"""

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from _cancel import measure_cancel
from _figures import Figures, figures, table
from _generators import Generators, Measured
from _plan import PLANS, ROUNDS, Cell
from _questions import measure_questions
from _records import Order
from _shape import write_shape
from _sides import Side, running, start, stop

STEPS = ("start", "cells", "questions", "cancel", "stop")
SIDES = {"vllm": ["inprocess", "doherty", "openai", "rust"], "synthetic": ["inprocess", "doherty"]}


def main() -> None:
    """Runs the chosen steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--engine", choices=sorted(SIDES), default="vllm")
    parser.add_argument("--plan", choices=sorted(PLANS), default="full")
    parser.add_argument("--sides", nargs="*", help="those to start")
    parser.add_argument("--state", type=Path, default=Path("/tmp/doherty-gpu"), help="where models and logs are")  # noqa: S108 - not secret
    parser.add_argument("--out", type=Path, default=Path(), help="where results go")
    parser.add_argument("--seconds", type=float, default=3600, help="after which no more cells are begun")
    arguments = parser.parse_args()
    steps = arguments.steps or STEPS
    if unknown := set(steps) - set(STEPS):
        parser.error(f"there is no step {', '.join(unknown)}")
    state: Path = arguments.state
    if "start" in steps:
        folder = state / "shape" if arguments.engine == "synthetic" else write_shape(state / "shape")
        start(arguments.engine, folder, state, arguments.sides or SIDES[arguments.engine])
    sides = running(state)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if "cells" in steps:
        asyncio.run(_cells(sides, arguments.plan, arguments.out, arguments.seconds))
    if "questions" in steps:
        asyncio.run(measure_questions(sides, arguments.out))
    if "cancel" in steps:
        asyncio.run(measure_cancel(sides, arguments.out))
    if "stop" in steps:
        stop(sides)


async def _cells(sides: list[Side], plan: str, out: Path, seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    by_cell: dict[str, list[Figures]] = {}
    async with Generators() as generators:
        for number, cell in enumerate(PLANS[plan]):
            if time.monotonic() > ends_at:
                print(f"no time left for {cell.name}", flush=True)
                continue
            try:
                by_cell[cell.name] = await _cell(generators, sides, cell, number)
            except (RuntimeError, EOFError, ConnectionError) as error:
                print(f"{cell.name} failed: {error}", file=sys.stderr, flush=True)
                continue
            print(table(cell.name, by_cell[cell.name]), flush=True)
            (out / "cells.json").write_text(
                json.dumps({name: list(map(asdict, rows)) for name, rows in by_cell.items()})
            )


async def _cell(generators: Generators, sides: list[Side], cell: Cell, number: int) -> list[Figures]:
    """Measures the servers in turn, the second time in reverse order, so that a drift affects all of them equally."""
    by_driver = {driver: side for side in sides for driver in side.drivers}
    drivers = [driver for driver in cell.drivers if driver in by_driver]
    parts: dict[str, list[Measured]] = {driver: [] for driver in drivers}
    for turn in range(ROUNDS):
        for place, driver in enumerate(drivers if turn % 2 == 0 else drivers[::-1]):
            seed = 1_000_000 * number + 100_000 * turn + 10_000 * place
            order = Order(
                driver,
                by_driver[driver].target,
                cell.streams,
                cell.requests // ROUNDS,
                cell.tokens,
                temperature=cell.temperature,
                top_p=cell.top_p,
                seed=seed,
            )
            parts[driver].append(await generators.measure(by_driver[driver], order))
    return [figures(driver, parts[driver], cell.tokens) for driver in drivers]


if __name__ == "__main__":
    main()
