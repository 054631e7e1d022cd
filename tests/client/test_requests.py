"""Parameters are converted to requests."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message as ProtobufMessage

from doherty import Client, GenerateOptions, Message, RawText, TokenIds
from doherty._core._request import plan_request
from doherty.v1.request_pb2 import GenerateRequest

EVERYTHING = GenerateOptions(
    model="m",
    top_k=1,
    min_p=0.5,
    frequency_penalty=0.5,
    presence_penalty=0.5,
    repetition_penalty=1.5,
    min_output_tokens=1,
    stop_token_ids=[1],
    include_stop_text=True,
    ignore_eos=True,
    token_ids=True,
    top_logprobs=1,
    priority="batch",
    continue_from="held",
)


def build(prompt: Any, **parameters: Any) -> GenerateRequest:
    return plan_request(prompt, **parameters).request


def _leaves(descriptor: Descriptor, path: str = "") -> Iterator[str]:
    for field in descriptor.fields:
        if field.message_type is None or field.message_type.full_name == "google.protobuf.Duration":
            yield path + field.name
        else:
            yield from _leaves(field.message_type, f"{path}{field.name}.")


def _set_leaves(message: ProtobufMessage, path: str = "") -> Iterator[str]:
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.full_name == "google.protobuf.Duration":
            yield path + field.name
        elif isinstance(value, ProtobufMessage):
            yield from _set_leaves(value, f"{path}{field.name}.")
        else:
            yield from (leaf for item in value for leaf in _set_leaves(item, f"{path}{field.name}."))


def test_every_field_of_a_request_can_be_set() -> None:
    requests = [
        build(
            "hello",
            temperature=0.5,
            top_p=0.5,
            max_output_tokens=5,
            stop="x",
            seed=7,
            schema={"type": "object"},
            adapter="a",
            time_limit=1.5,
            request_id="r",
            options=EVERYTHING,
        ),
        build("hello", system="be brief", options=GenerateOptions(regex="a+")),
        build(RawText("hello"), options=GenerateOptions(grammar="root ::= 'a'", continue_from=TokenIds([1]))),
        build(TokenIds([1, 2]), options=GenerateOptions(choices=["a", "b"])),
    ]
    reached = {leaf for request in requests for leaf in _set_leaves(request)}
    assert reached == set(_leaves(GenerateRequest.DESCRIPTOR))


def test_parameters_that_are_not_given_are_not_sent() -> None:
    assert build("hello") == GenerateRequest(prompt="hello")


def test_an_explicit_zero_is_sent() -> None:
    request = build("", temperature=0, seed=0, options=GenerateOptions(top_logprobs=0, continue_from=""))
    assert request.HasField("prompt")
    assert request.sampling.HasField("temperature")
    assert request.sampling.HasField("seed")
    assert request.output.HasField("top_logprobs")
    assert request.HasField("continue_from")


def test_messages_may_be_dataclasses_or_mappings() -> None:
    turns = [("user", "hi"), ("assistant", "hello"), ("user", "bye")]
    mappings = build([{"role": role, "content": content} for role, content in turns], system="be brief")
    dataclasses = build(tuple(Message(role, content) for role, content in turns), system="be brief")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert mappings == dataclasses
    assert [message.content for message in mappings.messages] == ["be brief", "hi", "hello", "bye"]


def test_a_schema_may_be_a_mapping_or_text() -> None:
    assert build("x", schema={"type": "string"}) == build("x", schema='{"type": "string"}')


def test_a_single_stop_text_needs_no_list() -> None:
    assert build("x", stop="END") == build("x", stop=["END"])


@pytest.mark.parametrize(
    ("prompt", "parameters", "sentence"),
    [
        (5, {}, "A prompt is a str, a list of messages, RawText or TokenIds, not int."),
        (b"hi", {}, "not bytes"),
        (Message("user", "hi"), {}, "A message is not a prompt by itself"),
        ({"role": "user", "content": "hi"}, {}, "A message is not a prompt by itself"),
        (["hi"], {}, "A message is a Message or a mapping with role and content, not str."),
        ([{"role": "user", "content": 5}], {}, "A message's content is a str, not int."),
        ("hi", {"system": 5}, "system= is a str, not int."),
        ("hi", {"temperature": "hot"}, "temperature cannot be 'hot'"),
        ("hi", {"max_output_tokens": 1.5}, "max_output_tokens cannot be 1.5"),
        ("hi", {"stop": 5}, "stop_texts cannot be 5"),
        (
            "hi",
            {"schema": 5},
            "schema= is a type that pydantic knows, or a JSON Schema as a mapping or text, not 5:",
        ),
        ("hi", {"options": {"top_k": 1}}, "options= is a GenerateOptions, not dict."),
        ("hi", {"schema": {"a": object}}, "schema= cannot be written as JSON"),
        ("hi", {"time_limit": "1s"}, "time_limit= is a number of seconds, not '1s'."),
    ],
)
def test_a_wrong_type_is_reported_in_a_sentence(prompt: Any, parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TypeError, match=re.escape(sentence)):
        build(prompt, **parameters)


@pytest.mark.parametrize(
    ("prompt", "parameters", "sentence"),
    [
        ([], {}, "The prompt has no messages."),
        (TokenIds([]), {}, "The prompt has no token ids."),
        ([{"role": "robot", "content": "hi"}], {}, "A message's role is one of system, user, assistant, not 'robot'."),
        ([{"role": "user"}], {}, "A message has the keys role and content and no others, not ['role']."),
        ([{"role": "system", "content": "a"}], {"system": "b"}, "exclude each other"),
        (RawText("hi"), {"system": "b"}, "which RawText does not use"),
        ("\ud800", {}, "prompt cannot be"),
        ([{"role": "user", "content": "\ud800"}], {}, "content cannot be"),
        ("hi", {"max_output_tokens": -1}, "max_output_tokens cannot be -1"),
        ("hi", {"seed": 2**64}, "seed cannot be"),
        ("hi", {"time_limit": float("inf")}, "time_limit= is a number of seconds, not inf."),
        ("hi", {"schema": {}, "options": GenerateOptions(regex="a")}, "schema and regex exclude each other"),
        ("hi", {"options": GenerateOptions(priority="high")}, "priority is one of interactive, batch, not 'high'."),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ],
)
def test_a_wrong_value_is_reported_in_a_sentence(prompt: Any, parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        build(prompt, **parameters)


def test_token_ids_cannot_be_counted() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(TypeError, match="len"):
        client.count_tokens(TokenIds([1]))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_the_target_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOHERTY_TARGET", raising=False)
    with Client() as client:
        assert client.target == "localhost:50051"
    monkeypatch.setenv("DOHERTY_TARGET", "example:1")
    with Client() as client:
        assert client.target == "example:1"
    with Client("other:2") as client:
        assert client.target == "other:2"
