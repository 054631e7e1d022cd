"""OpenAI's own client, SMG's released gateway, and two servers with a real model."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from openai import OpenAI

from doherty import Client
from support.door import DoorServer, start_door
from support.multiplex import wait_until
from support.smg import start_smg
from support.smollm2 import write_smollm2

pytestmark = pytest.mark.model

MODEL = "SmolLM2-135M-Instruct"
Pair = tuple[DoorServer, DoorServer]


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    with ExitStack() as stack:
        first, other = (stack.enter_context(start_door()) for _ in range(2))
        yield first, other


@pytest.fixture(scope="module")
def openai(servers: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    tokenizer = write_smollm2(tmp_path_factory.mktemp("smollm2")).path
    flags = ("--tokenizer-path", str(tokenizer), "--policy", "cache_aware")
    with (
        start_smg([server.door for server in servers], *flags) as base,
        OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0, timeout=60) as client,
    ):
        yield client


def parameters(text: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "temperature": 0} | more


def answered(servers: Pair) -> list[int]:
    """Returns the number of requests that each server has completed since its start."""
    counts: list[int] = []
    for server in servers:
        with Client(server.target) as client:
            requests = client.latency().requests
        assert requests is not None
        counts.append(sum(outcome.total for outcome in requests.outcomes if outcome.status == "OK"))
    return counts


def test_chat_works_unary_and_streamed(openai: OpenAI, servers: Pair) -> None:
    # An absurd maximum, which many programs send.
    whole = openai.chat.completions.create(**parameters("Name three colors.", max_tokens=1_000_000))
    text, reasons, usage = "", [], None
    events = openai.chat.completions.create(
        **parameters("Name three colors.", stream=True, stream_options={"include_usage": True})
    )
    for event in events:
        for choice in event.choices:
            text += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
        usage = event.usage or usage
    assert whole.usage is not None
    assert usage is not None
    with Client(servers[0].target) as client:
        native = client.generate("Name three colors.", temperature=0)
    assert whole.choices[0].message.content == text == native.text
    assert [whole.choices[0].finish_reason] == reasons == ["stop"]
    assert whole.usage.prompt_tokens == usage.prompt_tokens == native.usage.prompt_tokens


def test_a_schema_is_enforced(openai: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}}
    reply = openai.chat.completions.create(**parameters("Describe a person.", max_tokens=60, response_format=form))
    person = json.loads(reply.choices[0].message.content or "")
    assert set(person) == {"name", "age"}
    assert isinstance(person["age"], int)


def test_the_slot_is_free_after_its_caller_hung_up(openai: OpenAI, servers: Pair) -> None:
    events = openai.chat.completions.create(
        **parameters("Tell me a long story.", stream=True, max_tokens=4000, extra_body={"ignore_eos": True})
    )
    next(iter(events))
    with Client(servers[0].target) as first, Client(servers[1].target) as other:
        assert first.latency().running + other.latency().running == 1
        events.close()
        latencies = first.latency(), other.latency()
        while any(latency.running for latency in latencies) or not any(latency.aborts for latency in latencies):
            latencies = first.latency(), other.latency()
    assert sum(latency.aborts.get("cancelled", 0) for latency in latencies) == 1


def test_prompts_with_the_same_prefix_go_to_the_server_that_cached_it(openai: OpenAI, servers: Pair) -> None:
    rules = " ".join(f"Rule {number}: answer question {number} in one word." for number in range(25))
    before = answered(servers)
    cached = [
        openai.chat.completions.create(**parameters(f"{rules} Question {number}?", max_tokens=2)) for number in range(3)
    ]
    # A server counts an answer after its last message has left.
    wait_until(lambda: sum(answered(servers)) >= sum(before) + 3)
    assert sorted(now - then for now, then in zip(answered(servers), before, strict=True)) == [0, 3]
    details = [reply.usage.prompt_tokens_details for reply in cached if reply.usage is not None]
    assert all(detail is not None and (detail.cached_tokens or 0) > 200 for detail in details[1:])


def test_no_call_is_lost_with_a_server(openai: OpenAI, servers: Pair) -> None:
    servers[0].process.process.kill()
    for number in range(12):
        reply = openai.chat.completions.create(**parameters(f"Say {number}.", max_tokens=2))
        assert reply.choices[0].finish_reason in {"length", "stop"}
