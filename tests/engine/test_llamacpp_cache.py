"""Whose cached tokens a request of the embedded engine may use."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from doherty_engine import RawText, Stopping
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
async def test_a_prompt_is_new_to_everybody_but_the_one_who_asked_it(ask: Ask) -> None:
    cached = [(await ask(input=PROMPT, stopping=SHORT, cache_salt=salt)).finish.cached_tokens for salt in "abab"]
    assert cached[:2] == [0, 0]
    assert cached[2] == cached[3] != 0


@pytest.mark.asyncio(loop_scope="session")
async def test_the_answer_does_not_depend_on_whose_slot_it_gets(ask: Ask) -> None:
    first, *others = [await ask(input=PROMPT, stopping=SHORT, cache_salt=salt) for salt in ("c", "d", "e")]
    assert {other.token_ids for other in others} == {first.token_ids}
    assert [other.finish.cached_tokens for other in others] == [0, 0]


def test_a_slot_of_the_same_salt_with_the_longest_beginning_is_taken() -> None:
    slots = Slots(3)
    read = (("a", (1, 2, 3, 4)), ("a", (1, 2, 9)), ("b", (1, 2, 3, 4, 5)))
    for slot, may_reuse in [slots.take(salt, tokens) for salt, tokens in read]:
        assert not may_reuse
        slots.give_back(slot)
    taken = [slots.take("a", (1, 2, 3, 4, 5)) for _ in range(3)]
    assert [(slot.number, may_reuse) for slot, may_reuse in taken] == [(0, True), (1, True), (2, False)]


def test_a_slot_is_not_given_up_for_a_beginning_that_is_hardly_shared() -> None:
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
