"""The servicer of SMG and TensorRT-LLM on grpc.aio: `python -m transport_bench.servers.naive LOG [KEY=VALUE...]`.

An async generator sends one message per token, and each request has a queue and an event, as in SMG's
GrpcRequestManager. It lacks two costs of the originals: the process and socket between engine and servicer, and the
conversion of each token's log probabilities. The pairs are options of the synthetic engine.
"""

import asyncio
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import uvloop

from doherty.v1 import answer_pb2, request_pb2
from doherty.v1 import generation_service_pb2 as wire
from doherty_engine import (
    Conversation,
    Engine,
    EngineRequest,
    FinishReason,
    Message,
    Role,
    StepOutput,
    Stopping,
    create_engine,
)
from transport_bench.engine_log import LoggedEngine
from transport_bench.servers.ready import tell_ready

_SERVICE = wire.DESCRIPTOR.services_by_name["GenerationService"].full_name
_FINISH_REASONS = {
    FinishReason.STOP: answer_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: answer_pb2.FINISH_REASON_LENGTH,
}


@dataclass
class _State:
    """The state of one request."""

    out_queue: "asyncio.Queue[StepOutput]" = field(default_factory=asyncio.Queue)
    event: asyncio.Event = field(default_factory=asyncio.Event)


class RequestManager:
    """Connects the engine and the handlers."""

    def __init__(self, engine: Engine) -> None:
        """Serves one engine."""
        self._engine = engine
        self._states: dict[str, _State] = {}

    async def start(self) -> None:
        """Starts the engine."""
        await self._engine.start(self._handle_batch_output)

    def _handle_batch_output(self, outputs: Sequence[StepOutput]) -> None:
        for output in outputs:
            state = self._states.get(output.key)
            if state is not None:
                state.out_queue.put_nowait(output)
                state.event.set()

    async def generate(self, request: request_pb2.GenerateRequest) -> AsyncIterator[StepOutput]:
        """Yields the outputs of a request."""
        key = uuid.uuid4().hex
        state = self._states[key] = _State()
        handle = self._engine.submit(
            EngineRequest(
                key,
                Conversation((Message(Role.USER, request.prompt),)),
                stopping=Stopping(
                    max_output_tokens=request.stopping.max_output_tokens, ignore_eos=request.stopping.ignore_eos
                ),
            )
        )
        try:
            while True:
                output = await state.out_queue.get()
                yield output
                if output.finish is not None:
                    break
        finally:
            del self._states[key]
            handle.abort()


class Servicer:
    """Converts outputs to messages."""

    def __init__(self, manager: RequestManager) -> None:
        """Uses a manager."""
        self._manager = manager

    async def stream_generate(
        self, request: request_pb2.GenerateRequest, _: object
    ) -> AsyncIterator[wire.StreamGenerateResponse]:
        """Sends every token in its own message."""
        is_first = True
        async for output in self._manager.generate(request):
            reply = wire.StreamGenerateResponse(
                delta=answer_pb2.Delta(text=output.text, token_count=output.token_count)
            )
            if is_first:
                reply.start.CopyFrom(_start(request, output))
                is_first = False
            if output.finish is not None:
                reply.summary.CopyFrom(_summary(output))
            yield reply

    async def generate(self, request: request_pb2.GenerateRequest, _: object) -> wire.GenerateResponse:
        """Sends the whole answer."""
        reply = wire.GenerateResponse()
        texts: list[str] = []
        async for output in self._manager.generate(request):
            texts.append(output.text)
            if output.started is not None:
                reply.start.CopyFrom(_start(request, output))
            if output.finish is not None:
                reply.summary.CopyFrom(_summary(output))
        reply.text = "".join(texts)
        return reply

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the two methods."""
        parse = request_pb2.GenerateRequest.FromString
        handlers = {
            "StreamGenerate": grpc.unary_stream_rpc_method_handler(
                self.stream_generate, parse, wire.StreamGenerateResponse.SerializeToString
            ),
            "Generate": grpc.unary_unary_rpc_method_handler(
                self.generate, parse, wire.GenerateResponse.SerializeToString
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))


def _start(request: request_pb2.GenerateRequest, output: StepOutput) -> answer_pb2.Start:
    prompt_tokens = output.started.prompt_tokens if output.started else 0
    return answer_pb2.Start(request_id=request.request_id, model="synthetic", prompt_tokens=prompt_tokens)


def _summary(output: StepOutput) -> answer_pb2.Summary:
    if output.finish is None:
        raise ValueError("only the last output has a summary")
    return answer_pb2.Summary(
        finish_reason=_FINISH_REASONS[output.finish.reason],
        usage=answer_pb2.Usage(output_tokens=output.finish.output_tokens),
    )


async def serve(log: Path, options: dict[str, str]) -> None:
    """Serves until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    manager = RequestManager(LoggedEngine(create_engine("synthetic", options), log))
    await manager.start()
    server = grpc.aio.server()
    Servicer(manager).add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    tell_ready(f"127.0.0.1:{port}")
    await stopping.wait()
    await server.stop(0)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1]), dict(pair.split("=", 1) for pair in sys.argv[2:])))
