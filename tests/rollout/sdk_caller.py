"""A program with the SDK: `sdk_caller.py STREAMS ADDRESS...` keeps so many streams running until its input ends.

Half of them go through a client with a list of addresses, half through one gRPC channel to all of them. It writes its
results to standard error, as lines of JSON.
"""

import asyncio
import json
import sys
from collections import Counter
from typing import Any

from doherty import AsyncClient, DohertyError, GenerateOptions

TOKENS = 50
"""The number of tokens of each answer."""
OPTIONS = GenerateOptions(ignore_eos=True)
TIMEOUT = 60.0


class Streams:
    """Runs one stream after another, and counts how they ended."""

    def __init__(self) -> None:
        self.complete = self.torn = self.resumed = 0
        self.failed: Counter[str] = Counter()
        self.stopping = False

    async def run(self, client: AsyncClient, prompt: str) -> None:
        """Sends the same request again and again. Each answer must equal the first one, even if a server is lost."""
        expected = (await client.generate(prompt, max_output_tokens=TOKENS, options=OPTIONS)).text
        while not self.stopping:
            stream = client.stream_generate(prompt, max_output_tokens=TOKENS, options=OPTIONS, timeout=TIMEOUT)
            text = ""
            try:
                async for delta in stream:
                    text += delta.text
                generation = await stream.result()
            except DohertyError as error:
                self.failed[f"{type(error).__name__}: {error}"] += 1
            else:
                self.complete += 1
                self.torn += not (text == generation.text == expected)
            self.resumed += stream.resumed


def write(event: str, **fields: Any) -> None:
    """Writes a line."""
    sys.stderr.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stderr.flush()


async def main(count: int, addresses: list[str]) -> None:
    """Runs the streams."""
    streams = Streams()
    async with AsyncClient(addresses) as by_list, AsyncClient(["ipv4:" + ",".join(addresses)]) as by_channel:
        clients = (by_list, by_channel)
        running = [asyncio.create_task(streams.run(clients[number % 2], f"{number}")) for number in range(count)]
        write("calling")
        await asyncio.to_thread(sys.stdin.read)
        streams.stopping = True
        await asyncio.gather(*running)
    write("done", complete=streams.complete, torn=streams.torn, resumed=streams.resumed, failed=dict(streams.failed))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
