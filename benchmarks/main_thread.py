"""Measures what a unary call costs in the main thread: `PYTHONPATH=tests python benchmarks/main_thread.py [ROUNDS]`.

In the main thread, where Ctrl-C may arrive, the SDK makes a call with a future; in other threads, it uses gRPC's
blocking call. Both threads take turns and ask the same server for answers of one token. Prints medians per call, in
microseconds.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from doherty import Client
from support.server import start_server

CALLS = 200
"""The number of calls in a round."""


def measure(client: Client) -> tuple[float, float]:
    """Returns the time and the CPU time of this process per call, in microseconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(CALLS):
        client.generate("Hi", max_output_tokens=1)
    return (time.perf_counter() - wall) / CALLS * 1e6, (time.process_time() - cpu) / CALLS * 1e6


def main() -> None:
    """Measures and prints."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    flags = ("--engine", "synthetic", "-o", "tokens_per_second=0")
    with start_server(*flags) as server, Client(server.target) as client, ThreadPoolExecutor(1) as other:
        results: dict[str, list[tuple[float, float]]] = {"main thread": [], "another thread": []}
        for _ in range(1 + rounds):
            results["main thread"].append(measure(client))
            results["another thread"].append(other.submit(measure, client).result())
    for name, figures in results.items():
        wall, cpu = (median(column) for column in zip(*figures[1:], strict=True))  # the first round is a warm-up
        print(f"{name:15} {wall:6.0f} us, CPU {cpu:6.0f} us")


if __name__ == "__main__":
    main()
