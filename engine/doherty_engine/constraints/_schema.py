"""Rewrites a JSON Schema so that it contains only what a library enforces exactly.

Libraries ignore keywords that they do not know, round large integers, and let an object repeat a name. So each keyword
that restricts a value is either written in a form that the library enforces exactly, or refused by name. Annotations
are left out.

A grammar cannot know which names have already occurred in an object. Parsers keep the last value of a repeated name, so
every value of a name must be valid; and names that are not listed in `properties` ("unlisted names") cannot be counted.
An object with `properties` but without `additionalProperties` may have the listed names only.

The cost of compiling is limited here, by counting.
"""

import json
import re
from dataclasses import replace

from doherty_engine.constraints._length import bound_length
from doherty_engine.constraints._schema_facts import FactFinder, SchemaFacts, alternatives, guessed_kind, members
from doherty_engine.constraints._schema_keywords import Dialect, KeywordWriter, write_counts
from doherty_engine.constraints._schema_references import References
from doherty_engine.constraints._schema_values import Json, count, invalid, parse_schema, unsupported

_MAX_DEPTH = 64
_MAX_PATTERNS = 2
_MAX_PROPERTIES = 500
_MAX_TOTAL_PROPERTIES = 2_000
_MAX_LISTED_BESIDE_UNLISTED = 200
_MAX_BOUNDED = 16
"""The number of different numbers that get bounds; the time to compile these grows with it."""
_REFUSED: tuple[str, ...] = ("$dynamicRef", "$recursiveRef", "contains", "dependencies", "dependentRequired")
_REFUSED += ("dependentSchemas", "if", "not", "propertyNames", "uniqueItems")
_HARMLESS = {"uniqueItems": False, "dependentRequired": {}, "dependentSchemas": {}}
_PARTS = ("$ref", "allOf", "anyOf", "oneOf")
_OF_OBJECTS = {"properties", "patternProperties", "required", "minProperties", "maxProperties", "additionalProperties"}
_ONE_SPELLING: Json = {"patternProperties": {"": True}, "additionalProperties": False}
r"""Combined with an object by `allOf`, this prevents llguidance from allowing an escaped spelling of a listed name,
such as `"\u0061"`, as an unlisted name."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""Characters of which llguidance allows two spellings even then."""


class SchemaWriter:
    """Rewrites one schema."""

    def __init__(self, text: str, dialect: Dialect) -> None:
        """Raises InvalidInputError if `text` is not a JSON Schema."""
        self._root = parse_schema(text)
        self._dialect = dialect
        self._facts = FactFinder(self._root)
        self._references = References(self._root)
        self._numbers: dict[str, tuple[str, Json]] = {}
        self._keywords = KeywordWriter(dialect)
        self._written = 0

    def write(self) -> str:
        """Writes the schema for the library.

        Raises:
            InvalidInputError: The schema is invalid, too large or unsatisfiable.
            UnsupportedError: The library cannot enforce the schema.
        """
        try:
            schema = self._schema(self._root, SchemaFacts(), "#", 0)
            if schema is False:
                raise invalid("$schema", "#", "no value satisfies false")
            targets: dict[str, Json] = {}
            while waiting := self._references.next_target():
                targets[waiting.name] = self._schema(waiting.schema, SchemaFacts(), waiting.path, 0)
            targets |= dict(self._numbers.values())
        except RecursionError:
            raise invalid("$ref", "#", "it is nested too deeply") from None
        if isinstance(schema, dict) and targets:
            schema["$defs"] = targets
        if isinstance(schema, dict):
            schema |= self._dialect.options
        try:
            return json.dumps(schema, ensure_ascii=False).encode().decode()
        except UnicodeEncodeError:
            raise invalid("$schema", "#", "it has an unpaired surrogate, which is not a character") from None

    def _schema(self, schema: Json, around: SchemaFacts, path: str, depth: int) -> Json:
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
            facts &= SchemaFacts(frozenset({kind}))
        elif facts.kinds == SchemaFacts().kinds and not parts:
            return {}  # any value
        # Without keywords of its own, the schema gets its type from the schemas that are combined with it.
        writes_type = not parts or guessed_kind(schema, SchemaFacts()) is not None
        written = self._keywords.write(schema, facts, kind if writes_type else None, path)
        if "array" in facts.kinds:
            self._array(schema, written, path, depth)
        if "object" in facts.kinds:
            self._object(schema, facts, written, path, depth)
        for keyword in parts:
            # `facts` already includes the patterns of `$ref` and `allOf`.
            inner = replace(facts, patterns=around.patterns) if keyword in {"$ref", "allOf"} else facts
            inner = replace(inner, is_shared=inner.is_shared or keyword == "allOf" or bool(written))
            _join(written, self._part(schema, keyword, inner, path, depth))
        self._dialect.check(written, path)
        return written if parts or around.is_shared or not self._dialect.bounds_length else self._bounded(written)

    def _bounded(self, written: dict[str, Json]) -> dict[str, Json]:
        """Bounds a number. All that are the same refer to one definition, because each takes llguidance time."""
        bounded = bound_length(written)
        number = json.dumps(bounded)
        if bounded == written or (number not in self._numbers and len(self._numbers) == _MAX_BOUNDED):
            return written
        name, _ = self._numbers.setdefault(number, (f"n{len(self._numbers)}", bounded))
        return {"$ref": f"#/$defs/{name}"}

    def _array(self, schema: dict[str, Json], written: dict[str, Json], path: str, depth: int) -> None:
        write_counts(schema, written, "minItems", "maxItems", path)
        items, first = schema.get("items"), schema.get("prefixItems")
        if isinstance(items, list):  # the syntax of drafts before 2020-12
            first, items = items, schema.get("additionalItems")
        if first is not None:
            if not isinstance(first, list):
                raise invalid("prefixItems", path, "it must be a list")
            written["prefixItems"] = [
                self._schema(item, SchemaFacts(), f"{path}/prefixItems/{place}", depth + 1)
                for place, item in enumerate(first)
            ]
            if items is None or items is True:
                items = False  # the schema does not describe further items, so none are allowed
        if items is not None:
            written["items"] = self._schema(items, SchemaFacts(), f"{path}/items", depth + 1)
        elif schema.get("unevaluatedItems") is False:
            raise unsupported("unevaluatedItems", path, "this engine supports it only with 'items' or 'prefixItems'")

    def _object(
        self, schema: dict[str, Json], facts: SchemaFacts, written: dict[str, Json], path: str, depth: int
    ) -> None:
        parts = schema.keys() & set(_PARTS)
        branches = schema.keys() & {"anyOf", "oneOf"}
        properties = members(schema, "properties", path)
        closed = _is_closed(schema, path)
        allows_unlisted = not closed and (facts.allows_unlisted or not facts.names)
        if len(branches) > 1 or (branches and closed):
            raise unsupported(min(branches), path, "this engine cannot combine it with other keywords for objects")
        self._check_unevaluated(schema, facts, path, is_bound=closed or not (allows_unlisted or branches))
        names = properties.keys() if closed or allows_unlisted else facts.names.keys()
        self._written += max(1, len(names))
        if len(names) > _MAX_PROPERTIES or self._written > _MAX_TOTAL_PROPERTIES:
            raise invalid(
                "properties", path, f"there are more than {_MAX_PROPERTIES} here or {_MAX_TOTAL_PROPERTIES} in total"
            )
        rewritten: dict[str, Json] = {
            name: self._schema(value, SchemaFacts(), f"{path}/properties/{name[:40]}", depth + 1)
            for name, value in properties.items()
        }
        if members(schema, "patternProperties", path):
            written["patternProperties"] = self._patterns(schema, facts, path, depth)
        if allows_unlisted:
            self._unlisted_names(schema, facts, written, path, depth)
        elif not branches and (not parts or properties or closed):
            # The schemas combined with this one describe the other names. Alternatives are closed one by one instead.
            rewritten = {name: rewritten.get(name, True) for name in names}
            written["additionalProperties"] = False
        if rewritten:
            written["properties"] = rewritten
        self._required(schema, facts, written, path, allows_unlisted=allows_unlisted)

    def _check_unevaluated(self, schema: dict[str, Json], facts: SchemaFacts, path: str, *, is_bound: bool) -> None:
        """Refuses `unevaluatedProperties: false` if the rewritten schema would allow other names than it does."""
        if schema.get("unevaluatedProperties") is not False or _is_closed(schema, path):
            return
        if not is_bound or facts.names != self._facts.of(schema, path).names:
            raise unsupported("unevaluatedProperties", path, "this engine supports it only with listed names")

    def _patterns(self, schema: dict[str, Json], facts: SchemaFacts, path: str, depth: int) -> dict[str, Json]:
        self._check_names("patternProperties", facts, path)
        if schema.get("additionalProperties") or facts.names.keys() - members(schema, "properties", path).keys():
            raise unsupported("patternProperties", path, "this engine cannot combine it with other names")
        patterns = members(schema, "patternProperties", path)
        rewritten = {
            self._keywords.pattern(pattern, "patternProperties", path): self._schema(
                value, SchemaFacts(), f"{path}/patternProperties/{pattern[:40]}", depth + 1
            )
            for pattern, value in patterns.items()
        }
        if len(rewritten) < len(patterns):
            raise unsupported("patternProperties", path, "this engine cannot use the same pattern twice")
        return rewritten

    def _unlisted_names(
        self, schema: dict[str, Json], facts: SchemaFacts, written: dict[str, Json], path: str, depth: int
    ) -> None:
        others = schema.get("additionalProperties", True)
        if others not in (True, {}):
            written["additionalProperties"] = self._schema(
                others, SchemaFacts(), f"{path}/additionalProperties", depth + 1
            )
        # If there are `$ref`, `allOf` or alternatives, one of the schemas that they combine gets this `allOf` instead.
        if facts.names and not schema.keys() & set(_PARTS):
            self._check_names("additionalProperties", facts, path)
            written["allOf"] = [_ONE_SPELLING]

    def _check_names(self, keyword: str, facts: SchemaFacts, path: str) -> None:
        """Refuses a keyword that restricts unlisted names, not just their values, if the library cannot enforce it."""
        if not self._dialect.restricts_unlisted:
            raise unsupported(keyword, path, "this engine can restrict only the values of names that are not listed")
        if len(facts.names) > _MAX_LISTED_BESIDE_UNLISTED or any(map(_CONTROL.search, facts.names)):
            reason = (
                f"this engine supports it with at most {_MAX_LISTED_BESIDE_UNLISTED} names, without control characters"
            )
            raise unsupported(keyword, path, reason)

    def _required(
        self, schema: dict[str, Json], facts: SchemaFacts, written: dict[str, Json], path: str, *, allows_unlisted: bool
    ) -> None:
        required = schema.get("required", [])
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise invalid("required", path, "it must be a list of names")
        branches = schema.keys() & {"anyOf", "oneOf"}
        missing = next((str(name)[:40] for name in required if name not in facts.names), None)
        if missing is not None and allows_unlisted:
            self._check_names("required", facts, path)
        elif missing is not None and not branches:
            closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
            error = invalid if closed else unsupported
            raise error("required", path, f"{missing!r} must be listed in 'properties'")
        if required:
            written["required"] = required
        least = count(schema, "minProperties", path)
        if least is not None and least > len(set(map(str, required))):
            if least > 1 or not allows_unlisted or facts.names:
                raise unsupported("minProperties", path, "this engine supports 1 only; list the names in 'required'")
            self._check_names("minProperties", facts, path)
            written["minProperties"] = least
        maximum = count(schema, "maxProperties", path)
        if maximum is None or not (
            allows_unlisted or maximum < len(facts.names) or branches or "patternProperties" in schema
        ):
            return
        if facts.names or schema.keys() & {*_PARTS, "patternProperties"} or not self._dialect.restricts_unlisted:
            raise unsupported("maxProperties", path, "this engine cannot count optional names")
        written["maxProperties"] = maximum  # a name counts each time, so an object may have fewer, but never more

    def _part(
        self, schema: dict[str, Json], keyword: str, facts: SchemaFacts, path: str, depth: int
    ) -> dict[str, Json]:
        if keyword == "$ref":
            target = self._references.resolve(schema["$ref"], path)
            alone = self._facts.of(target, path)
            if "object" in facts.kinds and (facts.names, facts.allows_unlisted) != (alone.names, alone.allows_unlisted):
                if alone.branches:
                    raise unsupported("$ref", path, "this engine cannot combine an object with alternatives")
                # Here the target has other names than elsewhere, so it is written in place.
                return {"allOf": [self._schema(target, facts, path, depth + 1)]}
            return {"$ref": f"#/$defs/{self._references.name(target, str(schema['$ref']))}"}
        parts = alternatives(schema, keyword, path)
        if keyword == "oneOf" and not self._facts.are_disjoint(parts, path):
            raise unsupported("oneOf", path, "this engine cannot prove that no value satisfies two of the alternatives")
        joins_objects = "object" in facts.kinds and (len(parts) > 1 or schema.keys() & _OF_OBJECTS)
        branches = any(self._facts.of(member, path).branches for member in parts)
        if keyword == "allOf" and joins_objects and branches:
            raise unsupported("allOf", path, "this engine cannot combine an object with alternatives")
        written = [
            self._schema(member, facts, f"{path}/{keyword}/{place}", depth + 1) for place, member in enumerate(parts)
        ]
        return {"anyOf" if keyword == "oneOf" else keyword: written}


def _is_closed(schema: dict[str, Json], path: str) -> bool:
    """Whether the schema itself forbids names other than those in `properties` and `patternProperties`."""
    others = schema.get("additionalProperties")
    if others is None and "additionalProperties" not in schema:
        return bool(schema.get("patternProperties"))
    if not isinstance(others, bool | dict):
        raise invalid("additionalProperties", path, "it must be a schema")
    return others is False


def _check(facts: SchemaFacts, path: str) -> None:
    if facts.patterns > _MAX_PATTERNS:
        raise unsupported("pattern", path, f"this engine cannot combine more than {_MAX_PATTERNS}")
    if facts.lists_containers and facts.constrains_containers:  # libraries ignore the other keywords then
        raise unsupported("enum", path, "this engine cannot check listed objects or arrays against other keywords")
    if keyword := facts.loose_bound:
        raise unsupported(
            keyword, path, "this engine cannot exclude an integer that is less than 1 away from the other bound"
        )


def _join(written: dict[str, Json], more: dict[str, Json]) -> None:
    before, joined = written.get("allOf"), more.get("allOf")
    written |= more
    if isinstance(before, list) and isinstance(joined, list):
        written["allOf"] = before + joined


def _refuse(schema: dict[str, Json], path: str) -> None:
    for keyword in _REFUSED:
        if keyword in schema and schema[keyword] != _HARMLESS.get(keyword, ...):
            raise unsupported(keyword, path, "this engine does not support it")
    for keyword in ("unevaluatedItems", "unevaluatedProperties"):
        if not isinstance(schema.get(keyword, False), bool):
            raise unsupported(keyword, path, "this engine supports only true and false")
