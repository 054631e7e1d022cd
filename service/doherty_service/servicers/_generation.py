"""GenerationService: each method translates, and leaves the work to others."""

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1 import generation_service_pb2_grpc, model_pb2, request_pb2
from doherty_service import translation
from doherty_service._generations import Generations
from doherty_service._version import server_version
from doherty_service.interceptors import CallContext, Method, surround
from doherty_service.latency import MULTIPLEX, current_call
from doherty_service.multiplex import Lane, Multiplex, Serve
from doherty_service.security import current_caller
from doherty_service.translation import AnswerMessages, Deployment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from doherty_service._readers import Reader
    from doherty_service.interceptors import Around

_ATTEMPTS = "doherty-attempts"
"""The metadata of a request that was sent before; what gRPC's own retries have for it, core keeps to itself."""

ServicerContext = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the server takes at the most."""

    queued: int
    """Requests that wait for a slot; told by GetModel, and kept by admission."""
    message_bytes: int
    """Of one message; told by GetModel, and kept by gRPC's core."""
    concurrent_streams: int
    """Requests that are open on one MultiplexGenerate; those behind them wait to be read."""


class GenerationServicer(generation_service_pb2_grpc.GenerationServiceServicer):
    """Serves one engine."""

    def __init__(
        self, generations: Generations, deployment: Deployment, bounds: Bounds, arounds: "Iterable[Around]"
    ) -> None:
        """`arounds` stand round each request of a MultiplexGenerate, as they stand round every call."""
        self._generations = generations
        self._deployment = deployment
        self._bounds = bounds
        method = Method(MULTIPLEX, streams_requests=False, parse=request_pb2.GenerateRequest.FromString)
        self._serve: Serve = surround(self._serve_lane, arounds, method)  # type: ignore[arg-type]  # its context is a lane

    async def Generate(self, request: request_pb2.GenerateRequest, context: ServicerContext) -> wire.GenerateResponse:  # noqa: N802 - gRPC's signature
        """Generates one whole answer."""
        async with self._begin(request, context, whole=True) as (reader, messages):
            return messages.whole(await reader.whole())

    async def StreamGenerate(self, request: request_pb2.GenerateRequest, context: ServicerContext) -> None:  # type: ignore[override]  # noqa: N802 - a handler that writes through the context costs less than one that yields
        """Generates one answer and sends it while it comes into being."""
        async with self._begin(request, context, whole=False) as (reader, messages):
            with self._generations.readers.watched() as writes:
                while True:
                    output = await reader.next()
                    reply = wire.StreamGenerateResponse()
                    if not messages.put(output, reply):
                        continue
                    writes.since = time.monotonic()
                    await context.write(reply)
                    writes.since = None
                    if output.finish is not None:
                        return

    async def MultiplexGenerate(  # type: ignore[override]  # noqa: N802 - as StreamGenerate
        self, requests: "AsyncIterator[wire.MultiplexGenerateRequest]", context: ServicerContext
    ) -> None:
        """Generates many answers on one RPC."""
        multiplex = Multiplex(self._serve, self._generations, context, most_open=self._bounds.concurrent_streams)
        await multiplex.run(requests)

    async def _serve_lane(self, request: request_pb2.GenerateRequest, lane: Lane) -> None:
        """Generates one answer on an RPC that it shares with others."""
        call = current_call()
        call.received, call.key_name = lane.received, current_caller().name
        async with self._begin(request, lane, whole=lane.whole) as (reader, messages):
            await lane.deliver(reader, messages)

    @asynccontextmanager
    async def _begin(
        self, request: request_pb2.GenerateRequest, context: CallContext, *, whole: bool
    ) -> "AsyncIterator[tuple[Reader, AnswerMessages]]":
        """What every request begins with; its label first, so that every error has it."""
        call, caller = current_call(), current_caller()
        translation.take_label(request, call)
        caller.check_adapter(request.adapter)
        self._generations.check_open()
        again = any(name == _ATTEMPTS for name, _ in context.invocation_metadata() or ())
        with caller.hold():
            model = self._generations.model()
            asked = translation.engine_request(request, model, self._deployment, call)
            call.model, call.asked, call.is_streamed = model.model, asked, not whole
            ticket = translation.ticket(request, context.time_remaining(), whole=whole, again=again)
            async with self._generations.open(asked, ticket, call) as reader:
                yield reader, AnswerMessages(call, model, asked)

    async def CountTokens(  # noqa: N802 - gRPC's name
        self,
        request: wire.CountTokensRequest,
        context: ServicerContext,  # noqa: ARG002 - gRPC's signature
    ) -> wire.CountTokensResponse:
        """Counts the tokens of an input."""
        self._generations.check_open()
        content = translation.count_tokens_input(request, self._generations.model(), self._deployment)
        with current_caller().hold():
            return wire.CountTokensResponse(prompt_tokens=await self._generations.count_tokens(content))

    async def GetModel(  # noqa: N802 - gRPC's name
        self,
        request: model_pb2.GetModelRequest,  # noqa: ARG002 - gRPC's signature
        context: ServicerContext,  # noqa: ARG002
    ) -> model_pb2.GetModelResponse:
        """Tells what is served."""
        model = self._generations.model()
        return model_pb2.GetModelResponse(
            model=model.model,
            revision=model.revision,
            engine=model.engine,
            engine_version=model.engine_version,
            profile=model.profile,
            server_version=server_version(),
            features=translation.features(model),
            limits=translation.limits(
                model,
                self._deployment,
                max_queued=self._bounds.queued,
                max_message_bytes=self._bounds.message_bytes,
            ),
            default_sampling=translation.default_sampling(model, self._deployment),
            adapters=sorted(model.adapters),
        )
