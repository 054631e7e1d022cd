"""The seconds after which a call is given up: the caller's, or the client's."""

from enum import Enum
from math import inf
from typing import Final


class Unset(Enum):
    """The type of a timeout that a call leaves to its client."""

    CLIENT_DEFAULT = "the client's timeout"

    def __repr__(self) -> str:
        return self.name


CLIENT_DEFAULT: Final = Unset.CLIENT_DEFAULT

Timeout = float | Unset | None
"""Seconds until a call is given up; None never gives it up."""

_LONGEST: Final = 1e8
"""Three years: gRPC takes far longer ones for ones that are over."""


def check_timeout(timeout: float | None, name: str = "timeout") -> float | None:
    """The timeout as gRPC takes it.

    Raises:
        TypeError: It is no number.
        ValueError: It is none that can be waited for.
    """
    if timeout is None or timeout == inf:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"{name}= is a number of seconds or None, not {timeout!r}.")
    if not timeout >= 0:
        raise ValueError(f"{name}= is a number of seconds from 0 on, not {timeout!r}.")
    return min(timeout, _LONGEST)


def choose_timeout(timeout: Timeout, default: float | None) -> float | None:
    """The timeout of one call, where `default` is the client's; raises as `check_timeout` does."""
    return default if isinstance(timeout, Unset) else check_timeout(timeout)
