"""A resumed answer continues like the original one."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from doherty_engine import (
    AnswerPrefix,
    Choices,
    EngineRequest,
    FinishReason,
    InvalidInputError,
    JsonSchema,
    RawText,
    Sampling,
    Stopping,
    UnsupportedError,
)
from doherty_engine.synthetic._tokenizer import VOCABULARY_SIZE
from support.engines import EngineLab, Outcome, running

BASE = EngineRequest(
    "undisturbed", RawText("Resume"), sampling=Sampling(temperature=0.9, seed=3), token_ids=True, adapter="demo-a"
)


@pytest.fixture
async def lab() -> AsyncIterator[EngineLab]:
    async with running("synthetic", tokens_per_second="0") as lab:
        yield lab


async def check_every_cut(lab: EngineLab, base: EngineRequest) -> Outcome:
    """Resumes after every delta, with ids and with text."""
    whole = await lab.ask(base)
    text = ""
    ids: tuple[int, ...] = ()
    for index, output in enumerate(whole.outputs[:-1]):
        text += output.text
        ids += output.token_ids or ()
        for kind, held in (("ids", AnswerPrefix(token_ids=ids)), ("text", AnswerPrefix(text=text))):
            resumed = await lab.ask(replace(base, key=f"{base.key} {kind} {index}", prefix=held))
            assert text + resumed.text == whole.text, (kind, index)
            assert ids + resumed.token_ids == whole.token_ids
            assert resumed.finish == whole.finish
            assert resumed.started.prompt_tokens == whole.started.prompt_tokens
    return whole


async def test_an_answer_continues_at_every_cut(lab: EngineLab) -> None:
    whole = await check_every_cut(lab, BASE)
    assert not whole.text.isascii()


async def test_an_answer_with_a_stop_text_continues_at_every_cut(lab: EngineLab) -> None:
    whole = await lab.ask(replace(BASE, key="whole"))
    stop = whole.text[60:75]
    stopped = await check_every_cut(lab, replace(BASE, stopping=Stopping(stop_texts=(stop,))))
    assert stopped.finish.stop_text == stop
    assert stopped.text == whole.text[:60]


async def test_an_answer_with_an_early_stop_text_continues_at_every_cut(lab: EngineLab) -> None:
    stopping = Stopping(stop_texts=("e",), min_output_tokens=60)
    whole = await check_every_cut(lab, replace(BASE, stopping=stopping))
    assert "e" in whole.text
    assert whole.finish.stop_text == "e"


async def test_an_answer_with_a_maximum_continues_at_every_cut(lab: EngineLab) -> None:
    whole = await check_every_cut(lab, replace(BASE, stopping=Stopping(max_output_tokens=40)))
    assert whole.finish.reason is FinishReason.LENGTH


async def test_a_constrained_answer_continues_at_every_cut(lab: EngineLab) -> None:
    await check_every_cut(lab, replace(BASE, key="choice", constraint=Choices(("one two 🙂 three", "four five"))))
    schema = JsonSchema('{"type": "object", "required": ["n"], "properties": {"n": {"const": "some water"}}}')
    await check_every_cut(lab, replace(BASE, key="schema", constraint=schema))


async def test_a_text_that_was_cut_within_a_token_continues(lab: EngineLab) -> None:
    resumed = await lab.ask(replace(BASE, constraint=Choices((" water is",)), prefix=AnswerPrefix(text=" wat")))
    assert resumed.text == "er is"


async def test_another_choice_is_used_if_only_it_fits_the_prefix(lab: EngineLab) -> None:
    for choice in ("alpha", "beta"):
        held = AnswerPrefix(text=choice[:2])
        resumed = await lab.ask(replace(BASE, key=choice, constraint=Choices(("alpha", "beta")), prefix=held))
        assert choice[:2] + resumed.text == choice


async def test_a_prefix_that_violates_the_constraint_is_refused(lab: EngineLab) -> None:
    outcome = await lab.ask(replace(BASE, constraint=Choices(("alpha",)), prefix=AnswerPrefix(text="beta")))
    assert isinstance(outcome.error, UnsupportedError)
    assert outcome.error.field == "continue_from"


async def test_a_complete_prefix_gets_its_end_immediately(lab: EngineLab) -> None:
    whole = await lab.ask(BASE)
    by_eos = await lab.ask(replace(BASE, key="eos", prefix=AnswerPrefix(token_ids=whole.token_ids)))
    assert by_eos.finish == whole.finish
    stop = whole.text[10:20]
    stopping = Stopping(stop_texts=(stop,))
    by_text = await lab.ask(replace(BASE, key="text", prefix=AnswerPrefix(text=whole.text[:25]), stopping=stopping))
    assert by_text.finish.stop_text == stop
    length = Stopping(max_output_tokens=5)
    by_length = await lab.ask(
        replace(BASE, key="l", prefix=AnswerPrefix(token_ids=whole.token_ids[:5]), stopping=length)
    )
    assert by_length.finish.reason is FinishReason.LENGTH
    for outcome in (by_eos, by_text, by_length):
        assert len(outcome.outputs) == 1
        assert (outcome.text, outcome.token_ids) == ("", ())
        assert outcome.started.prompt_tokens == whole.started.prompt_tokens


async def test_an_empty_prefix_leads_to_the_whole_answer(lab: EngineLab) -> None:
    whole = await lab.ask(BASE)
    resumed = await lab.ask(replace(BASE, key="empty", prefix=AnswerPrefix()))
    assert resumed.text == whole.text


@pytest.mark.parametrize("ids", [(0xF0, 0x9F), (VOCABULARY_SIZE,)])
async def test_ids_of_a_prefix_must_be_known_and_end_with_a_code_point(lab: EngineLab, ids: tuple[int, ...]) -> None:
    outcome = await lab.ask(replace(BASE, prefix=AnswerPrefix(token_ids=ids)))
    assert isinstance(outcome.error, InvalidInputError)
    assert outcome.error.field == "continue_from.token_ids"
