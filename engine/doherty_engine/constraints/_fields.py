"""Reads the fields of a constraint, as far as all engines read them alike."""

from collections.abc import Mapping

from doherty_engine._errors import InvalidInputError, UnsupportedError
from doherty_engine.constraints._gbnf import GbnfError, Node, read_gbnf
from doherty_engine.constraints._limits import check_size
from doherty_engine.constraints._pattern import Pattern, PatternError, PatternUnsupportedError
from doherty_engine.constraints._pattern_reader import read_pattern

FORMATS = frozenset({"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"})
"""What `format` binds in a JSON Schema, on every engine that binds any."""


def read_regex(pattern: str) -> Pattern:
    """The regular expression of a constraint.

    Raises:
        InvalidInputError: it cannot be read, or is too large.
        UnsupportedError: it uses what no grammar can do.
    """
    field = "constraint.regex"
    check_size(field, pattern)
    try:
        return read_pattern(pattern)
    except PatternUnsupportedError as error:
        raise UnsupportedError(field, str(error)) from error
    except PatternError as error:
        raise InvalidInputError(field, f"it cannot be read: {error}") from error


def read_grammar(gbnf: str) -> Mapping[str, Node]:
    """The rules of a grammar in GBNF.

    Raises:
        InvalidInputError: it cannot be read, or is too large.
    """
    field = "constraint.grammar"
    check_size(field, gbnf)
    try:
        return read_gbnf(gbnf)
    except GbnfError as error:
        raise InvalidInputError(field, f"it cannot be read: {error}") from error
