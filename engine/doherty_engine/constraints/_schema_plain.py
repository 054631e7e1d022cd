"""Writes what a JSON Schema says of listed values, numbers and texts, and counts what compiling it will cost."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from doherty_engine.constraints._pattern import Pattern, PatternError, PatternUnsupportedError
from doherty_engine.constraints._pattern_reader import read_pattern
from doherty_engine.constraints._schema_facts import BOUNDS, Facts, alternatives, kinds_of
from doherty_engine.constraints._schema_values import Json, bound, count, exact, invalid, unsupported

_MOST_MULTIPLES = 5_000
"""The sum of all that numbers must be multiples of; compiling takes longer than linearly."""
_MOST_MATCHES = 10_000
"""Listed values times what patterns cost: each is held against each."""
PATTERN_COST = 40


@dataclass(frozen=True, slots=True)
class Binding:
    """What a library binds."""

    write_pattern: Callable[[Pattern], str]
    """Raises PatternUnsupportedError for what it cannot match."""
    float_format: str
    """How it writes a listed number: `r`, as short as possible, or a format."""
    formats: frozenset[str]
    most_patterns: int
    """How many characters all patterns may have, and `PATTERN_COST` for each: what compiling them costs."""
    free_names: bool = True
    """Whether it knows names that are not listed: by patterns, as required, at least one, or apart from listed ones."""
    check: Callable[[dict[str, Json], str], None] = lambda _written, _path: None
    """Takes each part of a schema as it is written, and its place, and refuses what the library gets wrong."""


class PlainWriter:
    """Writes the keywords of one schema that have no schemas inside."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._multiples = self._values = self._pattern_size = 0

    def write(self, schema: dict[str, Json], facts: Facts, guessed: str | None, path: str) -> dict[str, Json]:
        """Writes those of one part, with the type that it has, or was guessed.

        Raises:
            InvalidInputError: they are wrong, or there are too many in the whole schema.
            UnsupportedError: the library cannot bind them.
        """
        written: dict[str, Json] = {}
        if "type" in schema or guessed is not None:
            written["type"] = schema.get("type", guessed)
        if schema.keys() & {"const", "enum"}:
            written |= self._listed(schema, path)
        written |= self._bounds(schema, facts, path)
        if "multipleOf" in schema:
            written["multipleOf"] = self._multiple(schema, path)
        write_counts(schema, written, "minLength", "maxLength", path)
        if "pattern" in schema:
            written["pattern"] = self.pattern(schema["pattern"], "pattern", path)
        if schema.get("format") in self._binding.formats:  # another one is an annotation, as JSON Schema has it
            written["format"] = schema["format"]
        if self._values * self._pattern_size > _MOST_MATCHES:
            raise invalid("pattern", path, "there are too many listed values and too long patterns together")
        return written

    def _listed(self, schema: dict[str, Json], path: str) -> dict[str, Json]:
        """The values that are listed, without those that are of another type."""
        keyword = "const" if "const" in schema else "enum"
        values = [schema["const"]] if keyword == "const" else alternatives(schema, "enum", path)
        if keyword == "const" and "enum" in schema:
            raise unsupported("enum", path, "this engine takes it or 'const'")
        if "type" in schema:
            kinds = kinds_of({"type": schema["type"]}, path)
            values = [value for value in values if _kind(value) in kinds]
            if not values:
                raise invalid(keyword, path, "no value is of the type")
        self._values += len(values)
        style = self._binding.float_format
        kept = [exact(value, keyword, path, as_float=style) for value in values]
        return {"const": kept[0]} if keyword == "const" else {"enum": kept}

    def _bounds(self, schema: dict[str, Json], facts: Facts, path: str) -> dict[str, Json]:
        whole = "integer" in facts.kinds and "number" not in facts.kinds
        bounds = {keyword: bound(schema, keyword, path) for keyword in BOUNDS}
        given = {keyword: value for keyword, value in bounds.items() if value is not None}
        if not whole:
            return {keyword: value if isinstance(value, int) else float(value) for keyword, value in given.items()}
        ends = {keyword: _outermost(keyword, value) for keyword, value in given.items()}
        least = [end for keyword, end in ends.items() if keyword.endswith("inimum")]
        most = [end for keyword, end in ends.items() if keyword.endswith("aximum")]
        tightest: dict[str, Json] = {}
        if least:
            tightest["minimum"] = max(least)
        if most:
            tightest["maximum"] = min(most)
        if least and most and max(least) > min(most):
            raise invalid("minimum", path, "no whole number lies between it and the maximum")
        return tightest

    def _multiple(self, schema: dict[str, Json], path: str) -> int | float:
        multiple = bound(schema, "multipleOf", path)
        if multiple is None or multiple <= 0:
            raise invalid("multipleOf", path, "it must be above 0")
        exponent = Decimal(multiple).as_tuple().exponent
        self._multiples += int(Decimal(multiple).scaleb(-min(0, int(exponent))))
        if self._multiples > _MOST_MULTIPLES:
            raise unsupported("multipleOf", path, f"all of them together are taken to {_MOST_MULTIPLES}")
        return multiple if isinstance(multiple, int) else float(multiple)

    def pattern(self, pattern: Json, keyword: str, path: str) -> str:
        """Writes a regular expression; raises as `write` does."""
        if not isinstance(pattern, str):
            raise invalid(keyword, path, "it must be a text")
        self._pattern_size += len(pattern) + PATTERN_COST
        if self._pattern_size > self._binding.most_patterns:
            raise unsupported(keyword, path, "this engine cannot afford so many or so long ones")
        try:
            return self._binding.write_pattern(read_pattern(pattern))
        except PatternUnsupportedError as error:
            raise unsupported(keyword, path, str(error)) from error
        except PatternError as error:
            raise invalid(keyword, path, str(error)) from error


def _outermost(keyword: str, value: int | Decimal) -> int:
    """The outermost whole number that a bound allows."""
    match keyword:
        case "minimum":
            return math.ceil(value)
        case "maximum":
            return math.floor(value)
        case "exclusiveMinimum":
            return math.floor(value) + 1
        case _:
            return math.ceil(value) - 1


def write_counts(schema: dict[str, Json], written: dict[str, Json], least: str, most: str, path: str) -> None:
    """Writes a least and a most number of something.

    Raises:
        InvalidInputError: they are no numbers, or contradict each other.
        UnsupportedError: they are too large.
    """
    low, high = count(schema, least, path), count(schema, most, path)
    if low is not None and high is not None and low > high:
        raise invalid(least, path, f"it is above {most!r}")
    written.update({name: value for name, value in ((least, low), (most, high)) if value is not None})


def _kind(value: Json) -> str:
    match value:
        case bool():
            return "boolean"
        case None:
            return "null"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
        case _:
            return "integer" if isinstance(value, int) or value == Decimal(value).to_integral_value() else "number"
