"""What a delta costs a caller, against an older checkout: `python benchmarks/older_sdk.py CHECKOUT [SECONDS]`.

Needs PYTHONPATH=tests:benchmarks/transport. Two processes with 16 streams each read from one server at the same time,
on one core: one with this checkout's AsyncClient, one with the other's. Whatever else runs on the machine disturbs both
alike. Printed is the CPU time that each took for a delta, and the median of the ratios of their seconds, with an
interval that holds it with 95 %. Target: 0.85.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import uvloop
from transport_bench.machine import cores
from transport_bench.ratios import ratio

from doherty import AsyncClient, GenerateOptions
from support.server import start_server

STREAMS = 16
TOKENS = 170
SERVER = ("--engine", "synthetic", "-o", "tokens_per_second=200", "-o", f"slots={2 * STREAMS}")
WARM_UP_SECONDS = 2
HERE = Path(__file__).parents[1]

Seconds = list[tuple[int, float, float]]
"""The number of deltas of each second, and the CPU time of the process in user and in system mode."""


class Reader:
    """Reads streams until it is cancelled."""

    def __init__(self, client: AsyncClient) -> None:
        self.deltas = 0
        self._client = client

    async def run(self) -> None:
        """Reads one stream after the other."""
        options = GenerateOptions(ignore_eos=True)
        while True:
            async with self._client.stream_generate("Hi", max_output_tokens=TOKENS, options=options) as stream:
                async for _ in stream:
                    self.deltas += 1


async def read(target: str, seconds: int, *, multiplex: bool) -> Seconds:
    """Runs the load, and prints the figures of each second."""
    taken: Seconds = []
    async with AsyncClient(target, multiplex=multiplex) as client:
        await client.wait_ready()
        reader = Reader(client)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(reader.run()) for _ in range(STREAMS)]
            await asyncio.sleep(WARM_UP_SECONDS)
            for _ in range(seconds):
                deltas, before = reader.deltas, getrusage(RUSAGE_SELF)
                await asyncio.sleep(1)
                after = getrusage(RUSAGE_SELF)
                user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
                taken.append((reader.deltas - deltas, user, system))
            for task in running:
                task.cancel()
    return taken


def start(checkout: Path, target: str, seconds: int, kind: str) -> "subprocess.Popen[str]":
    """Runs a load with the SDK of a checkout."""
    path = os.pathsep.join([str(checkout / "client"), os.environ["PYTHONPATH"]])
    command = [sys.executable, __file__, "load", target, str(seconds), kind]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path})


def costs(taken: Seconds) -> list[float]:
    """Returns the CPU time per delta for each second."""
    return [(user + system) / deltas for deltas, user, system in taken]


def row(name: str, kind: str, taken: Seconds, compared: str) -> str:
    """Returns a row of the table."""
    deltas = sum(sample[0] for sample in taken) / 1e6
    user, system = (sum(sample[place] for sample in taken) / deltas for place in (1, 2))
    return f"| {name} | {kind} | {user + system:.1f} | {user:.1f} | {system:.1f} | {compared} |"


def compare(older: Path, target: str, seconds: int, kind: str) -> None:
    """Runs both loads at the same time, and prints the results."""
    loads = [start(checkout, target, seconds, kind) for checkout in (older, HERE)]
    before, now = (json.loads(load.communicate()[0]) for load in loads)
    measured = ratio(costs(now), costs(before))
    print(row("older", kind, before, ""))
    print(row("this", kind, now, f"{measured.median:.3f} ({measured.low:.3f} to {measured.high:.3f})"), flush=True)


def main() -> None:
    """Measures both kinds of calls, and prints the table."""
    if sys.argv[1] == "load":  # the process of one client
        target, length, kind = sys.argv[2:]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            json.dump(runner.run(read(target, int(length), multiplex=kind == "multiplexed")), sys.stdout)
        return
    older = Path(sys.argv[1]).resolve()
    if not (older / "client/doherty/__init__.py").exists():
        sys.exit(f"{older} has no client/doherty")
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 40  # noqa: PLR2004 - the program and two arguments
    server_core, load_core = cores()
    os.sched_setaffinity(0, {server_core})
    print("| SDK | calls | CPU us per delta | user | system | ratio (95 % interval) |\n|---|---|---|---|---|---|")
    with start_server(*SERVER) as server:
        os.sched_setaffinity(0, {load_core})
        for kind in ("separate", "multiplexed"):
            compare(older, server.target, seconds, kind)


if __name__ == "__main__":
    main()
