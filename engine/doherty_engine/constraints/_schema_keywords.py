"""Rewrites the keywords of a JSON Schema for listed values, numbers and strings, and limits the cost of compiling."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from doherty_engine.constraints._length import LENGTHS
from doherty_engine.constraints._pattern import Pattern, PatternError, PatternUnsupportedError
from doherty_engine.constraints._pattern_reader import read_pattern
from doherty_engine.constraints._schema_facts import BOUNDS, SchemaFacts, alternatives, kinds_of
from doherty_engine.constraints._schema_values import Json, bound, count, exact, invalid, unsupported

_MAX_MULTIPLES = 5_000
"""The maximum sum of all values of `multipleOf`; the time to compile them grows faster than linearly."""
_MAX_MATCHES = 10_000
"""The maximum number of listed values times the cost of all patterns: each value is matched with each pattern."""
PATTERN_COST = 40
"""The fixed cost of a pattern, in characters."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a library supports."""

    write_pattern: Callable[[Pattern], str]
    """Writes a regular expression; raises PatternUnsupportedError if the library cannot match it."""
    float_format: str
    """How the library writes a listed float: `r` for the shortest form, or a format specification."""
    formats: frozenset[str]
    """The values of `format` that it enforces."""
    max_pattern_size: int
    """The maximum size of all patterns in characters, plus `PATTERN_COST` for each; it limits the time to compile."""
    restricts_unlisted: bool = True
    """Whether it can restrict the unlisted names of an object: match them with patterns, require certain ones or at
    least one, and keep them distinct from the listed names."""
    check: Callable[[dict[str, Json], str], None] = lambda _written, _path: None
    """Called with each rewritten part of a schema and its path; refuses what the library would do wrong."""
    bounds_length: bool = False
    """Whether numbers and formatted strings get bounds where the schema leaves them open."""
    options: Mapping[str, Json] = field(default_factory=dict)
    """What the library reads from the root of a schema besides JSON Schema."""


class KeywordWriter:
    """Rewrites the keywords of one schema that do not contain schemas."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._multiples = self._values = self._pattern_size = 0

    def write(self, schema: dict[str, Json], facts: SchemaFacts, guessed: str | None, path: str) -> dict[str, Json]:
        """Rewrites the keywords of one part of the schema.

        Args:
            schema: The part.
            facts: Its facts.
            guessed: The type to write if the part has no `type`; None for none.
            path: The path of the part, for error messages.

        Raises:
            InvalidInputError: A keyword is invalid, or the whole schema costs too much to compile.
            UnsupportedError: The library cannot enforce a keyword.
        """
        written: dict[str, Json] = {}
        if "type" in schema or guessed is not None:
            written["type"] = schema.get("type", guessed)
        if schema.keys() & {"const", "enum"}:
            written |= self._listed_values(schema, path)
        written |= self._bounds(schema, facts, path)
        if "multipleOf" in schema:
            written["multipleOf"] = self._multiple(schema, path)
        write_counts(schema, written, "minLength", "maxLength", path)
        if "pattern" in schema:
            written["pattern"] = self.pattern(schema["pattern"], "pattern", path)
        if schema.get("format") in self._dialect.formats:  # JSON Schema defines all others as annotations
            written["format"] = schema["format"]
            if self._dialect.bounds_length:
                _bound_format(written)
        if self._values * self._pattern_size > _MAX_MATCHES:
            raise invalid("pattern", path, "the listed values and patterns are too many or too long together")
        return written

    def _listed_values(self, schema: dict[str, Json], path: str) -> dict[str, Json]:
        """Rewrites `enum` or `const`, without the values that do not have the schema's type."""
        keyword = "const" if "const" in schema else "enum"
        values = [schema["const"]] if keyword == "const" else alternatives(schema, "enum", path)
        if keyword == "const" and "enum" in schema:
            raise unsupported("enum", path, "this engine cannot combine it with 'const'")
        if "type" in schema:
            kinds = kinds_of({"type": schema["type"]}, path)
            values = [value for value in values if _kind(value) in kinds]
            if not values:
                raise invalid(keyword, path, "no value has the required type")
        self._values += len(values)
        style = self._dialect.float_format
        written = [exact(value, keyword, path, as_float=style) for value in values]
        return {"const": written[0]} if keyword == "const" else {"enum": written}

    def _bounds(self, schema: dict[str, Json], facts: SchemaFacts, path: str) -> dict[str, Json]:
        whole = "integer" in facts.kinds and "number" not in facts.kinds
        bounds = {keyword: bound(schema, keyword, path) for keyword in BOUNDS}
        given = {keyword: value for keyword, value in bounds.items() if value is not None}
        if not whole:
            return {keyword: value if isinstance(value, int) else float(value) for keyword, value in given.items()}
        ends = {keyword: _outermost(keyword, value) for keyword, value in given.items()}
        minima = [end for keyword, end in ends.items() if keyword.endswith("inimum")]
        maxima = [end for keyword, end in ends.items() if keyword.endswith("aximum")]
        tightest: dict[str, Json] = {}
        if minima:
            tightest["minimum"] = max(minima)
        if maxima:
            tightest["maximum"] = min(maxima)
        if minima and maxima and max(minima) > min(maxima):
            raise invalid("minimum", path, "there is no integer between it and the maximum")
        return tightest

    def _multiple(self, schema: dict[str, Json], path: str) -> int | float:
        multiple = bound(schema, "multipleOf", path)
        if multiple is None or multiple <= 0:
            raise invalid("multipleOf", path, "it must be greater than 0")
        exponent = Decimal(multiple).as_tuple().exponent
        self._multiples += int(Decimal(multiple).scaleb(-min(0, int(exponent))))
        if self._multiples > _MAX_MULTIPLES:
            raise unsupported("multipleOf", path, f"this engine supports a total of at most {_MAX_MULTIPLES}")
        return multiple if isinstance(multiple, int) else float(multiple)

    def pattern(self, pattern: Json, keyword: str, path: str) -> str:
        """Rewrites a regular expression; raises the errors of `write`."""
        if not isinstance(pattern, str):
            raise invalid(keyword, path, "it must be a string")
        self._pattern_size += len(pattern) + PATTERN_COST
        if self._pattern_size > self._dialect.max_pattern_size:
            raise unsupported(keyword, path, "the regular expressions are too many or too long for this engine")
        try:
            return self._dialect.write_pattern(read_pattern(pattern))
        except PatternUnsupportedError as error:
            raise unsupported(keyword, path, str(error)) from error
        except PatternError as error:
            raise invalid(keyword, path, str(error)) from error


def _bound_format(written: dict[str, Json]) -> None:
    most, least, own = LENGTHS.get(str(written["format"])), written.get("minLength", 0), written.get("maxLength")
    if most is not None and own is None and isinstance(least, int) and least <= most:
        written["maxLength"] = most


def _outermost(keyword: str, value: int | Decimal) -> int:
    """The smallest or largest integer that a bound allows."""
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
    """Copies the keywords `least` and `most`, which hold a minimum and a maximum count, to `written`.

    Raises:
        InvalidInputError: They are not numbers, or contradict each other.
        UnsupportedError: They are too large.
    """
    low, high = count(schema, least, path), count(schema, most, path)
    if low is not None and high is not None and low > high:
        raise invalid(least, path, f"it is greater than {most!r}")
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
