"""Chooses one of several targets for each attempt."""

import threading
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final

from doherty._core._channel import is_several

if TYPE_CHECKING:
    from doherty._core._obstacle import TlsUse

MAX_SETTLING: Final = 1.0
"""So many seconds after the first answer, all servers behind a target are taken to be connected."""

_FIRST_REST: Final = 0.1
_LONGEST_REST: Final = 5.0


class Target:
    """One target and its state."""

    def __init__(self, index: int, name: str) -> None:
        self.index = index
        self.name = name
        self.in_flight = 0
        """The number of attempts that run on it."""
        self.failures = 0
        """How many times in a row it was unavailable. Failures at about the same time count once."""
        self.rests_until = 0.0
        """The time (`monotonic`) until which other targets are preferred."""
        self.tls: TlsUse | None = None
        """Whether it expects TLS, if it closed new connections; None if it was not asked."""
        self.settled = not is_several(name)
        """Whether there was enough time to connect to all servers behind it."""
        self.settling_until = 0.0
        """The time (`monotonic`) until which a call waits for these connections at most; 0 if no call waits."""
        self.first_answer: float | None = None
        """When it first answered (`monotonic`), if it is not settled."""


class Targets:
    """Spreads attempts over targets: the target with the fewest running attempts first, unavailable ones last.

    Thread-safe.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._targets = [Target(index, name) for index, name in enumerate(names)]
        self._only = self._targets[0] if len(self._targets) == 1 else None
        self._lock = threading.Lock()
        self._turn = 0

    def __iter__(self) -> Iterator[Target]:
        return iter(self._targets)

    def begin(self) -> Target:
        """Chooses a target for an attempt, and counts the attempt as running on it."""
        if self._only is not None:
            with self._lock:
                self._only.in_flight += 1
            return self._only
        now = monotonic()
        with self._lock:
            # Targets with equal loads take turns.
            self._turn += 1
            count = len(self._targets)
            in_turn = (self._targets[(self._turn + place) % count] for place in range(count))
            # If all targets are unavailable, the one that is available first is chosen.
            target = min(in_turn, key=lambda target: (max(target.rests_until - now, 0.0), target.in_flight))
            target.in_flight += 1
            return target

    def end(self, target: Target) -> None:
        """Records that an attempt has ended."""
        with self._lock:
            target.in_flight -= 1

    def worked(self, target: Target) -> None:
        """Records that a target answered."""
        if not target.settled:
            now = monotonic()
            target.first_answer = target.first_answer or now
            target.settled = now - target.first_answer > MAX_SETTLING
        if target.failures:
            target.failures = 0
            target.tls = None
            target.rests_until = 0.0

    def failed(self, target: Target, retry_after: float | None) -> float:
        """Records that a target is unavailable, and returns the seconds until any target may be tried.

        Args:
            target: The target.
            retry_after: When it will be available again according to the server, in seconds.
        """
        now = monotonic()
        with self._lock:
            if target.rests_until <= now:
                target.failures += 1
            if retry_after is None:
                retry_after = min(_FIRST_REST * 2.0 ** min(target.failures, 10), _LONGEST_REST)
            target.rests_until = max(target.rests_until, now + retry_after)
            return max(0.0, min(target.rests_until for target in self._targets) - now)
