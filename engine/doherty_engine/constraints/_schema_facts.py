"""What a JSON Schema says of a value altogether, its references and `allOf` included."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from doherty_engine.constraints._schema_values import Json, bound, invalid, resolve

_KINDS = frozenset({"null", "boolean", "object", "array", "number", "integer", "string"})
_MOST_ALTERNATIVES = 100
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
class Facts:
    """What is said of one value."""

    kinds: frozenset[str] = _KINDS
    """The types that it may have; without "object" and "array" where its values are listed."""
    names: dict[str, None] = field(default_factory=dict)
    """The names that `properties` lists, in order; what is referred to comes first."""
    free: bool = False
    """Whether `additionalProperties` allows others."""
    branches: bool = False
    """Whether it depends on alternatives."""
    patterns: int = 0
    """How many regular expressions it must match."""
    lists: bool = False
    """Whether its values are listed, and objects or arrays are among them."""
    shapes: bool = False
    """Whether keywords say what is in an object or an array."""
    bounds: frozenset[tuple[str, int | Decimal]] = frozenset()
    """The bounds of a number, with their keywords."""

    @property
    def loose_bound(self) -> str | None:
        """The keyword of a whole bound that llguidance does not exclude: the other one is less than 1 away."""
        if "number" in self.kinds:
            for keyword, bound in self.bounds:
                if keyword.startswith("exclusive") and bound == int(bound) and self._is_near(keyword, bound):
                    return keyword
        return None

    def _is_near(self, keyword: str, bound: int | Decimal) -> bool:
        sign, side = (1, "aximum") if keyword.endswith("inimum") else (-1, "inimum")
        return any(0 < sign * (other - bound) < 1 for name, other in self.bounds if name.endswith(side))

    def __and__(self, other: "Facts") -> "Facts":
        return Facts(
            self.kinds & other.kinds,
            self.names | other.names,
            self.free or other.free,
            self.branches or other.branches,
            self.patterns + other.patterns,
            self.lists or other.lists,
            self.shapes or other.shapes,
            self.bounds | other.bounds,
        )


class FactFinder:
    """Finds out what the parts of one schema say."""

    def __init__(self, root: Json) -> None:
        self._root = root
        self._known: dict[int, Facts] = {}

    def of(self, schema: Json, path: str) -> Facts:
        """What a part says."""
        if not isinstance(schema, dict):
            return Facts() if schema is True else Facts(frozenset())
        known = self._known.get(id(schema))
        if known is not None:
            return known
        self._known[id(schema)] = Facts()  # what a reference in a circle adds
        own = Facts(
            kinds_of(schema, path),
            dict.fromkeys(members(schema, "properties", path)),
            schema.get("additionalProperties", False) is not False,
            "anyOf" in schema or "oneOf" in schema,
            int("pattern" in schema),
            any(isinstance(value, dict | list) for value in _values(schema) or ()),
            not schema.keys().isdisjoint((*_BY_KEYWORD["object"], *_BY_KEYWORD["array"])),
            frozenset(_bounds(schema, path)),
        )
        whole = Facts()
        for part in self._also(schema, path):
            whole &= self.of(part, path)
        self._known[id(schema)] = whole & own
        return self._known[id(schema)]

    def _also(self, schema: dict[str, Json], path: str) -> Iterator[Json]:
        if "$ref" in schema:
            yield resolve(self._root, schema["$ref"], path)
        if "allOf" in schema:
            yield from alternatives(schema, "allOf", path)

    def are_disjoint(self, schemas: Sequence[Json], path: str) -> bool:
        """Whether no value fits two of them, as far as types, listed values and tags of objects show it."""
        if len(schemas) > _MOST_ALTERNATIVES:
            return False
        seen = [self._marks(schema, path) for schema in schemas]
        return all(_differ(one, other) for place, one in enumerate(seen) for other in seen[:place])

    def _marks(self, schema: Json, path: str) -> "_Marks":
        for _ in range(_MOST_ALTERNATIVES):
            if not isinstance(schema, dict) or "$ref" not in schema:
                break
            schema = resolve(self._root, schema["$ref"], path)
        if not isinstance(schema, dict):
            return _Marks(self.of(schema, path).kinds, None, {})
        properties = members(schema, "properties", path)
        required = schema.get("required")
        tags = {
            name: _listed(properties[name])
            for name in (required if isinstance(required, list) else [])
            if isinstance(name, str) and name in properties
        }
        kinds = _KINDS if _listed(schema) is not None else self.of(schema, path).kinds
        return _Marks(kinds, _listed(schema), tags)


@dataclass(frozen=True, slots=True)
class _Marks:
    kinds: frozenset[str]
    values: frozenset[str] | None
    tags: dict[str, frozenset[str] | None]


def kinds_of(schema: dict[str, Json], path: str) -> frozenset[str]:
    """The types that a schema itself allows."""
    listed = schema.get("type", sorted(_KINDS))
    names = listed if isinstance(listed, list) else [listed]
    if not names or not all(isinstance(name, str) and name in _KINDS for name in names):
        raise invalid("type", path, f"it must be one of {', '.join(sorted(_KINDS))}, or a list of them")
    kinds = {name for name in names if isinstance(name, str)}
    kinds |= {"integer"} if "number" in kinds else set()
    return frozenset(kinds - {"object", "array"} if schema.keys() & {"enum", "const"} else kinds)


def guessed_kind(schema: dict[str, Json], facts: Facts) -> str | None:
    """The type that keywords speak about where no type is said; an answer of it fits."""
    if facts.kinds != _KINDS:
        return None
    spoken = [kind for kind, keywords in _BY_KEYWORD.items() if schema.keys() & set(keywords)]
    return spoken[0] if spoken else "object" if facts.names or facts.free else None


def members(schema: dict[str, Json], keyword: str, path: str) -> dict[str, Json]:
    """The object that a keyword has."""
    value = schema.get(keyword, {})
    if not isinstance(value, dict):
        raise invalid(keyword, path, "it must be an object")
    return value


def alternatives(schema: dict[str, Json], keyword: str, path: str) -> list[Json]:
    """The list of schemas, or of values, that a keyword has."""
    value = schema[keyword]
    if not isinstance(value, list) or not value:
        raise invalid(keyword, path, "it must be a list that is not empty")
    return value


def _differ(left: _Marks, right: _Marks) -> bool:
    if not left.kinds & right.kinds or _apart(left.values, right.values):
        return True
    both_objects = left.kinds == right.kinds == frozenset({"object"})
    return both_objects and any(
        _apart(left.tags[name], right.tags[name]) for name in left.tags.keys() & right.tags.keys()
    )


def _apart(left: frozenset[str] | None, right: frozenset[str] | None) -> bool:
    return left is not None and right is not None and not left & right


def _listed(schema: Json) -> frozenset[str] | None:
    values = _values(schema) if isinstance(schema, dict) else None
    return None if values is None else frozenset(map(_spelled, values))


def _bounds(schema: dict[str, Json], path: str) -> Iterator[tuple[str, int | Decimal]]:
    for keyword in BOUNDS:
        value = bound(schema, keyword, path)
        if value is not None:
            yield keyword, value


def _values(schema: dict[str, Json]) -> list[Json] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return values if isinstance(values, list) else None


def _spelled(value: Json) -> str:
    """The same for values that are equal."""
    return json.dumps(value, sort_keys=True, default=_plain)


def _plain(number: object) -> int | float:
    if not isinstance(number, Decimal):
        raise TypeError(f"{type(number).__name__} is not of JSON")
    value = float(number)
    return int(value) if value.is_integer() else value
