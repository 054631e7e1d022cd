"""The answers of the vLLM engine, with a fake of vLLM."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from doherty_engine import (
    AnswerPrefix,
    Choices,
    Constraint,
    Conversation,
    FinishReason,
    Grammar,
    InvalidInputError,
    JsonSchema,
    RawText,
    Regex,
    Sampling,
    SamplingDefaults,
    StepOutput,
    Stopping,
    TokenIds,
    UnsupportedError,
)
from support.hugging_face import user, write_llama3, write_lora
from support.vllm import VllmLab, vllm_lab, vllm_request

pytestmark = pytest.mark.asyncio(loop_scope="module")
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vllm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VllmLab]:
    folder = tmp_path_factory.mktemp("vllm")
    poet = write_lora(folder / "poet", rank=24)
    async with vllm_lab(folder / "model", adapters=f"poet={poet}") as lab:
        yield lab


def ids_of(outputs: Sequence[StepOutput]) -> tuple[int, ...]:
    return tuple(token_id for output in outputs for token_id in output.token_ids or ())


async def test_an_answer_is_delivered_step_by_step(vllm: VllmLab) -> None:
    outcome = await vllm.ask()
    assert outcome.finish.reason is FinishReason.STOP
    assert outcome.finish.stop_token_id in {1, 4}
    assert outcome.finish.output_tokens == outcome.token_count == len(outcome.token_ids) > len(outcome.outputs) > 10
    assert outcome.text == vllm.folder.tokenizer.decode(list(outcome.token_ids))
    rendered = (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nName three colors.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert outcome.started.prompt_tokens == len(vllm.folder.texts(rendered))
    assert outcome.started.preprocess > 0


async def test_a_step_of_several_requests_is_delivered_in_one_call(vllm: VllmLab) -> None:
    requests = [vllm_request(stopping=Stopping(max_output_tokens=12, ignore_eos=True)) for _ in range(8)]
    before = len(vllm.lab.steps)
    for request in requests:
        vllm.lab.submit(request)
    for request in requests:
        await vllm.lab.outcome(request.key)
    steps = vllm.lab.steps[before:]
    assert len(steps) <= 12
    assert {len(step) for step in steps} == {8}


async def test_the_queue_time_and_the_cache_of_the_engine_are_reported(vllm: VllmLab) -> None:
    prompt = RawText("How many people live in the capital of France, and why is the sky so blue there?")
    first, again = await vllm.ask(input=prompt), await vllm.ask(input=prompt)
    assert first.finish.cached_tokens == 0
    assert again.finish.cached_tokens is not None
    assert again.finish.cached_tokens > 0
    assert again.finish.cached_tokens % 16 == 0
    assert first.started.queue > 0
    assert first.finish.speculation is None


async def test_cached_tokens_are_those_of_the_same_salt(vllm: VllmLab) -> None:
    prompt = RawText("Who else has asked how many people live in the capital of France, and what has it been told?")
    salts = ["alice", "bob", "", "alice", ""]
    cached = [(await vllm.ask(input=prompt, cache_salt=salt)).finish.cached_tokens for salt in salts]
    assert cached[:3] == [0, 0, 0]
    assert cached[3] == cached[4] != 0


async def test_an_adapter_changes_the_answer(vllm: VllmLab) -> None:
    assert vllm.lab.engine.info().adapters == ("poet",)
    assert vllm.llm.vllm_config.arguments["max_lora_rank"] == 32
    assert (await vllm.ask(adapter="poet")).text != (await vllm.ask()).text


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        (Regex("(?i:YES|no)!"), {"YES!", "yes!", "no!", "NO!"}),
        (Choices(('a red "one"', "grün\n")), {'a red "one"', "grün\n"}),
        (Grammar('root ::= "<" [xy]{2} ">"'), {"<xx>", "<xy>", "<yx>", "<yy>"}),
    ],
)
async def test_a_constraint_is_enforced(vllm: VllmLab, constraint: Constraint, text: set[str]) -> None:
    outcome = await vllm.ask(constraint=constraint)
    assert outcome.text.lower() in {choice.lower() for choice in text}
    assert outcome.finish.reason is FinishReason.STOP


async def test_a_json_schema_is_enforced(vllm: VllmLab) -> None:
    assert isinstance(json.loads((await vllm.ask(constraint=JsonSchema(SCHEMA))).text)["ok"], bool)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"constraint": Regex("(")}, "constraint.regex"),
        ({"constraint": Grammar("root ::= (")}, "constraint.grammar"),
        ({"constraint": JsonSchema('{"type": "string", "minLength": 2, "maxLength": 1}')}, "constraint.json_schema"),
        ({"input": TokenIds((5, 9999))}, "token_ids"),
        ({"input": RawText("word " * 9000)}, "raw_text"),
        ({"stopping": Stopping(max_output_tokens=8192)}, "stopping.max_output_tokens"),
        ({"prefix": AnswerPrefix(token_ids=(163,))}, "continue_from.token_ids"),
    ],
)
async def test_an_error_names_its_field(vllm: VllmLab, fields: dict[str, object], field: str) -> None:
    error = (await vllm.ask(**fields)).error
    assert isinstance(error, InvalidInputError)
    assert error.field == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prefix": AnswerPrefix(text="The"), "constraint": Regex("a")}, "continue_from"),
        ({"prefix": AnswerPrefix(text="The"), "sampling": Sampling(presence_penalty=0.5)}, "continue_from"),
        ({"prefix": AnswerPrefix(text="The"), "sampling": Sampling(frequency_penalty=-0.5)}, "continue_from"),
        ({"constraint": Regex("a"), "stopping": Stopping(ignore_eos=True)}, "stopping.ignore_eos"),
        ({"constraint": Regex("a"), "stopping": Stopping(min_output_tokens=9)}, "stopping.min_output_tokens"),
    ],
)
async def test_values_that_vllm_would_handle_wrongly_are_refused(
    vllm: VllmLab, fields: dict[str, object], field: str
) -> None:
    error = (await vllm.ask(**fields)).error
    assert isinstance(error, UnsupportedError)
    assert error.field == field


async def test_an_answer_continues_after_the_prefix(vllm: VllmLab) -> None:
    whole = await vllm.ask()
    for count in (1, 5, 20):
        ids = ids_of(whole.outputs[:count])
        rest = await vllm.ask(prefix=AnswerPrefix(token_ids=ids))
        assert ids + rest.token_ids == whole.token_ids
        assert rest.started.prompt_tokens == whole.started.prompt_tokens
        assert rest.finish.output_tokens == whole.finish.output_tokens
    last = await vllm.ask(prefix=AnswerPrefix(token_ids=whole.token_ids))
    assert (last.text, last.token_count, last.finish.stop_token_id) == ("", 0, whole.finish.stop_token_id)


async def test_the_minimum_length_includes_the_prefix(vllm: VllmLab) -> None:
    whole = await vllm.ask()
    ends = whole.finish.output_tokens
    stopping = Stopping(min_output_tokens=ends + 3)
    longer = await vllm.ask(stopping=stopping)
    assert longer.finish.output_tokens >= ends + 3
    assert longer.token_ids[: ends - 1] == whole.token_ids[:-1]
    resumed = await vllm.ask(prefix=AnswerPrefix(token_ids=ids_of(longer.outputs[:3])), stopping=stopping)
    assert resumed.finish.output_tokens == longer.finish.output_tokens


async def test_a_stop_text_also_ends_the_request_in_vllm(vllm: VllmLab) -> None:
    whole = await vllm.ask()
    stop = whole.text[9:14]
    request = vllm_request(stopping=Stopping(stop_texts=(stop,), max_output_tokens=500))
    outcome = await vllm.lab.ask(request)
    assert outcome.text == whole.text[: whole.text.index(stop)]
    assert outcome.finish.stop_text == stop
    await vllm.until_dropped(request.key)


async def test_a_large_seed_does_not_crash_vllm(vllm: VllmLab) -> None:
    sampling = Sampling(temperature=1.0, seed=2**64 - 1, top_k=2**32 - 1)
    assert (await vllm.ask(sampling=sampling)).finish.output_tokens > 0
    assert vllm.lab.engine.health().ok


async def test_a_small_temperature_still_samples(vllm: VllmLab) -> None:
    small = [(await vllm.ask(sampling=Sampling(temperature=1e-6, seed=seed))).text for seed in (1, 2)]
    assert small[0] != small[1]
    assert (await vllm.ask(sampling=Sampling(temperature=0.0, seed=1))).text == (await vllm.ask()).text


async def test_log_probabilities_have_the_bytes_of_their_tokens(vllm: VllmLab) -> None:
    outcome = await vllm.ask(top_logprobs=3)
    assert [logprob.token_id for logprob in outcome.logprobs] == list(outcome.token_ids)
    assert b"".join(logprob.token for logprob in outcome.logprobs).decode() == outcome.text
    assert all(len(logprob.top) == 3 and logprob.top[0].token_id == logprob.token_id for logprob in outcome.logprobs)


async def test_token_counts_equal_those_of_an_answer(vllm: VllmLab) -> None:
    content = Conversation((user("How many? 🙂"),))
    assert await vllm.lab.engine.count_tokens(content) == (await vllm.ask(input=content)).started.prompt_tokens


async def test_the_kv_cache_is_reported_and_a_prompt_counts_as_progress(vllm: VllmLab) -> None:
    await vllm.ask()
    health = vllm.lab.engine.health()
    assert health.ok
    assert health.kv_cache_use is not None
    assert health.last_progress is not None


async def test_a_models_min_p_is_omitted_if_vllm_would_refuse_it(tmp_path: Path) -> None:
    write_llama3(tmp_path, min_p=0.1)
    for options, min_p in (({"ngram": "3"}, None), ({}, 0.1)):
        async with vllm_lab(tmp_path, **options) as vllm:
            assert vllm.lab.engine.info().default_sampling == SamplingDefaults(0.6, 0.9, min_p=min_p)
