"""The syntax tree of a regular expression."""

from dataclasses import dataclass

from doherty_engine.constraints._characters import Ranges


class PatternError(ValueError):
    """The expression is invalid, ambiguous or too large; the message says why."""


class PatternUnsupportedError(PatternError):
    """The expression is valid, but uses a feature that grammars do not support."""


@dataclass(frozen=True, slots=True)
class Characters:
    """One character from a set."""

    ranges: Ranges
    properties: tuple[str, ...] = ()
    """Unicode properties such as `\\p{L}`, whose characters also belong to the set."""
    negated: bool = False
    """Whether the set consists of all other characters; False if there are no properties."""


@dataclass(frozen=True, slots=True)
class Anchor:
    sign: str
    """`^` or `$`."""


@dataclass(frozen=True, slots=True)
class Series:
    items: tuple["Pattern", ...]


@dataclass(frozen=True, slots=True)
class Alternatives:
    items: tuple["Pattern", ...]


@dataclass(frozen=True, slots=True)
class Repetition:
    item: "Pattern"
    minimum: int
    maximum: int | None


@dataclass(frozen=True, slots=True)
class AnyCase:
    item: "Pattern"


Pattern = Characters | Anchor | Series | Alternatives | Repetition | AnyCase
