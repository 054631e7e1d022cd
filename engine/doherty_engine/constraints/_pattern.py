"""A regular expression as a tree."""

from dataclasses import dataclass

from doherty_engine.constraints._characters import Ranges


class PatternError(ValueError):
    """The expression cannot be read; the message says why."""


class PatternUnsupportedError(PatternError):
    """It is a regular expression, and uses what grammars cannot do."""


@dataclass(frozen=True, slots=True)
class Characters:
    """One character out of a set."""

    ranges: Ranges
    properties: tuple[str, ...] = ()
    """Unicode properties, as `\\p{L}`, whose characters belong to the set too."""
    negated: bool = False
    """Whether the set is all other characters; only with properties."""


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
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class AnyCase:
    item: "Pattern"


Pattern = Characters | Anchor | Series | Alternatives | Repetition | AnyCase
