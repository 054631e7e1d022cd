"""GenerationService. Its methods translate messages and delegate the work."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1 import generation_service_pb2_grpc, model_pb2, request_pb2
from doherty_service import translation
from doherty_service._version import server_version
from doherty_service.generation import Answer, Generations, StreamedAnswer, WholeAnswer
from doherty_service.multiplex import Multiplex
from doherty_service.security import CacheSalts
from doherty_service.telemetry import RequestRecord
from doherty_service.translation import Deployment, RequestReader

if TYPE_CHECKING:
    from doherty_service.rpc import ReceiveWatch, Reporter

_log = logging.getLogger("doherty.request")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Maximum sizes and numbers."""

    queued: int
    """Requests that wait for a slot. GetModel reports this, and admission enforces it."""
    message_bytes: int
    """Bytes of one message. GetModel reports this, and gRPC's core enforces it."""
    concurrent_streams: int
    """Open requests of one MultiplexGenerate. Further requests are not read until one ends."""


class GenerationServicer(generation_service_pb2_grpc.GenerationServiceServicer):
    """Serves one engine. Its methods get the record of the RPC in place of gRPC's context."""

    def __init__(  # noqa: PLR0913, PLR0917 - the objects to which its methods delegate
        self,
        generations: Generations,
        deployment: Deployment,
        salts: CacheSalts,
        bounds: Bounds,
        reporter: "Reporter",
        receive_watch: "ReceiveWatch",
    ) -> None:
        self._generations = generations
        self._deployment = deployment
        self._bounds = bounds
        self._reporter = reporter
        self._receive_watch = receive_watch
        self._reader = RequestReader(deployment, salts)

    async def Generate(self, request: request_pb2.GenerateRequest, record: RequestRecord) -> bytes:  # type: ignore[override]  # noqa: N802 - gRPC's name; we pass the record as the context, and return bytes
        """Generates one answer and returns it as one message."""
        answer = WholeAnswer(record)
        try:
            self.accept(answer, request)
            self.read(answer, request, whole=True)
            del request  # it may be megabytes
            await self._generations.serve(answer)
            return await self._receive_watch.turns.run(answer.reply())
        finally:
            self._generations.end_answer(answer)

    async def StreamGenerate(self, request: request_pb2.GenerateRequest, record: RequestRecord) -> None:  # type: ignore[override]  # noqa: N802 - as Generate
        """Generates one answer and sends it while it is generated."""
        answer = StreamedAnswer(record)
        self._generations.writes.add(answer)
        try:
            self.accept(answer, request)
            self.read(answer, request, whole=False)
            del request
            await self._generations.serve(answer)
        finally:
            self._generations.end_answer(answer)
            await self._generations.writes.remove(answer)

    async def MultiplexGenerate(self, _: object, record: RequestRecord) -> None:  # type: ignore[override]  # noqa: N802 - as Generate
        """Generates many answers over one RPC."""
        multiplex = Multiplex(
            record,
            self._generations,
            self._reporter,
            self._receive_watch,
            accept=self.accept,
            read=self.read,
            max_open=self._bounds.concurrent_streams,
        )
        await multiplex.run()

    def accept(self, answer: Answer, wire_request: request_pb2.GenerateRequest) -> None:
        """Does the first steps of every request. It reads the label first, so that every error contains it.

        Raises:
            ServiceError: The request is not allowed, or the server accepts none now.
        """
        record = answer.record
        translation.take_label(wire_request, record)
        if wire_request.adapter:
            record.caller.check_adapter(wire_request.adapter)
        self._generations.check_open()
        self._generations.begin_answer(answer)

    def read(self, answer: Answer, wire_request: request_pb2.GenerateRequest, *, whole: bool) -> None:
        """Validates and translates a request.

        Raises:
            ServiceError: The request is invalid, or this server does not support it.
        """
        record = answer.record
        model = answer.model = self._generations.model()
        answer.request, answer.ticket = self._reader.read(wire_request, record, model, whole=whole)
        record.model, record.engine_request, record.is_streamed = model.model, answer.request, not whole
        if answer.request.prefix is not None and answer.request.prefix.token_ids:
            record.continued_tokens = len(answer.request.prefix.token_ids)
        if _log.isEnabledFor(logging.DEBUG):
            key = {"key": record.caller.name} if record.caller.name else {}
            fields = {"rpc": record.rpc, **record.log_fields, "peer": record.peer, **key}
            _log.debug("received", extra={"fields": fields})

    async def CountTokens(  # type: ignore[override]  # noqa: N802 - as Generate
        self, request: wire.CountTokensRequest, record: RequestRecord
    ) -> bytes:
        """Counts the tokens of an input."""
        self._generations.check_open()
        content = translation.count_tokens_input(request, self._generations.model(), self._deployment)
        taken = record.caller.take()
        try:
            count = await self._generations.count_tokens(content, record.caller.name)
        finally:
            record.caller.give_back(taken)
        return wire.CountTokensResponse(prompt_tokens=count).SerializeToString()

    async def GetModel(self, request: model_pb2.GetModelRequest, record: RequestRecord) -> bytes:  # type: ignore[override]  # noqa: N802, ARG002 - as Generate
        """Describes the model and the server."""
        translation.refuse_unknown(request)
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
        ).SerializeToString()
