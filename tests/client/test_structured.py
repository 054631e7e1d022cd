"""Answers that are data, by both clients."""

import subprocess
import sys
from typing import TYPE_CHECKING, Any, assert_type

import pytest
from pydantic import BaseModel

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
from doherty.v1.answer_pb2 import FINISH_REASON_LENGTH, Summary
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
async def test_an_answer_is_what_its_json_stands_for(kind: Kind, schema: Any) -> None:
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
                with pytest.raises(ParseError, match=r"no Color, for it was cut off \(length\)") as raised:
                    await read
                assert raised.value.generation.text == '{"name": "re'
                assert raised.value.generation.finish_reason is FinishReason.LENGTH


async def test_an_answer_that_does_not_fit_is_told(kind: Kind) -> None:
    with serve(lambda _, __: iter(answer('{"name": 1}'))) as serving:
        async with open_twin(kind, serving.target) as twin:
            with pytest.raises(ParseError, match=r"(?s)no Color: .*name"):
                await twin.generate("Hi", schema=Color)
    with serve(lambda _, __: iter(answer("[" * 100_000))) as serving:
        async with open_twin(kind, serving.target) as twin:
            with pytest.raises(ParseError, match="no JSON value"):
                await twin.generate("Hi", schema={})


async def test_an_answer_behind_a_part_is_read_with_it(kind: Kind) -> None:
    with serve(lambda _, __: iter(answer('"red"}'))) as serving:
        async with open_twin(kind, serving.target) as twin:
            held = GenerateOptions(continue_from='{"name": ')
            assert (await twin.generate("Hi", schema=Color, options=held)).parsed == Color(name="red")
            assert (await twin.stream("Hi", schema=Color, options=held).result()).parsed == Color(name="red")
            with pytest.raises(ValueError, match="the text of continue_from"):
                await twin.generate("Hi", schema=Color, options=GenerateOptions(continue_from=TokenIds([1])))


@pytest.mark.parametrize("wrong", [int, 3, ["name"]])
async def test_a_schema_that_is_none_is_refused(twin: Twin, wrong: Any) -> None:
    with pytest.raises(TypeError, match="schema= is a pydantic model, or a JSON Schema"):
        await twin.generate("Hi", schema=wrong)


def test_pydantic_is_not_needed_for_a_schema() -> None:
    program = "import doherty._core._schema as s, sys; s.schema_text({}); assert 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


if TYPE_CHECKING:

    def types_of_the_client(client: Client) -> None:
        assert_type(client.generate("Hi"), Generation[None])
        assert_type(client.generate("Hi", schema=Color, temperature=0), Generation[Color])
        assert_type(client.generate("Hi", schema={"type": "object"}), Generation[Any])
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
