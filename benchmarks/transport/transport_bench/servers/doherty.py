"""This server, as `doherty serve` starts it: `python -m transport_bench.servers.doherty LOG [FLAG...]`.

Its engine writes to the file LOG; the flags are those of `doherty serve`. With BARE=1 in the environment it has no
interceptors: no latency, no metrics, no mapping of errors and no keys.
"""

import os
import sys
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
import grpc.aio

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1 import request_pb2
from doherty_engine import Engine, create_engine
from doherty_service._generations import Generations
from doherty_service.command import serve
from doherty_service.interceptors import RequestIdInterceptor
from doherty_service.latency import Call, set_current_call
from doherty_service.servicers import Bounds, GenerationServicer
from doherty_service.translation import Deployment
from transport_bench.engine_log import LoggedEngine

_make_server = grpc.aio.server


class _Bare(GenerationServicer):
    """The servicer alone: what it needs of an interceptor is a Call."""

    def __init__(self, generations: Generations, deployment: Deployment, bounds: Bounds, _: object) -> None:
        super().__init__(generations, deployment, bounds, [RequestIdInterceptor()])

    async def Generate(self, request: request_pb2.GenerateRequest, context: Any) -> wire.GenerateResponse:  # noqa: N802 - gRPC's name
        _give_call("Generate")
        return await super().Generate(request, context)

    async def StreamGenerate(self, request: request_pb2.GenerateRequest, context: Any) -> None:  # type: ignore[override]  # noqa: N802 - as its base
        _give_call("StreamGenerate")
        await super().StreamGenerate(request, context)

    async def MultiplexGenerate(self, requests: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802 - as its base
        _give_call("MultiplexGenerate")
        await super().MultiplexGenerate(requests, context)


def _give_call(name: str) -> None:
    key = uuid.uuid4().hex
    set_current_call(Call(f"/doherty.v1.GenerationService/{name}", key, key))


def _server_without_interceptors(*, options: Any, **_: object) -> grpc.aio.Server:
    return _make_server(options=options)


def main() -> None:
    """Serves until SIGTERM."""
    log = Path(sys.argv[1])

    def logged(name: str, options: Mapping[str, str] | None = None) -> Engine:
        return LoggedEngine(create_engine(name, options), log)

    with ExitStack() as stack:
        stack.enter_context(patch("doherty_service._lifecycle.create_engine", logged))
        if os.environ.get("BARE"):
            stack.enter_context(patch("doherty_service._server.GenerationServicer", _Bare))
            stack.enter_context(patch("grpc.aio.server", _server_without_interceptors))
        serve(sys.argv[2:], prog_name="doherty serve")


if __name__ == "__main__":
    main()
