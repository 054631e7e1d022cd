"""The clients of the servers. Each makes requests, and records when each part of an answer arrives."""

import asyncio
import gc
import json
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from random import Random
from time import perf_counter
from typing import Any

from _records import Order, Record, checked
from _rust import rust
from _shape import as_ids, as_text, prompt_ids, prompt_text
from doherty import AsyncClient, GenerateOptions, RawText
from doherty.cli import QUESTIONS

Prompt = list[int] | str
"""The token ids of a prompt without a template, or the text of a user."""
Ask = Callable[[Prompt, int, int], Awaitable[Record]]
"""Makes a request with a prompt, a seed and a number of tokens for the answer."""
Driver = Callable[[Order], AbstractAsyncContextManager[Ask]]

_WARM_TOKENS = 4


async def warm_up(ask: Ask, order: Order) -> None:
    """Connects, and causes all imports and compilations that an answer needs."""
    await _make(ask, replace(order, requests=order.streams, tokens=_WARM_TOKENS, seed=order.seed + 1))


async def carry_out(ask: Ask, order: Order, start_at: float) -> list[Record]:
    """Makes the requests of an order. All generators start at the same time."""
    await asyncio.sleep(start_at - perf_counter())
    return await _make(ask, order)


async def _make(ask: Ask, order: Order) -> list[Record]:
    random = Random(order.seed)  # noqa: S311 - prompts
    prompts: list[Prompt] = [prompt_ids(random, order.prompt_tokens) for _ in range(order.requests)]
    if order.questions:
        prompts = list(QUESTIONS)
    requests = iter([(prompt, random.getrandbits(31)) for prompt in prompts])
    records: list[Record] = []

    async def work() -> None:
        for prompt, seed in requests:
            records.append(await ask(prompt, seed, order.tokens))

    async with asyncio.TaskGroup() as streams:
        for _ in range(order.streams):
            streams.create_task(work())
    return records


@asynccontextmanager
async def doherty(order: Order, *, multiplex: bool) -> AsyncIterator[Ask]:
    """Makes requests with our SDK."""
    options = GenerateOptions(ignore_eos=True)
    async with AsyncClient(order.target, multiplex=multiplex) as client:

        async def ask(prompt: Prompt, seed: int, tokens: int) -> Record:
            record, count = Record(perf_counter()), 0
            async for delta in client.stream_generate(
                prompt if isinstance(prompt, str) else RawText(prompt_text(prompt)),
                max_output_tokens=tokens,
                temperature=order.temperature,
                top_p=order.top_p,
                seed=seed,
                options=options,
            ):
                if delta.token_count:
                    record.arrivals.append(perf_counter())
                    count += delta.token_count
            return checked(record, count, tokens)

        yield ask


@asynccontextmanager
async def sse(order: Order) -> AsyncIterator[Ask]:
    """Makes requests to vLLM's OpenAI server with minimal HTTP, on one connection per stream."""
    host, _, port = order.target.partition(":")
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(prompt: Prompt, seed: int, tokens: int) -> Record:
        record, count = Record(perf_counter()), 0
        body = {
            "model": "m",
            "prompt": as_text(prompt),
            "max_tokens": tokens,
            "temperature": order.temperature,
            "top_p": order.top_p,
            "seed": seed,
            "ignore_eos": True,
            "stream": True,
        }
        data = json.dumps(body).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {order.target}\r\nContent-Type: application/json\r\n"
        reader, writer = idle.pop() if idle else await asyncio.open_connection(host, int(port), limit=1 << 20)
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"{status!r} {await reader.read(1000)!r}")
        # Each event is one chunk, so its line is complete. The chunk of length 0 is the end.
        while (line := await reader.readline()) != b"0\r\n":
            if not line:
                raise RuntimeError("the connection was closed")
            if line.startswith(b"data: {"):
                (choice,) = json.loads(line[6:])["choices"]
                if choice["text"]:
                    record.arrivals.append(perf_counter())
                    count += len(choice["text"].split())
        await reader.readline()
        idle.append((reader, writer))
        return checked(record, count, tokens)

    try:
        yield ask
    finally:
        for _, writer in idle:
            writer.close()


@asynccontextmanager
async def smg(order: Order) -> AsyncIterator[Ask]:
    """Makes requests to vLLM's own gRPC server, which receives and returns token ids."""
    import grpc.aio  # noqa: PLC0415 - where the server is measured, both are there
    from smg_grpc_proto import vllm_engine_pb2, vllm_engine_pb2_grpc  # noqa: PLC0415

    async with grpc.aio.insecure_channel(order.target) as channel:
        stub: Any = vllm_engine_pb2_grpc.VllmEngineStub(channel)

        async def ask(prompt: Prompt, seed: int, tokens: int) -> Record:
            record, count = Record(perf_counter()), 0
            request = vllm_engine_pb2.GenerateRequest(
                request_id=f"{seed}-{record.begun}",
                tokenized=vllm_engine_pb2.TokenizedInput(input_ids=as_ids(prompt)),
                sampling_params=vllm_engine_pb2.SamplingParams(
                    temperature=order.temperature,
                    top_p=order.top_p,
                    repetition_penalty=1.0,
                    max_tokens=tokens,
                    ignore_eos=True,
                    n=1,
                    seed=seed,
                ),
                stream=True,
            )
            async for reply in stub.Generate(request):
                if reply.chunk.token_ids:
                    record.arrivals.append(perf_counter())
                    count += len(reply.chunk.token_ids)
            return checked(record, count, tokens)

        yield ask


@asynccontextmanager
async def lean(order: Order) -> AsyncIterator[Ask]:
    """A client of our server that costs less than the SDK."""
    from _lean import connect  # noqa: PLC0415 - needs ngh2, which the other drivers do without

    async with connect(order) as ask:
        yield ask


DRIVERS: dict[str, Driver] = {
    "stream": partial(doherty, multiplex=False),
    "multiplex": partial(doherty, multiplex=True),
    "http2-stream": partial(doherty, multiplex=False),
    "http2-multiplex": partial(doherty, multiplex=True),
    "lean": lean,
    "http2-lean": lean,
    "sse": sse,
    "smg": smg,
    "rust": rust,
}
"""The drivers, by their names in orders."""


async def serve(
    drivers: Mapping[str, Driver], receive: Callable[[], Awaitable[Any]], tell: Callable[[object], Awaitable[None]]
) -> None:
    """Carries out orders until there are no more. Reports when it is ready, and then the result."""
    with suppress(EOFError):
        while True:
            order = Order(**await receive())
            try:
                async with drivers[order.driver](order) as ask:
                    await warm_up(ask, order)
                    gc.collect()
                    gc.freeze()  # otherwise, a collection of all objects would look like a pause of the server
                    await tell({"ready": True})
                    records = await carry_out(ask, order, (await receive())["start_at"])
            except Exception as error:  # noqa: BLE001 - whoever gave the order is told
                await tell({"error": f"{order.driver}: {''.join(traceback.format_exception(error))}"})
            else:
                await tell({"records": [(record.begun, record.arrivals) for record in records]})
