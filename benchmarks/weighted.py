"""What reports of the load bring where servers differ: `PYTHONPATH=tests python benchmarks/weighted.py [--rate 24]`.

One of two servers is three times slower. gRPC's own balancers spread the same calls, which come at random moments, over
both: in turn, and weighted by the reports that come with each answer or out of band. Printed are the share of the calls
that the slow server got, and how long calls took.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import grpc.aio

from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from support.server import ServerProcess, start_server
from support.wire import request

WEIGHTED = {"blackoutPeriod": "5s", "oobReportingPeriod": "1s"}
POLICIES = {
    "round robin": {"round_robin": {}},
    "weighted, by the calls' reports": {"weighted_round_robin": WEIGHTED | {"enableOobLoadReport": False}},
    "weighted, out of band": {"weighted_round_robin": WEIGHTED | {"enableOobLoadReport": True}},
}
WARM_SECONDS, SECONDS = 20.0, 40.0
ASKED = request(prompt="Hi", stopping={"max_output_tokens": 20, "ignore_eos": True})


@contextmanager
def servers() -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """A server whose answers take 0.2 s, and one whose answers take 0.6 s."""
    flags = ("--engine", "synthetic", "-o", "slots=8")
    with (
        start_server(*flags, "-o", "tokens_per_second=100") as fast,
        start_server(*flags, "-o", "tokens_per_second=33.3") as slow,
    ):
        yield fast, slow


async def measure(name: str, rate: float) -> None:
    """Prints a row."""
    config = json.dumps({"loadBalancingConfig": [POLICIES[name]]})
    chance = random.Random(7)  # noqa: S311 - it only spreads the calls
    with servers() as (fast, slow):
        target = f"ipv4:{fast.target},{slow.target}"
        async with grpc.aio.insecure_channel(target, (("grpc.service_config", config),)) as channel:
            stub = GenerationServiceStub(channel)
            times: list[float] = []
            failed = 0

            async def call(*, counts: bool) -> None:
                nonlocal failed
                begun = time.perf_counter()
                try:
                    await stub.Generate(ASKED, timeout=30)
                except grpc.RpcError:
                    failed += counts
                else:
                    if counts:
                        times.append(time.perf_counter() - begun)

            async def load(seconds: float, *, counts: bool) -> None:
                moments = [0.0]
                while moments[-1] < seconds:
                    moments.append(moments[-1] + chance.expovariate(rate))
                async with asyncio.TaskGroup() as group:
                    for before, moment in pairwise(moments):
                        await asyncio.sleep(moment - before)
                        group.create_task(call(counts=counts))

            await load(WARM_SECONDS, counts=False)
            slow.read()
            await load(SECONDS, counts=True)
            to_slow = sum(line["event"] == "request" for line in slow.read())
    times.sort()
    p50, p99 = (times[int(len(times) * share)] for share in (0.5, 0.99))
    share = to_slow / (len(times) + failed)
    print(f"| {name} | {len(times) + failed} | {share:.0%} | {p50:.2f} | {p99:.2f} | {failed} |", flush=True)


async def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description="Reports of the load against taking turns.")
    parser.add_argument("--rate", type=float, default=24.0, help="calls a second; both servers can answer 53")
    rate = parser.parse_args().rate
    print(f"| balancing | calls | to the slow server | p50 (s) | p99 (s) | failed |\n{'|---' * 6}|")
    for name in POLICIES:
        await measure(name, rate)


if __name__ == "__main__":
    asyncio.run(main())
