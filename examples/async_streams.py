"""Streams two answers at the same time, and cancels one of them: `python examples/async_streams.py`.

The server is the environment's DOHERTY_TARGET, else localhost:50051.
"""

import asyncio

from doherty import AsyncClient


async def first_words(client: AsyncClient, prompt: str, most: int) -> str:
    """The first words of an answer; leaving the block early ends the request at the server."""
    async with client.stream_generate(prompt) as stream:
        async for _ in stream:
            if len(stream.text.split()) >= most:
                break
        return stream.text


async def whole(client: AsyncClient, prompt: str) -> str:
    """A whole answer, piece by piece, and how fast it was."""
    async with client.stream_generate(prompt, max_output_tokens=40) as stream:
        async for delta in stream:
            print(delta, end="", flush=True)
        result = await stream.result()
    first = result.timings.time_to_first_token or 0
    return f"{result.usage.output_tokens} tokens, the first after {first * 1000:.0f} ms"


async def main() -> None:
    """Runs both on one client."""
    async with AsyncClient() as client:
        await client.wait_ready()
        pace, words = await asyncio.gather(
            whole(client, "Why is the sky blue?"), first_words(client, "Write one sentence about the ocean.", 3)
        )
    print(f"\n{pace}\nthe other one was stopped after: {words}")


if __name__ == "__main__":
    asyncio.run(main())
