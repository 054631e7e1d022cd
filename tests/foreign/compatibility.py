"""Uses the generated code and the SDK in whatever Python runs it: `python compatibility.py TARGET`.

test_wheel.py runs it with the newest and with the oldest grpcio and protobuf that pyproject.toml declares. Prints where
the SDK is, and the versions of the libraries, as JSON; fails with a traceback.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

import doherty
from doherty import AsyncClient, Client, InvalidRequestError, OverloadedError
from doherty.testing import FakeServer, Reply
from doherty.v1 import answer_pb2, generation_service_pb2, latency_service_pb2, model_pb2, request_pb2

LIBRARIES = ("googleapis-common-protos", "grpcio", "grpcio-status", "protobuf")
MODULES = (answer_pb2, generation_service_pb2, latency_service_pb2, model_pb2, request_pb2)


def sample(field: FieldDescriptor) -> Any:
    """Returns a value of a scalar field that is not its default."""
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b"\xff\x00"
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    return {
        FieldDescriptor.CPPTYPE_BOOL: True,
        FieldDescriptor.CPPTYPE_STRING: "Grüße 🌍",
        FieldDescriptor.CPPTYPE_FLOAT: 0.5,
        FieldDescriptor.CPPTYPE_DOUBLE: 0.25,
    }.get(field.cpp_type, 7)


def fill(message: Message, field: FieldDescriptor) -> None:
    """Sets a field of a message, including all fields below it."""
    value: Any = getattr(message, field.name)
    if hasattr(value, "append") and field.message_type is None:
        value.append(sample(field))
        return
    if field.message_type is None:
        setattr(message, field.name, sample(field))
        return
    part = value.add() if hasattr(value, "append") else value
    part.SetInParent()
    if isinstance(part, AnyMessage):
        part.Pack(Duration(seconds=1))  # the JSON form needs the type of the contents, so it must be known
        return
    for inner in part.DESCRIPTOR.fields:
        fill(part, inner)


def filled(descriptor: Descriptor) -> Iterator[Message]:
    """Returns an empty message, one message for each field with only this field set, and one with all fields set."""
    kind = message_factory.GetMessageClass(descriptor)
    yield kind()
    whole = kind()
    for field in descriptor.fields:
        alone = kind()
        fill(alone, field)
        fill(whole, field)
        yield alone
    yield whole


def round_trip() -> None:
    """Encodes and decodes every message of the contract, in both encodings."""
    for module in MODULES:
        for descriptor in module.DESCRIPTOR.message_types_by_name.values():
            for message in filled(descriptor):
                kind = type(message)
                assert kind.FromString(message.SerializeToString()) == message
                assert json_format.Parse(json_format.MessageToJson(message), kind()) == message


def answer(target: str) -> str:
    """Gets the same answer from a unary call and from a stream, and an error for an invalid request."""
    with Client(target) as client:
        client.wait_ready()
        whole = client.generate("What atoms are in water?", max_output_tokens=16)
        with client.stream_generate("What atoms are in water?", max_output_tokens=16) as stream:
            parts = [delta.text for delta in stream]
        wrong: list[str] = []
        try:
            client.generate("What atoms are in water?", temperature=-1)
        except InvalidRequestError as error:
            wrong += (violation.field for violation in error.field_violations)
    assert wrong == ["sampling.temperature"]
    assert "".join(parts) == whole.text != ""
    assert len(parts) > 1
    return whole.text


async def answer_asynchronously(target: str) -> str:
    """Leaves a stream early while a unary call runs."""
    async with AsyncClient(target) as client:
        async with client.stream_generate("Not all of it.") as stream:
            await anext(stream)
        answer = await client.generate("What atoms are in water?", max_output_tokens=16)
    return answer.text


def test_against_a_fake() -> None:
    """Uses the fake server: a refused request, a lost stream, and its continuation."""
    with FakeServer("Both.") as server, Client(server.target) as client:
        server.reply(OverloadedError("full", retry_after=0.01), "One.", Reply("An", cut_off=True), "An other.")
        assert client.generate("Hello").text == "One."
        with client.stream_generate("Hello") as stream:
            assert stream.result().text == "An other."
        assert asyncio.run(answer_asynchronously(server.target)) == "Both."
        server.wait_idle()


round_trip()
test_against_a_fake()
assert answer(sys.argv[1]) == asyncio.run(answer_asynchronously(sys.argv[1]))
json.dump({"doherty": doherty.__file__} | {name: version(name) for name in LIBRARIES}, sys.stdout)
