"""What can keep a call from reaching a server."""

from enum import StrEnum
from typing import Final


class Obstacle(StrEnum):
    """What kept a call from reaching a server. All but the first two are reasons of UnavailableError."""

    NOT_READY = "NOT_READY"
    """No server listens there, or it does not take calls yet."""
    CONNECTION_ENDED = "CONNECTION_ENDED"
    """A server ended a new encrypted connection, which it does if it wants a certificate from its callers."""
    UNKNOWN_NAME = "UNKNOWN_NAME"
    """DNS does not have the name."""
    TLS_REQUIRED = "TLS_REQUIRED"
    """The server speaks TLS, and this client plaintext."""
    TLS_NOT_SPOKEN = "TLS_NOT_SPOKEN"
    """The server speaks plaintext, and this client TLS."""
    CERTIFICATE_NOT_TRUSTED = "CERTIFICATE_NOT_TRUSTED"
    """The server's certificate has no trusted authority, has expired, or is for another name."""

    @property
    def reason(self) -> str | None:
        """The reason of the UnavailableError; None if it is nothing that a program could tell apart."""
        return None if self in (Obstacle.NOT_READY, Obstacle.CONNECTION_ENDED) else self.value


MISTAKES: Final = frozenset({Obstacle.TLS_REQUIRED, Obstacle.TLS_NOT_SPOKEN, Obstacle.CERTIFICATE_NOT_TRUSTED})
"""What no retry changes."""
