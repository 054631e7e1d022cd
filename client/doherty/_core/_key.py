"""The API key of a client."""

import inspect
import os
from collections.abc import Sequence
from typing import Any

from doherty._core._actions import Actions, FetchKey, KeySource
from doherty._core._channel import is_loopback
from doherty._core._metadata import NO_PAIRS, Pairs


class ApiKey:
    """A key, a callable that returns a key for each attempt, or neither. The repr does not show the key."""

    def __init__(self, key: str | KeySource | None) -> None:
        """None selects the key of the environment.

        Raises:
            TypeError: The key is neither a str nor a callable.
            ValueError: The key cannot be sent in a header.
        """
        chosen = os.environ.get("DOHERTY_API_KEY") if key is None else key
        self._source = chosen if callable(chosen) else None
        self.fixed = None if callable(chosen) else _pairs(chosen or "")
        """The metadata with the key; None if a callable returns the key."""

    def __bool__(self) -> bool:
        return self._source is not None or bool(self.fixed)

    def pairs(self, timeout: float | None) -> Actions[Pairs]:
        """Returns the metadata with the key.

        Args:
            timeout: Maximum duration of the callable in seconds, for clients that can interrupt it.

        Raises:
            TypeError: The callable did not return a str.
            ValueError: The returned key cannot be sent in a header.
        """
        if self._source is None:
            return self.fixed or NO_PAIRS
        key = yield FetchKey(self._source, timeout)
        if isinstance(key, BaseException):
            raise key
        if inspect.isawaitable(key):
            if inspect.iscoroutine(key):
                key.close()
            raise TypeError("api_key= returned an awaitable, which only an AsyncClient can wait for.")
        return _pairs(key)

    def check_exposure(self, targets: Sequence[str], *, encrypted: bool, insecure: bool) -> None:
        """Checks that the key is not sent to another machine without encryption.

        Raises:
            ValueError: The key would be sent to another machine without encryption.
        """
        exposed = [target for target in targets if not is_loopback(target)]
        if self and exposed and not encrypted and not insecure:
            raise ValueError(
                f"The API key would go to {', '.join(exposed)} unencrypted. Use tls=True or TLSConfig(...), or "
                "insecure=True if you trust the whole network in between."
            )


def _pairs(key: Any) -> Pairs:
    if not isinstance(key, str):
        raise TypeError(f"api_key= is a str, or a callable that returns one, not {type(key).__name__}.")
    if not key:
        return NO_PAIRS
    if not (key.isascii() and key.isprintable() and " " not in key):
        # The message may be logged, so it does not contain the key.
        raise ValueError("The API key has characters that keys cannot have, such as a line break at its end.")
    return Pairs((("authorization", f"Bearer {key}"),))
