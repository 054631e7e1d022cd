"""A gRPC server in this process, for behavior that a real server does not show."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1.answer_pb2 import FINISH_REASON_STOP, Delta, Start, Summary, Usage
from doherty.v1.model_pb2 import GetModelRequest, GetModelResponse, Limits
from doherty.v1.request_pb2 import GenerateRequest
from support.lanes import Lanes

Handler = Callable[[GenerateRequest, grpc.ServicerContext], Iterator[wire.StreamGenerateResponse]]


class Serving:
    """The address of the server, and the requests that it received."""

    def __init__(self) -> None:
        self.target = ""
        self.requests: list[GenerateRequest] = []
        self.metadata: list[dict[str, str | bytes]] = []


def delta(text: str, *token_ids: int, start: bool = False) -> wire.StreamGenerateResponse:
    """Returns a message with a text and its token ids."""
    part = Delta(text=text, token_ids=token_ids, token_count=max(1, len(token_ids)))
    return wire.StreamGenerateResponse(start=Start(request_id="r", model="m") if start else None, delta=part)


def summary(output_tokens: int = 1) -> wire.StreamGenerateResponse:
    """Returns the last message of an answer."""
    usage = Usage(prompt_tokens=1, output_tokens=output_tokens)
    return wire.StreamGenerateResponse(summary=Summary(finish_reason=FINISH_REASON_STOP, usage=usage, seed=7))


def answer(text: str = "fine") -> list[wire.StreamGenerateResponse]:
    """Returns the messages of a complete answer."""
    return [delta(text, 1, start=True), summary()]


@contextmanager
def serve(  # noqa: PLR0913 - what a test may want to change
    handler: Handler,
    *,
    credentials: grpc.ServerCredentials | None = None,
    address: str = "127.0.0.1:0",
    message_bytes: int = 4 << 20,
    reported_bytes: int = 4 << 20,
    reported_model: str = "m",
) -> Iterator[Serving]:
    """Runs a server whose three generation calls are answered by `handler`, until the end of the block.

    It accepts messages of up to `message_bytes`, but GetModel reports the limit `reported_bytes` and the model
    `reported_model`.
    """
    serving = Serving()

    def stream(request: GenerateRequest, context: grpc.ServicerContext) -> Iterator[wire.StreamGenerateResponse]:
        serving.requests.append(request)
        serving.metadata.append(dict(context.invocation_metadata()))
        yield from handler(request, context)

    def generate(request: GenerateRequest, context: grpc.ServicerContext) -> wire.GenerateResponse:
        messages = list(stream(request, context))
        text = "".join(message.delta.text for message in messages)
        return wire.GenerateResponse(start=messages[0].start, text=text, summary=messages[-1].summary)

    def multiplex(
        messages: Iterator[wire.MultiplexGenerateRequest], context: grpc.ServicerContext
    ) -> Iterator[wire.MultiplexGenerateResponse]:
        yield from Lanes(stream, context).run(messages)

    def model(_: GetModelRequest, __: grpc.ServicerContext) -> GetModelResponse:
        return GetModelResponse(model=reported_model, limits=Limits(max_message_bytes=reported_bytes))

    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Generate": grpc.unary_unary_rpc_method_handler(
            generate, GenerateRequest.FromString, wire.GenerateResponse.SerializeToString
        ),
        "StreamGenerate": grpc.unary_stream_rpc_method_handler(
            stream, GenerateRequest.FromString, wire.StreamGenerateResponse.SerializeToString
        ),
        "MultiplexGenerate": grpc.stream_stream_rpc_method_handler(
            multiplex, wire.MultiplexGenerateRequest.FromString, wire.MultiplexGenerateResponse.SerializeToString
        ),
        "GetModel": grpc.unary_unary_rpc_method_handler(
            model, GetModelRequest.FromString, GetModelResponse.SerializeToString
        ),
    }
    with ThreadPoolExecutor(16) as threads:
        options = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", message_bytes))
        server = grpc.server(threads, options=options)
        service = wire.DESCRIPTOR.services_by_name["GenerationService"].full_name
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        serving.target = address.replace(":0", f":{port}")
        server.start()
        try:
            yield serving
        finally:
            server.stop(None).wait()
