"""Writes a JSON Schema anew, with what a library binds and nothing that it would overlook.

Libraries ignore what they do not know, round whole numbers, and let an object repeat a name. So all that limits a
value is either written in a form that they bind exactly, or refused by its keyword; annotations are left out. A grammar
cannot tell whether a name was there before. Parsers keep the last value of a repeated name, so all of its values must
fit, and free names cannot be counted. An object with `properties` and without `additionalProperties` gets the listed
names alone. The costs of compiling are bounded here, by counting.
"""

import json
import re
from dataclasses import replace

from doherty_engine.constraints._schema_facts import FactFinder, Facts, alternatives, guessed_kind, members
from doherty_engine.constraints._schema_plain import Binding, PlainWriter, write_counts
from doherty_engine.constraints._schema_values import Json, count, invalid, parse_schema, resolve, unsupported

_MAX_DEPTH = 64
_MOST_PATTERNS = 2
_MOST_TARGETS = 256
_MOST_PROPERTIES = 500
_MOST_WRITTEN = 2_000
_MOST_BESIDE_FREE = 200
_REFUSED: tuple[str, ...] = ("$dynamicRef", "$recursiveRef", "contains", "dependencies", "dependentRequired")
_REFUSED += ("dependentSchemas", "if", "not", "propertyNames", "uniqueItems")
_HARMLESS = {"uniqueItems": False, "dependentRequired": {}, "dependentSchemas": {}}
_PARTS = ("$ref", "allOf", "anyOf", "oneOf")
_OF_OBJECTS = {"properties", "patternProperties", "required", "minProperties", "maxProperties", "additionalProperties"}
_ONE_SPELLING: Json = {"patternProperties": {"": True}, "additionalProperties": False}
r"""Joined to an object, it keeps llguidance from spelling a listed name as `"\u0061"` among the free ones."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""What llguidance spells in two ways nevertheless."""


class SchemaWriter:
    """Writes one schema."""

    def __init__(self, text: str, binding: Binding) -> None:
        """Raises InvalidInputError: it is no schema."""
        self._root = parse_schema(text)
        self._binding = binding
        self._facts = FactFinder(self._root)
        self._targets: dict[int, str] = {}
        self._waiting: list[tuple[str, Json, str]] = []
        self._plain = PlainWriter(binding)
        self._written = 0

    def write(self) -> str:
        """The schema as a library takes it.

        Raises:
            InvalidInputError: the schema is wrong, too large, or nothing fits it.
            UnsupportedError: the library cannot bind what it says.
        """
        try:
            schema = self._schema(self._root, Facts(), "#", 0)
            if schema is False:
                raise invalid("$schema", "#", "nothing fits false")
            targets: dict[str, Json] = {}
            while self._waiting:
                name, target, path = self._waiting.pop()
                targets[name] = self._schema(target, Facts(), path, 0)
        except RecursionError:
            raise invalid("$ref", "#", "it is nested too deeply") from None
        if isinstance(schema, dict) and targets:
            schema["$defs"] = targets
        try:
            return json.dumps(schema, ensure_ascii=False).encode().decode()
        except UnicodeEncodeError:
            raise invalid("$schema", "#", "it has half a character, which is no text") from None

    def _schema(self, schema: Json, around: Facts, path: str, depth: int) -> Json:
        if depth > _MAX_DEPTH:
            raise invalid("$ref", path, f"it is nested more than {_MAX_DEPTH} deep")
        if schema is False:
            return False
        schema = {} if schema is True else schema
        if not isinstance(schema, dict):
            raise invalid("$schema", path, "a schema is an object, true or false")
        _refuse(schema, path)
        facts = around & self._facts.of(schema, path)
        _check(facts, path)
        parts = [keyword for keyword in _PARTS if keyword in schema]
        kind = guessed_kind(schema, facts)
        if kind is not None:
            facts &= Facts(frozenset({kind}))
        elif facts.kinds == Facts().kinds and not parts:
            return {}  # any value
        speaks = not parts or guessed_kind(schema, Facts()) is not None  # otherwise what is joined has the type
        written = self._plain.write(schema, facts, kind if speaks else None, path)
        if "array" in facts.kinds:
            self._array(schema, written, path, depth)
        if "object" in facts.kinds:
            self._object(schema, facts, written, path, depth)
        for keyword in parts:
            # What `$ref` and `allOf` say has been counted with the whole.
            inner = replace(facts, patterns=around.patterns) if keyword in {"$ref", "allOf"} else facts
            _join(written, self._part(schema, keyword, inner, path, depth))
        self._binding.check(written, path)
        return written

    def _array(self, schema: dict[str, Json], written: dict[str, Json], path: str, depth: int) -> None:
        write_counts(schema, written, "minItems", "maxItems", path)
        items, first = schema.get("items"), schema.get("prefixItems")
        if isinstance(items, list):  # as drafts before 2020-12 have it
            first, items = items, schema.get("additionalItems")
        if first is not None:
            if not isinstance(first, list):
                raise invalid("prefixItems", path, "it must be a list")
            written["prefixItems"] = [
                self._schema(item, Facts(), f"{path}/prefixItems/{place}", depth + 1)
                for place, item in enumerate(first)
            ]
            if items is None or items is True:
                items = False  # what may stand behind them is not said, so nothing does
        if items is not None:
            written["items"] = self._schema(items, Facts(), f"{path}/items", depth + 1)
        elif schema.get("unevaluatedItems") is False:
            raise unsupported("unevaluatedItems", path, "this engine takes it beside 'items' or 'prefixItems' alone")

    def _object(self, schema: dict[str, Json], facts: Facts, written: dict[str, Json], path: str, depth: int) -> None:
        parts = schema.keys() & set(_PARTS)
        branches = schema.keys() & {"anyOf", "oneOf"}
        properties = members(schema, "properties", path)
        closed = _is_closed(schema, path)
        free = not closed and (facts.free or not facts.names)
        if len(branches) > 1 or (branches and closed):
            raise unsupported(min(branches), path, "this engine takes alternatives of objects alone")
        self._check_unevaluated(schema, facts, path, is_bound=closed or not (free or branches))
        names = properties.keys() if closed or free else facts.names.keys()
        self._written += max(1, len(names))
        if len(names) > _MOST_PROPERTIES or self._written > _MOST_WRITTEN:
            raise invalid("properties", path, f"there are more than {_MOST_PROPERTIES}, or {_MOST_WRITTEN} in all")
        kept: dict[str, Json] = {
            name: self._schema(value, Facts(), f"{path}/properties/{name[:40]}", depth + 1)
            for name, value in properties.items()
        }
        if members(schema, "patternProperties", path):
            written["patternProperties"] = self._patterns(schema, facts, path, depth)
        if free:
            self._free_names(schema, facts, written, path, depth)
        elif not branches and (not parts or properties or closed):
            # What stands beside it says more of the other names; where alternatives do, each is closed instead.
            kept = {name: kept.get(name, True) for name in names}
            written["additionalProperties"] = False
        if kept:
            written["properties"] = kept
        self._required(schema, facts, written, path, free=free)

    def _check_unevaluated(self, schema: dict[str, Json], facts: Facts, path: str, *, is_bound: bool) -> None:
        """Refuses `unevaluatedProperties` where the names that it leaves are not those that are written."""
        if schema.get("unevaluatedProperties") is not False or _is_closed(schema, path):
            return
        if not is_bound or facts.names != self._facts.of(schema, path).names:
            raise unsupported("unevaluatedProperties", path, "this engine takes it beside listed names alone")

    def _patterns(self, schema: dict[str, Json], facts: Facts, path: str, depth: int) -> dict[str, Json]:
        self._check_names("patternProperties", facts, path)
        if schema.get("additionalProperties") or facts.names.keys() - members(schema, "properties", path).keys():
            raise unsupported("patternProperties", path, "this engine cannot add other names")
        patterns = members(schema, "patternProperties", path)
        kept = {
            self._plain.pattern(pattern, "patternProperties", path): self._schema(
                value, Facts(), f"{path}/patternProperties/{pattern[:40]}", depth + 1
            )
            for pattern, value in patterns.items()
        }
        if len(kept) < len(patterns):
            raise unsupported("patternProperties", path, "this engine takes a pattern only once")
        return kept

    def _free_names(
        self, schema: dict[str, Json], facts: Facts, written: dict[str, Json], path: str, depth: int
    ) -> None:
        others = schema.get("additionalProperties", True)
        if others not in (True, {}):
            written["additionalProperties"] = self._schema(others, Facts(), f"{path}/additionalProperties", depth + 1)
        if facts.names and not schema.keys() & set(_PARTS):  # some part has none, and is joined to the others
            self._check_names("additionalProperties", facts, path)
            written["allOf"] = [_ONE_SPELLING]

    def _check_names(self, keyword: str, facts: Facts, path: str) -> None:
        """Refuses what says more of free names than which values they have, if the library cannot bind that."""
        if not self._binding.free_names:
            raise unsupported(keyword, path, "this engine binds nothing of free names but their values")
        if len(facts.names) > _MOST_BESIDE_FREE or any(map(_CONTROL.search, facts.names)):
            reason = f"this engine takes it beside at most {_MOST_BESIDE_FREE} names, without control characters"
            raise unsupported(keyword, path, reason)

    def _required(
        self, schema: dict[str, Json], facts: Facts, written: dict[str, Json], path: str, *, free: bool
    ) -> None:
        required = schema.get("required", [])
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise invalid("required", path, "it must be a list of names")
        branches = schema.keys() & {"anyOf", "oneOf"}
        unlisted = next((str(name)[:40] for name in required if name not in facts.names), None)
        if unlisted is not None and free:
            self._check_names("required", facts, path)
        elif unlisted is not None and not branches:
            closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
            error = invalid if closed else unsupported
            raise error("required", path, f"{unlisted!r} must be listed in 'properties'")
        if required:
            written["required"] = required
        least, most = (count(schema, keyword, path) for keyword in ("minProperties", "maxProperties"))
        if least is not None and least > len(set(map(str, required))):
            if least > 1 or not free or facts.names:
                raise unsupported("minProperties", path, "this engine can only require names, by 'required', or one")
            self._check_names("minProperties", facts, path)
            written["minProperties"] = least
        if most is not None and (free or most < len(facts.names) or branches or "patternProperties" in schema):
            raise unsupported("maxProperties", path, "this engine cannot count the names that are optional")

    def _part(self, schema: dict[str, Json], keyword: str, facts: Facts, path: str, depth: int) -> dict[str, Json]:
        if keyword == "$ref":
            target = resolve(self._root, schema["$ref"], path)
            self._check_end(target, path)
            alone = self._facts.of(target, path)
            if "object" in facts.kinds and (facts.names, facts.free) != (alone.names, alone.free):
                if alone.branches:
                    raise unsupported("$ref", path, "this engine cannot join an object with alternatives")
                return {"allOf": [self._schema(target, facts, path, depth + 1)]}  # other names than it has alone
            return {"$ref": f"#/$defs/{self._target(target, str(schema['$ref']))}"}
        parts = alternatives(schema, keyword, path)
        if keyword == "oneOf" and not self._facts.are_disjoint(parts, path):
            raise unsupported("oneOf", path, "this engine cannot tell that no value fits two of the alternatives")
        joins_objects = "object" in facts.kinds and (len(parts) > 1 or schema.keys() & _OF_OBJECTS)
        branches = any(self._facts.of(member, path).branches for member in parts)
        if keyword == "allOf" and joins_objects and branches:
            raise unsupported("allOf", path, "this engine cannot join an object with alternatives")
        written = [
            self._schema(member, facts, f"{path}/{keyword}/{place}", depth + 1) for place, member in enumerate(parts)
        ]
        return {"anyOf" if keyword == "oneOf" else keyword: written}

    def _check_end(self, target: Json, path: str) -> None:
        """Refuses references that only lead to each other."""
        seen: set[int] = set()
        while isinstance(target, dict) and "$ref" in target:
            if id(target) in seen:
                raise invalid("$ref", path, "it leads back to itself")
            if len(seen) == _MOST_TARGETS:
                raise invalid("$ref", path, f"it leads through more than {_MOST_TARGETS} others")
            seen.add(id(target))
            target = resolve(self._root, target["$ref"], path)

    def _target(self, target: Json, reference: str) -> str:
        name = self._targets.get(id(target))
        if name is None:
            if len(self._targets) == _MOST_TARGETS:
                raise invalid("$ref", reference[:80], f"more than {_MOST_TARGETS} parts are referred to")
            name = self._targets[id(target)] = f"d{len(self._targets)}"
            self._waiting.append((name, target, reference[:80]))
        return name


def _is_closed(schema: dict[str, Json], path: str) -> bool:
    """Whether it has the names alone that it says something of."""
    others = schema.get("additionalProperties")
    if others is None and "additionalProperties" not in schema:
        return bool(schema.get("patternProperties"))
    if not isinstance(others, bool | dict):
        raise invalid("additionalProperties", path, "it must be a schema")
    return others is False


def _check(facts: Facts, path: str) -> None:
    if facts.patterns > _MOST_PATTERNS:
        raise unsupported("pattern", path, f"this engine cannot join more than {_MOST_PATTERNS}")
    if facts.lists and facts.shapes:  # libraries let listed objects and arrays through, whatever else is said of them
        raise unsupported("enum", path, "this engine cannot hold listed objects or arrays against other keywords")
    if keyword := facts.loose_bound:
        raise unsupported(keyword, path, "this engine cannot exclude a whole number less than 1 from the other bound")


def _join(written: dict[str, Json], more: dict[str, Json]) -> None:
    before, joined = written.get("allOf"), more.get("allOf")
    written |= more
    if isinstance(before, list) and isinstance(joined, list):
        written["allOf"] = before + joined


def _refuse(schema: dict[str, Json], path: str) -> None:
    for keyword in _REFUSED:
        if keyword in schema and schema[keyword] != _HARMLESS.get(keyword, ...):
            raise unsupported(keyword, path, "this engine cannot do it")
    for keyword in ("unevaluatedItems", "unevaluatedProperties"):
        if not isinstance(schema.get(keyword, False), bool):
            raise unsupported(keyword, path, "this engine cannot do it")
