"""JSON Schemas of Python types, by pydantic."""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

try:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
    from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
except ImportError as error:
    raise ImportError("schema= with a type needs pydantic; without it, pass a JSON Schema.") from error

_MOST_CACHED = 256


class TypedSchema(NamedTuple):
    """A type as a schema."""

    text: str
    """The JSON Schema, as JSON text."""
    validate: Callable[[str], Any]
    """Makes an object from JSON text; raises ValueError if it does not fit."""


class _ClosedSchema(GenerateJsonSchema):
    """Closes the objects of classes that do not say `extra="allow"`: a model would invent names without an end."""

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        return _closed(super().model_schema(schema))

    def dataclass_schema(self, schema: Any) -> JsonSchemaValue:
        return _closed(super().dataclass_schema(schema))

    def typed_dict_schema(self, schema: Any) -> JsonSchemaValue:
        return _closed(super().typed_dict_schema(schema))


def _closed(schema: JsonSchemaValue) -> JsonSchemaValue:
    if "properties" in schema:  # not the schema of a RootModel
        schema.setdefault("additionalProperties", False)
    return schema


def typed_schema(schema: object) -> TypedSchema:
    """The JSON Schema of a type or a TypeAdapter, which is cached.

    Raises:
        TypeError: pydantic does not know the type, or cannot describe it.
    """
    try:
        hash(schema)
    except TypeError:
        return _new_schema(schema)  # as Annotated[int, Field(...)]
    return _cached_schema(schema)


def _new_schema(schema: Any) -> TypedSchema:
    try:
        adapter = schema if isinstance(schema, TypeAdapter) else TypeAdapter(schema)
        written = adapter.json_schema(schema_generator=_ClosedSchema)
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError) as error:
        raise TypeError(
            f"schema= is a type that pydantic knows, or a JSON Schema as a mapping or text, not {schema!r}: {error}"
        ) from error
    return TypedSchema(json.dumps(written, ensure_ascii=False, separators=(",", ":")), adapter.validate_json)


_cached_schema = lru_cache(_MOST_CACHED)(_new_schema)
