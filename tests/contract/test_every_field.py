"""Every field of GenerateRequest has its effect, or an error names it. No field is ignored."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor

from doherty.v1 import answer_pb2, request_pb2
from doherty.v1 import generation_service_pb2 as wire
from support.multiplex import wait_until
from support.server import start_server
from support.wire import Caller, connect, request

PROMPT = {"prompt": "Name three colors."}
GREEDY = {"temperature": 0}
HOT = {"temperature": 1.5}
GROUPS = {"constraint", "continue_from", "output", "sampling", "stopping"}
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


def greedy(caller: Caller, most: int = 10, **fields: Any) -> wire.GenerateResponse:
    """Returns a short answer at temperature 0 with its token ids."""
    merged: dict[str, Any] = {**PROMPT, "sampling": GREEDY, "stopping": {"max_output_tokens": most}, **fields}
    merged["output"] = {"token_ids": True, **merged.get("output", {})}
    return caller.generate(**merged)


def request_id(caller: Caller) -> None:
    assert greedy(caller, request_id="label 1").start.request_id == "label 1"
    assert greedy(caller).start.request_id != ""
    assert caller.failure(**PROMPT, request_id="label 2", model="other").request_id == "label 2"


def model(caller: Caller) -> None:
    assert greedy(caller, model=caller.model.model).start.model == caller.model.model
    assert caller.failure(**PROMPT, model="other").code is grpc.StatusCode.NOT_FOUND


def prompt(caller: Caller) -> None:
    as_messages = greedy(caller, prompt=None, messages=[{"role": "ROLE_USER", "content": PROMPT["prompt"]}])
    assert greedy(caller).start.prompt_tokens == as_messages.start.prompt_tokens
    assert greedy(caller).text == as_messages.text != ""


def messages(caller: Caller) -> None:
    user = {"role": "ROLE_USER", "content": PROMPT["prompt"]}
    turns = [{"role": "ROLE_USER", "content": "Hi."}, {"role": "ROLE_ASSISTANT", "content": "Hello."}, user]
    system = [{"role": "ROLE_SYSTEM", "content": "Answer in the manner of a very old and very wordy pirate."}, user]
    sizes = [
        greedy(caller, prompt=None, messages=turn_list).start.prompt_tokens for turn_list in ([user], turns, system)
    ]
    assert len(set(sizes)) == 3


def raw_text(caller: Caller) -> None:
    raw = greedy(caller, prompt=None, raw_text=PROMPT["prompt"])
    assert 0 < raw.start.prompt_tokens < greedy(caller).start.prompt_tokens


def token_ids(caller: Caller) -> None:
    answer = greedy(caller, prompt=None, token_ids=[40, 41, 42])
    assert answer.start.prompt_tokens == 3
    beyond = caller.model.limits.vocabulary_size
    assert caller.failure(token_ids=[40, beyond]).fields == ["token_ids"]


def temperature(caller: Caller) -> None:
    answers = {caller.generate(**hot(caller, seed)).text for seed in range(3)}
    assert len(answers) > 1
    assert not greedy(caller).summary.HasField("seed")
    assert greedy(caller).text == greedy(caller).text


def hot(caller: Caller, seed: int, **sampling: float) -> dict[str, Any]:
    """Returns a short answer at a high temperature, with a seed if the engine has seeds."""
    seeded = {"seed": seed} if "sampling.seed" in caller.model.features else {}
    return {**PROMPT, "sampling": {**HOT, **seeded, **sampling}, "stopping": {"max_output_tokens": 10}}


def changes_the_draw(name: str, value: float) -> Callable[[Caller], None]:
    """Returns a check that the setting leads to another answer, at a high temperature and with the same seed."""

    def check(caller: Caller) -> None:
        plain, changed = (caller.generate(**hot(caller, 7, **extra)).text for extra in ({}, {name: value}))
        assert plain != changed

    return check


def seed(caller: Caller) -> None:
    first, again, other = (caller.generate(**hot(caller, number)) for number in (7, 7, 8))
    assert first.text == again.text != other.text
    assert first.summary.seed == 7
    large = caller.generate(**hot(caller, 2**64 - 1))
    assert large.summary.seed == 2**64 - 1
    drawn = caller.generate(**PROMPT, sampling={"temperature": 1.5}, stopping={"max_output_tokens": 10})
    assert drawn.text == caller.generate(**hot(caller, drawn.summary.seed)).text


def max_output_tokens(caller: Caller) -> None:
    answer = greedy(caller, most=5, stopping={"max_output_tokens": 5, "ignore_eos": True})
    assert answer.summary.finish_reason == answer_pb2.FINISH_REASON_LENGTH
    assert answer.summary.usage.output_tokens == len(answer.token_ids) == 5
    context = caller.model.limits.context_tokens
    assert caller.failure(**PROMPT, stopping={"max_output_tokens": context}).fields == ["stopping.max_output_tokens"]


def min_output_tokens(caller: Caller) -> None:
    plain = greedy(caller, stopping={"max_output_tokens": 500})
    assert plain.summary.finish_reason == answer_pb2.FINISH_REASON_STOP
    least = plain.summary.usage.output_tokens + 10
    longer = greedy(caller, stopping={"max_output_tokens": 500, "min_output_tokens": least})
    assert longer.summary.usage.output_tokens >= least


def stop_texts(caller: Caller) -> None:
    text = greedy(caller).text
    stop = text[len(text) // 2 : len(text) // 2 + 4]
    stopped = greedy(caller, stopping={"max_output_tokens": 10, "stop_texts": ["never to be found", stop]})
    assert stopped.text == text[: text.index(stop)]
    assert stopped.summary.finish_reason == answer_pb2.FINISH_REASON_STOP
    assert stopped.summary.stop_text == stop


def include_stop_text(caller: Caller) -> None:
    text = greedy(caller).text
    stop = text[len(text) // 2 : len(text) // 2 + 4]
    stopping = {"max_output_tokens": 10, "stop_texts": [stop], "include_stop_text": True}
    assert greedy(caller, stopping=stopping).text == text[: text.index(stop) + len(stop)]


def stop_token_ids(caller: Caller) -> None:
    plain = greedy(caller)
    assert len(plain.token_ids) == plain.summary.usage.output_tokens
    stop = plain.token_ids[len(plain.token_ids) // 2]
    first = list(plain.token_ids).index(stop)
    stopped = greedy(caller, stopping={"max_output_tokens": 10, "stop_token_ids": [stop]})
    assert stopped.summary.stop_token_id == stop
    assert stopped.summary.usage.output_tokens == first + 1
    assert plain.text.startswith(stopped.text)
    assert stopped.text != plain.text


def ignore_eos(caller: Caller) -> None:
    plain = greedy(caller, stopping={"max_output_tokens": 500})
    assert plain.summary.finish_reason == answer_pb2.FINISH_REASON_STOP
    most = plain.summary.usage.output_tokens + 8
    longer = greedy(caller, stopping={"max_output_tokens": most, "ignore_eos": True})
    assert longer.summary.finish_reason == answer_pb2.FINISH_REASON_LENGTH
    assert longer.summary.usage.output_tokens == most


def time_limit(caller: Caller) -> None:
    answer = greedy(caller, stopping={"max_output_tokens": 4000, "ignore_eos": True, "time_limit": "0.2s"})
    assert answer.summary.finish_reason == answer_pb2.FINISH_REASON_TIME_LIMIT
    assert answer.summary.usage.output_tokens < 4000
    assert answer.start.prompt_tokens == greedy(caller).start.prompt_tokens


def output_token_ids(caller: Caller) -> None:
    assert len(greedy(caller).token_ids) > 0
    assert len(greedy(caller, output={"token_ids": False}).token_ids) == 0


def top_logprobs(caller: Caller) -> None:
    assert len(greedy(caller).logprobs) == 0
    alone = greedy(caller, output={"top_logprobs": 0})
    assert [logprob.token_id for logprob in alone.logprobs] == list(alone.token_ids)
    assert all(logprob.logprob <= 0 and not logprob.top for logprob in alone.logprobs)
    several = greedy(caller, output={"top_logprobs": 3})
    for logprob in several.logprobs:
        assert len(logprob.top) == 3
        assert [other.logprob for other in logprob.top] == sorted(
            (other.logprob for other in logprob.top), reverse=True
        )
        assert logprob.token_id == logprob.top[0].token_id  # greedy
    most = caller.model.limits.max_top_logprobs
    assert caller.failure(**PROMPT, output={"top_logprobs": most + 1}).fields == ["output.top_logprobs"]


def json_schema(caller: Caller) -> None:
    value = json.loads(greedy(caller, 24, constraint={"json_schema": json.dumps(SCHEMA)}).text)
    assert isinstance(value["ok"], bool)
    assert caller.failure(**PROMPT, constraint={"json_schema": "{"}).fields == ["constraint.json_schema"]


def regex(caller: Caller) -> None:
    answer = greedy(caller, 24, constraint={"regex": "[a-c]{3}-[0-9]{2}"})
    assert re.fullmatch("[a-c]{3}-[0-9]{2}", answer.text)
    assert caller.failure(**PROMPT, constraint={"regex": "("}).fields == ["constraint.regex"]


def grammar(caller: Caller) -> None:
    assert greedy(caller, constraint={"grammar": 'root ::= "yes" | "no"'}).text in {"yes", "no"}
    assert caller.failure(**PROMPT, constraint={"grammar": "root ::= ("}).fields == ["constraint.grammar"]


def choices(caller: Caller) -> None:
    possible = ['a red "one"', "a blue one", "grün"]
    assert greedy(caller, 24, constraint={"choices": {"choices": possible}}).text in possible
    assert caller.failure(**PROMPT, constraint={"choices": {"choices": [""]}}).fields == ["constraint.choices"]


def adapter(caller: Caller) -> None:
    assert greedy(caller, adapter=caller.model.adapters[0]).text != greedy(caller).text
    assert caller.failure(**PROMPT, adapter="no such adapter").code is grpc.StatusCode.NOT_FOUND


def priority(caller: Caller) -> None:
    assert greedy(caller, priority="PRIORITY_BATCH").text == greedy(caller).text
    assert caller.failure(**PROMPT, priority=99).fields == ["priority"]


def held_ids(caller: Caller) -> None:
    whole = greedy(caller, stopping={"max_output_tokens": 12, "ignore_eos": True})
    held = {"token_ids": list(whole.token_ids[:4])}
    rest = greedy(caller, stopping={"max_output_tokens": 12, "ignore_eos": True}, continue_from=held)
    assert rest.start.prompt_tokens == whole.start.prompt_tokens
    assert rest.summary.usage.output_tokens == 12
    assert len(rest.token_ids) == 8
    assert whole.text.endswith(rest.text)
    beyond = caller.model.limits.vocabulary_size
    assert caller.failure(**PROMPT, continue_from={"token_ids": [beyond]}).fields == ["continue_from.token_ids"]


def held_text(caller: Caller) -> None:
    plain = greedy(caller, stopping={"max_output_tokens": 12, "ignore_eos": True})
    held = plain.text[: len(plain.text) // 2]
    rest = greedy(caller, stopping={"max_output_tokens": 12, "ignore_eos": True}, continue_from={"text": held})
    assert rest.start.prompt_tokens == plain.start.prompt_tokens
    assert 0 < len(rest.token_ids) < 12
    assert rest.summary.usage.output_tokens == 12
    assert rest.text != ""
    assert caller.failure(**PROMPT, continue_from={"text": "a", "tokenIds": [40]}).fields == ["continue_from"]


@dataclass(frozen=True)
class Case:
    """A field: a request that sets it, and a check of its effect."""

    sample: dict[str, Any]
    check: Callable[[Caller], None]


CASES = {
    "request_id": Case({"request_id": "a"}, request_id),
    "model": Case({"model": "a"}, model),
    "prompt": Case({}, prompt),
    "messages": Case({"messages": [{"role": "ROLE_USER"}]}, messages),
    "raw_text": Case({"raw_text": "a"}, raw_text),
    "token_ids": Case({"token_ids": [40]}, token_ids),
    "sampling.temperature": Case({"sampling": {"temperature": 0}}, temperature),
    "sampling.top_p": Case({"sampling": {"top_p": 0.5}}, changes_the_draw("top_p", 0.01)),
    "sampling.top_k": Case({"sampling": {"top_k": 0}}, changes_the_draw("top_k", 1)),
    "sampling.min_p": Case({"sampling": {"min_p": 0}}, changes_the_draw("min_p", 0.9)),
    "sampling.frequency_penalty": Case(
        {"sampling": {"frequency_penalty": 0}}, changes_the_draw("frequency_penalty", 2)
    ),
    "sampling.presence_penalty": Case({"sampling": {"presence_penalty": 0}}, changes_the_draw("presence_penalty", 2)),
    "sampling.repetition_penalty": Case(
        {"sampling": {"repetition_penalty": 1}}, changes_the_draw("repetition_penalty", 2)
    ),
    "sampling.seed": Case({"sampling": {"seed": 0}}, seed),
    "stopping.max_output_tokens": Case({"stopping": {"max_output_tokens": 1}}, max_output_tokens),
    "stopping.min_output_tokens": Case({"stopping": {"min_output_tokens": 0}}, min_output_tokens),
    "stopping.stop_texts": Case({"stopping": {"stop_texts": ["a"]}}, stop_texts),
    "stopping.stop_token_ids": Case({"stopping": {"stop_token_ids": [1]}}, stop_token_ids),
    "stopping.include_stop_text": Case({"stopping": {"include_stop_text": True}}, include_stop_text),
    "stopping.ignore_eos": Case({"stopping": {"ignore_eos": True}}, ignore_eos),
    "stopping.time_limit": Case({"stopping": {"time_limit": "1s"}}, time_limit),
    "output.token_ids": Case({"output": {"token_ids": True}}, output_token_ids),
    "output.top_logprobs": Case({"output": {"top_logprobs": 0}}, top_logprobs),
    "constraint.json_schema": Case({"constraint": {"json_schema": "{}"}}, json_schema),
    "constraint.regex": Case({"constraint": {"regex": "a"}}, regex),
    "constraint.grammar": Case({"constraint": {"grammar": "root ::= [a]"}}, grammar),
    "constraint.choices": Case({"constraint": {"choices": {"choices": ["a"]}}}, choices),
    "adapter": Case({"adapter": "a"}, adapter),
    "priority": Case({"priority": "PRIORITY_BATCH"}, priority),
    "continue_from.token_ids": Case({"continue_from": {"token_ids": [40]}}, held_ids),
    "continue_from.text": Case({"continue_from": {"text": "a"}}, held_text),
}


def leaves(descriptor: Descriptor) -> Iterator[str]:
    for field in descriptor.fields:
        if field.name in GROUPS and field.message_type is not None:
            yield from (f"{field.name}.{inner.name}" for inner in field.message_type.fields)
        else:
            yield field.name


def test_the_table_has_every_field() -> None:
    assert sorted(CASES) == sorted(leaves(request_pb2.GenerateRequest.DESCRIPTOR))


def test_features_are_fields(caller: Caller) -> None:
    assert list(caller.model.features) == sorted(set(caller.model.features))
    assert set(caller.model.features) <= set(CASES)


@pytest.mark.parametrize("path", CASES)
def test_a_field_has_its_effect_or_is_refused_by_name(caller: Caller, path: str) -> None:
    case = CASES[path]
    if path in caller.model.features:
        case.check(caller)
        return
    failure = caller.failure(**PROMPT, **case.sample)
    assert failure.code is grpc.StatusCode.UNIMPLEMENTED
    assert failure.fields == [path]
    assert path in failure.message


def test_batch_requests_go_behind_interactive_ones() -> None:
    slow = ("--engine-option", "slots=1", "--engine-option", "tokens_per_second=5")
    order: list[str] = []
    with start_server("--engine", "synthetic", *slow) as server, connect(server.target) as caller:

        def ask(name: str, tokens: int, **fields: Any) -> Any:
            stopping = {"max_output_tokens": tokens, "ignore_eos": True}
            call: Any = caller.stub.Generate.future(request(**PROMPT, stopping=stopping, **fields), timeout=1000)
            call.add_done_callback(lambda _: order.append(name))
            return call

        # After this answer, the next one is expected to take half a minute. If it held its slot for longer than that,
        # the batch request would go first, to get its tenth of the time.
        ask("first", 10).result()
        running = ask("running", 8000)
        caller.wait_until(lambda now: now.running == 1)
        batch = ask("batch", 2, priority="PRIORITY_BATCH")
        caller.wait_until(lambda now: now.queued == 1)
        person = ask("person", 2, priority="PRIORITY_INTERACTIVE")
        caller.wait_until(lambda now: now.queued == 2)
        running.cancel()
        for call in (person, batch):
            call.result()
        wait_until(lambda: len(order) == 4)
    assert order == ["first", "running", "person", "batch"]
