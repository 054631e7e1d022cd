"""The promise that a refusal makes: who comes back at the time it was told is let in."""

import math
import time
from dataclasses import dataclass

_MOST = 1_000
"""Promises at a time; beyond these, one is told a time and nothing is kept for it."""

_LEAST_PATIENCE_SECONDS = 0.5
_PATIENCE = 0.5
"""How much later than it was told one may come: this share of its wait. Clients add jitter."""

_EARLY_SECONDS = 0.002
"""Timers differ a little. One who comes earlier is likely another caller with the same request."""

_LIKELY = 0.5
_MEMORY = 0.05
"""How much the last promise, kept or forgotten, counts against all before it."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What one caller was told."""

    made: float
    """When it first came, by `time.monotonic()`."""
    due: float
    """When it was told to come back."""
    expires: float
    fingerprint: int


class Promises:
    """Places in the queue that are spoken for.

    Without them a place that gets free goes to whoever comes next, and under a steady load that is hardly ever the one
    who waited. Callers that are not seen again make the promises to come count for less.
    """

    def __init__(self) -> None:
        """Nothing is promised."""
        self.open: list[Promise] = []
        """Those that were made and not kept; some of them may have expired."""
        self._kept_share = 1.0
        self._saying: dict[int, None] = {}
        """The last requests whose callers say that they come again: one that does not say so is another caller's."""

    def __len__(self) -> int:
        """How many may still come back."""
        self._forget()
        return len(self.open)

    @property
    def expected(self) -> int:
        """How many of them likely will."""
        return round(len(self) * self._kept_share)

    def make(self, seconds: float, fingerprint: int) -> None:
        """Promises a place in so many seconds to the request with this fingerprint."""
        if len(self) < _MOST:
            now = time.monotonic()
            patience = max(_LEAST_PATIENCE_SECONDS, _PATIENCE * seconds)
            self.open.append(Promise(now, now + seconds, now + seconds + patience, fingerprint))

    def made_before(self, since: float) -> int:
        """How many of those who were first here before that time will likely come back."""
        self._forget()
        return round(sum(one.made < since for one in self.open) * self._kept_share)

    def find(self, fingerprint: int, *, again: bool) -> Promise | None:
        """The promise to this request, if it was told to come about now.

        One that says that it comes `again` gets the next promise to such a request even if that is not due yet:
        another caller with the same request may have taken its own.
        """
        self._forget()
        if again:
            self._saying[fingerprint] = None
            if len(self._saying) > _MOST:
                del self._saying[next(iter(self._saying))]
        elif fingerprint in self._saying:
            return None
        latest = math.inf if again else time.monotonic() + _EARLY_SECONDS
        fitting = (one for one in self.open if one.fingerprint == fingerprint and one.due <= latest)
        return min(fitting, key=lambda one: one.due, default=None)

    def any_due(self, within: float) -> bool:
        """Whether someone is likely to come back about now, give or take so many seconds."""
        self._forget()
        now = time.monotonic()
        return self._kept_share > _LIKELY and any(abs(one.due - now) <= within for one in self.open)

    def keep(self, promise: Promise) -> None:
        """Strikes off the promise of a request that is let in; it may have expired since it was found."""
        self.open = [one for one in self.open if one is not promise]
        self._learn(1.0)

    def _forget(self) -> None:
        now = time.monotonic()
        gone = sum(one.expires < now for one in self.open)
        if gone:
            self.open = [one for one in self.open if one.expires >= now]
            for _ in range(gone):
                self._learn(0.0)

    def _learn(self, kept: float) -> None:
        self._kept_share += _MEMORY * (kept - self._kept_share)
