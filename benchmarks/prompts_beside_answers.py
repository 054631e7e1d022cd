"""How long the caller of a prompt and the reader of a running answer wait for each other on the embedded engine.

`PYTHONPATH=tests python benchmarks/prompts_beside_answers.py [--rounds N] [--before CHECKOUT]`. In each round, each
server is started with the packaged model and one thread. While it streams a long answer, it gets one prompt after the
other, of 10 to 300 tokens that it has not seen. Printed are the medians of the time to the first token (by the server),
and of the longest gap between two tokens of the answer meanwhile. `--before` measures the server of another checkout,
too, in turns. Loopback only.
"""

import argparse
import random
import threading
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from statistics import median

from doherty import Client, GenerateOptions, GenerationStream, StreamError, TokenIds
from support.measuring import longest_gap, python_path
from support.server import start_server

LENGTHS = (10, 30, 60, 120, 300)
ENDLESS = 4000
SECONDS = 300


class Reader:
    """Reads a stream in a thread, and notes when its tokens arrive."""

    def __init__(self, stream: GenerationStream[None]) -> None:
        """Returns when the first token has arrived."""
        next(stream)
        self.arrivals = [time.monotonic()]
        self._thread = threading.Thread(target=self._read, args=(stream,))
        self._thread.start()

    def longest_gap(self, begin: float) -> float:
        """The longest time without a token since `begin`, in seconds."""
        earlier, later = longest_gap(self.arrivals, begin, time.monotonic())
        return later - earlier

    def join(self) -> None:
        """Waits until the stream has ended."""
        self._thread.join()

    def _read(self, stream: GenerationStream[None]) -> None:
        with suppress(StreamError):  # it is closed at the end
            for _ in stream:
                self.arrivals.append(time.monotonic())


def measure(checkout: Path, seed: int) -> dict[int, tuple[float, float]]:
    """By length of the prompt, the seconds to its first token, and the longest gap of the answer beside it."""
    numbers = random.Random(seed)  # noqa: S311 - no secrets
    flags = ("--engine", "llamacpp", "-o", "threads=1", "-o", "slots=4", "-o", "context_tokens=8192")
    measured: dict[int, tuple[float, float]] = {}
    with start_server(*flags, PYTHONPATH=python_path(checkout)) as server, Client(server.target) as client:
        client.generate("Hello!", max_output_tokens=4)
        options = GenerateOptions(ignore_eos=True)
        with client.stream_generate("a", max_output_tokens=ENDLESS, timeout=SECONDS, options=options) as stream:
            reader = Reader(stream)
            for length in LENGTHS:
                prompt = TokenIds(tuple(numbers.randrange(100, 40_000) for _ in range(length)))
                begin = time.monotonic()
                answer = client.generate(prompt, max_output_tokens=1, timeout=SECONDS)
                first_token = answer.timings.time_to_first_token
                if first_token is None:
                    raise AssertionError("an answer of one token has a first one")
                measured[length] = first_token, reader.longest_gap(begin)
        reader.join()
    return measured


def main() -> None:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="another checkout, whose server is measured, too")
    arguments = parser.parse_args()
    servers = {"now": Path(__file__).parents[1]}
    if arguments.before is not None:
        servers = {"before": arguments.before, **servers}
    rows: defaultdict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
    for seed in range(arguments.rounds):
        for name, checkout in servers.items():
            for length, figures in measure(checkout, seed).items():
                rows[length, name].append(figures)
    print("| tokens of the prompt | server | first token, ms | longest gap of the answer, ms |\n|---|---|---|---|")
    for (length, name), pairs in sorted(rows.items()):
        first_token, gap = (1000 * median(values) for values in zip(*pairs, strict=True))
        print(f"| {length} | {name} | {first_token:.0f} | {gap:.0f} |")


if __name__ == "__main__":
    main()
