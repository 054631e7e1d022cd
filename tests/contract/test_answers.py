"""The answers of every engine: text, ids, timings and latency."""

import re
from functools import cache
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from doherty.v1 import answer_pb2, latency_service_pb2
from doherty.v1 import generation_service_pb2 as wire
from support.server import ServerProcess
from support.wire import SECONDS, Caller, connect, request

GREEDY: dict[str, Any] = {"sampling": {"temperature": 0}, "stopping": {"max_output_tokens": 16}}
EMOJI = {"messages": [{"role": "ROLE_USER", "content": "Repeat after me: 😀 😁 😂 🤣 😃 😄"}], **GREEDY}
PROMPTS: dict[str, dict[str, Any]] = {
    "words": {"prompt": "Why is the sky blue?", **GREEDY},
    "multi-byte": EMOJI,
    "raw emoji": {"raw_text": "😀 😁 😂 🤣 😃 😄 😀 😁 😂 🤣 😃 😄 😀 😁", **GREEDY},
    "sampled": {"prompt": "Name a colour.", "sampling": {"seed": 3}, "stopping": {"max_output_tokens": 8}},
    "one token": {"prompt": "Name a colour.", "sampling": {"temperature": 0}, "stopping": {"max_output_tokens": 1}},
    "stopped": {"prompt": "Why?", "sampling": {"temperature": 0}, "stopping": {"stop_texts": [" "]}},
}


def seconds(span: Duration) -> float:
    return span.ToNanoseconds() / 1e9


def assert_consistent(timings: answer_pb2.Timings) -> None:
    assert seconds(timings.queue) >= 0
    assert seconds(timings.preprocess) > 0
    assert (
        seconds(timings.total)
        >= seconds(timings.time_to_last_token)
        >= seconds(timings.time_to_first_token)
        >= seconds(timings.queue) + seconds(timings.preprocess)
    )


@cache
def both(caller: Caller, name: str) -> tuple[wire.GenerateResponse, list[wire.StreamGenerateResponse]]:
    """Returns an answer from both calls, with all optional details."""
    if name == "sampled" and "sampling.seed" not in caller.model.features:
        pytest.skip("the engine has no seeds, so sampled answers differ")
    fields = {**PROMPTS[name], "output": {"token_ids": True, "top_logprobs": 0}}
    return caller.generate(**fields), caller.stream(**fields)


@pytest.mark.parametrize("name", PROMPTS)
def test_the_deltas_together_are_the_unary_answer(caller: Caller, name: str) -> None:
    whole, parts = both(caller, name)
    assert "".join(part.delta.text for part in parts) == whole.text
    assert parts[-1].summary.finish_reason == whole.summary.finish_reason
    assert parts[-1].summary.usage.output_tokens == whole.summary.usage.output_tokens
    assert parts[0].start.prompt_tokens == whole.start.prompt_tokens


@pytest.mark.parametrize("name", PROMPTS)
def test_a_stream_has_one_start_one_summary_and_no_empty_message(caller: Caller, name: str) -> None:
    _, parts = both(caller, name)
    assert [part.HasField("start") for part in parts] == [True] + [False] * (len(parts) - 1)
    assert [part.HasField("summary") for part in parts] == [False] * (len(parts) - 1) + [True]
    assert all(part.HasField("delta") for part in parts[:-1])
    assert parts[0].HasField("delta") or len(parts) == 1


@pytest.mark.parametrize("name", PROMPTS)
def test_every_delta_counts_its_tokens_and_has_all_ids_or_none(caller: Caller, name: str) -> None:
    _, parts = both(caller, name)
    for part in parts:
        delta = part.delta
        assert len(delta.token_ids) in {0, delta.token_count}
        assert len(delta.logprobs) in {0, delta.token_count}
        assert "�" not in delta.text
        if delta.logprobs:
            token_bytes = b"".join(logprob.token for logprob in delta.logprobs)  # may end within a character
            assert token_bytes.startswith(delta.text.encode())
    usage = parts[-1].summary.usage
    assert sum(part.delta.token_count for part in parts) == usage.output_tokens


def test_the_ids_of_a_delta_are_those_of_its_text(caller: Caller) -> None:
    """A caller holds the same part in ids and in text, so that both continue the answer at the same place."""
    fields = {"prompt": "Why is the sky blue?", **GREEDY, "output": {"token_ids": True}}
    ids: list[int] = []
    text = ""
    for part in caller.stream(**fields)[:8]:
        ids += part.delta.token_ids
        text += part.delta.text
    by_ids = caller.generate(**fields, continue_from={"token_ids": ids})
    by_text = caller.generate(**fields, continue_from={"text": text})
    assert text
    assert by_ids.text == by_text.text
    assert by_ids.summary.usage.output_tokens == by_text.summary.usage.output_tokens


@pytest.mark.parametrize("name", PROMPTS)
def test_timings_are_consistent_in_every_reply(caller: Caller, name: str) -> None:
    whole, parts = both(caller, name)
    for summary in (whole.summary, parts[-1].summary):
        assert_consistent(summary.timings)
        several = summary.usage.output_tokens >= 2
        assert summary.timings.HasField("time_per_output_token") is several


def test_the_trailing_metadata_contains_the_same_timings(caller: Caller) -> None:
    reply, call = caller.stub.Generate.with_call(request(**PROMPTS["words"]), timeout=SECONDS)
    value = dict(call.trailing_metadata() or ())["server-timing"]
    assert isinstance(value, str)
    spans = {name: float(span) / 1000 for name, span in re.findall(r"(\w+);dur=([0-9.]+)(?:, |$)", value)}
    timings = reply.summary.timings
    assert set(spans) == {field.name for field, _ in timings.ListFields()}
    for name, span in spans.items():
        assert span == pytest.approx(seconds(getattr(timings, name)), abs=1e-6)


def test_the_default_length_shrinks_to_the_room_in_the_context(synthetic_server: ServerProcess) -> None:
    with connect(synthetic_server.target) as caller:
        context = caller.model.limits.context_tokens
        answer = caller.generate(token_ids=[40] * (context - 3), stopping={"ignore_eos": True})
    assert answer.summary.finish_reason == answer_pb2.FINISH_REASON_LENGTH
    assert answer.summary.usage.output_tokens == 3


def test_a_complete_prefix_gets_its_summary_immediately(caller: Caller) -> None:
    fields: dict[str, Any] = {"prompt": "Why is the sky blue?", **GREEDY, "output": {"token_ids": True}}
    whole = caller.generate(**fields)
    again = caller.stream(**fields, continue_from={"token_ids": list(whole.token_ids)})
    assert len(again) == 1
    assert not again[0].HasField("delta")
    assert again[0].summary.finish_reason == whole.summary.finish_reason
    assert again[0].summary.usage.output_tokens == whole.summary.usage.output_tokens
    assert not again[0].summary.timings.HasField("time_to_first_token")
    fields["stopping"] = {"stop_texts": ["the end"]}
    stopped = caller.stream(**fields, continue_from={"text": "And so it is the end"})
    assert len(stopped) == 1
    assert stopped[0].summary.stop_text == "the end"


def test_counting_agrees_with_generating(caller: Caller) -> None:
    for name in ("prompt", "raw_text"):
        text = "How many tokens are in this? 😀"
        counted = caller.stub.CountTokens(wire.CountTokensRequest(**{name: text}), timeout=SECONDS)  # type: ignore[arg-type]
        answer = caller.generate(**{name: text}, stopping={"max_output_tokens": 1})
        assert counted.prompt_tokens == answer.start.prompt_tokens > 0
    with pytest.raises(grpc.RpcError) as refused:
        caller.stub.CountTokens(wire.CountTokensRequest(), timeout=SECONDS)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def answers(latency: latency_service_pb2.GetLatencyResponse) -> int:
    """Returns the number of complete answers since the server's start: those of a window also become fewer."""
    return sum(outcome.total for outcome in latency.requests.outcomes if outcome.status == "OK")


def test_latency_counts_every_answer(caller: Caller) -> None:
    # The counts of a reply may be a second old. Two seconds later, they contain all answers of earlier tests.
    earlier = caller.latency.GetLatency(latency_service_pb2.GetLatencyRequest(), timeout=SECONDS)
    before = caller.wait_until(lambda now: seconds(now.uptime) > seconds(earlier.uptime) + 2)
    caller.stream(**PROMPTS["words"])
    caller.generate(**PROMPTS["one token"])
    after = caller.wait_until(lambda now: answers(now) >= answers(before) + 2)
    assert answers(after) == answers(before) + 2
    assert 2 <= after.answers <= answers(after)
    assert 0 <= after.last_token_share <= after.first_token_share <= 1
    for three in (after.queue, after.time_to_first_token, after.time_to_last_token, after.time_per_output_token):
        assert 0 <= seconds(three.p50) <= seconds(three.p90) <= seconds(three.p99)
    assert after.slots == caller.model.limits.slots
    assert (after.running, after.queued) == (0, 0)
    assert seconds(after.threshold) == pytest.approx(0.4)
    assert seconds(after.uptime) > seconds(before.uptime) > 0


def test_latency_requires_a_window_above_zero(caller: Caller) -> None:
    parameters = latency_service_pb2.GetLatencyRequest(window=Duration(seconds=-1))
    with pytest.raises(grpc.RpcError) as refused:
        caller.latency.GetLatency(parameters, timeout=SECONDS)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
