"""Creates JSON Schemas of Python types with pydantic."""

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

_MAX_CACHED = 256


class TypedSchema(NamedTuple):
    """The schema and the parser of a type."""

    text: str
    """The JSON Schema, as JSON text."""
    validate: Callable[[str], Any]
    """Parses JSON text; raises ValueError if it does not match the type."""


class _ClosedSchema(GenerateJsonSchema):
    """Forbids properties that a class does not define, unless it has `extra="allow"`: a model would invent many."""

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        return _closed(super().model_schema(schema))

    def dataclass_schema(self, schema: Any) -> JsonSchemaValue:
        return _closed(super().dataclass_schema(schema))

    def typed_dict_schema(self, schema: Any) -> JsonSchemaValue:
        return _closed(super().typed_dict_schema(schema))


def _closed(schema: JsonSchemaValue) -> JsonSchemaValue:
    if "properties" in schema:  # a RootModel has none
        schema.setdefault("additionalProperties", False)
    return schema


def typed_schema(schema: object) -> TypedSchema:
    """Returns the schema of a type or a TypeAdapter. Schemas of hashable types are cached.

    Raises:
        TypeError: pydantic does not support the type, or cannot describe it as JSON Schema.
    """
    try:
        hash(schema)
    except TypeError:
        return _new_schema(schema)  # such as Annotated[int, Field(...)]
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


_cached_schema = lru_cache(_MAX_CACHED)(_new_schema)
