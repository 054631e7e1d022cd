"""Collects what a JSON Schema says about a value, including its `$ref` and `allOf`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import combinations

from doherty_engine.constraints._schema_values import Json, bound, invalid, resolve

_KINDS = frozenset({"null", "boolean", "object", "array", "number", "integer", "string"})
_MAX_ALTERNATIVES = 100
BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
_BY_KEYWORD = {
    "object": (
        *("properties", "required", "minProperties", "maxProperties"),
        *("additionalProperties", "patternProperties", "unevaluatedProperties"),
    ),
    "array": ("items", "prefixItems", "minItems", "maxItems", "unevaluatedItems"),
    "number": (*BOUNDS, "multipleOf"),
    "string": ("pattern", "format", "minLength", "maxLength"),
}


@dataclass(frozen=True, slots=True)
class SchemaFacts:
    """What a schema says about a value."""

    kinds: frozenset[str] = _KINDS
    """The types that it may have; without "object" and "array" if the schema has `enum` or `const`."""
    names: dict[str, None] = field(default_factory=dict)
    """The names in `properties`, in order; those of referenced schemas come first."""
    allows_unlisted: bool = False
    """Whether `additionalProperties` allows other names."""
    branches: bool = False
    """Whether the schema has `anyOf` or `oneOf`."""
    patterns: int = 0
    """The number of regular expressions that the value must match."""
    lists_containers: bool = False
    """Whether `enum` or `const` contains objects or arrays."""
    constrains_containers: bool = False
    """Whether the schema has keywords for objects or arrays."""
    bounds: frozenset[tuple[str, int | Decimal]] = frozenset()
    """The bounds of a number, as pairs of keyword and value."""
    is_shared: bool = False
    """Whether several parts of the schema restrict the value together."""

    @property
    def loose_bound(self) -> str | None:
        """The keyword of an exclusive bound that llguidance would treat as inclusive; None if there is none.

        That happens to integer bounds less than 1 away from the other bound.
        """
        if "number" in self.kinds:
            for keyword, bound in self.bounds:
                if keyword.startswith("exclusive") and bound == int(bound) and self._is_near(keyword, bound):
                    return keyword
        return None

    def _is_near(self, keyword: str, bound: int | Decimal) -> bool:
        sign, side = (1, "aximum") if keyword.endswith("inimum") else (-1, "inimum")
        return any(0 < sign * (other - bound) < 1 for name, other in self.bounds if name.endswith(side))

    def __and__(self, other: "SchemaFacts") -> "SchemaFacts":
        return SchemaFacts(
            self.kinds & other.kinds,
            self.names | other.names,
            self.allows_unlisted or other.allows_unlisted,
            self.branches or other.branches,
            self.patterns + other.patterns,
            self.lists_containers or other.lists_containers,
            self.constrains_containers or other.constrains_containers,
            self.bounds | other.bounds,
            self.is_shared or other.is_shared,
        )


class FactFinder:
    """Collects and caches the facts of all parts of one schema."""

    def __init__(self, root: Json) -> None:
        self._root = root
        self._known: dict[int, SchemaFacts] = {}

    def of(self, schema: Json, path: str) -> SchemaFacts:
        """The facts of one part of the schema."""
        if not isinstance(schema, dict):
            return SchemaFacts() if schema is True else SchemaFacts(frozenset())
        known = self._known.get(id(schema))
        if known is not None:
            return known
        self._known[id(schema)] = SchemaFacts()  # a circular reference adds nothing
        own = SchemaFacts(
            kinds_of(schema, path),
            dict.fromkeys(members(schema, "properties", path)),
            schema.get("additionalProperties", False) is not False,
            "anyOf" in schema or "oneOf" in schema,
            int("pattern" in schema),
            any(isinstance(value, dict | list) for value in _values(schema) or ()),
            not schema.keys().isdisjoint((*_BY_KEYWORD["object"], *_BY_KEYWORD["array"])),
            frozenset(_bounds(schema, path)),
        )
        whole = SchemaFacts()
        for part in self._included(schema, path):
            whole &= self.of(part, path)
        self._known[id(schema)] = whole & own
        return self._known[id(schema)]

    def _included(self, schema: dict[str, Json], path: str) -> Iterator[Json]:
        if "$ref" in schema:
            yield resolve(self._root, schema["$ref"], path)
        if "allOf" in schema:
            yield from alternatives(schema, "allOf", path)

    def are_disjoint(self, schemas: Sequence[Json], path: str) -> bool:
        """Whether types, listed values or tags of objects prove that no value satisfies two of the schemas."""
        if len(schemas) > _MAX_ALTERNATIVES:
            return False
        discriminators = [self._discriminators(schema, path) for schema in schemas]
        return all(_are_disjoint(left, right) for left, right in combinations(discriminators, 2))

    def _discriminators(self, schema: Json, path: str) -> "_Discriminators":
        for _ in range(_MAX_ALTERNATIVES):
            if not isinstance(schema, dict) or "$ref" not in schema:
                break
            schema = resolve(self._root, schema["$ref"], path)
        if not isinstance(schema, dict):
            return _Discriminators(self.of(schema, path).kinds, None, {})
        properties = members(schema, "properties", path)
        required = schema.get("required")
        tags = {
            name: _listed_values(properties[name])
            for name in (required if isinstance(required, list) else [])
            if isinstance(name, str) and name in properties
        }
        kinds = _KINDS if _listed_values(schema) is not None else self.of(schema, path).kinds
        return _Discriminators(kinds, _listed_values(schema), tags)


@dataclass(frozen=True, slots=True)
class _Discriminators:
    """What can prove that two schemas have no value in common."""

    kinds: frozenset[str]
    values: frozenset[str] | None
    tags: dict[str, frozenset[str] | None]


def kinds_of(schema: dict[str, Json], path: str) -> frozenset[str]:
    """The types that a schema itself allows, without its `$ref` and `allOf`."""
    listed = schema.get("type", sorted(_KINDS))
    names = listed if isinstance(listed, list) else [listed]
    if not names or not all(isinstance(name, str) and name in _KINDS for name in names):
        raise invalid("type", path, f"it must be one of {', '.join(sorted(_KINDS))}, or a list of them")
    kinds = {name for name in names if isinstance(name, str)}
    kinds |= {"integer"} if "number" in kinds else set()
    return frozenset(kinds - {"object", "array"} if schema.keys() & {"enum", "const"} else kinds)


def guessed_kind(schema: dict[str, Json], facts: SchemaFacts) -> str | None:
    """If the schema has no `type`, the type that its keywords apply to; None if there is none.

    Restricting the answer to this type is safe, because each such answer satisfies the schema.
    """
    if facts.kinds != _KINDS:
        return None
    kinds = [kind for kind, keywords in _BY_KEYWORD.items() if schema.keys() & set(keywords)]
    return kinds[0] if kinds else "object" if facts.names or facts.allows_unlisted else None


def members(schema: dict[str, Json], keyword: str, path: str) -> dict[str, Json]:
    """The value of a keyword that must be an object; empty if the keyword is missing."""
    value = schema.get(keyword, {})
    if not isinstance(value, dict):
        raise invalid(keyword, path, "it must be an object")
    return value


def alternatives(schema: dict[str, Json], keyword: str, path: str) -> list[Json]:
    """The value of a keyword that must be a list with at least one element."""
    value = schema[keyword]
    if not isinstance(value, list) or not value:
        raise invalid(keyword, path, "it must be a list with at least one element")
    return value


def _are_disjoint(left: _Discriminators, right: _Discriminators) -> bool:
    if not left.kinds & right.kinds or _share_no_value(left.values, right.values):
        return True
    both_objects = left.kinds == right.kinds == frozenset({"object"})
    return both_objects and any(
        _share_no_value(left.tags[name], right.tags[name]) for name in left.tags.keys() & right.tags.keys()
    )


def _share_no_value(left: frozenset[str] | None, right: frozenset[str] | None) -> bool:
    return left is not None and right is not None and not left & right


def _listed_values(schema: Json) -> frozenset[str] | None:
    values = _values(schema) if isinstance(schema, dict) else None
    return None if values is None else frozenset(map(_canonical, values))


def _bounds(schema: dict[str, Json], path: str) -> Iterator[tuple[str, int | Decimal]]:
    for keyword in BOUNDS:
        value = bound(schema, keyword, path)
        if value is not None:
            yield keyword, value


def _values(schema: dict[str, Json]) -> list[Json] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return values if isinstance(values, list) else None


def _canonical(value: Json) -> str:
    """A string that is the same for equal values."""
    return json.dumps(value, sort_keys=True, default=_to_number)


def _to_number(number: object) -> int | float:
    if not isinstance(number, Decimal):
        raise TypeError(f"{type(number).__name__} is not a JSON type")
    value = float(number)
    return int(value) if value.is_integer() else value
