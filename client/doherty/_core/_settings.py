"""What a client was made with."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from doherty._core._addresses import choose_targets
from doherty._core._key import key_metadata
from doherty._core._retry import RetryPolicy
from doherty._core._timeout import check_timeout

if TYPE_CHECKING:
    import grpc

    from doherty._core._tls import TLSConfig


class Settings:
    """The parameters of a client, checked and completed from the environment.

    They do not change.
    """

    def __init__(  # noqa: PLR0913 - one parameter each for those of a client
        self,
        target: str | Sequence[str] | None,
        *,
        api_key: str | None,
        tls: "TLSConfig | bool | None",
        insecure: bool,
        timeout: float | None,
        retry: RetryPolicy | None,
        resume: bool,
    ) -> None:
        """Checks them.

        Raises:
            OSError: A certificate or a key cannot be read.
            TypeError: A parameter has a wrong type.
            ValueError: A parameter has a value that cannot be used, or an API key would be sent unencrypted.
        """
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise TypeError(f"retry= is a RetryPolicy or None, not {type(retry).__name__}.")
        self.targets = choose_targets(target)
        self.credentials = _credentials(tls)
        """None is plaintext."""
        self.metadata = key_metadata(api_key, self.targets, encrypted=self.credentials is not None, insecure=insecure)
        """Goes with every call; has the key."""
        self.timeout = check_timeout(timeout)
        self.retry = retry
        self.resume = resume


def _credentials(tls: "TLSConfig | bool | None") -> "grpc.ChannelCredentials | None":
    ca = os.environ.get("DOHERTY_TLS_CA") if tls is None else None
    if not tls and not ca:
        return None
    from doherty._core._tls import TLSConfig, credentials  # noqa: PLC0415 - most connections stay on one machine

    if tls in (None, True):
        return credentials(TLSConfig(ca=ca))
    if not isinstance(tls, TLSConfig):
        raise TypeError(f"tls= is a bool or a TLSConfig, not {type(tls).__name__}.")
    return credentials(tls)
