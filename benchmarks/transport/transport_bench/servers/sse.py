"""An OpenAI-style server on FastAPI and uvicorn: `python -m transport_bench.servers.sse LOG [KEY=VALUE...]`.

It streams like vLLM: outputs that the engine generates faster than they are sent are merged, a chunk is a pydantic
model, and the first chunk contains only the role. It lacks two costs of vLLM: the engine process, and a task per
request that notices when the caller leaves. The pairs are options of the synthetic engine.
"""

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from doherty_engine import Conversation, Engine, EngineRequest, Role, StepOutput, Stopping, create_engine
from doherty_engine import Message as EngineMessage
from transport_bench.engine_log import LoggedEngine
from transport_bench.servers.ready import tell_ready


class Message(BaseModel):
    """One turn of a conversation."""

    role: str
    content: str


class StreamOptions(BaseModel):
    """The options of a stream."""

    include_usage: bool = False


class ChatCompletionRequest(BaseModel):
    """A request."""

    model: str
    messages: list[Message]
    max_tokens: int
    ignore_eos: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None


class DeltaMessage(BaseModel):
    """The new part of an answer."""

    role: str | None = None
    content: str | None = None


class Choice(BaseModel):
    """One of the answers; there is always one."""

    index: int
    delta: DeltaMessage
    logprobs: None = None
    finish_reason: str | None = None


class Usage(BaseModel):
    """The numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletionChunk(BaseModel):
    """One event of a stream."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


class Collector:
    """The outputs of one request. Outputs that were not fetched yet are merged."""

    def __init__(self) -> None:
        """Starts empty."""
        self._outputs: list[StepOutput] = []
        self._ready = asyncio.Event()

    def put(self, output: StepOutput) -> None:
        """Adds an output."""
        self._outputs.append(output)
        self._ready.set()

    async def get(self) -> list[StepOutput]:
        """Waits for outputs, and returns all of them."""
        while not self._outputs:
            await self._ready.wait()
        outputs, self._outputs = self._outputs, []
        self._ready.clear()
        return outputs


class Generator:
    """Connects the engine and the handlers."""

    def __init__(self, engine: Engine) -> None:
        """Serves one engine."""
        self._engine = engine
        self._collectors: dict[str, Collector] = {}

    async def start(self) -> None:
        """Starts the engine."""
        await self._engine.start(self._handle)

    def _handle(self, outputs: Sequence[StepOutput]) -> None:
        for output in outputs:
            collector = self._collectors.get(output.key)
            if collector is not None:
                collector.put(output)

    async def generate(self, request: ChatCompletionRequest) -> AsyncIterator[list[StepOutput]]:
        """Yields the outputs of a request."""
        key = uuid.uuid4().hex
        collector = self._collectors[key] = Collector()
        messages = tuple(EngineMessage(Role(message.role), message.content) for message in request.messages)
        stopping = Stopping(max_output_tokens=request.max_tokens, ignore_eos=request.ignore_eos)
        handle = self._engine.submit(EngineRequest(key, Conversation(messages), stopping=stopping))
        try:
            while True:
                outputs = await collector.get()
                yield outputs
                if outputs[-1].finish is not None:
                    break
        finally:
            del self._collectors[key]
            handle.abort()

    async def chunks(self, request: ChatCompletionRequest) -> AsyncIterator[str]:
        """Yields the events of a stream."""
        name = f"chatcmpl-{uuid.uuid4().hex}"
        created = int(time.time())
        prompt_tokens = completion_tokens = 0

        def event(choices: list[Choice], **more: Any) -> str:
            chunk = ChatCompletionChunk(
                id=name, object="chat.completion.chunk", created=created, model=request.model, choices=choices, **more
            )
            return f"data: {chunk.model_dump_json(exclude_unset=True)}\n\n"

        is_first = True
        async for outputs in self.generate(request):
            if is_first:
                started = outputs[0].started
                prompt_tokens = started.prompt_tokens if started else 0
                yield event([Choice(index=0, delta=DeltaMessage(role="assistant", content=""), finish_reason=None)])
                is_first = False
            finish = outputs[-1].finish
            text = "".join(output.text for output in outputs)
            yield event(
                [
                    Choice(
                        index=0,
                        delta=DeltaMessage(content=text),
                        logprobs=None,
                        finish_reason=finish.reason.value if finish else None,
                    )
                ]
            )
            completion_tokens += sum(output.token_count for output in outputs)
        if request.stream_options and request.stream_options.include_usage:
            total = prompt_tokens + completion_tokens
            usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, total_tokens=total)
            yield event([], usage=usage)
        yield "data: [DONE]\n\n"


def make_app(generator: Generator) -> FastAPI:
    """Creates the application."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await generator.start()
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/chat/completions")
    async def create_chat_completion(request: ChatCompletionRequest) -> StreamingResponse:
        return StreamingResponse(generator.chunks(request), media_type="text/event-stream")

    return app


class _Server(uvicorn.Server):
    """Reports the address."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        tell_ready("{}:{}".format(*self.servers[0].sockets[0].getsockname()))


def main() -> None:
    """Serves until SIGTERM."""
    options = dict(pair.split("=", 1) for pair in sys.argv[2:])
    app = make_app(Generator(LoggedEngine(create_engine("synthetic", options), Path(sys.argv[1]))))
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
    _Server(config).run()


if __name__ == "__main__":
    main()
