"""How far a reused prefix moves an answer of the embedded engine, and whether that is rounding or a fault.

`PYTHONPATH=tests python benchmarks/cache_drift.py [SECONDS]`. The packaged model, one thread, 4 slots, 1024 tokens of
KV cache. One question is asked greedily, and the log probability of its first token is compared with that of an engine
that has just started and computed the whole prompt at once:

* on a fresh engine, nobody else there: without anything cached; with the prompt computed in two parts, at every place
  where it can be parted; and with the system prompt reused from longer conversations. In these nothing differs but the
  shape of the batch that computed the prefix;
* the same beside three other answers;
* with the cells of the cache in another order: the rest of the prompt lies in front of the reused prefix. The others in
  the cache have the same number of tokens and another content each time: were any of it read, the answers would differ;
* after a mixed load of SECONDS (by default 60): as the caller whose prefix the slots hold, and as callers without
  anything cached, who compute the whole prompt in slots that were in use, or a longer conversation before it.
"""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from doherty_engine import Conversation, Message, RawText, Role, Sampling, Stopping, TokenIds
from support.engines import EngineLab, running
from support.llamacpp import llamacpp_request

OPTIONS = {"slots": "4", "context_tokens": "1024", "threads": "1"}
SALT = "one caller"
QUESTION = "Name three colors."
WORDS = ["river", "stone", "paper", "cloud", "engine", "garden", "silver", "window", "letter", "bridge", "summer"]
LENGTHS = (1, 10, 30, 33, 34, 60, 90, 120, 200)
"""The lengths of the longer conversations in words; 30 further tokens are added to each."""
CALLERS = 6
LEAVING = 0.2
"""The share of answers that are aborted at their first token."""
_strangers = count()
_draw = random.Random(5)  # noqa: S311 - a load is no secret


def stranger() -> str:
    """Returns a salt of which no prefix is cached."""
    return f"stranger {next(_strangers)}"


def conversation(content: str) -> Conversation:
    """Returns a conversation of one message."""
    return Conversation((Message(Role.USER, content),))


def words(length: int) -> str:
    """Returns a meaningless text."""
    return " ".join(_draw.choices(WORDS, k=length))


async def first_token(lab: EngineLab, salt: str, question: Conversation | TokenIds) -> float:
    """Returns the log probability of the first token of the answer."""
    short = Stopping(max_output_tokens=1)
    outcome = await lab.ask(llamacpp_request(input=question, cache_salt=salt, top_logprobs=1, stopping=short))
    return outcome.logprobs[0].logprob


class Probe:
    """Asks the question, and prints the differences of its answers."""

    def __init__(self, lab: EngineLab, fresh: float) -> None:
        self._lab = lab
        self._fresh = fresh

    async def again(self, name: str, salt: str = "") -> None:
        """Asks eight times, with the same salt or each time with a new one."""
        self._show(name, [await self._ask(salt or stranger()) for _ in range(8)])

    async def after(self, name: str, earlier: list[Conversation] | list[TokenIds]) -> None:
        """Asks once after each of some inputs, with the salt of that input."""
        offsets = []
        for content in earlier:
            salt = stranger()
            await first_token(self._lab, salt, content)
            offsets.append(await self._ask(salt))
        self._show(name, offsets)

    async def _ask(self, salt: str) -> float:
        return await first_token(self._lab, salt, conversation(QUESTION)) - self._fresh

    def _show(self, name: str, off: list[float]) -> None:
        print(f"{name}: {len(off)} answers, off by {min(off):+.4f} to {max(off):+.4f}", flush=True)


@asynccontextmanager
async def neighbours(lab: EngineLab) -> AsyncIterator[None]:
    """Runs three answers at the same time, each with few prompt tokens."""
    endless = Stopping(max_output_tokens=200, ignore_eos=True)
    requests = [llamacpp_request(input=RawText(words(4)), cache_salt=stranger(), stopping=endless) for _ in range(3)]
    handles = [lab.submit(request) for request in requests]
    await lab.until(lambda: all(lab.outputs(request.key) for request in requests))
    try:
        yield
    finally:
        for handle in handles:
            handle.abort()
        for request in requests:
            await lab.outcome(request.key)


async def mixed_load(lab: EngineLab, seconds: float) -> int:
    """Makes concurrent requests with conversations and raw texts of all lengths, and aborts some.

    Returns their number.
    """
    ends, total = time.monotonic() + seconds, 0

    async def caller() -> None:
        nonlocal total
        while time.monotonic() < ends:
            text = words(_draw.randint(1, 200))
            request = llamacpp_request(
                input=_draw.choice([conversation(text), conversation(text), RawText(text)]),
                cache_salt=_draw.choice([SALT, SALT, SALT, stranger()]),
                sampling=Sampling(temperature=_draw.choice([0.0, 1.0]), seed=1),
                stopping=Stopping(max_output_tokens=_draw.randint(1, 60), ignore_eos=_draw.choice([True, False])),
            )
            handle = lab.submit(request)
            if _draw.random() < LEAVING:
                await lab.until(lambda: bool(lab.outputs(request.key)))  # noqa: B023 - awaited in the same turn
                handle.abort()
            await lab.outcome(request.key)
            total += 1

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return total


async def out_of_order(fresh: float) -> None:
    """Asks on engines that reuse the prefix from behind the cells of a request that has ended."""
    for shape, length in (("fewer than 64", 1), ("64 or more", 60)):
        off = []
        for filler in (100, 5000, 40000):
            async with running("llamacpp", **OPTIONS | {"slots": "2"}) as lab:
                await first_token(lab, stranger(), TokenIds((filler,) * 300))
                await first_token(lab, SALT, conversation(words(length)))
                await first_token(lab, stranger(), TokenIds((filler + 1,)))
                off.append(await first_token(lab, SALT, conversation(QUESTION)) - fresh)
        print(
            f"cells out of order, prefix of a batch of {shape}: off by {[f'{difference:+.12f}' for difference in off]}",
            flush=True,
        )


async def main(seconds: float) -> None:
    """Runs all measurements."""
    longer = [conversation(words(length)) for length in LENGTHS]
    async with running("llamacpp", **OPTIONS) as lab:
        fresh = await first_token(lab, stranger(), conversation(QUESTION))
        probe = Probe(lab, fresh)
        await probe.again("fresh, nothing cached")
        reader = lab.engine._shop.reader  # type: ignore[attr-defined]  # noqa: SLF001 - ids have no public way out
        ids = reader.prompt(conversation(QUESTION))
        await probe.after("fresh, prompt in two parts", [TokenIds(ids[:length]) for length in range(1, len(ids))])
        await probe.after("fresh, after shorter conversations", longer[:4])
        await probe.after("fresh, after longer conversations", longer[4:])
    async with running("llamacpp", **OPTIONS) as lab:
        probe = Probe(lab, fresh)
        async with neighbours(lab):
            await probe.after("beside three answers, after shorter conversations", longer[:4])
        async with neighbours(lab):
            await probe.after("beside three answers, after longer conversations", longer[4:])
    await out_of_order(fresh)
    async with running("llamacpp", **OPTIONS) as lab:
        print(f"mixed load: {await mixed_load(lab, seconds)} requests", flush=True)
        probe = Probe(lab, fresh)
        await probe.again("loaded, prefix reused", SALT)
        await probe.again("loaded, nothing cached")
        await probe.after("loaded, after shorter conversations", longer[:4])
        await probe.after("loaded, after longer conversations", longer[4:])


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60))
