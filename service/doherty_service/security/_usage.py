"""How much of its limits a key has used."""

import time
from collections import deque
from collections.abc import Callable

from doherty_service._errors import OverloadedError
from doherty_service.security._key import ApiKey

_MINUTE = 60.0
_FIRST_GUESS_SECONDS = 1.0
"""How long a request takes, while none has ended yet."""

_SOONEST_SECONDS = 0.05
"""Nobody is told to come back sooner."""


class _Turns:
    """When those who are refused shall come back: one after the other, for one of them has room at a time."""

    def __init__(self) -> None:
        self._last = 0.0

    def next(self, now: float, earliest: float, apart: float) -> float:
        """Seconds from now; at most a minute, or a caller who never comes back would push all others away."""
        self._last = min(max(earliest, self._last + apart), now + _MINUTE)
        return max(_SOONEST_SECONDS, self._last - now)


class Usage:
    """The requests of one key, now and over the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is used at first; `clock` tells seconds."""
        self._clock = clock
        self._running = 0
        self._seconds: deque[float] = deque(maxlen=100)
        self._empty_at = 0.0
        """When a bucket that takes in every request, and loses `per_minute` of them a minute, will be empty."""
        self._turns_running = _Turns()
        self._turns_minute = _Turns()

    def take(self, key: ApiKey) -> float:
        """Counts a request of the key, until `release` gets what this returns.

        Raises:
            OverloadedError: one more would be beyond a limit of the key.
        """
        now = self._clock()
        self._check_running(key, now)
        self._charge(key, now)
        self._running += 1
        return now

    def release(self, taken: float) -> None:
        """A request has ended."""
        self._running -= 1
        self._seconds.append(self._clock() - taken)

    def _check_running(self, key: ApiKey, now: float) -> None:
        if key.max_concurrent is None or self._running < key.max_concurrent:
            return
        median = sorted(self._seconds)[len(self._seconds) // 2] if self._seconds else _FIRST_GUESS_SECONDS
        apart = median / key.max_concurrent
        raise OverloadedError(
            "KEY_LIMIT",
            f"the key {key.name!r} may have {key.max_concurrent} requests running or waiting at a time",
            retry_after=self._turns_running.next(now, now + apart, apart),
        )

    def _charge(self, key: ApiKey, now: float) -> None:
        if key.per_minute is None:
            return
        apart = _MINUTE / key.per_minute
        empty_at = max(now, self._empty_at) + apart
        room_at = empty_at - _MINUTE
        # A caller who waited exactly as long as it was told must not fail by a rounding.
        if room_at > now + apart * 1e-6:
            raise OverloadedError(
                "KEY_LIMIT",
                f"the key {key.name!r} may send {key.per_minute} requests a minute",
                retry_after=self._turns_minute.next(now, room_at, apart),
            )
        self._empty_at = empty_at
