"""GenerationService: each method translates, and leaves the work to others."""

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1 import generation_service_pb2_grpc, model_pb2, request_pb2
from doherty_service import translation
from doherty_service._generations import Generations
from doherty_service._version import server_version
from doherty_service.latency import Call, current_call
from doherty_service.security import current_caller
from doherty_service.translation import Deployment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from doherty_engine import EngineRequest, ModelInfo, TokenLogprob
    from doherty_service._readers import Reader

_ATTEMPTS = "doherty-attempts"
"""The metadata of a request that was sent before; what gRPC's own retries have for it, core keeps to itself."""

ServicerContext = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")


class GenerationServicer(generation_service_pb2_grpc.GenerationServiceServicer):
    """Serves one engine."""

    def __init__(
        self, generations: Generations, deployment: Deployment, *, max_queued: int, max_message_bytes: int
    ) -> None:
        """The bounds are told by GetModel; they are kept elsewhere."""
        self._generations = generations
        self._deployment = deployment
        self._max_queued = max_queued
        self._max_message_bytes = max_message_bytes

    async def Generate(self, request: request_pb2.GenerateRequest, context: ServicerContext) -> wire.GenerateResponse:  # noqa: N802 - gRPC's signature
        """Generates one whole answer."""
        texts: list[str] = []
        token_ids: list[int] | None = []
        logprobs: list[TokenLogprob] | None = []
        async with self._begin(request, context, whole=True) as (call, model, asked, reader):
            while True:
                output = await reader.next()
                texts.append(output.text)
                if output.token_count:
                    token_ids = _extend(token_ids, output.token_ids)
                    logprobs = _extend(logprobs, output.logprobs)
                if output.finish is not None:
                    return wire.GenerateResponse(
                        start=translation.start(call, model),
                        text="".join(texts),
                        token_ids=token_ids or (),
                        logprobs=translation.token_logprobs(tuple(logprobs or ())),
                        summary=translation.summary(output.finish, asked, call),
                    )

    async def StreamGenerate(self, request: request_pb2.GenerateRequest, context: ServicerContext) -> None:  # type: ignore[override]  # noqa: N802 - a handler that writes through the context costs less than one that yields
        """Generates one answer and sends it while it comes into being."""
        start = None
        async with self._begin(request, context, whole=False) as (call, model, asked, reader):
            while True:
                output = await reader.next()
                delta = translation.delta(output)
                if delta is None and output.finish is None:
                    continue  # the engine has read the prompt, which is told together with the first token
                reply = wire.StreamGenerateResponse(delta=delta)
                if start is None:
                    start = translation.start(call, model)
                    reply.start.CopyFrom(start)
                if output.finish is not None:
                    reply.summary.CopyFrom(translation.summary(output.finish, asked, call))
                reader.writes_since = time.monotonic()
                await context.write(reply)
                reader.writes_since = None
                if output.finish is not None:
                    return

    @asynccontextmanager
    async def _begin(
        self, request: request_pb2.GenerateRequest, context: ServicerContext, *, whole: bool
    ) -> "AsyncIterator[tuple[Call, ModelInfo, EngineRequest, Reader]]":
        """What both calls begin with; its label first, so that every error has it."""
        call, caller = current_call(), current_caller()
        translation.take_label(request, call)
        caller.check_adapter(request.adapter)
        self._generations.check_open()
        again = any(name == _ATTEMPTS for name, _ in context.invocation_metadata() or ())
        with caller.hold():
            model = self._generations.model()
            asked = translation.engine_request(request, model, self._deployment, call)
            call.model, call.asked = model.model, asked
            ticket = translation.ticket(request, context.time_remaining(), whole=whole, again=again)
            async with self._generations.open(asked, ticket, call) as reader:
                yield call, model, asked, reader

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
                max_queued=self._max_queued,
                max_message_bytes=self._max_message_bytes,
            ),
            default_sampling=translation.default_sampling(model, self._deployment),
            adapters=sorted(model.adapters),
        )


def _extend(known: list[T] | None, more: tuple[T, ...] | None) -> list[T] | None:
    """What is known of the whole answer: nothing once a part of it is not."""
    if known is None or more is None:
        return None
    known.extend(more)
    return known
