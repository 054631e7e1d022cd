"""Measures what callers notice when a server is lost: `PYTHONPATH=tests python benchmarks/failover.py [ENGINE]`.

Two servers generate streams, and one server is lost in the middle: it is killed, shut down with almost no grace period,
or its connections are reset. Prints how many answers were complete, how many were continued by the other server, how
many kept their earlier text, and how many are identical to an undisturbed answer. Of the continued ones, it prints how
many have the rest that an idle server gives to the same request. It also prints the longest gaps between two deltas,
for continued and for other answers.
"""

import argparse
import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from doherty import AsyncClient, GenerateOptions, Generation, TokenIds
from support.proxy import proxy
from support.server import start_server

DRAIN = ("--drain-delay", "0", "--drain-grace", "0.1")
ENGINES: dict[str, tuple[tuple[str, ...], int]] = {
    "synthetic": (("--engine", "synthetic", "-o", "tokens_per_second=200", *DRAIN), 32),
    "llamacpp": (("-o", "prompt_cache=false", *DRAIN), 4),
}
PROMPTS = ("Why is the sky blue?", "Name three colors.", "What is a cat?", "Who wrote Faust?")
TOKENS = 120
ASKED: dict[str, Any] = {
    "temperature": 0,
    "max_output_tokens": TOKENS,
    "options": GenerateOptions(ignore_eos=True, token_ids=True),
}
LOSSES = ("none", "kill -9", "SIGTERM", "connection reset")
LOST_AFTER = 8
"""Deltas of the slowest stream."""


@dataclass
class Answer:
    """A stream and its results."""

    prompt: str
    generation: Generation[None] | None = None
    resumed: int = 0
    held: list[int] = field(default_factory=list[int])
    """The ids that were received before the answer was continued."""
    held_text: str = ""
    longest_wait: float = 0.0
    """The longest gap between two deltas, in seconds."""


class Run:
    """Concurrent streams, some of which lose their server."""

    def __init__(self, count: int) -> None:
        """Prepares `count` streams."""
        self.answers = [Answer(f"{PROMPTS[number % len(PROMPTS)]} ({number})") for number in range(count)]
        self._behind = count
        self._under_way = asyncio.Event()

    async def measure(self, loss: str, flags: tuple[str, ...]) -> None:
        """Runs the streams, and loses a server when all are under way."""
        with _servers(loss, flags) as (targets, lose):
            async with AsyncClient(targets, timeout=300) as client:
                reading = asyncio.gather(*(self._read(client, answer) for answer in self.answers))
                await asyncio.wait_for(self._under_way.wait(), 300)
                lose()
                await reading

    async def _read(self, client: AsyncClient, answer: Answer) -> None:
        stream = client.stream_generate(answer.prompt, **ASKED)
        deltas, last = 0, 0.0
        async for delta in stream:
            now = time.perf_counter()
            if deltas:
                answer.longest_wait = max(answer.longest_wait, now - last)
            last = now
            deltas += 1
            if not stream.resumed:
                answer.held += delta.token_ids or ()
                answer.held_text = stream.text
            if deltas == LOST_AFTER:
                self._behind -= 1
                if not self._behind:
                    self._under_way.set()
        answer.resumed = stream.resumed
        answer.generation = await stream.result()


@contextmanager
def _servers(loss: str, flags: tuple[str, ...]) -> Iterator[tuple[list[str], Any]]:
    with ExitStack() as stack:
        servers = [stack.enter_context(start_server(*flags)) for _ in range(2)]
        wire = stack.enter_context(proxy(servers[0].target))
        ways = {
            "none": lambda: None,
            "kill -9": lambda: servers[0].process.send_signal(signal.SIGKILL),
            "SIGTERM": lambda: servers[0].process.send_signal(signal.SIGTERM),
            "connection reset": wire.reset,
        }
        first = wire.target if loss == "connection reset" else servers[0].target
        yield [first, servers[1].target], ways[loss]


async def undisturbed(flags: tuple[str, ...], run: Run) -> dict[str, str]:
    """Returns the answers of one server to the prompts, made one after the other."""
    with start_server(*flags) as server:
        async with AsyncClient(server.target, timeout=300) as client:
            return {answer.prompt: (await client.generate(answer.prompt, **ASKED)).text for answer in run.answers}


async def same_rests(flags: tuple[str, ...], run: Run) -> str:
    """Counts the continued answers whose rest equals that of a direct `continue_from`, made one after the other."""
    resumed = [answer for answer in run.answers if answer.resumed]
    same = 0
    with start_server(*flags) as server:
        async with AsyncClient(server.target, timeout=300) as client:
            for answer in resumed:
                options = GenerateOptions(ignore_eos=True, continue_from=TokenIds(answer.held))
                parameters: dict[str, Any] = {**ASKED, "options": options}
                rest = await client.generate(answer.prompt, **parameters)
                same += answer.generation is not None and answer.generation.text == answer.held_text + rest.text
    return f"{same} of {len(resumed)}"


def tell(loss: str, run: Run, whole: dict[str, str], rests: str) -> None:
    """Prints a row."""
    complete = [
        answer for answer in run.answers if answer.generation and answer.generation.usage.output_tokens == TOKENS
    ]
    same = sum(answer.generation is not None and answer.generation.text == whole[answer.prompt] for answer in complete)
    kept = sum(
        answer.generation is not None and answer.generation.text.startswith(answer.held_text) for answer in complete
    )
    waits = [
        max((answer.longest_wait for answer in run.answers if bool(answer.resumed) is resumed), default=0.0) * 1000
        for resumed in (True, False)
    ]
    resumed = sum(map(bool, (answer.resumed for answer in run.answers)))
    print(
        f"| {loss} | {len(complete)} of {len(run.answers)} | {resumed} | {kept} | {same} | {rests} "
        f"| {waits[0]:.0f} | {waits[1]:.0f} |",
        flush=True,
    )


async def main() -> None:
    """Runs all kinds of loss, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", nargs="?", choices=ENGINES, default="synthetic")
    flags, count = ENGINES[parser.parse_args().engine]
    whole = await undisturbed(flags, Run(count))
    print(
        "| loss | complete | continued | prefix kept | same as without a loss | rest same as a direct `continue_from` "
        "| longest wait, ms | of other streams, ms |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for loss in LOSSES:
        run = Run(count)
        await run.measure(loss, flags)
        tell(loss, run, whole, await same_rests(flags, run))


if __name__ == "__main__":
    asyncio.run(main())
