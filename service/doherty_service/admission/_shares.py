"""A bound on side work, of which every key gets its share."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from doherty_service._errors import OverloadedError

_RETRY_SECONDS = 1.0


class Shares:
    """So much work at a time, shared evenly by the keys that have some.

    A key that is alone gets all of it. Another one is let in beside it at once, however busy the first one is, so that
    the bound is exceeded by the shares of those who come later, until the first one is down to its own.
    """

    def __init__(self, most: int, refusals: Counter[str]) -> None:
        """`most` is what one key may have at a time; refusals are counted by their reason."""
        self._most = most
        self._refusals = refusals
        self._taken: Counter[str] = Counter()
        """By the name of the key; those that have none are not in it."""

    @contextmanager
    def take(self, key: str) -> Iterator[None]:
        """Counts a piece of work of a key, by its name, up to the end of the block.

        Raises:
            OverloadedError: the key has its share already.
        """
        keys = len(self._taken.keys() | {key})
        if self._taken[key] >= max(1, self._most // keys):
            self._refusals["COUNTING_FULL"] += 1
            raise OverloadedError(
                "COUNTING_FULL", "too much is being counted or summed up already", retry_after=_RETRY_SECONDS
            )
        self._taken[key] += 1
        try:
            yield
        finally:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]
