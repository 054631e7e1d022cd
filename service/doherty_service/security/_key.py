"""One API key: `dh_<id>_<secret>`. The server knows its id and the SHA-256 of its secret."""

import hmac
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from doherty_service.security._limits import LIMITS, Limits

_TOKEN = re.compile(r"dh_([0-9a-f]{12})_([0-9a-f]{64})")
_ID_BYTES = 6
_SECRET_BYTES = 32
_NO_DIGEST = sha256(b"").hexdigest()
"""Compared with the secret when the id is unknown. It matches no secret, because a secret is never empty."""

UNLIMITED = "unlimited"

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
KeyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
KeyLimit = Annotated[int, Field(ge=1, le=2**31 - 1)] | Literal["unlimited"] | None
"""None means the server's default."""


class ApiKey(BaseModel):
    """What the file of keys contains about a key: its holder and its permissions, but not the key itself."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
    name: KeyName
    secret_sha256: Digest
    created: datetime
    adapters: tuple[str, ...] | None = None
    """The adapters that requests may name; None means all. Every key may use the model without an adapter."""
    max_concurrent: KeyLimit = None
    """See `Limits.max_concurrent`."""
    per_minute: KeyLimit = None
    """See `Limits.per_minute`."""
    tokens_per_minute: KeyLimit = None
    """See `Limits.tokens_per_minute`."""
    operator: bool = False
    """Whether GetLatency shows its holder the statistics of all keys."""
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    """The key's share of the engine's time, relative to the other keys that wait."""
    highest_priority: Literal["interactive", "batch"] = "interactive"
    """The highest priority that requests of the key can have."""

    def limits(self, defaults: Limits) -> Limits:
        """Returns the limits of the key on a server with these defaults."""
        own = {name: getattr(self, name) for name in LIMITS}
        return Limits(
            **{
                name: getattr(defaults, name) if value is None else None if value == UNLIMITED else value
                for name, value in own.items()
            }
        )


def new_key(name: str, settings: Mapping[str, object]) -> tuple[ApiKey, str]:
    """Creates a key, and returns it with its full text, which is not stored anywhere.

    Args:
        name: The name of the holder.
        settings: Values for the permission fields of ApiKey. Missing ones have their defaults.

    Raises:
        pydantic.ValidationError: The name or a setting is invalid.
    """
    identifier, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES)
    own = {
        "id": identifier,
        "name": name,
        "secret_sha256": _digest(secret),
        "created": datetime.now(UTC).replace(microsecond=0),
    }
    return ApiKey.model_validate(own | dict(settings)), f"dh_{identifier}_{secret}"


def changed_key(key: ApiKey, settings: Mapping[str, object]) -> ApiKey:
    """Returns a copy of the key with other settings.

    Raises:
        pydantic.ValidationError: A setting is invalid.
    """
    return ApiKey.model_validate(key.model_dump() | dict(settings))


def split_token(token: str) -> tuple[str, str] | None:
    """Splits the text of a key into id and secret; returns None if it does not have the form of a key."""
    match = _TOKEN.fullmatch(token)
    return (match[1], match[2]) if match else None


def is_secret_of(key: ApiKey | None, secret: str) -> bool:
    """Compares a secret with a key's in constant time, also if `key` is None."""
    equal = hmac.compare_digest(_digest(secret), _NO_DIGEST if key is None else key.secret_sha256)
    return equal and key is not None


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
