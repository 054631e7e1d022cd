"""Writes a JSON Schema anew, with what a library binds and nothing that it would overlook.

Libraries ignore what they do not know, round whole numbers, and let an object repeat a name. So all that limits a
value is either written in a form that they bind exactly, or refused by its keyword; annotations are left out. A grammar
cannot tell whether a name was there before. So an object whose `properties` are listed gets no other names. The names
of one without `properties` are free, but cannot be counted: a parser keeps the last value of a repeated name, and all
of its values fit. The costs of compiling are bounded here, by counting.
"""

import json
from dataclasses import replace

from doherty_engine.constraints._schema_facts import FactFinder, Facts, alternatives, guessed_kind, members
from doherty_engine.constraints._schema_plain import Binding, PlainWriter, write_counts
from doherty_engine.constraints._schema_values import Json, count, invalid, parse_schema, resolve, unsupported

_MAX_DEPTH = 64
_MOST_PATTERNS = 2
_MOST_TARGETS = 256
_MOST_PROPERTIES = 500
_MOST_WRITTEN = 2_000
_REFUSED: tuple[str, ...] = ("$dynamicRef", "$recursiveRef", "contains", "dependencies", "dependentRequired")
_REFUSED += ("dependentSchemas", "if", "not", "patternProperties", "propertyNames", "uniqueItems")
_HARMLESS = {"patternProperties": {}, "uniqueItems": False, "dependentRequired": {}, "dependentSchemas": {}}
_PARTS = ("$ref", "allOf", "anyOf", "oneOf")
_OF_OBJECTS = {"properties", "required", "minProperties", "maxProperties", "additionalProperties"}


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
        if facts.patterns > _MOST_PATTERNS:
            raise unsupported("pattern", path, f"this engine cannot join more than {_MOST_PATTERNS}")
        parts = [keyword for keyword in _PARTS if keyword in schema]
        kind = guessed_kind(schema, facts)
        if kind is not None:
            facts &= Facts(frozenset({kind}))
        elif facts.kinds == Facts().kinds and not parts:
            return {}  # any value
        written = self._plain.write(schema, facts, None if parts else kind, path)
        if "array" in facts.kinds:
            self._array(schema, written, path, depth, has_items=facts.has_items or bool(parts))
        if "object" in facts.kinds:
            self._object(schema, facts, written, path, depth)
        for keyword in parts:
            # What `allOf` says has been counted with the whole.
            inner = replace(facts, patterns=around.patterns) if keyword == "allOf" else facts
            written |= self._part(schema, keyword, inner, path, depth)
        self._binding.check(written, path)
        return written

    def _array(
        self, schema: dict[str, Json], written: dict[str, Json], path: str, depth: int, *, has_items: bool
    ) -> None:
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
        elif not has_items:
            written["items"] = True

    def _object(self, schema: dict[str, Json], facts: Facts, written: dict[str, Json], path: str, depth: int) -> None:
        parts = schema.keys() & set(_PARTS)
        branches = schema.keys() & {"anyOf", "oneOf"}
        properties = members(schema, "properties", path)
        closed = self._is_closed(schema, path)
        names = properties.keys() if closed else facts.names
        if not names and not closed and not parts:
            self._free_names(schema, written, path, depth)
            return
        if isinstance(schema.get("additionalProperties"), dict) and schema["additionalProperties"]:
            raise unsupported(
                "additionalProperties", path, "this engine binds it in objects without 'properties' alone"
            )
        if len(branches) > 1 or (branches and closed):
            raise unsupported(min(branches), path, "this engine takes alternatives of objects alone")
        self._written += len(names)
        if len(names) > _MOST_PROPERTIES or self._written > _MOST_WRITTEN:
            raise invalid("properties", path, f"there are more than {_MOST_PROPERTIES}, or {_MOST_WRITTEN} in all")
        kept: dict[str, Json] = {
            name: self._schema(value, Facts(), f"{path}/properties/{name[:40]}", depth + 1)
            for name, value in properties.items()
        }
        if not branches and (not parts or properties or closed):
            # What stands beside it says more of the other names; where alternatives do, each is closed instead.
            kept |= {name: True for name in names if name not in properties}
            written["additionalProperties"] = False
        if kept:
            written["properties"] = kept
        self._required(schema, facts, written, path)

    def _is_closed(self, schema: dict[str, Json], path: str) -> bool:
        others = schema.get("additionalProperties", True)
        if not isinstance(others, bool | dict):
            raise invalid("additionalProperties", path, "it must be a schema")
        return others is False

    def _free_names(self, schema: dict[str, Json], written: dict[str, Json], path: str, depth: int) -> None:
        """An object with any names, whose values all fit the same schema."""
        for keyword in ("required", "minProperties", "maxProperties"):
            if schema.get(keyword):
                raise unsupported(keyword, path, "this engine cannot count names that 'properties' does not list")
        if schema.get("maxProperties") == 0:
            written["additionalProperties"] = False
            return
        others = schema.get("additionalProperties", True)
        written["additionalProperties"] = self._schema(others, Facts(), f"{path}/additionalProperties", depth + 1)

    def _required(self, schema: dict[str, Json], facts: Facts, written: dict[str, Json], path: str) -> None:
        required = schema.get("required", [])
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise invalid("required", path, "it must be a list of names")
        branches = schema.keys() & {"anyOf", "oneOf"}
        unlisted = next((str(name)[:40] for name in required if name not in facts.names), None)
        if unlisted is not None and not branches:
            error = invalid if schema.get("additionalProperties") is False else unsupported
            raise error("required", path, f"{unlisted!r} must be listed in 'properties'")
        if required:
            written["required"] = required
        least, most = (count(schema, keyword, path) for keyword in ("minProperties", "maxProperties"))
        if least is not None and least > len(set(map(str, required))):
            raise unsupported("minProperties", path, "this engine can only require names, by 'required'")
        if most is not None and (most < len(facts.names) or branches):
            raise unsupported("maxProperties", path, "this engine cannot count the names that are optional")

    def _part(self, schema: dict[str, Json], keyword: str, facts: Facts, path: str, depth: int) -> dict[str, Json]:
        if keyword == "$ref":
            target = resolve(self._root, schema["$ref"], path)
            self._check_end(target, path)
            if "object" in facts.kinds and facts.names - self._facts.of(target, path).names:
                raise unsupported("$ref", path, "this engine cannot add properties to what it refers to")
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


def _refuse(schema: dict[str, Json], path: str) -> None:
    for keyword in _REFUSED:
        if keyword in schema and schema[keyword] != _HARMLESS.get(keyword, ...):
            raise unsupported(keyword, path, "this engine cannot do it")
    for keyword in ("unevaluatedItems", "unevaluatedProperties"):
        if not isinstance(schema.get(keyword, False), bool):
            raise unsupported(keyword, path, "this engine cannot do it")
