"""Measures the effect of load reports if servers differ: `PYTHONPATH=tests python benchmarks/weighted.py`.

One of two servers is three times slower. Calls come at random times, and are spread over both servers: by gRPC's own
balancers (in turn, and weighted by the load reports that come with each answer or out of band), and by Envoy with the
configuration in deploy/ (in turn, by the fewest requests, and by load reports). Prints the slow server's share of the
calls, and the durations of the calls.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path

import grpc.aio

from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from proxies.running import Envoy, running
from support.certificates import Authority
from support.server import ServerProcess, start_server
from support.wire import request

WEIGHTED = {"blackoutPeriod": "5s", "oobReportingPeriod": "1s"}
POLICIES = {
    "round robin": {"round_robin": {}},
    "weighted, by the calls' reports": {"weighted_round_robin": WEIGHTED | {"enableOobLoadReport": False}},
    "weighted, out of band": {"weighted_round_robin": WEIGHTED | {"enableOobLoadReport": True}},
}
_WEIGHTED_BY_ENVOY = "envoy.load_balancing_policies.client_side_weighted_round_robin"
_CONFIG = "type.googleapis.com/envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3"
ENVOY = {
    "Envoy, round robin": "lb_policy: ROUND_ROBIN",
    "Envoy, least requests": "lb_policy: MIN_REQUEST",
    "Envoy, weighted, by the calls' reports": f"""load_balancing_policy:
        policies:
          - typed_extension_config:
              name: {_WEIGHTED_BY_ENVOY}
              typed_config: {{ "@type": {_CONFIG}.ClientSideWeightedRoundRobin, blackout_period: 5s }}""",
}
WARM_SECONDS, SECONDS = 20.0, 40.0
ASKED = request(prompt="Hi", stopping={"max_output_tokens": 20, "ignore_eos": True})


@contextmanager
def servers() -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Starts a server whose answers take 0.2 s, and one whose answers take 0.6 s."""
    flags = ("--engine", "synthetic", "-o", "slots=8")
    with (
        start_server(*flags, "-o", "tokens_per_second=100") as fast,
        start_server(*flags, "-o", "tokens_per_second=33.3") as slow,
    ):
        yield fast, slow


@asynccontextmanager
async def connected(name: str, addresses: list[str]) -> AsyncIterator[grpc.aio.Channel]:
    """Opens a channel that distributes calls over the servers."""
    if name in POLICIES:
        config = json.dumps({"loadBalancingConfig": [POLICIES[name]]})
        options = (("grpc.service_config", config),)
        async with grpc.aio.insecure_channel(f"ipv4:{','.join(addresses)}", options) as channel:
            yield channel
        return
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        authority.renew("envoy")
        policy = {ENVOY["Envoy, least requests"]: ENVOY[name]}
        with running(Envoy("envoy"), Path(folder), addresses, authority, more=policy) as envoy:
            credentials = grpc.ssl_channel_credentials(authority.roots)
            async with grpc.aio.secure_channel(envoy.target, credentials) as channel:
                yield channel


async def measure(name: str, rate: float) -> None:
    """Prints a row."""
    chance = random.Random(7)  # noqa: S311 - it only spreads the calls
    with servers() as (fast, slow):
        async with connected(name, [fast.target, slow.target]) as channel:
            stub = GenerationServiceStub(channel)
            times: list[float] = []
            failed = 0

            async def call(*, counts: bool) -> None:
                nonlocal failed
                begun = time.perf_counter()
                try:
                    await stub.Generate(ASKED, timeout=30, wait_for_ready=True)
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
    parser.add_argument("--only", choices=(*POLICIES, *ENVOY), action="append", help="a balancer; can be repeated")
    parsed = parser.parse_args()
    print(f"| balancing | calls | to the slow server | p50 (s) | p99 (s) | failed |\n{'|---' * 6}|")
    for name in (*POLICIES, *ENVOY) if parsed.only is None else parsed.only:
        await measure(name, parsed.rate)


if __name__ == "__main__":
    asyncio.run(main())
