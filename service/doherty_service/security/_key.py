"""One API key: `dh_<id>_<secret>`, of which the server knows the id and the secret's SHA-256."""

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
"""What an unknown id is compared with; no secret is empty."""

UNLIMITED = "unlimited"

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
KeyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
KeyLimit = Annotated[int, Field(ge=1, le=2**31 - 1)] | Literal["unlimited"] | None
"""None leaves it to the server's default."""


class ApiKey(BaseModel):
    """What is kept of a key: who has it and what it may do, and nothing that lets anybody in."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
    name: KeyName
    secret_sha256: Digest
    created: datetime
    adapters: tuple[str, ...] | None = None
    """The adapters that it may name; None for all. The model without one is open to every key."""
    max_concurrent: KeyLimit = None
    """As `Limits.max_concurrent`."""
    per_minute: KeyLimit = None
    """As `Limits.per_minute`."""
    tokens_per_minute: KeyLimit = None
    """As `Limits.tokens_per_minute`."""
    operator: bool = False
    """Whether GetLatency tells its holder of other keys, too."""
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    """Its share of the engine's time while other keys wait, relative to theirs."""
    highest_priority: Literal["interactive", "batch"] = "interactive"
    """The highest priority that its requests may claim."""

    def limits(self, defaults: Limits) -> Limits:
        """What holds for the key on a server with these defaults."""
        own = {name: getattr(self, name) for name in LIMITS}
        return Limits(
            **{
                name: getattr(defaults, name) if value is None else None if value == UNLIMITED else value
                for name, value in own.items()
            }
        )


def new_key(name: str, settings: Mapping[str, object]) -> tuple[ApiKey, str]:
    """Makes a key; the second part is the whole of it, which is kept nowhere.

    Args:
        name: Whose it is.
        settings: Fields of ApiKey that say what it may do; those that are not given have their defaults.

    Raises:
        pydantic.ValidationError: the name or a setting cannot be.
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
    """The same key with other settings.

    Raises:
        pydantic.ValidationError: a setting cannot be.
    """
    return ApiKey.model_validate(key.model_dump() | dict(settings))


def split_token(token: str) -> tuple[str, str] | None:
    """The id and the secret of a key as a caller sends it; None if it is not of that form."""
    found = _TOKEN.fullmatch(token)
    return (found[1], found[2]) if found else None


def is_secret_of(key: ApiKey | None, secret: str) -> bool:
    """Compares in constant time, and takes as long where there is no key."""
    equal = hmac.compare_digest(_digest(secret), _NO_DIGEST if key is None else key.secret_sha256)
    return equal and key is not None


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
