"""The answers of the synthetic engine."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from doherty_engine import (
    Choices,
    Constraint,
    Conversation,
    EngineRequest,
    FinishReason,
    Grammar,
    InvalidInputError,
    JsonSchema,
    Message,
    RawText,
    Regex,
    Role,
    Sampling,
    Stopping,
    TokenIds,
    UnsupportedError,
)
from doherty_engine.synthetic._tokenizer import END_OF_SEQUENCE, VOCABULARY_SIZE, decode
from support.engines import EngineLab, running

GREEDY = Sampling(temperature=0.0)
WARM = Sampling(temperature=0.7, seed=5)


def request(key: str = "a", **fields: object) -> EngineRequest:
    base = EngineRequest(key, RawText("What atoms are in water?"), sampling=GREEDY, token_ids=True)
    return replace(base, **fields)  # type: ignore[arg-type]


@pytest.fixture
async def lab() -> AsyncIterator[EngineLab]:
    async with running("synthetic", tokens_per_second="0") as lab:
        yield lab


async def test_an_answer_is_complete_and_ends_by_itself(lab: EngineLab) -> None:
    outcome = await lab.ask(request())
    assert outcome.outputs[0].started == outcome.started
    assert outcome.started.prompt_tokens == await lab.engine.count_tokens(request().input)
    assert 0 < outcome.started.preprocess < 10
    assert outcome.finish.reason is FinishReason.STOP
    assert outcome.finish.stop_token_id == outcome.token_ids[-1] == END_OF_SEQUENCE
    assert outcome.finish.output_tokens == outcome.token_count == len(outcome.token_ids) == 170
    assert decode(outcome.token_ids).decode() == outcome.text
    assert all(output.logprobs is None for output in outcome.outputs)
    assert outcome.finish.speculation is None


async def test_characters_of_several_tokens_are_delivered_whole_with_their_ids(lab: EngineLab) -> None:
    outcome = await lab.ask(request(stopping=Stopping(ignore_eos=True, max_output_tokens=2000)))
    wide = [output for output in outcome.outputs if not output.text.isascii()]
    assert {output.token_count for output in wide} >= {2, 3, 4}
    for output in wide:
        assert output.token_ids is not None
        assert decode(output.token_ids).decode() == output.text


async def test_ids_are_delivered_only_on_request(lab: EngineLab) -> None:
    outcome = await lab.ask(request(token_ids=False))
    assert all(output.token_ids is None for output in outcome.outputs)
    assert outcome.token_count == 170


async def test_the_same_request_always_gets_the_same_answer(lab: EngineLab) -> None:
    alone = await lab.ask(request("alone", sampling=WARM))
    for index in range(20):
        lab.submit(request(f"other {index}", input=RawText(str(index))))
    again = await lab.ask(request("again", sampling=WARM))
    assert (again.text, again.token_ids) == (alone.text, alone.token_ids)


@pytest.mark.parametrize(
    "change",
    [
        {"input": RawText("What atoms are in water")},
        {"input": Conversation((Message(Role.USER, "What atoms are in water?"),))},
        {"input": TokenIds((1, 2, 3))},
        {"adapter": "demo-a"},
        {"adapter": "demo-b"},
        {"sampling": replace(WARM, temperature=0.8)},
        {"sampling": replace(WARM, temperature=0.0)},
        {"sampling": replace(WARM, top_p=0.5)},
        {"sampling": replace(WARM, top_k=40)},
        {"sampling": replace(WARM, min_p=0.1)},
        {"sampling": replace(WARM, frequency_penalty=0.5)},
        {"sampling": replace(WARM, presence_penalty=0.5)},
        {"sampling": replace(WARM, repetition_penalty=1.1)},
        {"sampling": replace(WARM, seed=2**64 - 1)},
    ],
)
async def test_fields_that_matter_to_a_model_change_the_answer(lab: EngineLab, change: dict[str, object]) -> None:
    usual = await lab.ask(request("usual", sampling=WARM))
    changed = await lab.ask(replace(request("changed", sampling=WARM), **change))  # type: ignore[arg-type]
    assert changed.text != usual.text


async def test_at_temperature_0_only_the_penalties_matter(lab: EngineLab) -> None:
    usual = await lab.ask(request("usual"))
    filtered = await lab.ask(request("filtered", sampling=replace(GREEDY, top_p=0.5, top_k=3, min_p=0.1, seed=9)))
    penalized = await lab.ask(request("penalized", sampling=replace(GREEDY, presence_penalty=1.0)))
    assert filtered.text == usual.text != penalized.text


async def test_the_prompt_determines_the_length() -> None:
    async with running("synthetic", tokens_per_second="0", answer_tokens="4,17,34") as lab:
        outcomes = [await lab.ask(request(str(index), input=RawText(str(index)))) for index in range(40)]
        assert {outcome.finish.output_tokens for outcome in outcomes} == {4, 17, 34}
        assert all(decode(outcome.token_ids).decode() == outcome.text for outcome in outcomes)


@pytest.mark.parametrize("most", [1, 7, 169])
async def test_max_output_tokens(lab: EngineLab, most: int) -> None:
    whole = await lab.ask(request("whole"))
    cut = await lab.ask(request("cut", stopping=Stopping(max_output_tokens=most)))
    assert cut.finish.reason is FinishReason.LENGTH
    assert cut.finish.stop_token_id is None
    assert cut.token_ids == whole.token_ids[:most]
    assert cut.text == decode(cut.token_ids).decode(errors="replace")


async def test_the_default_maximum_shrinks_to_the_context_and_an_explicit_one_does_not() -> None:
    async with running("synthetic", tokens_per_second="0", context_tokens="60") as lab:
        prompt = await lab.engine.count_tokens(request().input)
        shrunk = await lab.ask(request("shrunk"))
        assert shrunk.finish.reason is FinishReason.LENGTH
        assert shrunk.finish.output_tokens == 60 - prompt
        refused = await lab.ask(request("refused", stopping=Stopping(max_output_tokens=61 - prompt)))
        assert isinstance(refused.error, InvalidInputError)
        assert refused.error.field == "stopping.max_output_tokens"
        filled = await lab.ask(request("filled", input=RawText("x" * 60)))
        assert isinstance(filled.error, InvalidInputError)
        assert filled.error.field == "raw_text"


async def test_min_output_tokens_delays_every_end(lab: EngineLab) -> None:
    whole = await lab.ask(request("whole", stopping=Stopping(ignore_eos=True, max_output_tokens=300)))
    later = await lab.ask(request("later", stopping=Stopping(min_output_tokens=300)))
    assert later.finish.reason is FinishReason.STOP
    assert later.finish.output_tokens == 300
    stopping = Stopping(stop_texts=("e",), stop_token_ids=(whole.token_ids[3],), min_output_tokens=100)
    stopped = await lab.ask(request("stopped", stopping=stopping))
    assert stopped.finish.reason is FinishReason.STOP
    assert stopped.finish.output_tokens >= 100
    assert whole.text.startswith(stopped.text)


async def test_ignore_eos_continues_to_the_maximum(lab: EngineLab) -> None:
    whole = await lab.ask(request("whole"))
    longer = await lab.ask(request("longer", stopping=Stopping(ignore_eos=True, max_output_tokens=400)))
    assert longer.finish.reason is FinishReason.LENGTH
    assert longer.finish.output_tokens == 400
    assert longer.text.startswith(whole.text)


@pytest.mark.parametrize("include", [False, True])
async def test_a_stop_text_across_tokens(lab: EngineLab, *, include: bool) -> None:
    whole = await lab.ask(request("whole"))
    stop = whole.text[40:60]
    stopping = Stopping(stop_texts=("not in it", stop), include_stop_text=include)
    stopped = await lab.ask(request("stopped", stopping=stopping))
    assert stopped.text == whole.text[: 60 if include else 40]
    assert (stopped.finish.reason, stopped.finish.stop_text) == (FinishReason.STOP, stop)
    assert stopped.finish.output_tokens == len(stopped.token_ids)
    assert stopped.token_ids == whole.token_ids[: len(stopped.token_ids)]


async def test_a_stop_token_ends_the_answer_and_its_text_is_not_delivered(lab: EngineLab) -> None:
    whole = await lab.ask(request("whole"))
    stop_id = next(token_id for token_id in whole.token_ids[20:] if token_id >= 256)  # a word
    first = whole.token_ids.index(stop_id)
    stopped = await lab.ask(request("stopped", stopping=Stopping(stop_token_ids=(stop_id,))))
    assert stopped.finish.stop_token_id == stop_id
    assert stopped.token_ids == whole.token_ids[: first + 1]
    assert stopped.text == decode(whole.token_ids[:first]).decode()


@pytest.mark.parametrize("top", [0, 1, 20])
async def test_log_probabilities(lab: EngineLab, top: int) -> None:
    outcome = await lab.ask(request("a", top_logprobs=top))
    again = await lab.ask(request("b", top_logprobs=top))
    assert outcome.logprobs == again.logprobs
    assert tuple(logprob.token_id for logprob in outcome.logprobs) == outcome.token_ids
    for entry in outcome.logprobs:
        assert len(entry.top) == top
        assert -50 < entry.logprob <= 0
        assert entry.token
        values = [other.logprob for other in entry.top]
        assert values == sorted(values, reverse=True)
        assert all(-50 < value <= 0 for value in values)
        assert len({other.token_id for other in entry.top}) == top
        if top:
            assert (entry.top[0].token_id, entry.top[0].logprob) == (entry.token_id, entry.logprob)


async def test_choices_pick_one_by_prompt_and_seed(lab: EngineLab) -> None:
    choices = Choices(("yes", "no", " perhaps 🙂"))
    seen = set()
    for seed in range(20):
        outcome = await lab.ask(request(f"{seed}", constraint=choices, sampling=replace(WARM, seed=seed)))
        assert outcome.finish.reason is FinishReason.STOP
        seen.add(outcome.text)
    assert seen == set(choices.choices)


@pytest.mark.parametrize("stopping", [Stopping(), Stopping(ignore_eos=True), Stopping(min_output_tokens=500)])
async def test_a_schema_is_enforced_and_its_end_ends_the_answer(lab: EngineLab, stopping: Stopping) -> None:
    schema = JsonSchema('{"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}')
    outcome = await lab.ask(request(constraint=schema, stopping=stopping))
    assert outcome.text == '{"n":0}'
    assert outcome.finish.reason is FinishReason.STOP


@pytest.mark.parametrize(
    ("constraint", "field"),
    [
        (Regex("a+"), "constraint.regex"),
        (Grammar('root ::= "a"'), "constraint.grammar"),
        (JsonSchema('{"type": "string", "pattern": "a"}'), "constraint.json_schema"),
    ],
)
async def test_a_constraint_that_the_engine_cannot_meet_is_refused(
    lab: EngineLab, constraint: Constraint, field: str
) -> None:
    outcome = await lab.ask(request(constraint=constraint))
    assert isinstance(outcome.error, UnsupportedError)
    assert outcome.error.field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input": TokenIds((VOCABULARY_SIZE,))}, "token_ids"),
        ({"stopping": Stopping(stop_token_ids=(VOCABULARY_SIZE,))}, "stopping.stop_token_ids"),
    ],
)
async def test_an_unknown_token_is_refused_by_field(lab: EngineLab, change: dict[str, object], field: str) -> None:
    outcome = await lab.ask(replace(request(), **change))  # type: ignore[arg-type]
    assert isinstance(outcome.error, InvalidInputError)
    assert outcome.error.field == field


async def test_several_tokens_per_step_give_the_same_answer_and_count_as_drafts(lab: EngineLab) -> None:
    usual = await lab.ask(request())
    async with running("synthetic", tokens_per_second="0", tokens_per_step="4") as other:
        outcome = await other.ask(request())
    assert (outcome.text, outcome.token_ids) == (usual.text, usual.token_ids)
    speculation = outcome.finish.speculation
    assert speculation is not None
    assert speculation.steps == 43  # 170 tokens, 4 per step
    assert (speculation.draft_tokens, speculation.accepted_tokens) == (129, 127)
