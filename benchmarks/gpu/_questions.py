"""Asks our server and the bare engine the reference's ten questions, one by one, with answers of 170 tokens."""

import json
from pathlib import Path

from _generators import Generators
from _records import Order, Record
from _sides import ROWS, Side

TOKENS = 170
ROUNDS = 2
DRIVERS = ("asyncllm", "engine", "stream")


async def measure_questions(sides: list[Side], out: Path) -> None:
    """Prints the times to the last token, p50 and p90 by the reference's rule: the fifth and the ninth of ten."""
    by_driver = {driver: side for side in sides for driver in side.drivers if driver in DRIVERS}
    rounds: dict[str, list[list[Record]]] = {driver: [] for driver in DRIVERS if driver in by_driver}
    async with Generators() as generators:
        for turn in range(ROUNDS):
            for driver in rounds if turn % 2 == 0 else reversed(rounds):
                order = Order(driver, "", streams=1, requests=1, tokens=TOKENS, seed=turn, questions=True)
                rounds[driver].append((await generators.measure(by_driver[driver], order)).records)
    summaries = {driver: [_tell(records) for records in parts] for driver, parts in rounds.items()}
    (out / "questions.json").write_text(json.dumps(summaries))
    print(f"The ten questions, {TOKENS} tokens each: ms to the last token\n")
    print("| side | p50 | p90 | rounds |\n|---|---|---|---|")
    for driver, parts in summaries.items():
        best = min(parts)
        print(f"| {ROWS[driver]} | {best[0]:.1f} | {best[1]:.1f} | {[f'{p50:.1f}' for p50, _ in parts]} |")
    print(flush=True)


def _tell(records: list[Record]) -> tuple[float, float]:
    ordered = sorted(record.last * 1e3 for record in records)
    return ordered[int(len(ordered) * 0.5) - 1], ordered[int(len(ordered) * 0.9) - 1]
