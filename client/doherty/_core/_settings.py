"""What a client was made with."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from doherty._core._addresses import choose_targets
from doherty._core._retry import RetryPolicy
from doherty._core._security import TLSConfig, choose_key, choose_tls, credentials
from doherty._core._timeout import check_timeout

if TYPE_CHECKING:
    import grpc


@dataclass(frozen=True, slots=True)
class Settings:
    """The parameters of a client, checked."""

    targets: tuple[str, ...]
    credentials: "grpc.ChannelCredentials | None"
    """None is plaintext."""
    metadata: tuple[tuple[str, str], ...] = field(repr=False)
    """Goes with every call; holds the key."""
    timeout: float | None
    retry: RetryPolicy | None
    resume: bool


def make_settings(  # noqa: PLR0913 - one parameter each for those of a client
    target: str | Sequence[str] | None,
    *,
    api_key: str | None,
    tls: TLSConfig | bool | None,
    insecure: bool,
    timeout: float | None,
    retry: RetryPolicy | None,
    resume: bool,
) -> Settings:
    """Checks the parameters of a client, and completes them from the environment.

    Raises:
        OSError: A certificate or a key cannot be read.
        TypeError: A parameter has a wrong type.
        ValueError: A parameter has a value that cannot be used, or an API key would be sent unencrypted.
    """
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise TypeError(f"retry= is a RetryPolicy or None, not {type(retry).__name__}.")
    targets = choose_targets(target)
    encryption = choose_tls(tls)
    return Settings(
        targets=targets,
        credentials=credentials(encryption) if encryption else None,
        metadata=choose_key(api_key, targets, encrypted=encryption is not None, insecure=insecure),
        timeout=check_timeout(timeout),
        retry=retry,
        resume=resume,
    )
