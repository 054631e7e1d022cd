"""Answers that contain structured data, with both clients."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Literal, assert_type

import pytest
from pydantic import BaseModel, Field, RootModel, TypeAdapter
from typing_extensions import TypedDict

from doherty import (
    AsyncClient,
    AsyncGenerationStream,
    Client,
    FinishReason,
    GenerateOptions,
    Generation,
    GenerationStream,
    ParseError,
    TokenIds,
)
from doherty._core._schema import schema_text
from doherty.v1.answer_pb2 import FINISH_REASON_LENGTH, FINISH_REASON_STOP, FINISH_REASON_TIME_LIMIT, Summary
from doherty.v1.generation_service_pb2 import StreamGenerateResponse
from support.serving import answer, delta, serve
from support.twins import Kind, Twin, open_twin


class Color(BaseModel):
    """A color."""

    name: str
    shades: list[int] = []


async def test_an_answer_is_an_object_of_the_model(twin: Twin) -> None:
    whole = await twin.generate("Name a color.", schema=Color)
    streamed = await twin.stream("Name a color.", schema=Color).result()
    assert isinstance(whole.parsed, Color)
    assert streamed.parsed == whole.parsed == Color.model_validate_json(whole.text)


@pytest.mark.parametrize("schema", [Color.model_json_schema(), '{"type": "object", "required": ["name"]}'])
async def test_an_answer_is_parsed_as_json(kind: Kind, schema: Any) -> None:
    text = '{"name": "red", "shades": [1, 2]}'
    with serve(lambda _, __: iter(answer(text))) as serving:
        async with open_twin(kind, serving.target) as twin:
            assert (await twin.generate("Hi", schema=schema)).parsed == {"name": "red", "shades": [1, 2]}
            assert (await twin.stream("Hi", schema=schema).result()).parsed == {"name": "red", "shades": [1, 2]}
            assert (await twin.generate("Hi")).parsed is None


async def test_an_answer_that_is_cut_off_is_not_lost(kind: Kind) -> None:
    cut = [
        delta('{"name": "re', 1, start=True),
        StreamGenerateResponse(summary=Summary(finish_reason=FINISH_REASON_LENGTH)),
    ]
    with serve(lambda _, __: iter(cut)) as serving:
        async with open_twin(kind, serving.target) as twin:
            stream = twin.stream("Hi", schema=Color)
            for read in (twin.generate("Hi", schema=Color), stream.result()):
                with pytest.raises(ParseError, match=r"no Color, because it was cut off \(length\)") as raised:
                    await read
                assert raised.value.generation.text == '{"name": "re'
                assert raised.value.generation.finish_reason is FinishReason.LENGTH


async def test_an_answer_that_does_not_match_raises_an_error(kind: Kind) -> None:
    with serve(lambda _, __: iter(answer('{"name": 1}'))) as serving:
        async with open_twin(kind, serving.target) as twin:
            with pytest.raises(ParseError, match=r"(?s)no Color: .*name"):
                await twin.generate("Hi", schema=Color)
    with serve(lambda _, __: iter(answer("[" * 100_000))) as serving:
        async with open_twin(kind, serving.target) as twin:
            with pytest.raises(ParseError, match="no JSON value"):
                await twin.generate("Hi", schema={})


async def test_an_answer_is_parsed_together_with_its_prefix(kind: Kind) -> None:
    with serve(lambda _, __: iter(answer('"red"}'))) as serving:
        async with open_twin(kind, serving.target) as twin:
            held = GenerateOptions(continue_from='{"name": ')
            assert (await twin.generate("Hi", schema=Color, options=held)).parsed == Color(name="red")
            assert (await twin.stream("Hi", schema=Color, options=held).result()).parsed == Color(name="red")
            with pytest.raises(ValueError, match="the text of continue_from"):
                await twin.generate("Hi", schema=Color, options=GenerateOptions(continue_from=TokenIds([1])))


@pytest.mark.parametrize(
    ("schema", "text"),
    [(int, "12"), ({"type": "integer"}, "12"), (list[int], "[1]"), (Color, '{"name":"red"}'), (str, '"a"')],
)
@pytest.mark.parametrize(
    "ending",
    [
        Summary(finish_reason=FINISH_REASON_LENGTH),
        Summary(finish_reason=FINISH_REASON_TIME_LIMIT),
        Summary(finish_reason=FINISH_REASON_STOP, stop_text="3"),
    ],
)
async def test_an_answer_that_was_cut_off_is_never_parsed(schema: Any, text: str, ending: Summary) -> None:
    cut = [delta(text, 1, start=True), StreamGenerateResponse(summary=ending)]
    with serve(lambda _, __: iter(cut)) as serving:
        async with open_twin("Client", serving.target) as twin:
            with pytest.raises(ParseError, match="cut off") as raised:
                await twin.generate("Hi", schema=schema)
            assert raised.value.generation.text == text


@dataclass
class Point:
    """A place."""

    x: int
    color: Color


class Row(TypedDict):
    """A line of a table."""

    points: list[Point]


@pytest.mark.parametrize(
    ("schema", "parsed"),
    [
        (list[Color], [Color(name="a")]),
        (Point, Point(1, Color(name="a"))),
        (Row, {"points": [Point(2, Color(name="a"))]}),
        (Literal["yes", "no"], "no"),
        (Color | None, None),
        (dict[str, int], {"a": 3}),
        (Annotated[int, Field(ge=1)], 3),
        (TypeAdapter(tuple[int, str]), (1, "a")),
        (date, date(2026, 1, 31)),
    ],
    ids=repr,
)
async def test_an_answer_can_have_any_type_that_pydantic_knows(kind: Kind, schema: Any, parsed: Any) -> None:
    text = TypeAdapter(Any).dump_json(parsed).decode()
    with serve(lambda _, __: iter(answer(text))) as serving:
        async with open_twin(kind, serving.target) as twin:
            assert (await twin.generate("Hi", schema=schema)).parsed == parsed
            assert (await twin.stream("Hi", schema=schema).result()).parsed == parsed
        assert json.loads(serving.requests[0].constraint.json_schema)


async def test_the_server_writes_compact_json_of_any_type(twin: Twin) -> None:
    assert (await twin.generate("Hi", schema=Row)).parsed == {"points": []}
    answered = await twin.generate("Hi", schema=Point)
    assert answered.text == '{"x":0,"color":{"name":""}}'
    assert answered.parsed == Point(0, Color(name=""))


def test_schemas_of_classes_allow_no_additional_properties() -> None:
    class Open(BaseModel, extra="allow"):
        name: str

    class Nothing(BaseModel):
        pass

    class Wrapped(RootModel[Color]):
        pass

    for closed in (Color, Nothing, Point, Row):
        assert json.loads(schema_text(closed))["additionalProperties"] is False
    assert json.loads(schema_text(Point))["$defs"]["Color"]["additionalProperties"] is False
    assert json.loads(schema_text(list[Row]))["$defs"]["Row"]["additionalProperties"] is False
    assert json.loads(schema_text(Open))["additionalProperties"] is True
    assert json.loads(schema_text(dict[str, int]))["additionalProperties"] == {"type": "integer"}
    assert "additionalProperties" not in json.loads(schema_text(Wrapped))


def test_the_schema_of_a_type_is_cached() -> None:
    assert schema_text(list[Color]) is schema_text(list[Color])


@pytest.mark.parametrize("wrong", [3, ["name"], Callable[[], int], object()])
async def test_an_invalid_schema_is_refused(twin: Twin, wrong: Any) -> None:
    with pytest.raises(TypeError, match="schema= is a type that pydantic knows, or a JSON Schema"):
        await twin.generate("Hi", schema=wrong)


def test_pydantic_is_not_needed_for_a_schema() -> None:
    program = "import doherty._core._schema as s, sys; s.schema_text({}); assert 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_type_without_pydantic_raises_an_error() -> None:
    program = "import sys; sys.modules['pydantic'] = None; import doherty._core._schema as s; s.schema_text(int)"
    finished = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert finished.stderr.endswith(
        "ImportError: schema= with a type needs pydantic; without it, pass a JSON Schema.\n"
    )


if TYPE_CHECKING:

    def types_of_the_client(client: Client) -> None:
        assert_type(client.generate("Hi"), Generation[None])
        assert_type(client.generate("Hi", schema=Color, temperature=0), Generation[Color])
        assert_type(client.generate("Hi", schema={"type": "object"}), Generation[Any])
        assert_type(client.generate("Hi", schema=list[Color]).parsed, list[Color])
        assert_type(client.generate("Hi", schema=Point).parsed, Point)
        assert_type(client.generate("Hi", schema=Row).parsed, Row)
        assert_type(client.generate("Hi", schema=TypeAdapter[int | str](int | str)).parsed, int | str)
        assert_type(client.generate("Hi", schema=Literal["a"]).parsed, Any)
        assert_type(client.stream_generate("Hi"), GenerationStream[None])
        assert_type(client.stream_generate("Hi", schema=Color).result().parsed, Color)
        any_of_them: Generation = client.generate("Hi", schema=Color)
        assert_type(any_of_them.text, str)
        client.generate("Hi", temprature=0)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]

    async def types_of_the_asynchronous_client(client: AsyncClient) -> None:
        assert_type(await client.generate("Hi"), Generation[None])
        assert_type(await client.generate("Hi", schema=Color), Generation[Color])
        assert_type(client.stream_generate("Hi", schema=Color), AsyncGenerationStream[Color])
        assert_type((await client.stream_generate("Hi", schema="{}").result()).parsed, Any)
