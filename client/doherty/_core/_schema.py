"""Structured answers: the schema to send, and the parsing of the answer's text."""

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
    """The methods of pydantic's TypeAdapter. A protocol, so that this module need not import pydantic."""

    def validate_json(self, data: str, /) -> ParsedT_co:
        """Parses JSON text; raises ValueError if it does not match the type."""
        ...

    def json_schema(self) -> dict[str, Any]:
        """Returns the JSON Schema of the type."""
        ...


Schema = type[ParsedT] | SchemaAdapter[ParsedT]
"""A schema that determines the type of the parsed answer."""


def schema_text(schema: object) -> str:
    """Converts a schema to the JSON text to send.

    Args:
        schema: A JSON Schema, a type that pydantic supports, or a TypeAdapter.

    Raises:
        TypeError: It is none of these.
        ValueError: It cannot be encoded as JSON.
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
    """Returns the answer with its parsed text.

    Args:
        generation: The answer.
        schema: The schema of the request.
        held: The beginning of the answer's text, which the caller already had (`continue_from`).

    Raises:
        ParseError: The text was cut off, or does not match the schema.
    """
    name = _name(schema)
    if generation.finish_reason is not FinishReason.STOP or generation.stop_text is not None:
        # The beginning of a value can be valid, too: 12 of 123, or an object with the first of two optional properties.
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
