"""xds.service.orca.v3.OpenRcaService: streams load reports to balancers, also while they send no calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc

from doherty_service.load._meter import LoadMeter
from doherty_service.load._report import decode_interval

LOAD_SERVICE = "xds.service.orca.v3.OpenRcaService"

_SHORTEST_SECONDS, _LONGEST_SECONDS = 1.0, 3600.0
"""Minimum and maximum report interval. The minimum is also the default."""


class LoadServicer:
    """Streams load reports."""

    def __init__(self, meter: LoadMeter, ended: asyncio.Event) -> None:
        """The streams end when `ended` is set."""
        self._meter = meter
        self._ended = ended

    async def stream_core_metrics(self, interval: float, _: object) -> AsyncIterator[bytes]:
        """Yields a report immediately, and then every `interval` seconds."""
        seconds = min(max(interval, _SHORTEST_SECONDS), _LONGEST_SECONDS)
        while not self._ended.is_set():
            yield self._meter.encoded
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._ended.wait()


def add_load_service(server: Any, servicer: LoadServicer) -> None:
    """Adds the service to a server."""
    method: Any = grpc.unary_stream_rpc_method_handler(servicer.stream_core_metrics, decode_interval)
    handler = grpc.method_handlers_generic_handler(LOAD_SERVICE, {"StreamCoreMetrics": method})
    server.add_generic_rpc_handlers((handler,))
