"""API keys take turns with the threads that compile constraints."""

import asyncio
import threading
from pathlib import Path

import pytest

from doherty_engine import Choices, Constraint, Conversation, FinishReason
from doherty_engine.constraints import _compiler
from doherty_engine.tokens import FairThreads
from support.hugging_face import user
from support.vllm import until, vllm_lab, vllm_request


class Calls:
    """Calls of a blocking function, each of which returns when the test says so."""

    def __init__(self, size: int, *, per_key: int = 1) -> None:
        self.threads = FairThreads(size, per_key=per_key)
        self._may_end: dict[str, threading.Event] = {}
        self.begun: list[str] = []

    async def begin(self, *names: str) -> list[asyncio.Task[str]]:
        """Begins calls; the first letter of a name is the key. Returns when each has its turn, or waits for it."""
        self._may_end |= {name: threading.Event() for name in names}
        calls = [asyncio.create_task(self.threads.run(name[0], self._block, name)) for name in names]
        await asyncio.sleep(0)
        return calls

    def end(self, *names: str) -> None:
        for name in names:
            self._may_end[name].set()

    def _block(self, name: str) -> str:
        self.begun.append(name)
        assert self._may_end[name].wait(60)
        return name


async def test_keys_take_turns() -> None:
    calls = Calls(1)
    tasks = await calls.begin("a1", "a2", "a3", "b1", "b2", "c1")
    calls.end("a1", "a2", "a3", "b1", "b2", "c1")
    assert await asyncio.gather(*tasks) == ["a1", "a2", "a3", "b1", "b2", "c1"]
    assert calls.begun == ["a1", "a2", "b1", "c1", "a3", "b2"]


async def test_a_key_has_one_thread_and_does_not_delay_another_key() -> None:
    calls = Calls(2)
    first, second, other = await calls.begin("a1", "a2", "b1")
    calls.end("a2", "b1")
    assert await other == "b1"
    assert sorted(calls.begun) == ["a1", "b1"]
    calls.end("a1")
    assert [await first, await second] == ["a1", "a2"]


async def test_a_key_has_all_threads_until_another_key_waits() -> None:
    calls = Calls(2, per_key=2)
    tasks = await calls.begin("a1", "a2", "a3", "a4", "b1")
    await until(lambda: sorted(calls.begun) == ["a1", "a2"])
    calls.end("a1")
    await until(lambda: calls.begun[2:] == ["a3"])
    calls.end("a3")
    await until(lambda: calls.begun[3:] == ["b1"])
    calls.end("a2", "a4", "b1")
    assert await asyncio.gather(*tasks) == ["a1", "a2", "a3", "a4", "b1"]


async def test_a_cancelled_call_is_not_made_or_keeps_its_turn_until_it_ends() -> None:
    calls = Calls(1)
    running, waiting, last = await calls.begin("a1", "b1", "c1")
    await until(lambda: calls.begun == ["a1"])
    running.cancel()
    waiting.cancel()
    await asyncio.wait([running, waiting])
    assert (running.cancelled(), waiting.cancelled()) == (True, True)
    assert calls.begun == ["a1"]
    calls.end("a1", "c1")
    assert await last == "c1"
    assert calls.begun == ["a1", "c1"]


async def test_a_call_that_is_cancelled_when_it_gets_its_turn_passes_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(1)
    _, second, last = await calls.begin("a1", "b1", "c1")
    end_turn = calls.threads._end_turn  # noqa: SLF001 - afterwards, the next call has the turn, and does not know it yet

    def end_and_cancel(key: str) -> None:
        end_turn(key)
        second.cancel()

    monkeypatch.setattr(calls.threads, "_end_turn", end_and_cancel)
    calls.end("a1", "b1", "c1")
    assert await last == "c1"
    assert calls.begun == ["a1", "c1"]


async def test_the_constraints_of_a_key_delay_no_other_work_and_end_with_their_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, may_end, translate = Choices(("slow",)), threading.Event(), _compiler._translate  # noqa: SLF001
    begun: list[Constraint] = []

    def block(constraint: Constraint) -> tuple[str, str]:
        begun.append(constraint)
        if constraint == slow:
            assert may_end.wait(60)
        return translate(constraint)

    async with vllm_lab(tmp_path, max_model_len="8000") as vllm:
        monkeypatch.setattr(_compiler, "_translate", block)
        requests = [vllm_request(constraint=slow, cache_salt="a") for _ in range(40)]  # more than asyncio has threads
        handles = [vllm.lab.submit(request) for request in requests]
        assert await vllm.lab.engine.count_tokens(Conversation((user("Hello " * 1500),))) > 1500  # in a thread
        assert (await vllm.ask(constraint=Choices(("b",)), cache_salt="b")).text == "b"
        for handle in handles[:-1]:
            handle.abort()
        may_end.set()
        reasons = [(await vllm.lab.outcome(request.key)).finish.reason for request in requests]
    assert reasons == [FinishReason.ABORTED] * 39 + [FinishReason.STOP]
    assert begun == [slow, Choices(("b",)), slow]
