"""Unary answers and the small calls, with a real server."""

import time

import pytest

from doherty import FinishReason, GenerateOptions, InvalidRequestError, ModelInfo, RawText, TokenIds
from support.server import ServerProcess
from support.twins import ENDLESS, Kind, Twin, open_twin

DETAILS = GenerateOptions(token_ids=True, top_logprobs=2)


async def test_an_answer_has_all_its_fields(twin: Twin) -> None:
    answer = await twin.generate(
        "Name three colors.", max_output_tokens=8, temperature=0, request_id="mine", options=DETAILS
    )
    assert str(answer) == answer.text != ""
    assert (answer.finish_reason, answer.usage.output_tokens) == (FinishReason.LENGTH, 8)
    assert answer.finish_reason == "length"
    assert answer.token_ids is not None
    assert answer.logprobs is not None
    assert [logprob.token_id for logprob in answer.logprobs] == list(answer.token_ids)
    assert b"".join(logprob.token for logprob in answer.logprobs).decode() == answer.text
    assert all(len(logprob.top) == 2 for logprob in answer.logprobs)
    assert (answer.request_id, answer.model, answer.seed) == ("mine", "synthetic", None)


async def test_details_that_were_not_requested_are_none(twin: Twin) -> None:
    answer = await twin.generate("Name three colors.", max_output_tokens=8)
    assert (answer.token_ids, answer.logprobs) == (None, None)
    assert (answer.stop_text, answer.stop_token_id) == (None, None)


async def test_an_answer_contains_the_seed_that_was_used(twin: Twin) -> None:
    answer = await twin.generate("Name three colors.", max_output_tokens=4, temperature=1, seed=0)
    assert answer.seed == 0


async def test_an_answer_contains_the_stop_text(twin: Twin) -> None:
    whole = await twin.generate("Name three colors.", max_output_tokens=8, temperature=0)
    word = whole.text.split()[3]
    answer = await twin.generate("Name three colors.", max_output_tokens=8, temperature=0, stop=[word])
    assert (answer.finish_reason, answer.stop_text) == (FinishReason.STOP, word)
    assert answer.text == whole.text.partition(word)[0]


async def test_the_timings_are_in_order(twin: Twin) -> None:
    begun = time.perf_counter()
    answer = await twin.generate("Name three colors.", max_output_tokens=8)
    elapsed = time.perf_counter() - begun
    timings = answer.timings
    assert timings.total is not None
    assert timings.time_to_last_token is not None
    assert timings.time_to_first_token is not None
    assert timings.queue is not None
    assert timings.preprocess is not None
    assert timings.time_per_output_token is not None
    assert elapsed > timings.total >= timings.time_to_last_token >= timings.time_to_first_token
    assert timings.time_to_first_token >= timings.queue + timings.preprocess >= 0
    assert answer.network is not None
    assert 0 <= answer.network <= elapsed - timings.total


async def test_a_time_limit_returns_the_part_that_exists(twin: Twin) -> None:
    answer = await twin.generate("Name three colors.", time_limit=0.5, **ENDLESS)
    assert answer.finish_reason is FinishReason.TIME_LIMIT
    assert 0 < answer.usage.output_tokens < ENDLESS["max_output_tokens"]


async def test_an_answer_continues_the_given_prefix(twin: Twin) -> None:
    whole = await twin.generate("Name three colors.", max_output_tokens=8, temperature=0, options=DETAILS)
    assert whole.token_ids is not None
    held = GenerateOptions(continue_from=TokenIds(whole.token_ids[:3]))
    rest = await twin.generate("Name three colors.", max_output_tokens=8, temperature=0, options=held)
    assert whole.text.endswith(rest.text)
    assert rest.text
    assert rest.usage.output_tokens == 8


async def test_prompts_of_all_kinds_are_counted(twin: Twin) -> None:
    prompt = "Name three colors."
    raw = await twin("count_tokens", RawText(prompt))
    templated = await twin("count_tokens", prompt)
    instructed = await twin("count_tokens", prompt, system="Be brief.", model="synthetic")
    assert 0 < raw < templated < instructed
    assert templated == await twin("count_tokens", [{"role": "user", "content": prompt}])
    answer = await twin.generate(prompt, max_output_tokens=1)
    assert answer.usage.prompt_tokens == templated


async def test_a_conversation_that_ends_with_an_answer_is_counted(twin: Twin) -> None:
    """A chat program that trims its history counts such conversations."""
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    conversation_count, question_count = await twin("count_tokens", turns), await twin("count_tokens", turns[:1])
    answer = await twin("count_tokens", RawText("Hello"))
    assert conversation_count == question_count + answer + 1  # the control token that ends the turn
    with pytest.raises(InvalidRequestError):
        await twin.generate(turns)


async def test_the_model_is_described(twin: Twin) -> None:
    model: ModelInfo = await twin("model")
    assert (model.model, model.engine, model.revision, model.profile) == ("synthetic", "synthetic", None, None)
    assert "sampling.top_k" in model.features
    assert model.limits.context_tokens > 0
    assert model.default_sampling.temperature == 0
    assert model.default_sampling.top_k is None
    assert model.adapters


async def test_the_latency_is_reported(twin: Twin) -> None:
    await twin.generate("Name three colors.", max_output_tokens=8)
    latency = await twin("latency", 60)
    assert latency.answers >= 1
    assert (latency.window, latency.threshold) == (60, 0.4)
    assert 0 < latency.time_to_first_token.p50 <= latency.time_to_first_token.p90 <= latency.time_to_first_token.p99
    assert 0 <= latency.last_token_share <= latency.first_token_share <= 1
    assert (latency.running, latency.kv_cache_use) == (0, None)
    assert latency.slots > 0
    assert latency.uptime > 0


@pytest.mark.parametrize("longer", [None, 30])
async def test_a_call_uses_the_timeout_of_its_client_unless_it_has_one(
    kind: Kind, synthetic_server: ServerProcess, longer: float | None
) -> None:
    async with open_twin(kind, synthetic_server.target, timeout=0.2) as twin:
        with pytest.raises(TimeoutError):
            await twin.generate("Name three colors.", **ENDLESS)
        answer = await twin.generate("Name three colors.", max_output_tokens=80, timeout=longer)
        assert answer.usage.output_tokens == 80
