"""The engine without any server: `python _inprocess.py SOCKET ENGINE OPTIONS_JSON`.

Receives the orders for load generators on a Unix socket, and carries them out on an engine in this process:

* `engine`: our engine, from text to text, without a server.
* `asyncllm`: vLLM's AsyncLLM without changes, from text to text: it tokenizes and detokenizes.
* `ids`: the same from token ids to token ids, which is less work than in any server.
"""

import asyncio
import gc
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from time import perf_counter
from typing import Any

import uvloop

from _drivers import Ask, Driver, Prompt, serve
from _records import Order, Record, checked, receive, send
from _shape import as_ids, as_text, prompt_text
from doherty_engine import (
    Conversation,
    Engine,
    EngineRequest,
    Message,
    RawText,
    Role,
    Sampling,
    StepOutput,
    Stopping,
    create_engine,
)

_numbers = count()


class Desk:
    """Routes the outputs of our engine to the requests that wait for them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._open: dict[str, tuple[Record, list[int], asyncio.Future[None]]] = {}

    def sink(self, outputs: Sequence[StepOutput]) -> None:
        """Records the arrival of outputs."""
        now = perf_counter()
        for output in outputs:
            if output.key not in self._open:  # a request of the engine itself, to warm up
                continue
            record, counts, ended = self._open[output.key]
            if output.error is not None:
                ended.set_exception(output.error)
            elif output.token_count:
                record.arrivals.append(now)
                counts[0] += output.token_count
            if output.finish is not None:
                ended.set_result(None)

    @asynccontextmanager
    async def driver(self, order: Order) -> AsyncIterator[Ask]:
        """Makes requests to our engine."""

        async def ask(prompt: Prompt, seed: int, tokens: int) -> Record:
            key = f"bench-{next(_numbers)}"
            record, counts = Record(perf_counter()), [0]
            ended = asyncio.get_running_loop().create_future()
            self._open[key] = record, counts, ended
            try:
                self.engine.submit(
                    EngineRequest(
                        key,
                        Conversation((Message(Role.USER, prompt),))
                        if isinstance(prompt, str)
                        else RawText(prompt_text(prompt)),
                        Sampling(order.temperature, order.top_p, seed=seed),
                        Stopping(tokens, ignore_eos=True),
                    )
                )
                await ended
            finally:
                del self._open[key]
            return checked(record, counts[0], tokens)

        yield ask


@asynccontextmanager
async def vllm(order: Order, *, llm: Any, text: bool) -> AsyncIterator[Ask]:
    """Makes requests to vLLM's AsyncLLM."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams  # noqa: PLC0415 - not there with other engines

    async def ask(prompt: Prompt, seed: int, tokens: int) -> Record:
        record, tokens_seen = Record(perf_counter()), 0
        params = SamplingParams(
            temperature=order.temperature,
            top_p=order.top_p,
            seed=seed,
            max_tokens=tokens,
            ignore_eos=True,
            detokenize=text,
            output_kind=RequestOutputKind.DELTA,
        )
        engine_prompt = as_text(prompt) if text else {"prompt_token_ids": as_ids(prompt)}
        async for output in llm.generate(engine_prompt, params, f"bench-{next(_numbers)}"):
            (part,) = output.outputs
            if part.token_ids:
                record.arrivals.append(perf_counter())
                tokens_seen += len(part.token_ids)
        return checked(record, tokens_seen, tokens)

    yield ask


async def main(path: str, name: str, options: dict[str, str]) -> None:
    """Starts the engine, and carries out the orders of one caller after the other."""
    engine = create_engine(name, options)
    desk = Desk(engine)
    await engine.start(desk.sink)
    gc.collect()
    gc.freeze()  # as the servers do
    drivers: dict[str, Driver] = {"engine": desk.driver}
    if name == "vllm":
        llm: Any = engine._context.llm  # type: ignore[attr-defined]  # noqa: SLF001 - one model in memory is enough for all three
        drivers |= {"asyncllm": partial(vllm, llm=llm, text=True), "ids": partial(vllm, llm=llm, text=False)}

    async def take_orders(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(drivers, partial(receive, reader), partial(send, writer))
        writer.close()

    server = await asyncio.start_unix_server(take_orders, path)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
