"""Limits concurrent calls other than generation, such as CountTokens, with a share for every key."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from doherty_service._errors import OverloadedError

_RETRY_SECONDS = 1.0


class Shares:
    """A limit on concurrent work, shared evenly among the keys that have some.

    A single key may use all of it. A second key gets its share at once, even if the first key uses the whole limit. So
    the total may exceed the limit until the first key is down to its own share.
    """

    def __init__(self, limit: int, refusals: Counter[str]) -> None:
        """`limit` applies to all keys together; `refusals` counts refusals by reason."""
        self._limit = limit
        self._refusals = refusals
        self._taken: Counter[str] = Counter()
        """The pieces of work by the name of the key, for keys that have any."""

    @contextmanager
    def take(self, key: str) -> Iterator[None]:
        """Counts a piece of work of a key until the end of the block.

        Raises:
            OverloadedError: The key already uses its share.
        """
        keys = len(self._taken.keys() | {key})
        if self._taken[key] >= max(1, self._limit // keys):
            self._refusals["COUNTING_FULL"] += 1
            raise OverloadedError(
                "COUNTING_FULL",
                "too many inputs or statistics of this key are being counted already",
                retry_after=_RETRY_SECONDS,
            )
        self._taken[key] += 1
        try:
            yield
        finally:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]
