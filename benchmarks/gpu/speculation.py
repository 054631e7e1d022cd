"""Measures the effect of drafts for callers, at the cost of an 8B model.

It compares our server with each head, our server without drafts, and vLLM without a server, which has the first head.
`--no-process` leaves out the latter. The heads are those of _heads.py. The steps of
`python benchmarks/gpu/speculation.py HEAD... [--step STEP]`, by default all of them, are `start`, `questions` (the ten
questions with 170 and 340 tokens), `many` (64 streams x 128 tokens), `cancel` and `stop`. Times are measured. vLLM
draws the accepted drafts at random, at the rates that others published for the real heads.
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
WITHOUT, IN_PROCESS = "without drafts", "in process"
Sides = dict[str, Side]
"""The processes by the rows of the tables: IN_PROCESS, WITHOUT, and the names of heads, which stand for our server."""


def main() -> None:
    """Runs the chosen steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("heads", nargs="+", choices=sorted(HEADS), metavar="HEAD", help=", ".join(sorted(HEADS)))
    parser.add_argument("--step", dest="steps", action="append", choices=STEPS)
    parser.add_argument("--engine", choices=["synthetic", "vllm"], default="vllm")
    parser.add_argument("--cards", type=int, default=1, help="over how many GPUs each side spreads the model")
    parser.add_argument("--no-process", action="store_true", help="leave in process out, which takes 15 GB")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--state", type=Path, default=Path("/tmp/doherty-drafts"), help="where models and logs are")  # noqa: S108 - not secret
    parser.add_argument("--out", type=Path, default=Path(), help="where results go")
    arguments = parser.parse_args()
    heads: list[str] = arguments.heads
    steps = arguments.steps or STEPS
    name = "-".join(heads) + (f"-{arguments.cards}-cards" if arguments.cards > 1 else "")
    in_process = not arguments.no_process
    state, out = arguments.state / name, arguments.out / f"speculation-{name}"
    out.parent.mkdir(parents=True, exist_ok=True)
    if "start" in steps:
        save(state, wait_until_ready(launch_all(heads, arguments.engine, arguments.cards, state, in_process)))
    rows = (WITHOUT, *heads, IN_PROCESS) if in_process else (WITHOUT, *heads)
    sides: Sides = dict(zip(rows, running(state), strict=True))
    if "questions" in steps:
        asyncio.run(measure_questions(sides, arguments.rounds, out))
    if "many" in steps:
        asyncio.run(measure_many(sides, arguments.rounds, out))
    if "cancel" in steps:
        asyncio.run(measure_cancel([sides[heads[0]]], out.parent))
    if "stop" in steps:
        stop(list(sides.values()))


def launch_all(heads: list[str], engine: str, cards: int, state: Path, in_process: bool) -> list[Launch]:  # noqa: FBT001 - handed on
    """Starts all processes, in the order of `sides` in `main`."""
    spread = {"tensor_parallel_size": str(cards)} if engine == "vllm" and cards > 1 else {}
    path = os.pathsep.join((str(write_plugin(state / "plugins")), os.environ.get("PYTHONPATH", "")))
    options = {name: head_options(name, engine, state) | spread for name in heads}
    launches = [
        launch("without", "doherty", engine, engine_options(engine, write_shape(state / "shape")) | spread, state),
        *(launch(name, "doherty", engine, value, state, PYTHONPATH=path) for name, value in options.items()),
    ]
    if in_process:
        launches.append(launch("inprocess", "inprocess", engine, options[heads[0]], state, PYTHONPATH=path))
    return launches


def head_options(name: str, engine: str, state: Path) -> dict[str, str]:
    """The options of our engine with a head."""
    head = HEADS[name]
    static = {"quantization_config": quantization_config(lm_head=True)} if head.is_target_static else {}
    options = engine_options(engine, write_shape(state / f"shape-{name}", **static))
    if engine != "vllm":
        return options
    further = json.loads(options["engine_args"]) | {"speculative_config": head.drawn} | head.engine_args
    return options | {
        "profile": "fastest",
        "draft": str(head.write(state / name)),
        "draft_tokens": str(len(head.rates)),
        "engine_args": json.dumps(further),
    }


async def measure_questions(sides: Sides, count: int, out: Path) -> None:
    """Prints the time to the last token of the ten questions: p50 and p90 are the fifth and the ninth of ten."""
    tables: dict[str, dict[str, object]] = {}
    async with Generators() as generators:
        for tokens in (170, 340):
            rounds: dict[str, list[list[Record]]] = {row: [] for row in sides}
            for turn in range(count):
                for row in sides if turn % 2 == 0 else reversed(sides):
                    order = Order(driver(sides[row]), "", 1, 1, tokens, seed=turn, questions=True)
                    rounds[row].append((await generators.measure(sides[row], order)).records)
            tables[f"{tokens} tokens"] = {row: _figures(parts, tokens) for row, parts in rounds.items()}
            _print_questions(tokens, rounds)
    _write(out, "questions", tables)


async def measure_many(sides: Sides, count: int, out: Path) -> None:
    """Prints the tokens per second of 64 streams."""
    parts: dict[str, list[Measured]] = {row: [] for row in sides}
    async with Generators() as generators:
        for turn in range(count):
            for row in sides if turn % 2 == 0 else reversed(sides):
                order = Order(driver(sides[row]), "", streams=64, requests=128, tokens=128, seed=1000 + turn)
                parts[row].append(await generators.measure(sides[row], order))
    by_row = {row: figures(driver(sides[row]), part, 128) for row, part in parts.items()}
    for row, figure in by_row.items():
        print(table(f"64 x 128: {row}", [figure]), flush=True)
    base = by_row[WITHOUT].tokens_per_second
    for row, figure in by_row.items():
        print(f"{row}: {figure.tokens_per_second:,.0f} tokens/s, {figure.tokens_per_second / base:.3f} of {WITHOUT}")
    _write(out, "many", {row: asdict(summary) for row, summary in by_row.items()})


def _write(out: Path, what: str, content: object) -> None:
    Path(f"{out}-{what}.json").write_text(json.dumps(content))


def driver(side: Side) -> str:
    """Returns the driver of a process: StreamGenerate, or AsyncLLM if it is the bare engine."""
    return side.drivers[0]


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


def _print_questions(tokens: int, rounds: dict[str, list[list[Record]]]) -> None:
    print(f"\nThe ten questions, {tokens} tokens; ms\n")
    print("| | last token p50 | p90 | of without drafts | first token | tokens a message | p50 of each round |")
    print("|---" * 7 + "|")
    by_row = {row: _figures(parts, tokens) for row, parts in rounds.items()}
    for row, summary in by_row.items():
        ratio = float(str(summary["p50"])) / float(str(by_row[WITHOUT]["p50"]))
        each = ", ".join(f"{sorted(record.last * 1e3 for record in part)[4]:.0f}" for part in rounds[row])
        print(
            f"| {row} | {summary['p50']:.1f} | {summary['p90']:.1f} | {ratio:.3f} | {summary['first']:.1f} "
            f"| {summary['tokens a message']:.2f} | {each} |"
        )
    print(flush=True)


if __name__ == "__main__":
    main()
