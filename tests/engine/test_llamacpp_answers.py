"""The answers of the embedded engine, except constraints and prefixes."""

import pytest

from doherty_engine import (
    AnswerPrefix,
    Conversation,
    EngineRequest,
    FinishReason,
    Input,
    InvalidInputError,
    Message,
    RawText,
    Role,
    Sampling,
    Stopping,
    TokenIds,
    UnsupportedError,
)
from support.engines import EngineLab
from support.llamacpp import Ask, llamacpp_request

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="session")]

COLORS = "1. Red\n2. Blue\n3. Green"
END_OF_TURN = 2
EMOJI = RawText("Emoji: 😀😁😂🤣")


def most(tokens: int, **fields: object) -> Stopping:
    return Stopping(max_output_tokens=tokens, **fields)  # type: ignore[arg-type]


async def test_an_answer_ends_by_itself(llamacpp_ask: Ask, llamacpp_lab: EngineLab) -> None:
    outcome = await llamacpp_ask()
    assert outcome.text == COLORS
    assert outcome.finish.reason is FinishReason.STOP
    assert outcome.finish.stop_token_id == outcome.token_ids[-1] == END_OF_TURN
    assert outcome.finish.output_tokens == outcome.token_count == len(outcome.token_ids) == 12
    assert outcome.finish.cached_tokens == 0
    assert outcome.outputs[0].started == outcome.started
    assert outcome.started.prompt_tokens == await llamacpp_lab.engine.count_tokens(llamacpp_request().input)
    assert 0 < outcome.started.preprocess < 10
    assert all(output.logprobs is None for output in outcome.outputs)


async def test_the_last_token_and_the_finish_are_in_the_same_output(llamacpp_ask: Ask) -> None:
    by_itself, by_length = await llamacpp_ask(), await llamacpp_ask(stopping=most(4))
    assert (by_itself.outputs[-1].text, by_itself.outputs[-1].token_ids) == ("", (END_OF_TURN,))
    assert (by_length.outputs[-1].text, by_length.outputs[-1].token_count) == ("\n", 1)
    assert by_length.text == "1. Red\n"
    assert by_length.finish.reason is FinishReason.LENGTH
    assert by_length.finish.stop_token_id is None


async def test_texts_of_single_tokens_join_to_the_same_text(llamacpp_ask: Ask) -> None:
    whole = await llamacpp_ask()
    parts: list[str] = []
    for _ in range(5):
        held = AnswerPrefix(text="".join(parts)) if parts else None
        parts.append((await llamacpp_ask(prefix=held, stopping=most(len(parts) + 1))).text)
    assert "".join(parts) == "".join(output.text for output in whole.outputs[:6])


async def test_characters_of_several_tokens_are_delivered_whole_with_their_ids(llamacpp_ask: Ask) -> None:
    outcome = await llamacpp_ask(input=EMOJI, stopping=most(6))
    wide = [output for output in outcome.outputs if output.text]
    assert [output.token_count for output in wide] == [3, 3]
    assert [len(output.text) for output in wide] == [1, 1]
    # llama.cpp reads the same tokens if it gets the text.
    as_text = await llamacpp_ask(input=RawText(outcome.text), stopping=most(8))
    as_ids = await llamacpp_ask(input=TokenIds(outcome.token_ids), stopping=most(8))
    assert as_text.started.prompt_tokens == as_ids.started.prompt_tokens == 6
    assert as_text.token_ids == as_ids.token_ids


async def test_a_character_that_the_maximum_length_cuts_is_counted_and_not_sent(llamacpp_ask: Ask) -> None:
    outcome = await llamacpp_ask(input=EMOJI, stopping=most(5))
    assert len(outcome.text) == 1
    assert outcome.finish.output_tokens == outcome.token_count == 5
    assert outcome.finish.reason is FinishReason.LENGTH
    assert outcome.outputs[-1].token_ids is None


async def test_ids_are_delivered_only_on_request(llamacpp_ask: Ask) -> None:
    outcome = await llamacpp_ask(token_ids=False, stopping=most(3))
    assert all(output.token_ids is None for output in outcome.outputs)
    assert outcome.token_count == 3


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        (RawText("<|im_start|>user\nhello"), 4),
        (TokenIds((1, 4093, 198, 28120)), 4),
        (Conversation((Message(Role.SYSTEM, ""), Message(Role.USER, "hello"))), 15),
    ],
)
async def test_inputs_are_tokenized_for_the_model(
    llamacpp_lab: EngineLab, llamacpp_ask: Ask, content: Input, tokens: int
) -> None:
    assert await llamacpp_lab.engine.count_tokens(content) == tokens
    assert (await llamacpp_ask(input=content, stopping=most(1))).started.prompt_tokens == tokens


async def test_the_same_tokens_get_the_same_answer_as_the_text(llamacpp_ask: Ask) -> None:
    text = await llamacpp_ask(input=RawText("<|im_start|>user\nhello"), stopping=most(6))
    ids = await llamacpp_ask(input=TokenIds((1, 4093, 198, 28120)), stopping=most(6))
    assert text.token_ids == ids.token_ids


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("raw_text", {"input": RawText("")}),
        ("token_ids", {"input": TokenIds((1, 49152))}),
        ("raw_text", {"input": RawText("word " * 1100)}),
        ("stopping.max_output_tokens", {"stopping": most(1024)}),
        ("stopping.stop_token_ids", {"stopping": Stopping(stop_token_ids=(49152,))}),
    ],
)
async def test_inputs_that_the_model_cannot_read_are_refused(
    llamacpp_ask: Ask, field: str, bad: dict[str, object]
) -> None:
    outcome = await llamacpp_ask(**bad)
    assert isinstance(outcome.error, InvalidInputError)
    assert outcome.error.field == field
    assert len(outcome.outputs) == 1


@pytest.mark.parametrize(
    ("stop", "include", "text", "tokens"),
    [
        ("Blue", False, "1. Red\n2. ", 7),
        ("Blue", True, "1. Red\n2. Blue", 7),
        ("ed\n2. Bl", False, "1. R", 7),
        ("ed\n2. Bl", True, "1. Red\n2. Bl", 7),
        (". Red", False, "1", 3),
        ("1", False, "", 1),
    ],
)
async def test_stop_texts_cut_the_answer(
    llamacpp_ask: Ask, stop: str, text: str, tokens: int, *, include: bool
) -> None:
    outcome = await llamacpp_ask(stopping=Stopping(stop_texts=("nothing", stop), include_stop_text=include))
    assert outcome.text == text
    assert (outcome.finish.reason, outcome.finish.stop_text) == (FinishReason.STOP, stop)
    assert outcome.finish.stop_token_id is None
    assert outcome.finish.output_tokens == outcome.token_count == len(outcome.token_ids) == tokens


async def test_a_partial_stop_text_is_delivered(llamacpp_ask: Ask) -> None:
    outcome = await llamacpp_ask(stopping=Stopping(stop_texts=("Green and blue",)))
    assert outcome.text == COLORS
    assert outcome.finish.stop_token_id == END_OF_TURN


async def test_a_stop_token_ends_the_answer_without_its_text(llamacpp_ask: Ask) -> None:
    newline = 198
    outcome = await llamacpp_ask(stopping=Stopping(stop_token_ids=(newline, 7), stop_texts=("Red!",)))
    assert outcome.text == "1. Red"
    assert (outcome.finish.reason, outcome.finish.stop_token_id) == (FinishReason.STOP, newline)
    assert outcome.token_ids[-1] == newline
    assert outcome.finish.output_tokens == outcome.token_count == 4


async def test_a_stop_token_that_a_stream_may_hide_is_refused(llamacpp_ask: Ask) -> None:
    first_of_emoji = (await llamacpp_ask(input=EMOJI, stopping=most(3))).token_ids[0]
    outcome = await llamacpp_ask(stopping=Stopping(stop_token_ids=(first_of_emoji,)))
    assert isinstance(outcome.error, UnsupportedError)
    assert outcome.error.field == "stopping.stop_token_ids"


async def test_ignore_eos_continues_after_the_end_token(llamacpp_ask: Ask) -> None:
    outcome = await llamacpp_ask(stopping=most(20, ignore_eos=True))
    assert outcome.text.startswith(COLORS)
    assert outcome.finish.reason is FinishReason.LENGTH
    assert outcome.finish.output_tokens == 20


async def test_log_probabilities_are_those_of_the_model(llamacpp_ask: Ask) -> None:
    greedy = await llamacpp_ask(top_logprobs=3, stopping=most(5))
    assert tuple(entry.token_id for entry in greedy.logprobs) == greedy.token_ids
    assert b"".join(entry.token for entry in greedy.logprobs).decode() == greedy.text
    for entry in greedy.logprobs:
        assert len(entry.top) == 3
        assert entry.top[0].token_id == entry.token_id
        assert 0 >= entry.logprob == entry.top[0].logprob >= entry.top[1].logprob >= entry.top[2].logprob
    sampling = Sampling(temperature=2.0, top_k=1, repetition_penalty=1.5)
    other = await llamacpp_ask(top_logprobs=0, stopping=most(1), sampling=sampling, input=TokenIds((28120,)))
    plain = await llamacpp_ask(top_logprobs=20, stopping=most(1), input=TokenIds((28120,)))
    assert other.logprobs[0].top == ()
    assert len(plain.logprobs[0].top) == 20
    known = {entry.token_id: entry.logprob for entry in plain.logprobs[0].top}
    assert known[other.token_ids[0]] == pytest.approx(other.logprobs[0].logprob, abs=1e-3)


async def test_log_probabilities_are_absent_where_llama_cpp_loses_them(llamacpp_ask: Ask) -> None:
    outcome = await llamacpp_ask(input=EMOJI, stopping=most(3), top_logprobs=0)
    assert outcome.outputs[-1].text == "😂"
    assert outcome.outputs[-1].logprobs is None
    assert len(outcome.token_ids) == 3


async def test_a_seed_repeats_an_answer(llamacpp_ask: Ask) -> None:
    async def answer(seed: int) -> str:
        sampling = Sampling(temperature=1.5, seed=seed)
        return (await llamacpp_ask(input=RawText("hello"), sampling=sampling, stopping=most(10, ignore_eos=True))).text

    first = await answer(7)
    assert await answer(7) == first
    # With the largest 32-bit number, llama.cpp would draw a seed.
    assert await answer(2**64 - 1) == await answer(2**64 - 1)
    assert await answer(0xFFFFFFFF) == await answer(0)
    assert await answer(8) != first


@pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
async def test_each_sampling_limit_can_be_greedy(llamacpp_ask: Ask, cut: dict[str, float]) -> None:
    hot = Sampling(temperature=2.0, seed=3)
    free = await llamacpp_ask(sampling=hot, stopping=most(6))
    bound = await llamacpp_ask(sampling=Sampling(temperature=2.0, seed=3, **cut), stopping=most(6))  # type: ignore[arg-type]
    assert COLORS.startswith(bound.text)
    assert not COLORS.startswith(free.text)


@pytest.mark.parametrize(
    "penalty", [{"frequency_penalty": 2.0}, {"presence_penalty": 2.0}, {"repetition_penalty": 2.0}]
)
async def test_each_penalty_prevents_repetitions(llamacpp_ask: Ask, penalty: dict[str, float]) -> None:
    request: dict[str, object] = {"input": RawText("The cat saw the cat and the"), "stopping": most(1)}
    free = await llamacpp_ask(**request)
    bound = await llamacpp_ask(**request, sampling=Sampling(temperature=0.0, **penalty))  # type: ignore[arg-type]
    assert free.text == " cat"
    assert bound.text not in {" cat", " the"}


async def test_several_requests_share_steps_and_keep_their_answers_apart(llamacpp_lab: EngineLab) -> None:
    def request() -> EngineRequest:
        return llamacpp_request(stopping=most(32, ignore_eos=True))

    # Long enough that the first ones still run when the prompts of the others have been computed.
    requests = [request() for _ in range(4)]
    before = len(llamacpp_lab.steps)
    for each in requests:
        llamacpp_lab.submit(each)
    outcomes = [await llamacpp_lab.outcome(each.key) for each in requests]
    assert all(outcome.finish.output_tokens == len(outcome.token_ids) == 32 for outcome in outcomes)
    assert all(outcome.text.startswith("1. Red\n2. Blue\n") for outcome in outcomes)
    assert max(len({output.key for output in step}) for step in llamacpp_lab.steps[before:]) > 1
