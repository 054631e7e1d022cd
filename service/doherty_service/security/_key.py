"""One API key: `dh_<id>_<secret>`, of which the server knows the id and the secret's SHA-256."""

import hmac
import re
import secrets
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

_TOKEN = re.compile(r"dh_([0-9a-f]{12})_([0-9a-f]{64})")
_ID_BYTES = 6
_SECRET_BYTES = 32
_NO_DIGEST = sha256(b"").hexdigest()
"""What an unknown id is compared with; no secret is empty."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
KeyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]


class ApiKey(BaseModel):
    """What is kept of a key: who has it and what it may do, and nothing that lets anybody in."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
    name: KeyName
    secret_sha256: Digest
    created: datetime
    adapters: tuple[str, ...] | None = None
    """The adapters that it may name; None for all. The model without one is open to every key."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """How many requests may run or wait at a time."""
    per_minute: Annotated[int, Field(ge=1)] | None = None
    """How many requests a minute may bring, on average; as many may come at once after a minute without any."""
    operator: bool = False
    """Whether GetLatency tells its holder of other keys, too."""
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    """Its share of the engine's time while other keys wait, relative to theirs."""
    highest_priority: Literal["interactive", "batch"] = "interactive"
    """The highest priority that its requests may claim."""


def new_key(
    name: str,
    *,
    adapters: tuple[str, ...] | None,
    max_concurrent: int | None,
    per_minute: int | None,
    operator: bool = False,
) -> tuple[ApiKey, str]:
    """Makes a key; the second part is the whole of it, which is kept nowhere.

    Raises:
        pydantic.ValidationError: the name or a limit is none.
    """
    identifier, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES)
    key = ApiKey(
        id=identifier,
        name=name,
        secret_sha256=_digest(secret),
        created=datetime.now(UTC).replace(microsecond=0),
        adapters=adapters,
        max_concurrent=max_concurrent,
        per_minute=per_minute,
        operator=operator,
    )
    return key, f"dh_{identifier}_{secret}"


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
