"""The services of a fake server."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from doherty._core._deployment import Latency, ModelInfo
from doherty._core._errors import RpcError
from doherty._core._event_log import REQUEST_ID
from doherty._core._from_wire import optional
from doherty._core._health import Health
from doherty._core._results import ReplyMetadata
from doherty.testing._answer import Admit, CutOffError, PlayedAnswer, joined
from doherty.testing._multiplex import MultiplexedCalls
from doherty.testing._request import Request, Rpc, count_request_from_wire, request_from_wire
from doherty.testing._to_wire import (
    as_rpc_error,
    fill,
    latency_to_wire,
    server_timing,
    status_of,
    trailing_metadata,
)
from doherty.v1 import generation_service_pb2 as wire
from doherty.v1.generation_service_pb2_grpc import GenerationServiceServicer
from doherty.v1.latency_service_pb2_grpc import LatencyServiceServicer
from doherty.v1.model_pb2 import GetModelResponse

if TYPE_CHECKING:
    from doherty.testing._calls import Calls
    from doherty.testing._script import Replies
    from doherty.v1.latency_service_pb2 import GetLatencyRequest, GetLatencyResponse
    from doherty.v1.model_pb2 import GetModelRequest
    from doherty.v1.request_pb2 import GenerateRequest

_HEALTH: Final = {Health.SERVING: 1, Health.NOT_SERVING: 2}


class Scripted(Protocol):
    """The results of a fake server other than answers. They are read for each call, because a test may set them."""

    model: ModelInfo | RpcError
    health: Health
    count_requests: list[Request]
    count_tokens: Callable[[Request], int]

    @property
    def latency(self) -> Latency | RpcError: ...


class Generation(GenerationServiceServicer):
    """Sends the replies that the test defined."""

    def __init__(self, server: Scripted, replies: "Replies", calls: "Calls") -> None:
        self._server = server
        self._replies = replies
        self._calls = calls

    def Generate(  # noqa: N802 - the name in the contract
        self, request: "GenerateRequest", context: grpc.ServicerContext
    ) -> wire.GenerateResponse:
        trailing: list[tuple[str, str | bytes]] = []
        admit = partial(begin_reply, context, trailing)
        with self._calls.running_call(context) as ended:
            try:
                answer = joined(self._play(request, "Generate", ended, context, admit=admit))
            except Exception as error:  # noqa: BLE001 - the caller gets the error of a test's function
                fail(context, error, request.request_id)
        context.set_trailing_metadata((*trailing, server_timing(answer.summary.timings)))
        delta = answer.delta
        return wire.GenerateResponse(
            start=answer.start,
            text=delta.text,
            token_ids=delta.token_ids,
            logprobs=delta.logprobs,
            summary=answer.summary,
        )

    def StreamGenerate(  # noqa: N802
        self, request: "GenerateRequest", context: grpc.ServicerContext
    ) -> Iterator[wire.StreamGenerateResponse]:
        trailing: list[tuple[str, str | bytes]] = []
        admit = partial(begin_reply, context, trailing)
        with self._calls.running_call(context) as ended:
            try:
                for message in self._play(request, "StreamGenerate", ended, context, admit=admit):
                    if message.HasField("summary"):
                        context.set_trailing_metadata((*trailing, server_timing(message.summary.timings)))
                    yield message
            except Exception as error:  # noqa: BLE001
                fail(context, error, request.request_id)

    def MultiplexGenerate(  # noqa: N802
        self, request_iterator: Iterator[wire.MultiplexGenerateRequest], context: grpc.ServicerContext
    ) -> Iterator[wire.MultiplexGenerateResponse]:
        def play(
            start: wire.MultiplexStart, ended: threading.Event, admit: Admit
        ) -> Iterator[wire.StreamGenerateResponse]:
            timeout: float | None = optional(start, "timeout")
            return self._play(start.request, "MultiplexGenerate", ended, context, timeout=timeout, admit=admit)

        tells_admission = metadata_of(context).get("doherty-tell-admission") == "1"
        calls = MultiplexedCalls(play, self._calls, tells_admission=tells_admission)
        with self._calls.running_rpc(context, calls.cut_off):
            try:
                yield from calls.responses(request_iterator)
            except CutOffError as error:
                fail(context, error, "")

    def CountTokens(  # noqa: N802
        self, request: wire.CountTokensRequest, context: grpc.ServicerContext
    ) -> wire.CountTokensResponse:
        timeout, metadata = context.time_remaining(), metadata_of(context)
        asked = count_request_from_wire(request, timeout=timeout, metadata=metadata)
        self._server.count_requests.append(asked)
        try:
            return wire.CountTokensResponse(prompt_tokens=self._server.count_tokens(asked))
        except Exception as error:  # noqa: BLE001
            fail(context, error, "")

    def GetModel(  # noqa: N802
        self, request: "GetModelRequest", context: grpc.ServicerContext
    ) -> GetModelResponse:
        del request  # has no fields
        if isinstance(self._server.model, RpcError):
            fail(context, self._server.model, "")
        return fill(GetModelResponse(), self._server.model)

    def _play(  # noqa: PLR0913 - the parts of a request
        self,
        request: "GenerateRequest",
        rpc: Rpc,
        ended: threading.Event,
        context: grpc.ServicerContext,
        *,
        timeout: float | None = None,
        admit: Admit,
    ) -> Iterator[wire.StreamGenerateResponse]:
        received = monotonic()
        if rpc != "MultiplexGenerate":
            timeout = context.time_remaining()
        server = self._server
        asked = request_from_wire(request, rpc, timeout=timeout, metadata=metadata_of(context))
        answer = PlayedAnswer(asked, self._replies.take(asked), ended, received)
        model = "" if isinstance(server.model, RpcError) else server.model.model
        yield from answer.messages(model, server.count_tokens(asked), admit)


class LatencyService(LatencyServiceServicer):
    """Sends the latency that the test set, or else the real figures."""

    def __init__(self, server: Scripted) -> None:
        self._server = server

    def GetLatency(  # noqa: N802
        self, request: "GetLatencyRequest", context: grpc.ServicerContext
    ) -> "GetLatencyResponse":
        del request  # the window does not matter
        if isinstance(self._server.latency, RpcError):
            fail(context, self._server.latency, "")
        return latency_to_wire(self._server.latency)


def health_handler(server: Scripted) -> grpc.GenericRpcHandler:
    """grpc.health.v1, whose messages have the bytes of well-known ones."""

    def check(request: StringValue, context: grpc.ServicerContext) -> Int32Value:
        del request, context  # all services have the health of the server
        return Int32Value(value=_HEALTH.get(server.health, 0))

    method = grpc.unary_unary_rpc_method_handler(check, StringValue.FromString, Int32Value.SerializeToString)
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method})


def begin_reply(
    context: grpc.ServicerContext, trailing: list[tuple[str, str | bytes]], request_id: str, metadata: ReplyMetadata
) -> None:
    """Sends the initial metadata, and notes the trailing metadata."""
    context.send_initial_metadata(((REQUEST_ID, request_id), *metadata.initial.items()))
    trailing += metadata.trailing.items()


def metadata_of(context: grpc.ServicerContext) -> dict[str, str | bytes]:
    """Returns the metadata of an RPC."""
    return dict(context.invocation_metadata())


def fail(context: grpc.ServicerContext, error: Exception, request_id: str) -> NoReturn:
    """Ends a call with the status of an error."""
    if isinstance(error, CutOffError | grpc.RpcError):  # grpc's own means that the caller has left
        context.abort(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
    known = as_rpc_error(error)
    status = status_of(known, request_id)
    context.set_trailing_metadata(trailing_metadata(known, status))
    context.abort(known.code, known.message)
