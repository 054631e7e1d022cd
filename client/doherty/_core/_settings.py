"""The parameters of a client: where it connects to, how the connection is secured, and how long calls may take."""

import os
from collections.abc import Sequence
from copy import copy
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, TypedDict

from doherty._core._actions import KeySource
from doherty._core._channel import ChannelOptions, check_channel_options, choose_targets
from doherty._core._key import ApiKey
from doherty._core._metadata import NO_PAIRS, Metadata, Pairs, check_metadata, merge
from doherty._core._retry import RetryPolicy, limit_retries

if TYPE_CHECKING:
    import grpc

    from doherty._core._tls import TLSConfig


class NotGiven(Enum):
    """The type of NOT_GIVEN."""

    NOT_GIVEN = "what the client has"

    def __repr__(self) -> str:
        return self.name


NOT_GIVEN: Final = NotGiven.NOT_GIVEN
"""The default of parameters for which None has a meaning of its own."""

Timeout = float | NotGiven | None
"""The timeout of a call in seconds. None means no limit."""

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
        raise ValueError(f"{name}= is a number of seconds that is at least 0, not {timeout!r}.")
    return min(timeout, _LONGEST)


def choose_timeout(timeout: Timeout, default: float | None) -> float | None:
    """Returns the timeout of one call. `default` is the client's. Raises the errors of `check_timeout`."""
    return default if isinstance(timeout, NotGiven) else check_timeout(timeout)


class CallOptions(NamedTuple):
    """The options of a call that override those of its client."""

    timeout: Timeout = NOT_GIVEN
    max_retries: int | None = None
    metadata: Pairs = NO_PAIRS


class CallParameters(TypedDict, total=False):
    """For type checkers: the parameters of every call."""

    timeout: Timeout
    max_retries: int | None
    metadata: Metadata | None


def check_options(
    *, timeout: Timeout = NOT_GIVEN, max_retries: int | None = None, metadata: Metadata | None = None
) -> CallOptions:
    """Checks the parameters of a call except its timeout.

    Raises:
        TypeError: One has a wrong type.
        ValueError: One has a value that cannot be used.
    """
    if max_retries is None and metadata is None:
        return CallOptions(timeout)
    return CallOptions(timeout, check_max_retries(max_retries), check_metadata(metadata))


def check_max_retries(max_retries: int | None) -> int | None:
    """Checks the maximum number of retries.

    Raises:
        TypeError: It is not an int.
        ValueError: It is negative.
    """
    if max_retries is None:
        return None
    if isinstance(max_retries, bool) or not isinstance(max_retries, int):
        raise TypeError(f"max_retries= is an int, not {max_retries!r}.")
    if max_retries < 0:
        raise ValueError(f"max_retries= is at least 0, not {max_retries}.")
    return max_retries


def whose_timeout(timeout: Timeout) -> str:
    """The origin of a call's timeout, for messages."""
    return "the timeout of the client" if isinstance(timeout, NotGiven) else "the timeout of the call"


class Settings:
    """The parameters of a client, checked and completed from the environment.

    Immutable.
    """

    def __init__(  # noqa: PLR0913 - the parameters of a client
        self,
        target: str | Sequence[str] | None,
        *,
        api_key: str | KeySource | None,
        tls: "TLSConfig | bool | None",
        insecure: bool,
        timeout: float | None,
        retry: RetryPolicy | None,
        resume: bool,
        weighted: bool = False,
        metadata: Metadata | None = None,
        interceptors: Sequence[object] = (),
        channel_options: ChannelOptions | None = None,
        credentials: "grpc.ChannelCredentials | None" = None,
    ) -> None:
        """Checks the parameters.

        Raises:
            OSError: A certificate or a key cannot be read.
            TypeError: A parameter has a wrong type.
            ValueError: A parameter has a value that cannot be used, or an API key would be sent unencrypted.
        """
        self.targets = choose_targets(target)
        self.credentials = _credentials(tls, credentials)
        """None means plaintext."""
        self.lacks_certificate = credentials is None and getattr(tls, "cert", None) is None
        """Whether the client has no certificate to show to servers."""
        self.key = ApiKey(api_key)
        """The API key. A callable is called for every attempt."""
        self.metadata = check_metadata(metadata)
        """The metadata of every call, without the key."""
        self.timeout = check_timeout(timeout)
        self.retry = _check_retry(retry)
        self.resume = resume
        self.weighted = weighted
        """Whether servers with the same DNS name get calls according to their load."""
        self.interceptors = tuple(interceptors)
        self.channel_options = check_channel_options(channel_options)
        """The channel options of the caller."""
        self._insecure = insecure
        self.check_exposure()

    def with_options(
        self,
        *,
        timeout: Timeout,
        retry: RetryPolicy | NotGiven | None,
        max_retries: int | None,
        metadata: Metadata | None,
        api_key: str | KeySource | NotGiven | None,
    ) -> "Settings":
        """Returns a copy with other parameters. Raises the errors of the constructor."""
        derived = copy(self)
        if not isinstance(timeout, NotGiven):
            derived.timeout = check_timeout(timeout)
        if not isinstance(retry, NotGiven):
            derived.retry = _check_retry(retry)
        derived.retry = limit_retries(derived.retry, check_max_retries(max_retries))
        derived.metadata = merge(self.metadata, check_metadata(metadata))
        if not isinstance(api_key, NotGiven):
            derived.key = ApiKey(api_key)
            derived.check_exposure()
        return derived

    def fixed_metadata(self) -> Pairs | None:
        """The metadata of every call, with the key; None if a callable returns the key."""
        key = self.key.fixed
        return None if key is None else Pairs((*key, *self.metadata))

    def has_metadata_of(self, other: "Settings") -> bool:
        """Whether the calls of both clients have the same metadata and key, so that they can share an RPC."""
        return self.key is other.key and self.metadata == other.metadata

    def check_exposure(self) -> None:
        """Raises ValueError if the key would be sent to another machine without encryption."""
        self.key.check_exposure(self.targets, encrypted=self.credentials is not None, insecure=self._insecure)


def _credentials(
    tls: "TLSConfig | bool | None", credentials: "grpc.ChannelCredentials | None"
) -> "grpc.ChannelCredentials | None":
    ca = os.environ.get("DOHERTY_TLS_CA") if tls is None else None
    if not tls and not ca and credentials is None:
        return None
    from doherty._core._tls import choose_credentials  # noqa: PLC0415 - most connections stay on one machine

    return choose_credentials(tls=tls, credentials=credentials, ca=ca)


def _check_retry(retry: RetryPolicy | None) -> RetryPolicy | None:
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise TypeError(f"retry= is a RetryPolicy or None, not {type(retry).__name__}.")
    return retry
