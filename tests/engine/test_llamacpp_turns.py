"""Who comes next on the embedded engine: room in the KV cache, and turns to compute prompts."""

import asyncio
import math
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from doherty_engine import EngineRequest, FinishReason, RequestHandle, Stopping, TokenIds
from doherty_engine.llamacpp import LlamaCppEngine
from doherty_engine.llamacpp._semaphore import Claim, FairSemaphore
from doherty_engine.llamacpp._server import BATCH_TOKENS
from support.engines import EngineLab, running
from support.gguf import write_tiny_model
from support.llamacpp import llamacpp_request

LONG = 2 * BATCH_TOKENS + 20


class Queue:
    """Threads that wait for units of a semaphore, and give them back when the test says so."""

    def __init__(self, semaphore: FairSemaphore) -> None:
        self._semaphore = semaphore
        self._entered: dict[str, threading.Event] = {}
        self._leave: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []
        self.order: list[str] = []

    def enter(self, name: str, needed: int, *, key: str, tokens: int = 0, arrived: float = 0.0) -> None:
        """Begins to wait; returns when the request has its units or waits for them."""
        leave = self._leave[name] = threading.Event()
        entered = self._entered[name] = threading.Event()
        claim = Claim(key, arrived, tokens)
        waits = threading.Event()

        def is_cancelled() -> bool:
            waits.set()
            return False

        def run() -> None:
            self._semaphore.reserve(needed, claim, until=None, is_cancelled=is_cancelled)
            self.order.append(name)
            entered.set()
            waits.set()
            leave.wait()
            self._semaphore.release(needed, claim)

        thread = threading.Thread(target=run)
        thread.start()
        self._threads.append(thread)
        waits.wait()

    async def entered(self, name: str) -> None:
        """Waits until a request has its units."""
        await asyncio.to_thread(self._entered[name].wait)

    def leave(self, *names: str) -> None:
        """Lets requests give their units back, as soon as they have them."""
        for name in names:
            self._leave[name].set()

    def join(self) -> list[str]:
        """Waits until all have had their units, and returns the order."""
        self.leave(*self._leave)
        for thread in self._threads:
            thread.join()
        return self.order


def test_a_key_that_holds_much_does_not_hold_another_one_back() -> None:
    queue = Queue(FairSemaphore(10))
    queue.enter("large", 7, key="a")
    queue.enter("second large", 7, key="a")
    queue.enter("small", 2, key="b")
    assert queue.order == ["large", "small"]
    queue.enter("another small", 2, key="c")
    queue.leave("small")
    assert queue.join() == ["large", "small", "another small", "second large"]


def test_who_holds_least_is_not_overtaken() -> None:
    queue = Queue(FairSemaphore(10))
    queue.enter("one", 3, key="a")
    queue.enter("two", 3, key="b")
    queue.enter("large", 9, key="c")
    queue.enter("small", 1, key="a")
    queue.leave("one", "two")
    assert queue.join() == ["one", "two", "large", "small"]


def test_keys_take_turns() -> None:
    queue = Queue(FairSemaphore(1))
    queue.enter("a1", 1, key="a")
    for name in ("a2", "a3", "b1", "b2"):
        queue.enter(name, 1, key=name[0], arrived=float(name[1]))
    assert queue.join() == ["a1", "b1", "a2", "b2", "a3"]


def test_a_long_prompt_is_overtaken_by_short_ones_of_its_key_for_a_while() -> None:
    queue = Queue(FairSemaphore(1))
    queue.enter("first", 1, key="a")
    queue.enter("long", 1, key="a", tokens=1000, arrived=1.0)
    queue.enter("late", 1, key="a", tokens=10, arrived=12.0)
    queue.enter("early", 1, key="a", tokens=10, arrived=2.0)
    assert queue.join() == ["first", "early", "long", "late"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EngineLab]:
    model = write_tiny_model(tmp_path_factory.mktemp("tiny") / "model.gguf")
    async with running("llamacpp", model=str(model), slots="3", threads="1") as lab:
        yield lab


def prompt(first: int, tokens: int, key: str) -> EngineRequest:
    ids = TokenIds(tuple(first + index % 90 for index in range(tokens)))
    return llamacpp_request(
        input=ids, cache_salt=key, top_logprobs=0, stopping=Stopping(max_output_tokens=4, ignore_eos=True)
    )


async def between_pieces(lab: EngineLab, request: EngineRequest) -> tuple[Queue, RequestHandle]:
    """Begins a request; its first piece is computed, and the queue has the turn and holds it."""
    assert isinstance(lab.engine, LlamaCppEngine)
    context = lab.engine._context  # noqa: SLF001 - nothing else shows who waits for a turn
    assert context is not None
    queue = Queue(context.prompt_turn)
    queue.enter("first", 1, key="x")
    handle = lab.submit(request)
    while not context.prompt_turn._waiting:  # noqa: ASYNC110, SLF001 - another thread changes it
        await asyncio.sleep(0)
    queue.enter("second", 1, key="y", arrived=math.inf)
    queue.leave("first")
    await queue.entered("second")
    return queue, handle


@pytest.mark.asyncio(loop_scope="session")
async def test_a_long_prompt_gives_way_to_another_key_after_each_piece(lab: EngineLab) -> None:
    request = prompt(10, LONG, "a")
    queue, _ = await between_pieces(lab, request)
    assert not any(output.text for output in lab.outputs(request.key))
    queue.join()
    assert (await lab.outcome(request.key)).finish.output_tokens == 4


@pytest.mark.asyncio(loop_scope="session")
async def test_pieces_change_nothing_but_the_order(lab: EngineLab) -> None:
    """What others compute in between is not in the answer, and the request's own pieces are no hits of the cache."""
    alone = await lab.ask(prompt(10, LONG + 5, "c"))
    beside, others = prompt(10, LONG + 5, "d"), [prompt(20 + number, LONG, "e") for number in range(2)]
    outcomes = await asyncio.gather(*map(lab.ask, (beside, *others)))
    assert outcomes[0].token_ids == alone.token_ids
    assert [outcome.finish.cached_tokens for outcome in (alone, *outcomes)] == [0, 0, 0, 0]
    again = await lab.ask(prompt(10, LONG + 5, "d"))
    assert again.finish.cached_tokens == LONG + 4
    assert again.token_ids == alone.token_ids


@pytest.mark.asyncio(loop_scope="session")
async def test_a_longer_prompt_reuses_what_is_cached(lab: EngineLab) -> None:
    first = await lab.ask(prompt(30, LONG, "f"))
    longer = await lab.ask(prompt(30, 2 * LONG, "f"))
    assert first.finish.cached_tokens == 0
    assert longer.finish.cached_tokens == LONG


@pytest.mark.asyncio(loop_scope="session")
async def test_an_abort_between_pieces(lab: EngineLab) -> None:
    request = prompt(40, LONG, "g")
    queue, handle = await between_pieces(lab, request)
    handle.abort()
    finish = (await lab.outcome(request.key)).finish
    assert (finish.reason, finish.output_tokens) == (FinishReason.ABORTED, 0)
    queue.join()
