"""An answer of an engine that returns token ids: its outputs and its end."""

import math
from dataclasses import replace
from typing import Any

import pytest

from doherty_engine import (
    Choices,
    EngineRequest,
    FinishReason,
    InvalidInputError,
    RawText,
    Started,
    StepOutput,
    Stopping,
    TokenLogprob,
)
from doherty_engine.text import token_logprob
from doherty_engine.tokens import PreparedInput, TokenAnswer

EOS, OTHER_EOS = 300, 301


class Bytes:
    """Every byte is a token whose id is its value. Special tokens follow, two of which end the answer."""

    pieces = (*(bytes([value]) for value in range(256)), *(b"" for _ in range(256, 310)))
    eos_ids = frozenset({EOS, OTHER_EOS})


def answer_of(*, held: bytes = b"", budget: int = 100, stopping: Stopping | None = None, **fields: Any) -> TokenAnswer:
    request = EngineRequest("key", RawText("?"), stopping=stopping or Stopping(), **{"token_ids": True, **fields})
    return TokenAnswer(request, PreparedInput((1, 2, 3), tuple(held), budget, 0.25), Bytes())


def take(answer: TokenAnswer, data: bytes, **more: Any) -> StepOutput | None:
    return answer.take(tuple(data), **more)


def named(token_id: int, place: dict[int, float], most: int) -> list[TokenLogprob | None]:
    return [token_logprob(token_id, place, most, Bytes.pieces)]


def joined(outputs: list[StepOutput | None]) -> tuple[str, tuple[int, ...]]:
    present = [output for output in outputs if output is not None]
    return "".join(output.text for output in present), tuple(
        token_id for output in present for token_id in output.token_ids or ()
    )


def test_a_step_has_its_text_and_ids_and_the_first_one_the_prompt_tokens() -> None:
    answer = answer_of()
    answer.queue = 0.5
    assert take(answer, b"so") == StepOutput("key", "so", 2, tuple(b"so"), None, Started(3, 0.25, 0.5))
    assert take(answer, b"!") == StepOutput("key", "!", 1, tuple(b"!"))


def test_ids_are_delivered_only_on_request() -> None:
    output = take(answer_of(token_ids=False), b"so")
    assert output is not None
    assert (output.token_count, output.token_ids) == (2, None)


def test_a_character_is_delivered_when_it_is_complete() -> None:
    answer = answer_of()
    data = "a🙂b".encode()
    outputs = [take(answer, bytes([value])) for value in data]
    assert [None if output is None else output.text for output in outputs] == ["a", None, None, None, "🙂", "b"]
    assert joined(outputs) == ("a🙂b", tuple(data))


@pytest.mark.parametrize("end", [EOS, OTHER_EOS])
def test_either_end_token_ends_an_answer(end: int) -> None:
    answer = answer_of()
    output = answer.take([*b"so", end, *b"more"])
    assert output is not None
    assert (output.text, output.token_ids) == ("so", (*b"so", end))
    assert output.finish == answer.finish
    assert answer.finish is not None
    assert (answer.finish.reason, answer.finish.stop_token_id) == (FinishReason.STOP, end)
    assert answer.finish.output_tokens == 3
    assert answer.stop_ids == {EOS, OTHER_EOS}


def test_an_end_within_a_character_delivers_its_ids_without_text() -> None:
    answer = answer_of()
    assert take(answer, "🙂".encode()[:2]) is None
    output = answer.take([EOS])
    assert output is not None
    assert (output.text, output.token_ids) == ("", (*"🙂".encode()[:2], EOS))


def test_stop_tokens_work_while_end_tokens_are_ignored() -> None:
    answer = answer_of(stopping=Stopping(ignore_eos=True, stop_token_ids=(OTHER_EOS, 65)))
    assert answer.stop_ids == {OTHER_EOS, 65}
    assert joined([answer.take([66, EOS, 67])]) == ("BC", (66, EOS, 67))
    assert answer.finish is None
    last = answer.take([68, 65])
    assert last is not None
    assert last.text == "D"  # the text of the stop token is not delivered
    assert last.finish is not None
    assert last.finish.stop_token_id == 65


def test_a_stop_text_is_found_across_tokens_and_steps() -> None:
    answer = answer_of(stopping=Stopping(stop_texts=("END",)))
    outputs = [take(answer, b"so E"), take(answer, b"N"), take(answer, b"Dmore")]
    assert joined(outputs) == ("so ", tuple(b"so END"))
    assert answer.finish is not None
    assert (answer.finish.stop_text, answer.finish.output_tokens) == ("END", 6)


def test_a_stop_text_can_be_included() -> None:
    answer = answer_of(stopping=Stopping(stop_texts=("END",), include_stop_text=True))
    assert joined([take(answer, b"so END")])[0] == "so END"


def test_the_maximum_length_ends_an_answer_with_the_text_that_was_held_back() -> None:
    answer = answer_of(budget=4, stopping=Stopping(stop_texts=("END",)))
    output = take(answer, b"s EN")
    assert output is not None
    assert output.text == "s EN"
    assert output.finish is not None
    assert (output.finish.reason, output.finish.output_tokens) == (FinishReason.LENGTH, 4)


def test_nothing_ends_an_answer_before_its_minimum_length() -> None:
    stopping = Stopping(min_output_tokens=4, stop_texts=("x",), stop_token_ids=(65,))
    answer = answer_of(stopping=stopping)
    assert joined([answer.take([*b"xA", EOS])]) == ("xA", (*b"xA", EOS))
    assert answer.finish is None
    assert take(answer, b"x") is not None
    assert answer.finish is not None
    with_form = answer_of(stopping=stopping, constraint=Choices(("a",)))
    with_form.take([*b"a", EOS])
    assert with_form.finish is not None  # because nothing can follow


def test_a_prefix_is_counted_and_taken_into_account() -> None:
    answer = answer_of(held=b"the E", budget=9, stopping=Stopping(stop_texts=("END",), min_output_tokens=7))
    assert take(answer, b"N") is None
    output = take(answer, b"D")
    assert output is not None
    assert (output.text, output.token_count) == ("", 2)
    assert output.finish is not None
    assert (output.finish.stop_text, output.finish.output_tokens) == ("END", 7)


@pytest.mark.parametrize(
    ("held", "stopping", "budget", "reason", "matched"),
    [
        (b"so", Stopping(), 2, FinishReason.LENGTH, (None, None)),
        (b"so", Stopping(), 1, FinishReason.LENGTH, (None, None)),
        (b"soA", Stopping(stop_token_ids=(65,)), 9, FinishReason.STOP, (None, 65)),
        (b"so END of", Stopping(stop_texts=("END",)), 90, FinishReason.STOP, ("END", None)),
    ],
)
def test_a_complete_prefix_ends_immediately(
    held: bytes, stopping: Stopping, budget: int, reason: FinishReason, matched: tuple[str | None, int | None]
) -> None:
    answer = answer_of(held=held, stopping=stopping, budget=budget)
    assert answer.finish is not None
    last = answer.end(FinishReason.ABORTED)
    assert last.finish == answer.finish
    assert (answer.finish.reason, answer.finish.stop_text, answer.finish.stop_token_id) == (reason, *matched)
    assert (last.text, last.token_count, last.started) == ("", 0, Started(3, 0.25))


def test_an_end_token_in_the_prefix_ends_the_answer() -> None:
    request = EngineRequest("key", RawText("?"))
    answer = TokenAnswer(request, PreparedInput((1,), (65, EOS), 9), Bytes())
    assert answer.finish is not None
    assert answer.finish.stop_token_id == EOS
    let_through = replace(request, stopping=Stopping(min_output_tokens=3))
    assert TokenAnswer(let_through, PreparedInput((1,), (65, EOS), 9), Bytes()).finish is None


def test_a_prefix_that_ends_within_a_character_is_refused() -> None:
    with pytest.raises(InvalidInputError) as raised:
        answer_of(held="🙂".encode()[:3])
    assert raised.value.field == "continue_from.token_ids"


def test_log_probabilities_have_the_bytes_of_their_tokens() -> None:
    answer = answer_of(top_logprobs=2)
    places = [{65: -1.5, 66: -0.5, 67: -2.0}, {0xC3: 0.1, 0xC4: -9.0, 65: -8.0}]
    output = answer.take([65], named(65, places[0], 2))
    assert output is not None
    top = (TokenLogprob(66, b"B", -0.5), TokenLogprob(65, b"A", -1.5))
    assert output.logprobs == (TokenLogprob(65, b"A", -1.5, top),)
    assert answer.take([0xC3], named(0xC3, places[1], 2)) is None
    whole = answer.take([0x9F], named(0x9F, {0x9F: -1.0, 65: -2.0}, 2))
    assert whole is not None
    assert whole.text == "ß"
    assert whole.logprobs is not None
    assert [(logprob.token, logprob.logprob) for logprob in whole.logprobs] == [(b"\xc3", 0.0), (b"\x9f", -1.0)]
    alone = answer_of(top_logprobs=0).take([65], named(65, places[0], 0))
    assert alone is not None
    assert alone.logprobs == (TokenLogprob(65, b"A", -1.5),)
    unwanted = answer_of().take([65], named(65, places[0], 2))
    assert unwanted is not None
    assert unwanted.logprobs is None


@pytest.mark.parametrize("unknown", [math.nan, math.inf])
def test_a_log_probability_that_is_not_a_number_is_absent(unknown: float) -> None:
    answer = answer_of(top_logprobs=1)
    for place in ({65: unknown, 66: unknown}, {65: -1.0, 66: unknown}):
        output = answer.take([65], named(65, place, 1))
        assert output is not None
        assert (output.text, output.token_count, output.logprobs) == ("A", 1, None)
    assert answer.take([0xC3], named(0xC3, {0xC3: unknown, 65: -8.0}, 1)) is None
    whole = answer.take([0x9F], named(0x9F, {0x9F: -1.0, 65: -2.0}, 1))
    assert whole is not None
    assert (whole.text, whole.token_count, whole.logprobs) == ("ß", 2, None)
    impossible = answer_of(top_logprobs=0).take([65], named(65, {65: -math.inf}, 0))
    assert impossible is not None
    assert impossible.logprobs == (TokenLogprob(65, b"A", -math.inf),)


def test_the_engine_may_end_an_answer() -> None:
    answer = answer_of(stopping=Stopping(stop_texts=("END",)))
    output = take(answer, b"so E", ended=FinishReason.STOP)
    assert output is not None
    assert output.text == "so E"
    assert output.finish is not None
    assert (output.finish.reason, output.finish.stop_text, output.finish.stop_token_id) == (
        FinishReason.STOP,
        None,
        None,
    )
    by_token = answer_of().take([EOS], ended=FinishReason.LENGTH)
    assert by_token is not None
    assert by_token.finish is not None
    assert by_token.finish.stop_token_id == EOS


def test_a_time_limit_delivers_the_held_back_text_and_an_abort_does_not() -> None:
    for reason, text in ((FinishReason.TIME_LIMIT, "so E"), (FinishReason.ABORTED, "")):
        answer = answer_of(stopping=Stopping(stop_texts=("so END",)))
        assert take(answer, b"so E") is None
        last = answer.end(reason)
        assert last.text == text
        assert last.finish is not None
        assert (last.finish.reason, last.finish.output_tokens) == (reason, 4)


def test_a_token_above_the_tokenizers_range_has_no_text() -> None:
    output = answer_of().take([65, 5000])
    assert output is not None
    assert (output.text, output.token_ids) == ("A", (65, 5000))
