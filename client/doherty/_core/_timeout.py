"""How a call says that it takes the client's timeout, when None already says that it takes none."""

from enum import Enum
from typing import Final


class Unset(Enum):
    """The type of a timeout that a call leaves to its client."""

    CLIENT_DEFAULT = "the client's timeout"

    def __repr__(self) -> str:
        return self.name


CLIENT_DEFAULT: Final = Unset.CLIENT_DEFAULT

Timeout = float | Unset | None
"""Seconds until a call is given up; None never gives it up."""
