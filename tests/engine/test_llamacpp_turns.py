"""The order of requests on the embedded engine: room in the KV cache, and turns to compute prompts."""

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from doherty_engine import Choices, EngineRequest, FinishReason, RequestHandle, Stopping, TokenIds
from doherty_engine._semaphore import Claim, FairSemaphore
from doherty_engine.llamacpp._request import LlamaCppContext
from doherty_engine.llamacpp._server import BATCH_TOKENS
from support.engines import EngineLab, running
from support.gguf import write_tiny_model
from support.llamacpp import context_of, llamacpp_request, until_one_waits

LONG = 2 * BATCH_TOKENS + 20


class Queue:
    """Threads that wait for units of a semaphore, and release them when the test says so."""

    def __init__(self, semaphore: FairSemaphore) -> None:
        self._semaphore = semaphore
        self._entered: dict[str, threading.Event] = {}
        self._leave: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []
        self.order: list[str] = []

    def enter(self, name: str, needed: int, *, key: str, tokens: int = 0, arrived: float = 0.0) -> None:
        """Starts waiting. Returns when the request has its units, or waits for them."""
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
        await asyncio.to_thread(self.wait_for, name)

    def wait_for(self, name: str) -> None:
        """The same for a test without an event loop."""
        self._entered[name].wait()

    def leave(self, *names: str) -> None:
        """Lets requests release their units as soon as they have them."""
        for name in names:
            self._leave[name].set()

    def join(self) -> list[str]:
        """Waits until all requests have had their units, and returns the order."""
        self.leave(*self._leave)
        for thread in self._threads:
            thread.join()
        return self.order


def test_a_key_with_many_units_does_not_delay_another_key() -> None:
    queue = Queue(FairSemaphore(10))
    queue.enter("large", 7, key="a")
    queue.enter("second large", 7, key="a")
    queue.enter("small", 2, key="b")
    assert queue.order == ["large", "small"]
    queue.enter("another small", 2, key="c")
    queue.leave("small")
    queue.wait_for("another small")
    assert queue.join() == ["large", "small", "another small", "second large"]


def test_the_key_with_the_fewest_units_is_not_overtaken() -> None:
    queue = Queue(FairSemaphore(10))
    queue.enter("one", 3, key="a")
    queue.enter("two", 3, key="b")
    queue.enter("large", 9, key="c")
    queue.enter("small", 2, key="a")
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
    """Starts a request. When the block begins, its first piece is computed, and the queue holds the next turn."""
    turn = context_of(lab).prompt_turn
    queue = Queue(turn)
    queue.enter("first", 1, key="x")
    handle = lab.submit(request)
    await until_one_waits(turn)
    queue.enter("second", 1, key="y", arrived=math.inf)
    queue.leave("first")
    await queue.entered("second")
    return queue, handle


@pytest.mark.asyncio(loop_scope="session")
async def test_a_long_prompt_lets_another_key_go_first_after_each_piece(lab: EngineLab) -> None:
    request = prompt(10, LONG, "a")
    queue, _ = await between_pieces(lab, request)
    assert not any(output.text for output in lab.outputs(request.key))
    queue.join()
    assert (await lab.outcome(request.key)).finish.output_tokens == 4


@pytest.mark.asyncio(loop_scope="session")
async def test_pieces_change_only_the_order(lab: EngineLab) -> None:
    """Prompts computed in between do not change the answer, and the request's own pieces are not cache hits."""
    alone = await lab.ask(prompt(10, LONG + 5, "c"))
    beside, others = prompt(10, LONG + 5, "d"), [prompt(20 + number, LONG, "e") for number in range(2)]
    outcomes = await asyncio.gather(*map(lab.ask, (beside, *others)))
    assert outcomes[0].token_ids == alone.token_ids
    assert [outcome.finish.cached_tokens for outcome in (alone, *outcomes)] == [0, 0, 0, 0]
    again = await lab.ask(prompt(10, LONG + 5, "d"))
    assert again.finish.cached_tokens == LONG + 4
    assert again.token_ids == alone.token_ids


@pytest.mark.asyncio(loop_scope="session")
async def test_a_longer_prompt_reuses_the_cached_prefix(lab: EngineLab) -> None:
    first = await lab.ask(prompt(30, LONG, "f"))
    longer = await lab.ask(prompt(30, 2 * LONG, "f"))
    assert first.finish.cached_tokens == 0
    assert longer.finish.cached_tokens == LONG


def spy(lab: EngineLab, monkeypatch: pytest.MonkeyPatch) -> tuple[LlamaCppContext, list[Mapping[str, Any]]]:
    """The context, and all further requests to llama.cpp; nothing else shows the pieces."""
    context = context_of(lab)
    complete, requests = context.server.complete, list[Mapping[str, Any]]()

    def note(request: Mapping[str, Any], on_chunk: Callable[[Any], bool]) -> None:
        requests.append(request)
        complete(request, on_chunk)

    monkeypatch.setattr(context.server, "complete", note)
    return context, requests


def lengths(requests: list[Mapping[str, Any]]) -> list[int]:
    return [len(request["prompt"]) for request in requests]


@pytest.mark.asyncio(loop_scope="session")
async def test_a_prompt_that_lost_a_piece_is_computed_in_one_piece(
    lab: EngineLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = await lab.ask(prompt(50, 3 * LONG, "h"))
    context, requests = spy(lab, monkeypatch)
    request = prompt(50, 3 * LONG, "i")
    queue, _ = await between_pieces(lab, request)
    free = {slot.number for slot in context.slots._free}  # noqa: SLF001
    (used,) = {0, 1, 2} - free
    other = {"prompt": [7] * 10, "id_slot": used, "n_predict": 1, "cache_prompt": False}
    await asyncio.to_thread(context.server.complete, other, lambda _: False)
    queue.join()
    assert (await lab.outcome(request.key)).token_ids == alone.token_ids
    assert lengths(requests) == [BATCH_TOKENS, 10, 2 * BATCH_TOKENS, 3 * LONG]


@pytest.mark.asyncio(loop_scope="session")
async def test_a_constraint_is_not_compiled_for_pieces_in_the_middle(
    lab: EngineLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, requests = spy(lab, monkeypatch)
    request = replace(prompt(20, LONG, "j"), constraint=Choices(("aaaa",)), stopping=Stopping(max_output_tokens=8))
    await lab.ask(request)
    assert [bool(request["grammar"]) for request in requests] == [False, False, True]


@pytest.mark.asyncio(loop_scope="session")
async def test_a_request_can_be_aborted_while_another_constraint_of_its_key_is_compiled(
    lab: EngineLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, requests = spy(lab, monkeypatch)
    queue = Queue(context.compiler_turn)
    queue.enter("other", 1, key="o")
    request = replace(prompt(20, 5, "o"), constraint=Choices(("a",)), stopping=Stopping())
    handle = lab.submit(request)
    await until_one_waits(context.compiler_turn)
    handle.abort()
    assert (await lab.outcome(request.key)).finish.reason is FinishReason.ABORTED
    assert not requests
    queue.join()


@pytest.fixture
def beside_an_answer(lab: EngineLab, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Mapping[str, Any]]]:
    """The requests to llama.cpp; the engine believes that an answer runs, and that a token of a prompt takes long."""
    context, requests = spy(lab, monkeypatch)
    monkeypatch.setattr(context.pace, "_cost", lambda _: math.inf)
    context.pace.answer_begins()
    yield requests
    context.pace.answer_ends()
    assert context.pace.piece_tokens(0) == BATCH_TOKENS  # each answer that began has ended


@pytest.mark.asyncio(loop_scope="session")
async def test_a_prompt_beside_an_answer_is_computed_in_small_pieces(
    lab: EngineLab, beside_an_answer: list[Mapping[str, Any]]
) -> None:
    finish = (await lab.ask(prompt(70, 20, "l"))).finish
    assert lengths(beside_an_answer) == list(range(1, 21))
    assert (finish.cached_tokens, finish.output_tokens) == (0, 4)


@pytest.mark.asyncio(loop_scope="session")
async def test_small_pieces_reuse_what_was_generated(lab: EngineLab, beside_an_answer: list[Mapping[str, Any]]) -> None:
    first = prompt(30, 10, "m")
    answer = (await lab.ask(first)).token_ids
    beside_an_answer.clear()
    assert isinstance(first.input, TokenIds)
    ids = (*first.input.ids, *answer, 31, 32)
    longer = await lab.ask(replace(first, key="longer", input=TokenIds(ids)))
    assert longer.finish.cached_tokens == 10 + 3  # the last token that is generated is not computed
    assert lengths(beside_an_answer) == [15, 16]


@pytest.mark.asyncio(loop_scope="session")
async def test_an_answer_that_runs_is_noted_before_the_next_piece(
    lab: EngineLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, _ = spy(lab, monkeypatch)
    sizes: list[int] = []
    release = context.prompt_turn.release

    def note(needed: int, request: Claim) -> None:
        sizes.append(context.pace.piece_tokens(0))
        release(needed, request)

    monkeypatch.setattr(context.pace, "_cost", lambda _: math.inf)
    monkeypatch.setattr(context.prompt_turn, "release", note)
    await lab.ask(prompt(10, 5, "n"))
    assert sizes == [1]
    assert context.pace.piece_tokens(0) == BATCH_TOKENS


@pytest.mark.asyncio(loop_scope="session")
async def test_a_request_can_be_aborted_between_pieces(lab: EngineLab) -> None:
    request = prompt(40, LONG, "g")
    queue, handle = await between_pieces(lab, request)
    handle.abort()
    finish = (await lab.outcome(request.key)).finish
    assert (finish.reason, finish.output_tokens) == (FinishReason.ABORTED, 0)
    queue.join()
