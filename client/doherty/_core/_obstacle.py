"""The reasons why a call does not reach a server."""

from enum import Enum, StrEnum
from typing import Final


class Obstacle(StrEnum):
    """Why a call did not reach a server. All but the first two are reasons of UnavailableError."""

    NOT_READY = "NOT_READY"
    """No server listens at the address, or it does not accept calls yet."""
    CONNECTION_ENDED = "CONNECTION_ENDED"
    """A server ended a new encrypted connection, which it does if it does not accept the client's certificate."""
    UNKNOWN_NAME = "UNKNOWN_NAME"
    """The name does not exist in DNS."""
    TLS_REQUIRED = "TLS_REQUIRED"
    """The server uses TLS, but this client plaintext."""
    TLS_NOT_SPOKEN = "TLS_NOT_SPOKEN"
    """The server uses plaintext, but this client TLS."""
    CERTIFICATE_NOT_TRUSTED = "CERTIFICATE_NOT_TRUSTED"
    """The server's certificate is not from a trusted authority, has expired, or is for another name."""

    CERTIFICATE_REQUIRED = "CERTIFICATE_REQUIRED"
    """The server requires a certificate from its callers, and this client has none."""

    @property
    def reason(self) -> str | None:
        """The reason of the UnavailableError; None for the two that have none."""
        return None if self in (Obstacle.NOT_READY, Obstacle.CONNECTION_ENDED) else self.value


MISTAKES: Final = frozenset(
    {
        Obstacle.TLS_REQUIRED,
        Obstacle.TLS_NOT_SPOKEN,
        Obstacle.CERTIFICATE_NOT_TRUSTED,
        Obstacle.CERTIFICATE_REQUIRED,
    }
)
"""What no retry changes."""


class TlsUse(Enum):
    """What a server expects of TLS."""

    NONE = "no TLS"
    ENCRYPTION = "TLS"
    MUTUAL = "TLS, and a certificate from its callers"
