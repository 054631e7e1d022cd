"""Parses the fields of a constraint that all engines parse in the same way."""

from collections.abc import Mapping

from doherty_engine._errors import InvalidInputError, UnsupportedError
from doherty_engine.constraints._gbnf import GbnfError, Node, read_gbnf
from doherty_engine.constraints._limits import check_size
from doherty_engine.constraints._pattern import Pattern, PatternError, PatternUnsupportedError
from doherty_engine.constraints._pattern_reader import read_pattern

FORMATS = frozenset({"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"})
"""The values of `format` in a JSON Schema that engines enforce."""


def read_regex(pattern: str) -> Pattern:
    """Parses the regular expression of a constraint.

    Raises:
        InvalidInputError: It is invalid or too large.
        UnsupportedError: It uses a feature that no grammar supports.
    """
    field = "constraint.regex"
    check_size(field, pattern)
    try:
        return read_pattern(pattern)
    except PatternUnsupportedError as error:
        raise UnsupportedError(field, str(error)) from error
    except PatternError as error:
        raise InvalidInputError(field, f"it cannot be parsed: {error}") from error


def read_grammar(gbnf: str) -> Mapping[str, Node]:
    """Parses a grammar in GBNF; returns its rules by name.

    Raises:
        InvalidInputError: It is invalid or too large.
    """
    field = "constraint.grammar"
    check_size(field, gbnf)
    try:
        return read_gbnf(gbnf)
    except GbnfError as error:
        raise InvalidInputError(field, f"it cannot be parsed: {error}") from error
