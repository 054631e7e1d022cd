"""Whether those who are refused and come back when they were told are let in.

`PYTHONPATH=tests python benchmarks/admission.py [SECONDS]`. More callers than the server has room for, each of which
asks again and again, and waits for as long as a refusal says. To reach: at least 90 % of those who come back get in.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from support.crowd import Crowd
from support.server import start_server

SERVER = ("--engine", "synthetic", "-o", "slots=4", "-o", "answer_tokens=40,50,60,70,80")
SHORT_QUEUE = ("--max-queued-requests", "4")
NO_QUEUE = ("--max-queued-requests", "0")


def different(number: int) -> dict[str, Any]:
    """Requests that differ, as those of people do."""
    return {"prompt": f"Question {number}?"}


def same(_: int) -> dict[str, Any]:
    """Requests that cannot be told from each other."""
    return {"prompt": "The same question?"}


LOADS: list[tuple[str, tuple[str, ...], int, Callable[[int], dict[str, Any]], float, bool]] = [
    ("4 may wait, 16 callers", SHORT_QUEUE, 16, different, 60, False),
    ("4 may wait, 64 callers", SHORT_QUEUE, 64, different, 60, False),
    ("nobody may wait, 8 callers", NO_QUEUE, 8, different, 60, False),
    ("256 may wait, 24 callers with deadlines of 1.2 s", (), 24, different, 1.2, False),
    ("4 may wait, 16 callers with one and the same request", SHORT_QUEUE, 16, same, 60, False),
    ("the same, and those that come back say so", SHORT_QUEUE, 16, same, 60, True),
]


async def main() -> None:
    """Prints a line a load."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    print(f"| load | came back | of them admitted | refused for |\n|{'---|' * 4}")
    for name, flags, callers, fields, deadline, says_again in LOADS:
        with start_server(*SERVER, *flags) as server:
            crowd = await Crowd(server.target, fields, deadline, says_again).run(callers, seconds)
        reasons = ", ".join(f"{reason} {count}" for reason, count in crowd.refusals.items())
        print(f"| {name} | {crowd.kept + crowd.broken} | {crowd.kept_share:.1%} | {reasons} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
