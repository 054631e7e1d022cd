"""Builds the smallest JSON value that matches a JSON Schema."""

import json
import math
from typing import NoReturn, TypeAlias

from doherty_engine import InvalidInputError, UnsupportedError
from doherty_engine.constraints import check_size

FIELD = "constraint.json_schema"
_Json: TypeAlias = "dict[str, _Json] | list[_Json] | str | int | float | bool | None"

# Keywords that determine the smallest value, and keywords that have no effect on it.
_DECIDING = {"$ref", "const", "enum", "anyOf", "oneOf", "type", "properties", "required", "items", "minItems"}
_DECIDING |= {"minLength", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}
_HARMLESS = {"$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples"}
_HARMLESS |= {"deprecated", "readOnly", "writeOnly", "additionalProperties", "uniqueItems", "discriminator"}
_ALONE = ("$ref", "anyOf", "oneOf")
_UPPER_BOUNDS = {"maxItems": "minItems", "maxLength": "minLength"}
_DEEPEST = 64
_HUGE = 1e300


def smallest_value(schema: str, max_characters: int) -> str:
    """Returns the smallest JSON value that matches a schema, of at most about `max_characters` characters.

    Raises:
        InvalidInputError: The schema is invalid, or no value of that size matches it.
        UnsupportedError: The schema uses a keyword that this engine does not support.
    """
    check_size(FIELD, schema)
    try:
        root = json.loads(schema, parse_constant=_no_json)
        return json.dumps(_Builder(root, max_characters).build(root, 0), allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise InvalidInputError(FIELD, "the schema is nested too deeply") from None
    except ValueError as error:
        raise InvalidInputError(FIELD, f"the schema is not JSON: {error}") from error


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


class _Builder:
    def __init__(self, root: _Json, max_characters: int) -> None:
        self._root = root
        self._room = max_characters
        self._targets: dict[str, _Json] = {}

    def build(self, schema: _Json, depth: int) -> _Json:
        """Returns the smallest value that matches a schema."""
        self._spend(1)
        if depth > _DEEPEST:
            raise InvalidInputError(FIELD, "the schema is nested too deeply, or refers to itself endlessly")
        if schema is True:
            return None
        if schema is False:
            raise InvalidInputError(FIELD, "no value fits the schema false")
        if not isinstance(schema, dict):
            raise InvalidInputError(FIELD, "a schema must be an object or a boolean")
        self._check(schema)
        if "$ref" in schema:
            return self.build(self._resolve(schema["$ref"]), depth + 1)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self.build(_first(schema, keyword), depth + 1)
        if "const" in schema or "enum" in schema:
            value = schema["const"] if "const" in schema else _first(schema, "enum")
            self._spend(len(json.dumps(value)))
            return value
        return self._of_type(schema, depth)

    def _check(self, schema: dict[str, _Json]) -> None:
        for keyword in schema:
            if keyword not in _DECIDING and keyword not in _HARMLESS and keyword not in _UPPER_BOUNDS:
                raise UnsupportedError(FIELD, f"this engine does not understand the keyword {keyword!r}")
        alone = [keyword for keyword in _ALONE if keyword in schema]
        if alone and len(schema.keys() & _DECIDING) > 1:
            raise UnsupportedError(FIELD, f"this engine takes nothing else beside the keyword {alone[0]!r}")
        for upper, lower in _UPPER_BOUNDS.items():
            if upper in schema and self._size(schema, lower) > self._size(schema, upper):
                raise InvalidInputError(FIELD, f"{lower} is above {upper}")

    def _resolve(self, reference: _Json) -> _Json:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise UnsupportedError(FIELD, f"this engine does not follow the reference {reference!r}")
        if reference in self._targets:
            return self._targets[reference]
        target = self._root
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, dict) or name not in target:
                raise InvalidInputError(FIELD, f"there is nothing at {reference!r}")
            target = target[name]
        self._targets[reference] = target
        return target

    def _of_type(self, schema: dict[str, _Json], depth: int) -> _Json:
        kind = schema.get("type")
        if isinstance(kind, list) and kind:
            kind = kind[0]
        if kind is None:
            kind = _guess_type(schema)
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                size = self._size(schema, "minLength")
                self._spend(size)
                return "a" * size
            case "integer" | "number":
                return _smallest_number(schema, whole=kind == "integer")
            case "boolean" | "null":
                return False if kind == "boolean" else None
            case _:
                raise InvalidInputError(FIELD, f"there is no type {kind!r}")

    def _object(self, schema: dict[str, _Json], depth: int) -> _Json:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise InvalidInputError(FIELD, "properties must be an object, and required a list")
        value: dict[str, _Json] = {}
        for name in required:
            if not isinstance(name, str):
                raise InvalidInputError(FIELD, "required must be a list of names")
            self._spend(len(name))
            value[name] = self.build(properties.get(name, schema.get("additionalProperties", True)), depth + 1)
        return value

    def _array(self, schema: dict[str, _Json], depth: int) -> _Json:
        size = self._size(schema, "minItems")
        if size > 1 and schema.get("uniqueItems"):
            raise UnsupportedError(FIELD, "this engine makes no unique items")
        return [self.build(schema.get("items", True), depth + 1) for _ in range(size)]

    def _size(self, schema: dict[str, _Json], keyword: str) -> int:
        size = schema.get(keyword, 0)
        if not isinstance(size, int) or size < 0:
            raise InvalidInputError(FIELD, f"{keyword} must be a whole number, 0 or above")
        return size

    def _spend(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise InvalidInputError(FIELD, "the smallest value that fits is larger than the context")


def _first(schema: dict[str, _Json], keyword: str) -> _Json:
    options = schema[keyword]
    if not isinstance(options, list) or not options:
        raise InvalidInputError(FIELD, f"{keyword} must be a list that is not empty")
    return options[0]


def _guess_type(schema: dict[str, _Json]) -> str:
    """The type to which the keywords of a schema without a type apply."""
    if schema.keys() & {"properties", "required"}:
        return "object"
    if schema.keys() & {"items", "minItems"}:
        return "array"
    if schema.keys() & {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}:
        return "number"
    return "string" if "minLength" in schema else "null"


def _smallest_number(schema: dict[str, _Json], *, whole: bool) -> int | float:
    """The matching number that is closest to 0."""
    low, high = -math.inf, math.inf
    for keyword in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
        bound = schema.get(keyword)
        if bound is None:
            continue
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not -_HUGE < bound < _HUGE:
            raise InvalidInputError(FIELD, f"{keyword} must be a number below {_HUGE:g}")
        edge = _edge(bound, keyword, whole=whole)
        if keyword.endswith("inimum"):
            low = max(low, edge)
        else:
            high = min(high, edge)
    if low > high:
        raise InvalidInputError(FIELD, "no number lies between the minimum and the maximum")
    return min(max(0, low), high)


def _edge(bound: float, keyword: str, *, whole: bool) -> float:
    """The smallest or largest number that a bound allows."""
    exclusive = keyword.startswith("exclusive")
    lower = keyword.endswith("inimum")
    if not whole:
        return math.nextafter(bound, math.inf if lower else -math.inf) if exclusive else bound
    edge = math.ceil(bound) if lower else math.floor(bound)
    if exclusive and edge == bound:
        edge += 1 if lower else -1
    return edge
