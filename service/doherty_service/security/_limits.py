"""The limits of a key."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one key on one server. None means no limit.

    The limits per minute are averages: after a minute without use, the whole amount is available at once.
    """

    max_concurrent: int | None = None
    """Maximum number of requests that run or wait at the same time."""
    per_minute: int | None = None
    """Maximum number of requests per minute."""
    tokens_per_minute: int | None = None
    """Maximum number of tokens per minute, prompts and answers together."""


LIMITS = tuple(field.name for field in fields(Limits))
NO_LIMITS = Limits()
