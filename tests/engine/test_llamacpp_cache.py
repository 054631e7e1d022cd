"""The prefix cache of the embedded engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from doherty_engine import RawText, Stopping, TokenIds
from doherty_engine.llamacpp._slots import Slots
from support.engines import running
from support.gguf import write_tiny_model
from support.llamacpp import Ask, asking

PROMPT = RawText("What has been asked here before, and by whom?")
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
async def test_the_answer_does_not_depend_on_whose_slot_it_gets(ask: Ask) -> None:
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
    # Numbers of 32 bits: rounding that is this small here is a tenth where weights have 4 bits.
    model = write_tiny_model(tmp_path / "model.gguf")
    in_order = await last_logprob(model, (), ())
    out_of_order = {await last_logprob(model, (token,) * 200, (token + 1,)) for token in (101, 150)}
    assert len(out_of_order) == 1  # to the last bit, whatever others have in the cache
    assert out_of_order != {in_order}  # or the cells were in order
    assert out_of_order.pop() == pytest.approx(in_order, abs=0.005)


def test_a_slot_of_the_same_salt_with_the_longest_beginning_is_taken() -> None:
    slots = Slots(3)
    read = (("a", (1, 2, 3, 4)), ("a", (1, 2, 9)), ("b", (1, 2, 3, 4, 5)))
    for slot, may_reuse in [slots.take(salt, tokens) for salt, tokens in read]:
        assert not may_reuse
        slots.give_back(slot)
    taken = [slots.take("a", (1, 2, 3, 4, 5)) for _ in range(3)]
    assert [(slot.number, may_reuse) for slot, may_reuse in taken] == [(0, True), (1, True), (2, False)]


def test_a_slot_is_not_reused_for_a_short_common_prefix() -> None:
    slots = Slots(2)
    slot, _ = slots.take("a", tuple(range(100)))
    slots.give_back(slot)
    other, _ = slots.take("a", (0, *range(200, 300)))
    assert other.number != slot.number


def test_the_slot_that_was_not_used_for_longest_is_overwritten() -> None:
    slots = Slots(2)
    for salt in ("a", "b", "a"):
        slot, _ = slots.take(salt, (1, 2, 3))
        slots.give_back(slot)
    slot, may_reuse = slots.take("c", (1, 2, 3))
    assert (slot.number, may_reuse) == (1, False)
