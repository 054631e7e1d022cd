"""What callers see of drafts at an 8B's cost: our server with a head, beside vLLM in process and a server without.

`python benchmarks/gpu/speculation.py eagle3|dflash [STEP...]`: `start`, `questions` (the ten questions with 170 and 340
tokens), `many` (64 streams x 128 tokens), `cancel` and `stop`; all steps, in this order, unless some are named. Times
are measured; which drafts are accepted is drawn by vLLM at the rates that others published for the real heads
(_heads.py).
"""

import argparse
import asyncio
import json
import os
from dataclasses import asdict
from pathlib import Path
from statistics import mean

from _cancel import measure_cancel
from _figures import figures, percentile, table
from _generators import Generators, Measured
from _heads import HEADS, write_plugin
from _records import Order, Record
from _shape import write_shape
from _sides import Launch, Side, engine_options, launch, running, save, stop, wait_until_ready
from _static_fp8 import quantization_config

STEPS = ("start", "questions", "many", "cancel", "stop")
ROUNDS = 4
WITHOUT, SERVER, IN_PROCESS = "without drafts", "our server", "in process"
ROWS = {IN_PROCESS: "asyncllm", SERVER: "stream", WITHOUT: "stream"}
"""The rows of the tables, and the drivers that measure them."""
Sides = dict[str, Side]
"""The processes by the rows."""


def main() -> None:
    """Does the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("head", choices=sorted(HEADS))
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--engine", choices=["synthetic", "vllm"], default="vllm")
    parser.add_argument("--state", type=Path, default=Path("/tmp/doherty-drafts"), help="where models and logs are")  # noqa: S108 - not secret
    parser.add_argument("--out", type=Path, default=Path(), help="where results go")
    arguments = parser.parse_args()
    steps = arguments.steps or STEPS
    if unknown := set(steps) - set(STEPS):
        parser.error(f"there is no step {', '.join(unknown)}")
    state: Path = arguments.state / arguments.head
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    if "start" in steps:
        save(state, wait_until_ready(launch_all(arguments.head, arguments.engine, state)))
    sides: Sides = dict(zip((WITHOUT, SERVER, IN_PROCESS), running(state), strict=True))
    if "questions" in steps:
        asyncio.run(measure_questions(arguments.head, sides, out))
    if "many" in steps:
        asyncio.run(measure_many(arguments.head, sides, out))
    if "cancel" in steps:
        asyncio.run(measure_cancel([sides[SERVER]], out))
    if "stop" in steps:
        stop(list(sides.values()))


def launch_all(name: str, engine: str, state: Path) -> list[Launch]:
    """Starts the three, in the order of `sides` in `main`."""
    head = HEADS[name]
    static = {"quantization_config": quantization_config(lm_head=True)} if name == "dflash" else {}
    plain = engine_options(engine, write_shape(state / "shape"))
    options = plain
    if engine == "vllm":
        options = engine_options(engine, write_shape(state / "shape-head", **static))
        further = json.loads(options["engine_args"]) | {"speculative_config": head.drawn}
        options |= {
            "profile": "fastest",
            "draft": str(head.write(state / name)),
            "draft_tokens": str(len(head.rates)),
            "engine_args": json.dumps(further),
        }
    path = os.pathsep.join((str(write_plugin(state / "plugins")), os.environ.get("PYTHONPATH", "")))
    return [
        launch("without", "doherty", engine, plain, state),
        launch("server", "doherty", engine, options, state, PYTHONPATH=path),
        launch("inprocess", "inprocess", engine, options, state, PYTHONPATH=path),
    ]


async def measure_questions(head: str, sides: Sides, out: Path) -> None:
    """Prints the time to the last token of the ten questions: p50 and p90 are the fifth and the ninth of ten."""
    found: dict[str, dict[str, object]] = {}
    async with Generators() as generators:
        for tokens in (170, 340):
            rounds: dict[str, list[list[Record]]] = {row: [] for row in ROWS}
            for turn in range(ROUNDS):
                for row in list(ROWS) if turn % 2 == 0 else reversed(ROWS):
                    order = Order(driver(sides[row], row), "", 1, 1, tokens, seed=turn, questions=True)
                    rounds[row].append((await generators.measure(sides[row], order)).records)
            found[f"{tokens} tokens"] = {row: _figures(parts, tokens) for row, parts in rounds.items()}
            _print_questions(head, tokens, rounds)
    (out / f"speculation-{head}-questions.json").write_text(json.dumps(found))


async def measure_many(head: str, sides: Sides, out: Path) -> None:
    """Prints tokens a second of 64 streams."""
    parts: dict[str, list[Measured]] = {row: [] for row in ROWS}
    async with Generators() as generators:
        for turn in range(ROUNDS):
            for row in list(ROWS) if turn % 2 == 0 else reversed(ROWS):
                order = Order(driver(sides[row], row), "", streams=64, requests=128, tokens=128, seed=1000 + turn)
                parts[row].append(await generators.measure(sides[row], order))
    found = {row: figures(driver(sides[row], row), part, 128) for row, part in parts.items()}
    for row, figure in found.items():
        print(table(f"64 x 128, {head}: {row}", [figure]), flush=True)
    base = found[WITHOUT].tokens_per_second
    for row, figure in found.items():
        print(f"{row}: {figure.tokens_per_second:,.0f} tokens/s, {figure.tokens_per_second / base:.3f} of {WITHOUT}")
    (out / f"speculation-{head}-many.json").write_text(json.dumps({row: asdict(one) for row, one in found.items()}))


def driver(side: Side, row: str) -> str:
    """Who measures a row: on the synthetic engine there is no AsyncLLM."""
    return ROWS[row] if ROWS[row] in side.drivers else side.drivers[0]


def _figures(rounds: list[list[Record]], tokens: int) -> dict[str, object]:
    last = [[record.last * 1e3 for record in records] for records in rounds]
    steps = [len(record.arrivals) for records in rounds for record in records]
    everything = [value for part in last for value in part]
    return {
        "p50, p90 of each round": [(sorted(part)[4], sorted(part)[8]) for part in last],
        "p50": percentile(everything, 0.5),
        "p90": percentile(everything, 0.9),
        "first": percentile((record.first * 1e3 for records in rounds for record in records), 0.5),
        "tokens a message": (tokens - 1) / (mean(steps) - 1),
    }


def _print_questions(head: str, tokens: int, rounds: dict[str, list[list[Record]]]) -> None:
    print(f"\nThe ten questions, {tokens} tokens, {head}, drawn at {HEADS[head].tokens_a_step:.2f} tokens a step; ms\n")
    print("| | last token p50 | p90 | of in process | first token | tokens a message | p50 of each round |")
    print("|---" * 7 + "|")
    told = {row: _figures(parts, tokens) for row, parts in rounds.items()}
    for row, one in told.items():
        ratio = float(str(one["p50"])) / float(str(told[IN_PROCESS]["p50"]))
        each = ", ".join(f"{sorted(record.last * 1e3 for record in part)[4]:.0f}" for part in rounds[row])
        print(
            f"| {row} | {one['p50']:.1f} | {one['p90']:.1f} | {ratio:.3f} | {one['first']:.1f} "
            f"| {one['tokens a message']:.2f} | {each} |"
        )
    print(flush=True)


if __name__ == "__main__":
    main()
