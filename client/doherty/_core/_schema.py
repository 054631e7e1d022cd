"""Answers that are data: the schema of an answer, and what its text is parsed into."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from doherty._core._errors import ParseError
from doherty._core._results import FinishReason

if TYPE_CHECKING:
    from doherty._core._results import Generation

ParsedT = TypeVar("ParsedT")
ParsedT_co = TypeVar("ParsedT_co", covariant=True)


class SchemaAdapter(Protocol[ParsedT_co]):
    """What pydantic's TypeAdapter has, so that pydantic need not be imported here."""

    def validate_json(self, data: str, /) -> ParsedT_co:
        """An object from JSON text; a ValueError if it does not fit."""
        ...

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema of the objects."""
        ...


JsonSchema = Mapping[str, object] | str
"""A JSON Schema, as a mapping or as JSON text."""


def schema_text(schema: object) -> str:
    """A schema as the JSON text that is sent.

    Args:
        schema: A JSON Schema, or a type that pydantic knows, or a TypeAdapter.

    Raises:
        TypeError: It is neither.
        ValueError: It cannot be written as JSON.
    """
    if isinstance(schema, str):
        return schema
    if not isinstance(schema, Mapping):
        from doherty._core._types import typed_schema  # noqa: PLC0415 - only types need pydantic

        return typed_schema(schema).text
    try:
        return json.dumps(dict(schema), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"schema= cannot be written as JSON: {error}.") from error


def parse_answer(generation: "Generation[None]", schema: object, held: str) -> "Generation[Any]":
    """The answer with its parsed text.

    Args:
        generation: The answer.
        schema: What it was constrained to.
        held: The part of the answer's text that the caller held already.

    Raises:
        ParseError: The text was cut off, or does not fit the schema.
    """
    name = _name(schema)
    if generation.finish_reason is not FinishReason.STOP or generation.stop_text is not None:
        # The beginning of a value can be a value, too: 12 of 123, or the first of two optional properties.
        reason = generation.finish_reason if generation.stop_text is None else "stop text"
        raise ParseError(f"The answer is no {name}, because it was cut off ({reason}).", generation)
    text = held + generation.text
    try:
        return replace(generation, parsed=_parse(schema, text))
    except (ValueError, RecursionError) as error:
        raise ParseError(f"The answer is no {name}: {error}", generation) from error


def _name(schema: object) -> str:
    if isinstance(schema, Mapping | str):
        return "JSON value"
    return schema.__name__ if isinstance(schema, type) else str(schema)


def _parse(schema: object, text: str) -> Any:
    if isinstance(schema, Mapping | str):
        return json.loads(text)
    from doherty._core._types import typed_schema  # noqa: PLC0415 - only types need pydantic

    return typed_schema(schema).validate(text)
