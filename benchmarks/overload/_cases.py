"""The cases: each starts a server, runs callers, and returns figures by name."""

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from _crowds import Call, Load, closed_loop, open_loop, quantile, time_calls
from doherty import AsyncClient
from doherty.v1 import generation_service_pb2_grpc, latency_service_pb2, latency_service_pb2_grpc, request_pb2
from doherty_engine import Message, Role
from doherty_engine.synthetic._tokenizer import SyntheticTokenizer
from doherty_engine.synthetic._tokens import pick, prompt_digest
from support.security import add_key
from support.server import ServerProcess

Figures = dict[str, float]
Start = Callable[..., AbstractContextManager[ServerProcess]]
"""Starts the server of the measured working tree, as `start_server` does."""

SYNTHETIC = ("--engine", "synthetic")
SIXTEEN = (*SYNTHETIC, "-o", "slots=16", "-o", "tokens_per_second=50")
PER_SECOND = 16 * 50
"""The tokens per second of 16 slots."""
FOUR = (*SYNTHETIC, "-o", "slots=4", "-o", "tokens_per_second=50", "-o", "answer_tokens=50")
SECONDS, FROM = 17.0, 5.0
"""The duration of a load, and the second from which it counts."""


def prompts(lengths: Sequence[int], tokens: int) -> list[str]:
    """Returns prompts to which a synthetic engine with several lengths of answers gives `tokens` tokens."""

    def length(prompt: str) -> int:
        digest = prompt_digest(SyntheticTokenizer().render([Message(Role.USER, prompt)]))
        return lengths[pick(digest, len(lengths))]

    fitting: Iterator[str] = filter(lambda prompt: length(prompt) == tokens, (f"question {n}" for n in range(10_000)))
    return list(islice(fitting, 1_000))


def late(load: Load) -> Figures:
    """Returns the percentage of refusals that came after a wait in the queue, and not on arrival."""
    refused = [call.waited for call in load.calls if call.is_refused]
    return {"refusals that came later, %": 100 * sum(refused) / max(len(refused), 1)}


def share(load: Load, tokens: int, part: float = 1.0, kind: str = "") -> float:
    """Returns the complete answers from second 5 on, in percent of those that `part` of the slots' time allows."""
    done: float = load.ok(kind, FROM, SECONDS) * tokens
    return 100 * done / ((SECONDS - FROM) * part * PER_SECOND)


async def without_retries(  # noqa: PLR0913 - the parameters of a load
    load: Load,
    target: str,
    rate: float,
    seed: int,
    *,
    tokens: int,
    timeout: float,  # noqa: ASYNC109 - the callers' deadline, which is sent to the server
    kind: str = "",
    seconds: float = SECONDS,
    texts: Sequence[str] = (),
) -> None:
    """Makes unary calls at a constant rate, without retries."""
    async with AsyncClient(target, retry=None) as client:

        async def ask(number: int) -> Call:
            text = texts[number % len(texts)] if texts else f"{kind} {number}"
            return await load.answer(client, kind, text, max_output_tokens=tokens, timeout=timeout)

        await open_loop(rate, seconds, seed, ask)


async def through_the_sdk(  # noqa: PLR0913 - as above
    load: Load,
    target: str,
    rate: float,
    seed: int,
    *,
    timeout: float,  # noqa: ASYNC109 - as above
    seconds: float,
) -> None:
    """Makes unary calls of 100 tokens at a constant rate, with the SDK's retries, from 8 clients."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncClient(target)) for _ in range(8)]

        async def ask(number: int) -> Call:
            client = clients[number % len(clients)]
            return await load.answer(client, "", f"q{number}", max_output_tokens=100, timeout=timeout)

        await open_loop(rate, seconds, seed, ask)


async def cold(start: Start, seed: int, *, answer: int = 500, most: int = 100) -> Figures:
    """From the first second on, the load is five times the capacity."""
    with start(*SIXTEEN, "-o", f"answer_tokens={answer}") as server:
        load = Load()
        await without_retries(load, server.target, 40, seed, tokens=most, timeout=3)
    return {"OK, % of capacity": share(load, 100), **late(load)}


async def longer(start: Start, seed: int) -> Figures:
    """Answers of 50 tokens, and then of 125, as set by `max_output_tokens`."""
    with start(*SIXTEEN, "-o", "answer_tokens=500") as server:
        await without_retries(Load(), server.target, 12, seed + 100, tokens=50, timeout=3, seconds=8)
        load = Load()
        await without_retries(load, server.target, 32, seed, tokens=125, timeout=3)
    return {"OK, % of capacity": share(load, 125), **late(load)}


async def longer_unsaid(start: Start, seed: int) -> Figures:
    """The same, but all callers set `max_output_tokens` to 1024."""
    short, long = (prompts((50, 125), length) for length in (50, 125))
    with start(*SIXTEEN, "-o", "answer_tokens=50,125") as server:
        await without_retries(Load(), server.target, 12, seed + 100, tokens=1024, timeout=3, seconds=8, texts=short)
        load = Load()
        await without_retries(load, server.target, 32, seed, tokens=1024, timeout=3, texts=long)
    return {"OK, % of capacity": share(load, 125), **late(load)}


async def mixed(start: Start, seed: int) -> Figures:
    """Answers of 50 and of 125 tokens, 20 per second each. Each length has half of the slots' time as its share."""
    with start(*SIXTEEN, "-o", "answer_tokens=500") as server:
        load = Load()
        await asyncio.gather(
            without_retries(load, server.target, 20, seed, tokens=50, timeout=3, kind="short"),
            without_retries(load, server.target, 20, seed + 1, tokens=125, timeout=3, kind="long"),
        )
    short, long = share(load, 50, 0.5, "short"), share(load, 125, 0.5, "long")
    return {
        "short OK, % of their share": short,
        "long OK, % of their share": long,
        "OK, % of capacity": (short + long) / 2,
        **late(load),
    }


async def flooder(start: Start, seed: int) -> Figures:
    """A key with 16 streams, first alone, then together with a key with 400; 64 slots, answers of 40 to 120 tokens."""
    lengths = ",".join(map(str, range(40, 121, 8)))
    flags = (*SYNTHETIC, "-o", "slots=64", "-o", "tokens_per_second=50", "-o", f"answer_tokens={lengths}")
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.json"
        hers, its = add_key(keys, "alice"), add_key(keys, "flood")
        with start(*flags, "--keys-file", str(keys)) as server:
            alone, both, busy = await beside_a_flood(server.target, hers, its, seed)
    calls = [call for call in both.calls if call.kind == "alice"]
    firsts = [call.seconds if call.first_token is None else call.first_token for call in calls]
    return {
        "alice's TTFT p50 alone, ms": 1000 * quantile([call.first_token or 0 for call in alone.calls], 0.5),
        "alice's TTFT p50, ms": 1000 * quantile(firsts, 0.5),
        "the same as the server measures it, ms": 1000 * quantile([c.served_first_token or 60 for c in calls], 0.5),
        "of her requests served, %": 100 * sum(call.end == "OK" for call in calls) / max(len(calls), 1),
        "slots busy, p10": quantile(busy, 0.1),
    }


async def beside_a_flood(target: str, hers: str, its: str, seed: int) -> tuple[Load, Load, list[int]]:
    """Returns the calls of alice alone, those of both keys together, and the number of busy slots at that time."""
    alone, both = Load(), Load()
    async with AsyncClient(target, api_key=hers) as alice, AsyncClient(target, api_key=its) as flood:

        async def ask(load: Load, client: AsyncClient, kind: str, caller: int, number: int) -> None:
            call = await load.stream(client, kind, f"{seed} {kind} {caller} {number}")
            if call.end != "OK":
                await asyncio.sleep(0.2)

        await closed_loop(16, 6, partial(ask, alone, alice, "alice"))
        busy: list[int] = []
        flooding = asyncio.create_task(closed_loop(400, 60, partial(ask, both, flood, "flood")))
        await asyncio.sleep(3)
        watching = asyncio.create_task(watch(target, hers, busy))
        await closed_loop(16, 20, partial(ask, both, alice, "alice"))
        for task in (watching, flooding):
            task.cancel()
        await asyncio.gather(watching, flooding, return_exceptions=True)
    return alone, both, busy


async def watch(target: str, key: str, busy: list[int]) -> None:
    """Records the number of busy slots four times per second."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = latency_service_pb2_grpc.LatencyServiceStub(channel)
        while True:
            await asyncio.sleep(0.25)
            metadata = [("authorization", f"Bearer {key}")]
            busy.append((await stub.GetLatency(latency_service_pb2.GetLatencyRequest(), metadata=metadata)).running)


async def never_back(start: Start, seed: int) -> Figures:
    """8 callers that retry when they are told to, and 40 calls per second without retries; 4 slots, 16 places."""
    callers, seconds = 8, 25.0
    with start(*FOUR, "--max-queued-requests", "16") as server:
        load = Load()
        async with AsyncExitStack() as stack:
            honest = [await stack.enter_async_context(AsyncClient(server.target)) for _ in range(callers)]

            async def ask(caller: int, number: int) -> None:
                call = await load.answer(honest[caller], "honest", f"{seed} {caller} {number}", timeout=25)
                if call.end != "OK":  # a caller with a retry time waits for that time
                    await asyncio.sleep(min(call.retry_after or 0, seconds - load.now()))

            await asyncio.gather(
                without_retries(load, server.target, 40, seed, tokens=50, timeout=20, kind="never", seconds=seconds),
                closed_loop(callers, seconds, ask),
            )
    retry_after = [call.retry_after or 0 for call in load.calls if call.is_refused]
    # At any time, 20 requests are in the server, and all have the same share of it.
    fair = seconds * 4 * callers / 20
    return {
        "honest OK": load.ok("honest", 0, seconds),
        "of their share, %": 100 * load.ok("honest", 0, seconds) / fair,
        "longest wait told, s": max(retry_after),
    }


BURST = 2.0


async def after_a_burst(start: Start, seed: int) -> Figures:
    """100 calls per second without retries for two seconds; from one second later on, two other calls per second."""
    with start(*FOUR, "--max-queued-requests", "16") as server:
        load = Load()

        async def afterwards() -> None:
            await asyncio.sleep(BURST + 1)
            await without_retries(load, server.target, 2, seed, tokens=50, timeout=20, kind="later", seconds=12)

        burst = without_retries(load, server.target, 100, seed, tokens=50, timeout=20, kind="burst", seconds=BURST)
        await asyncio.gather(burst, afterwards())
    later = [call for call in load.calls if call.kind == "later"]
    return {"refused of those that come later, %": 100 * sum(call.is_refused for call in later) / len(later)}


RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["RESOURCE_EXHAUSTED", "UNAVAILABLE"],
            },
        }
    ]
}


async def grpc_retries(start: Start, seed: int) -> Figures:
    """6 callers that do not know RetryInfo; 1 slot, 1 place, answers of 3 seconds."""
    flags = (*SYNTHETIC, "-o", "slots=1", "-o", "tokens_per_second=20", "-o", "answer_tokens=60")
    with start(*flags, "--max-queued-requests", "1") as server:
        options = [("grpc.service_config", json.dumps(RETRIES))]
        async with grpc.aio.insecure_channel(server.target, options) as channel:
            ask = generation_service_pb2_grpc.GenerationServiceStub(channel).Generate
            request = request_pb2.GenerateRequest(prompt=f"Why {seed}?")
            await ask(request, timeout=60)
            ends = await asyncio.gather(*(ask(request, timeout=60) for _ in range(6)), return_exceptions=True)
    return {"OK, of 6": sum(not isinstance(end, BaseException) for end in ends)}


async def steady(start: Start, seed: int) -> Figures:
    """Twice the capacity, with a timeout of 8 s."""
    with start(*SIXTEEN, "-o", "answer_tokens=500") as server:
        load = Load()
        await through_the_sdk(load, server.target, 16, seed, timeout=8, seconds=SECONDS)
    return {"OK, % of capacity": share(load, 100)}


async def passing(start: Start, seed: int) -> Figures:
    """Twice the capacity for 20 seconds, then half of it for 30 seconds, with a timeout of 60 s."""
    with start(*SIXTEEN, "-o", "answer_tokens=500") as server:
        load = Load()

        async def afterwards() -> None:
            await asyncio.sleep(20)
            await through_the_sdk(load, server.target, 4, seed + 1, timeout=60, seconds=30)

        await asyncio.gather(through_the_sdk(load, server.target, 16, seed, timeout=60, seconds=20), afterwards())
    return {"callers that end OK, %": 100 * load.ok() / len(load.calls)}


async def refusals(start: Start, seed: int) -> Figures:
    """The latencies of refusals and of health checks, 100 per second of each; 1 slot and 1 place, both taken."""
    flags = (*SYNTHETIC, "-o", "slots=1", "-o", "answer_tokens=8000", "--max-queued-requests", "1")
    stopping = request_pb2.Stopping(max_output_tokens=8000, ignore_eos=True)
    endless = request_pb2.GenerateRequest(prompt="Why?", stopping=stopping)
    with start(*flags) as server:
        async with grpc.aio.insecure_channel(server.target) as channel:
            ask = generation_service_pb2_grpc.GenerationServiceStub(channel).StreamGenerate
            stub: Any = latency_service_pb2_grpc.LatencyServiceStub(channel)
            taking = [ask(endless, timeout=60)]
            await taking[0].read()
            taking.append(ask(endless, timeout=60))
            while not (await stub.GetLatency(latency_service_pb2.GetLatencyRequest())).queued:  # noqa: ASYNC110 - no event reports it
                await asyncio.sleep(0.01)
            await time_calls(server.target, 200, 1, seed + 1)  # connects
            refused, checked = await time_calls(server.target, 200, 8, seed)
            for call in taking:
                call.cancel()
    p99 = quantile(refused, 0.99), quantile(checked, 0.99)
    return {"refusal p99, ms": 1000 * p99[0], "Health/Check p99, ms": 1000 * p99[1], "ratio": p99[0] / p99[1]}


async def idle(start: Start, seed: int) -> Figures:
    """After a load in which every answer was cut off, 20 calls with too short deadlines, one at a time."""
    with start(*SIXTEEN, "-o", "answer_tokens=500") as server:
        await without_retries(Load(), server.target, 40, seed, tokens=100, timeout=1, seconds=5)
        load = Load()
        async with AsyncClient(server.target, retry=None) as client:
            for number in range(20):
                await load.answer(client, "", f"q{number}", max_output_tokens=100, timeout=0.2)
    return {"refused, of 20": sum(call.is_refused for call in load.calls)}


CASES: dict[str, Callable[[Start, int], Awaitable[Figures]]] = {
    "cold": cold,
    "cold, callers say 1024": partial(cold, answer=100, most=1024),
    "longer answers": longer,
    "longer answers, callers say 1024": longer_unsaid,
    "mixed lengths": mixed,
    "flooder": flooder,
    "callers that never return": never_back,
    "after a burst": after_a_burst,
    "gRPC's own retries": grpc_retries,
    "steady 2 x through the SDK": steady,
    "20 s of 2 x, then 0.5 x": passing,
    "refusal latency": refusals,
    "idle": idle,
}
