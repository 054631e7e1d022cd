"""What the SDK itself costs a call, against an older one: `python benchmarks/sdk_calls.py CHECKOUT [ROUNDS]`.

Two processes take turns: one with this checkout's SDK, the other with that of CHECKOUT. In both, channels that answer
at once replace those of gRPC, so that only the SDK's own work is counted. Printed is the CPU time of a call in
microseconds: the lowest and the median of all rounds, and the median of the ratios of neighboring rounds.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any
from unittest.mock import patch

import grpc
import grpc.aio

from doherty import AsyncClient, Client
from doherty.v1 import answer_pb2
from doherty.v1 import generation_service_pb2 as wire

ROUNDS = 15
CALLS = 1_000
"""The calls of each kind in a round."""

HERE = Path(__file__).parents[1]

INITIAL = (("doherty-request-id", "3f2a9c0d1e5b4a67"),)
TRAILING = (("server-timing", "total;dur=1.5"),)


def answer() -> list[wire.StreamGenerateResponse]:
    """The messages of an answer of eight tokens."""
    start = answer_pb2.Start(request_id=INITIAL[0][1], model="smollm2-135m-instruct")
    summary = answer_pb2.Summary(finish_reason=answer_pb2.FINISH_REASON_STOP, seed=7)
    summary.usage.prompt_tokens, summary.usage.output_tokens = 12, 8
    for name in ("preprocess", "queue", "time_to_first_token", "time_to_last_token", "total"):
        getattr(summary.timings, name).FromMicroseconds(1500)
    first = wire.StreamGenerateResponse(start=start)
    first.delta.text, first.delta.token_count = "Two", 1
    first.delta.token_ids.append(4)
    last = wire.StreamGenerateResponse(summary=summary)
    last.delta.text, last.delta.token_count = " of hydrogen and one of oxygen.", 7
    last.delta.token_ids.extend(range(7))
    return [first, last]


MESSAGES = answer()
REPLY = wire.GenerateResponse(start=MESSAGES[0].start, text="Two of hydrogen.", summary=MESSAGES[1].summary)


class _Call:
    """A call of grpc whose messages have all arrived."""

    def __init__(self) -> None:
        self._messages = iter(MESSAGES)

    def __next__(self) -> wire.StreamGenerateResponse:
        return next(self._messages)

    def initial_metadata(self) -> Any:
        return INITIAL

    def trailing_metadata(self) -> Any:
        return TRAILING

    def result(self) -> Any:
        return REPLY

    def add_callback(self, _: Callable[[], None]) -> bool:
        return False

    def cancel(self) -> None:
        pass


class _Unary:
    """A method of grpc with one reply."""

    def __call__(self, *_: object, **__: object) -> Any:
        return REPLY

    def with_call(self, *_: object, **__: object) -> Any:
        return REPLY, _Call()

    def future(self, *_: object, **__: object) -> Any:
        return _Call()


class _AsyncCall:
    """A call of grpc.aio whose messages have all arrived."""

    def __init__(self) -> None:
        self._messages = iter(MESSAGES)

    def __await__(self) -> Any:
        yield from ()
        return REPLY

    async def read(self) -> Any:
        return next(self._messages, grpc.aio.EOF)

    async def initial_metadata(self) -> Any:
        return INITIAL

    async def trailing_metadata(self) -> Any:
        return TRAILING

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        callback(self)

    def cancel(self) -> bool:
        return False


class _Channel:
    """A channel whose calls end immediately."""

    def __init__(self, unary: Callable[..., Any], stream: Callable[..., Any]) -> None:
        self._unary = unary
        self._stream = stream

    def unary_unary(self, *_: object, **__: object) -> Callable[..., Any]:
        return self._unary

    def unary_stream(self, *_: object, **__: object) -> Callable[..., Any]:
        return self._stream

    def stream_stream(self, *_: object, **__: object) -> None:
        pass

    def close(self) -> Any:
        return asyncio.sleep(0) if self._unary is self._stream else None


def _sync_channel(*_: object, **__: object) -> _Channel:
    return _Channel(_Unary(), lambda *_, **__: _Call())


def _async_channel(*_: object, **__: object) -> _Channel:
    def begin(*_: object, **__: object) -> _AsyncCall:
        return _AsyncCall()

    return _Channel(begin, begin)


def sync_calls() -> tuple[float, float]:
    """Returns the microseconds of a generate and of a stream."""
    with Client("localhost:1") as client:
        begun = process_time()
        for _ in range(CALLS):
            client.generate("What atoms are in water?")
        between = process_time()
        for _ in range(CALLS):
            with client.stream_generate("What atoms are in water?") as stream:
                for _delta in stream:
                    pass
        return (between - begun) * 1e6 / CALLS, (process_time() - between) * 1e6 / CALLS


async def async_calls() -> tuple[float, float]:
    """Returns the same for the AsyncClient."""
    async with AsyncClient("localhost:1") as client:
        begun = process_time()
        for _ in range(CALLS):
            await client.generate("What atoms are in water?")
        between = process_time()
        for _ in range(CALLS):
            async with client.stream_generate("What atoms are in water?") as stream:
                async for _delta in stream:
                    pass
        return (between - begun) * 1e6 / CALLS, (process_time() - between) * 1e6 / CALLS


KINDS = ("Client.generate", "Client.stream_generate", "AsyncClient.generate", "AsyncClient.stream_generate")


def measure() -> None:
    """Prints the microseconds of each kind of call for each line that it reads."""
    with (
        patch.object(grpc, "insecure_channel", _sync_channel),
        patch.object(grpc.aio, "insecure_channel", _async_channel),
    ):
        for _ in sys.stdin:
            print(json.dumps((*sync_calls(), *asyncio.run(async_calls()))), flush=True)


def begin(checkout: Path) -> "subprocess.Popen[str]":
    """A process that measures the SDK of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "client")}
    command = (sys.executable, __file__, "--measure")
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(process: "subprocess.Popen[str]") -> list[float]:
    """One round."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process has no pipes")
    process.stdin.write("\n")
    process.stdin.flush()
    figures: list[float] = json.loads(process.stdout.readline())
    return figures


def main(checkout: Path, rounds: int) -> None:
    """Compares two checkouts."""
    with begin(checkout) as older, begin(HERE) as newer:
        for process in (older, newer):
            ask(process)  # warms up
        pairs = [(ask(older), ask(newer)) for _ in range(rounds)]
        for process in (older, newer):
            process.stdin.close() if process.stdin else None
    for index, kind in enumerate(KINDS):
        before, after = ([figures[side][index] for figures in pairs] for side in (0, 1))
        ratio = statistics.median(new / old for old, new in zip(before, after, strict=True))
        print(
            f"{kind:30} older {min(before):5.1f} (median {statistics.median(before):5.1f})"
            f"   this {min(after):5.1f} (median {statistics.median(after):5.1f})   ratio {ratio:.3f}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("rounds", type=int, nargs="?", default=ROUNDS)
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:] == ["--measure"]:
        measure()
    else:
        chosen = _arguments()
        main(chosen.checkout, chosen.rounds)
