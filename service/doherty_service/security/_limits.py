"""What a key may use."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one key on one server; None is without a limit."""

    max_concurrent: int | None = None
    """How many requests may run or wait at a time."""
    per_minute: int | None = None
    """How many requests a minute may bring, on average; as many may come at once after a minute without any."""
    tokens_per_minute: int | None = None
    """How many tokens a minute may bring, prompts and answers together, on average; as many may come at once after a
    minute without any."""


LIMITS = tuple(field.name for field in fields(Limits))
NO_LIMITS = Limits()
