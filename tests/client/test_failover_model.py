"""Streams of a real model whose connection is cut in the middle."""

import asyncio
from typing import Any

import pytest

from doherty import AsyncClient, AsyncGenerationStream, GenerateOptions, TokenIds
from support.proxy import proxy
from support.server import ServerProcess

pytestmark = pytest.mark.model

PROMPTS = ("Why is the sky blue?", "What is a cat? 🐈", "Erzähle mir von München.")
GREEDY: dict[str, Any] = {"temperature": 0, "max_output_tokens": 60, "timeout": 180}


async def _held(stream: AsyncGenerationStream[None], ids: list[int]) -> str:
    """Reads until the stream resumes, and returns the text before that; adds its token ids to `ids`."""
    text = stream.text
    async for delta in stream:
        if stream.resumed:
            return text
        ids += delta.token_ids or ()
        text = stream.text
    raise AssertionError("the answer was complete before the connection was cut")


async def test_a_resumed_answer_is_the_part_before_the_cut_and_its_continuation(
    model_server: ServerProcess,
) -> None:
    """Sends one prompt after the other, because requests that run at the same time change how numbers are rounded."""
    options = GenerateOptions(token_ids=True, ignore_eos=True)
    with proxy(model_server.target) as wire:
        async with AsyncClient(wire.target) as client, AsyncClient(model_server.target) as direct:
            for prompt in PROMPTS:
                stream = client.stream_generate(prompt, **GREEDY, options=options)
                ids: list[int] = []
                for _ in range(5):
                    ids += (await anext(stream)).token_ids or ()
                wire.reset()
                held = await _held(stream, ids)
                answer = await stream.result()
                continued = GenerateOptions(token_ids=True, ignore_eos=True, continue_from=TokenIds(ids))
                rest = await direct.generate(prompt, **GREEDY, options=continued)
                assert answer.text == held + rest.text
                assert answer.token_ids == (*ids, *(rest.token_ids or ()))
                assert answer.usage.output_tokens == rest.usage.output_tokens


async def test_streams_that_are_cut_together(model_server: ServerProcess) -> None:
    options = GenerateOptions(token_ids=True, ignore_eos=True)
    with proxy(model_server.target) as wire:
        async with AsyncClient(wire.target) as client:
            # Generating so many tokens takes several times as long as reading all prompts, so no answer ends too soon.
            long = {**GREEDY, "max_output_tokens": 300}
            streams = [client.stream_generate(prompt, **long, options=options) for prompt in PROMPTS]
            ids = [[*((await anext(stream)).token_ids or ())] for stream in streams]
            wire.reset()
            held = await asyncio.gather(*map(_held, streams, ids))
            for stream, part, part_ids in zip(streams, held, ids, strict=True):
                answer = await stream.result()
                assert answer.text.startswith(part)
                assert answer.token_ids is not None
                assert answer.token_ids[: len(part_ids)] == tuple(part_ids)
                assert len(answer.token_ids) == answer.usage.output_tokens
