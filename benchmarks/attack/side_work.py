"""Calls that generate nothing, but still cost something."""

import itertools
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc

from doherty.v1.generation_service_pb2 import MultiplexGenerateRequest, MultiplexStart
from doherty.v1.latency_service_pb2 import GetLatencyRequest
from doherty.v1.latency_service_pb2_grpc import LatencyServiceStub
from support.http2 import GREETING, raw_connection
from support.security import bearer
from target import Attack, Target

CALLING_SECONDS = 5.0
CALLERS = 8
REQUESTS = 16_000
"""The maximum number of requests in a message. GetLatency then has to summarize them."""
CONNECTIONS = 800


def get_latency(target: Target) -> None:
    """Calls GetLatency with a new window each time, after as many requests as possible."""
    with grpc.insecure_channel(target.address) as channel:
        call: Any = channel.stream_stream("/doherty.v1.GenerationService/MultiplexGenerate")
        starts = [MultiplexStart(id=number) for number in range(1, REQUESTS + 1)]
        message = MultiplexGenerateRequest(starts=starts).SerializeToString()
        with suppress(grpc.RpcError):
            for _ in call(iter([message]), timeout=60, metadata=bearer(target.key)):
                pass

    def ask(channel: grpc.Channel, number: int) -> None:
        window = Duration(seconds=200, nanos=number)
        LatencyServiceStub(channel).GetLatency(
            GetLatencyRequest(window=window), timeout=10, metadata=bearer(target.key)
        )

    _all_together(target.address, ask)


def list_connections(target: Target) -> None:
    """Calls channelz while there are many idle connections."""
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(raw_connection(target.address)).send(GREETING)

        def ask(channel: grpc.Channel, _: int) -> None:
            stub: Any = channelz_pb2_grpc.ChannelzStub(channel)
            stub.GetServers(channelz_pb2.GetServersRequest(), timeout=10, metadata=bearer(target.key))

        _all_together(target.address, ask)


def _all_together(address: str, ask: Callable[[grpc.Channel, int], None]) -> None:
    """Runs `ask` repeatedly in several threads. Each call gets a new number."""
    ends_at, numbers = time.monotonic() + CALLING_SECONDS, itertools.count(1)

    def run() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options=options) as channel:
            while time.monotonic() < ends_at:
                with suppress(grpc.RpcError):
                    ask(channel, next(numbers))

    callers = [threading.Thread(target=run, daemon=True) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(CALLING_SECONDS + 20)


SIDE_WORK: dict[str, Attack] = {
    "GetLatency, 8 callers": get_latency,
    "channelz, 8 callers": list_connections,
}
