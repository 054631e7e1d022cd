"""Answers that are data: the schema that they are held to, and what is made of their text."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from doherty._core._errors import ParseError
from doherty._core._results import FinishReason

if TYPE_CHECKING:
    from doherty._core._results import Generation


class SchemaModel(Protocol):
    """A class that is a schema: what pydantic's BaseModel has, so that pydantic need not be imported here."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of the class."""
        ...

    @classmethod
    def model_validate_json(cls, json_data: str, /) -> Self:
        """An object of the class from JSON text; a ValueError if it does not fit."""
        ...


ModelT = TypeVar("ModelT", bound=SchemaModel)

JsonSchema = Mapping[str, object] | str
"""A JSON Schema, as a mapping or as JSON text."""

Schema = type[SchemaModel] | JsonSchema


def schema_text(schema: Schema) -> str:
    """A schema as the JSON text that is sent.

    Raises:
        TypeError: It is none.
        ValueError: It cannot be written as JSON.
    """
    if isinstance(schema, str):
        return schema
    given: Any = schema
    if isinstance(given, type) and hasattr(given, "model_json_schema"):
        return json.dumps(given.model_json_schema(), ensure_ascii=False)
    if not isinstance(given, Mapping):
        name = given.__name__ if isinstance(given, type) else type(given).__name__
        raise TypeError(f"schema= is a pydantic model, or a JSON Schema as a mapping or as JSON text, not {name}.")
    try:
        return json.dumps(dict(given), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"schema= cannot be written as JSON: {error}.") from error


def parse_answer(generation: "Generation[None]", schema: Schema, held: str) -> "Generation[Any]":
    """The answer with what its text stands for.

    Args:
        generation: The answer.
        schema: What it was held to.
        held: The part of the answer's text that the caller held already.

    Raises:
        ParseError: The text is not, or not all, of what the schema says.
    """
    text = held + generation.text
    try:
        return replace(generation, parsed=_parse(schema, text))
    except (ValueError, RecursionError) as error:
        what = schema.__name__ if isinstance(schema, type) else "JSON value"
        cut = (
            ""
            if generation.finish_reason is FinishReason.STOP
            else f", for it was cut off ({generation.finish_reason})"
        )
        raise ParseError(f"The answer is no {what}{cut}: {error}", generation) from error


def _parse(schema: Schema, text: str) -> Any:
    if isinstance(schema, type):
        return schema.model_validate_json(text)
    return json.loads(text)
