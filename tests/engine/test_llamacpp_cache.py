"""The prefix cache of the embedded engine."""

import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from doherty_engine import OutOfResourcesError, RawText, Stopping, TokenIds
from doherty_engine.llamacpp._server import LlamaServer
from doherty_engine.llamacpp._slots import Slots
from support.engines import running
from support.gguf import write_tiny_model
from support.llamacpp import Ask, asking

PROMPT = RawText("What has been asked here before, and by whom?")
SMALL = TokenIds((50,) * 20)
SHORT = Stopping(max_output_tokens=3, ignore_eos=True)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ask(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ask]:
    model = write_tiny_model(tmp_path_factory.mktemp("tiny") / "model.gguf")
    async with running("llamacpp", model=str(model), slots="2", threads="1") as lab:
        yield asking(lab)


@pytest.mark.asyncio(loop_scope="session")
async def test_a_cached_prompt_is_used_only_by_its_key(ask: Ask) -> None:
    cached = [(await ask(input=PROMPT, stopping=SHORT, cache_salt=salt)).finish.cached_tokens for salt in "abab"]
    assert cached[:2] == [0, 0]
    assert cached[2] == cached[3] != 0


@pytest.mark.asyncio(loop_scope="session")
async def test_an_answer_does_not_depend_on_the_slot_that_it_gets(ask: Ask) -> None:
    first, *others = [await ask(input=PROMPT, stopping=SHORT, cache_salt=salt) for salt in ("c", "d", "e")]
    assert {other.token_ids for other in others} == {first.token_ids}
    assert [other.finish.cached_tokens for other in others] == [0, 0]


async def last_logprob(model: Path, before: tuple[int, ...], between: tuple[int, ...]) -> float:
    """The log probability that follows a prompt whose beginning is reused.

    Its first 24 tokens lie behind the cells of `before`, and since `between` takes the place of that, its last 10 lie
    in front of them. The engine is a new one.
    """
    prefix, rest = tuple(range(10, 34)), tuple(range(80, 90))
    async with running("llamacpp", model=str(model), slots="2", threads="1") as lab:
        ask = asking(lab)
        for salt, ids in (("b", before), ("a", (*prefix, *range(110, 150))), ("c", between)):
            if ids:
                await ask(input=TokenIds(ids), stopping=SHORT, cache_salt=salt)
        outcome = await ask(input=TokenIds((*prefix, *rest)), stopping=SHORT, cache_salt="a", top_logprobs=0)
    assert outcome.finish.cached_tokens == len(prefix)
    return outcome.logprobs[0].logprob


async def test_a_reused_prefix_changes_an_answer_only_by_rounding(tmp_path: Path) -> None:
    # 32-bit numbers: the rounding, which is this small here, is a tenth if weights have 4 bits.
    model = write_tiny_model(tmp_path / "model.gguf")
    in_order = await last_logprob(model, (), ())
    out_of_order = {await last_logprob(model, (token,) * 200, (token + 1,)) for token in (101, 150)}
    assert len(out_of_order) == 1  # exactly equal, no matter what others have in the cache
    assert out_of_order != {in_order}  # or the cells were in order
    assert out_of_order.pop() == pytest.approx(in_order, abs=0.005)


async def test_long_prompts_empty_the_slots_of_their_own_key_first(tmp_path: Path) -> None:
    """llama.cpp would empty the first slot."""
    model = write_tiny_model(tmp_path / "model.gguf")
    async with running("llamacpp", model=str(model), slots="3", threads="1", context_tokens="512") as lab:
        ask = asking(lab)

        async def cached(salt: str, first: int, tokens: int) -> int | None:
            prompt = TokenIds(tuple(first + index % 50 for index in range(tokens)))
            return (await ask(input=prompt, stopping=SHORT, cache_salt=salt)).finish.cached_tokens

        assert [await cached(*asked) for asked in (("a", 10, 150), ("b", 70, 150), ("b", 130, 300))] == [0, 0, 0]
        assert await cached("a", 10, 151) == 150
        assert await cached("b", 70, 151) == 0


@pytest.mark.asyncio(loop_scope="session")
async def test_a_request_that_fails_early_does_not_get_the_cache_of_another_key(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OutOfResourcesError("no file descriptors")

    secret = TokenIds((40,) * 200)
    for salt, prompt in (("f", secret), ("g", TokenIds((41,) * 250))):
        await ask(input=prompt, stopping=SHORT, cache_salt=salt)
    with monkeypatch.context() as patch:
        patch.setattr(LlamaServer, "empty_slots", fail)
        failed = await ask(input=TokenIds((42,) * 300), stopping=SHORT, cache_salt="h")  # in the slot of "f"
    assert isinstance(failed.error, OutOfResourcesError)
    cached = [
        (await ask(input=prompt, stopping=SHORT, cache_salt="h")).finish.cached_tokens for prompt in (SMALL, secret)
    ]
    assert cached == [0, 0]


def test_slots_are_emptied_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the end of a step."""
    together = threading.Barrier(3)
    monkeypatch.setattr(LlamaServer, "_ask", lambda *_: together.wait(60))
    LlamaServer.__new__(LlamaServer).empty_slots((0, 1, 2))


def test_free_slots_are_emptied_in_the_order_of_their_last_use() -> None:
    slots = Slots(4, 100)
    for salt, size in (("a", 30), ("b", 30), ("c", 30)):
        taken = slots.take(salt, (ord(salt),) * size)
        assert taken.full == ()
        slots.give_back(taken.slot, taken.slot.tokens, 3)
    running = slots.take("b", (98,) * 31)  # in the same slot
    assert (running.slot.number, running.cached, running.full) == (1, 33, ())
    assert slots.take("d", (1,) * 10).full == (0,)
    assert slots.take("e", (2,) * 10).full == ()


def test_the_slot_of_the_same_salt_with_the_longest_common_prefix_is_used() -> None:
    slots = Slots(3, 100)
    read = (("a", (1, 2, 3, 4)), ("a", (1, 2, 9)), ("b", (1, 2, 3, 4, 5)))
    for (slot, cached, _), (_, tokens) in [(slots.take(*prompt), prompt) for prompt in read]:
        assert cached is None
        slots.give_back(slot, tokens, 3)
    taken = [slots.take("a", (1, 2, 3, 4, 5)) for _ in range(3)]
    # What was generated behind the first one may be the last token here.
    assert [(slot.number, cached) for slot, cached, _ in taken] == [(0, 4 + 3), (1, 2), (2, None)]


def test_a_slot_is_not_reused_for_a_short_common_prefix() -> None:
    slots = Slots(2, 1000)
    tokens = tuple(range(100))
    slot = slots.take("a", tokens).slot
    slots.give_back(slot, tokens, 0)
    other = slots.take("a", (0, *range(200, 300))).slot
    assert other.number != slot.number


def test_the_least_recently_used_slot_is_overwritten() -> None:
    slots = Slots(2, 100)
    for salt in ("a", "b", "a"):
        slot = slots.take(salt, (1, 2, 3)).slot
        slots.give_back(slot, (1, 2, 3), 0)
    slot, cached, _ = slots.take("c", (1, 2, 3))
    assert (slot.number, cached) == (1, None)
