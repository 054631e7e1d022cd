"""The embedded engine continues an answer after its prefix."""

import pytest

from doherty_engine import AnswerPrefix, FinishReason, InvalidInputError, RawText, Stopping, TokenIds
from support.engines import EngineLab
from support.llamacpp import Ask, llamacpp_request

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="session")]

END_OF_TURN = 2


async def test_a_continuation_is_what_follows_the_same_tokens(llamacpp_ask: Ask) -> None:
    whole = await llamacpp_ask()
    prompt_ids = (1, 4093, 198, 5820, 1296, 4683, 30, 2, 198, 1, 520, 9531, 198)
    direct = await llamacpp_ask(input=TokenIds((*prompt_ids, *whole.token_ids[:4])))
    held_ids = AnswerPrefix(token_ids=whole.token_ids[:4])
    by_ids = await llamacpp_ask(prefix=held_ids)
    by_text = await llamacpp_ask(prefix=AnswerPrefix(text="1. Red\n"))
    assert direct.started.prompt_tokens == whole.started.prompt_tokens + 4
    assert by_ids.token_ids == by_text.token_ids == direct.token_ids
    assert "1. Red\n" + by_ids.text == whole.text
    for outcome in (by_ids, by_text):
        assert outcome.started.prompt_tokens == whole.started.prompt_tokens
        assert outcome.finish.output_tokens == whole.finish.output_tokens == outcome.token_count + 4


async def test_the_maximum_length_counts_the_whole_answer(llamacpp_ask: Ask) -> None:
    outcome = await llamacpp_ask(prefix=AnswerPrefix(text="1. Red\n"), stopping=Stopping(max_output_tokens=6))
    assert outcome.token_count == 2
    assert outcome.finish.output_tokens == 6
    assert outcome.finish.reason is FinishReason.LENGTH


async def test_a_stop_text_may_begin_in_the_prefix(llamacpp_ask: Ask) -> None:
    stopping = Stopping(stop_texts=("Red\n2",))
    outcome = await llamacpp_ask(prefix=AnswerPrefix(text="1. Red\n"), stopping=stopping)
    assert outcome.text == ""
    assert outcome.finish.stop_text == "Red\n2"
    assert outcome.finish.output_tokens == 5


@pytest.mark.parametrize(
    ("held", "stopping", "reason", "matched"),
    [
        (AnswerPrefix(text="1. Red"), Stopping(max_output_tokens=3), FinishReason.LENGTH, (None, None)),
        (AnswerPrefix(text="1. Red"), Stopping(max_output_tokens=2), FinishReason.LENGTH, (None, None)),
        (AnswerPrefix(token_ids=(33, END_OF_TURN)), Stopping(), FinishReason.STOP, (None, END_OF_TURN)),
        (AnswerPrefix(token_ids=(33, 30)), Stopping(stop_token_ids=(30,)), FinishReason.STOP, (None, 30)),
        (AnswerPrefix(text="1. Red\n2"), Stopping(stop_texts=("Red",)), FinishReason.STOP, ("Red", None)),
    ],
)
async def test_a_complete_answer_gets_its_finish_immediately(
    llamacpp_lab: EngineLab,
    held: AnswerPrefix,
    stopping: Stopping,
    reason: FinishReason,
    matched: tuple[str | None, int | None],
) -> None:
    outcome = await llamacpp_lab.ask(llamacpp_request(prefix=held, stopping=stopping))
    assert outcome.token_count == 0
    assert outcome.finish.reason is reason
    assert (outcome.finish.stop_text, outcome.finish.stop_token_id) == matched
    assert outcome.finish.output_tokens > 0
    assert outcome.started.prompt_tokens > 0


async def test_ignore_eos_continues_after_an_end_token_in_the_prefix(llamacpp_ask: Ask) -> None:
    stopping = Stopping(max_output_tokens=4, ignore_eos=True)
    outcome = await llamacpp_ask(prefix=AnswerPrefix(token_ids=(33, END_OF_TURN)), stopping=stopping)
    assert outcome.token_count == 2


async def test_ids_of_a_prefix_must_be_known_and_end_with_a_character(llamacpp_ask: Ask) -> None:
    emoji = await llamacpp_ask(input=RawText("Emoji: 😀😁😂🤣"), stopping=Stopping(max_output_tokens=3))
    cut = await llamacpp_ask(prefix=AnswerPrefix(token_ids=emoji.token_ids[:2]))
    unknown = await llamacpp_ask(prefix=AnswerPrefix(token_ids=(49152,)))
    whole = await llamacpp_ask(prefix=AnswerPrefix(token_ids=emoji.token_ids), stopping=Stopping(max_output_tokens=4))
    for outcome in (cut, unknown):
        assert isinstance(outcome.error, InvalidInputError)
        assert outcome.error.field == "continue_from.token_ids"
    assert whole.finish.output_tokens == 4
