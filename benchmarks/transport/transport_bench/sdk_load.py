"""A load generator that uses the SDK: `python -m transport_bench.sdk_load`, with the flags of the load generator.

The protocol is sdk or sdk-multiplex. The client is created as in a user's program, on uvloop.
"""

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import uvloop

from doherty import AsyncClient, GenerateOptions
from transport_bench.engine_log import PROMPT
from transport_bench.machine import cpu_seconds

_OPTIONS = GenerateOptions(ignore_eos=True)
_TIMEOUT = 60.0


@dataclass
class Request:
    """One request, as in the load generator's recorder.h. Times are in seconds."""

    number: int
    sent: float
    times: list[float] = field(default_factory=list)
    characters: list[int] = field(default_factory=list)
    tokens: int = -1

    def told(self) -> dict[str, Any]:
        """Returns the request as the load generator prints it."""
        return vars(self) | {
            "sent": _nanoseconds(self.sent),
            "times": [_nanoseconds(arrival) for arrival in self.times],
        }


class Load:
    """Streams that start again when they end."""

    def __init__(self, client: AsyncClient, asked: argparse.Namespace) -> None:
        """Starts without requests."""
        self.requests: list[Request] = []
        self._client = client
        self._tokens: int = asked.tokens
        self._streams: int = asked.streams
        self._stagger: bool = asked.stagger

    async def run(self, number: int) -> None:
        """Sends requests until it is cancelled."""
        tokens = max(1, self._tokens * (number + 1) // self._streams) if self._stagger else self._tokens
        while True:
            await self._ask(number, tokens)
            tokens = self._tokens

    async def _ask(self, number: int, tokens: int) -> None:
        request = Request(number, time.monotonic())
        self.requests.append(request)
        prompt = f"{PROMPT}{number}"
        async with self._client.stream_generate(prompt, max_output_tokens=tokens, options=_OPTIONS) as stream:
            async for delta in stream:
                if delta.text:
                    request.times.append(time.monotonic())
                    request.characters.append(len(delta.text))
            request.tokens = (await stream.result()).usage.output_tokens


async def main(asked: argparse.Namespace) -> None:
    """Puts the load on the server, and prints the results."""
    multiplex = asked.protocol == "sdk-multiplex"
    async with AsyncClient(f"127.0.0.1:{asked.port}", api_key=asked.key, multiplex=multiplex) as client:
        await client.wait_ready(_TIMEOUT)
        load = Load(client, asked)
        tasks = [asyncio.create_task(load.run(number)) for number in range(asked.streams)]
        try:
            await asyncio.wait(tasks, timeout=asked.warm_up, return_when=asyncio.FIRST_EXCEPTION)
            begin = _border(asked.server)
            await asyncio.wait(tasks, timeout=asked.seconds, return_when=asyncio.FIRST_EXCEPTION)
            end = _border(asked.server)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    json.dump({"begin": begin, "end": end, "requests": [request.told() for request in load.requests]}, sys.stdout)


def _border(server: int) -> dict[str, int]:
    return {
        "time": _nanoseconds(time.monotonic()),
        "server_cpu": _nanoseconds(cpu_seconds(server)),
        "own_cpu": time.process_time_ns(),
    }


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--protocol", choices=("sdk", "sdk-multiplex"), required=True)
    for name in ("--port", "--streams", "--per-connection", "--tokens", "--server"):
        parser.add_argument(name, type=int, required=True)
    for name in ("--warm-up", "--seconds", "--burst-every"):
        parser.add_argument(name, type=float, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--stagger", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(_arguments()))
