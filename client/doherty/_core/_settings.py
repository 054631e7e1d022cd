"""The parameters of a client: where it connects to, how the connection is secured, and how long calls may take."""

import os
from collections.abc import Sequence
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Final

from doherty._core._channel import choose_targets, is_loopback
from doherty._core._retry import RetryPolicy

if TYPE_CHECKING:
    import grpc

    from doherty._core._tls import TLSConfig


class Unset(Enum):
    """The type of the timeout of a call that uses its client's."""

    CLIENT_DEFAULT = "the client's timeout"

    def __repr__(self) -> str:
        return self.name


CLIENT_DEFAULT: Final = Unset.CLIENT_DEFAULT

Timeout = float | Unset | None
"""Seconds until a call is given up; None never gives it up."""

_LONGEST: Final = 1e8
"""Three years. gRPC treats much longer timeouts as expired."""


def check_timeout(timeout: float | None, name: str = "timeout") -> float | None:
    """Checks a timeout, and returns it as gRPC needs it.

    Raises:
        TypeError: It is not a number.
        ValueError: It is negative or not a number.
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
        weighted: bool = False,
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
        self.metadata = _key_metadata(api_key, self.targets, encrypted=self.credentials is not None, insecure=insecure)
        """The metadata of every call, with the API key."""
        self.timeout = check_timeout(timeout)
        self.retry = retry
        self.resume = resume
        self.weighted = weighted
        """Whether several servers behind one name get calls by how busy they are."""


def _credentials(tls: "TLSConfig | bool | None") -> "grpc.ChannelCredentials | None":
    ca = os.environ.get("DOHERTY_TLS_CA") if tls is None else None
    if not tls and not ca:
        return None
    from doherty._core._tls import TLSConfig, channel_credentials  # noqa: PLC0415 - most connections stay on one machine

    if tls in (None, True):
        return channel_credentials(TLSConfig(ca=ca))
    if not isinstance(tls, TLSConfig):
        raise TypeError(f"tls= is a bool or a TLSConfig, not {type(tls).__name__}.")
    return channel_credentials(tls)


def _key_metadata(
    api_key: str | None, targets: Sequence[str], *, encrypted: bool, insecure: bool
) -> tuple[tuple[str, str], ...]:
    """The metadata with the given key, else the environment's; empty if there is no key.

    Raises:
        TypeError: The key is not a str.
        ValueError: The key cannot be sent in a header, or would be sent unencrypted over a network.
    """
    key = os.environ.get("DOHERTY_API_KEY") if api_key is None else api_key
    if not key:
        return ()
    if not isinstance(key, str):
        raise TypeError(f"api_key= is a str, not {type(key).__name__}.")
    if not (key.isascii() and key.isprintable() and " " not in key):
        # The message may be logged, so it does not contain the key.
        raise ValueError("The API key has characters that keys cannot have, such as a line break at its end.")
    exposed = [target for target in targets if not is_loopback(target)]
    if exposed and not encrypted and not insecure:
        raise ValueError(
            f"The API key would go to {', '.join(exposed)} unencrypted. Use tls=True or TLSConfig(...); where the "
            "whole network in between is trusted, insecure=True."
        )
    return (("authorization", f"Bearer {key}"),)
