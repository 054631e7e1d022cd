"""Counts the requests and tokens of a key against its limits."""

import time
from collections import deque
from collections.abc import Callable, Iterator

from doherty_service._errors import OverloadedError
from doherty_service.security._limits import Limits

_MINUTE = 60.0
_FIRST_GUESS_SECONDS = 1.0
"""Assumed duration of a request before any request has ended."""

_MIN_RETRY_SECONDS = 0.05

_RECENT_REQUESTS = 100
"""The duration and tokens of a request are estimated from this many recent ones."""


class _RetryTimes:
    """Spreads the retry times of refused requests, so that each retry finds room for one request."""

    def __init__(self) -> None:
        self._last = 0.0

    def next(self, now: float, earliest: float, interval: float) -> float:
        """Returns the retry delay in seconds from `now`; `interval` is the distance to the previous retry time.

        The delay is at most a minute, or until `earliest` if that is later. Without this bound, callers that never come
        back would delay all others more and more.
        """
        self._last = min(max(earliest, self._last + interval), max(earliest, now + _MINUTE))
        return max(_MIN_RETRY_SECONDS, self._last - now)


class _Bucket:
    """A leaky bucket: everything that is used adds to it, and it drains at the rate of the limit.

    It stores the amount, not the time at which it will be empty, so that a changed limit takes effect immediately.
    """

    def __init__(self) -> None:
        self._level = 0.0
        self._at = 0.0

    def level(self, now: float, per_minute: float) -> float:
        """Returns the current amount. Thread-safe."""
        return max(0.0, self._level - (now - self._at) * per_minute / _MINUTE)

    def add(self, amount: float, now: float, per_minute: float) -> None:
        """Adds an amount, even if that exceeds the limit."""
        self._level, self._at = self.level(now, per_minute) + amount, now

    def room_in(self, amount: float, now: float, per_minute: float) -> float:
        """Returns the seconds until there is room for `amount`; 0 if there is room now."""
        wait = (self.level(now, per_minute) + amount - per_minute) * _MINUTE / per_minute
        # Tolerate rounding, so that a caller that waited exactly as long as requested is accepted.
        return wait if wait > _MINUTE / per_minute * 1e-6 else 0.0


class Usage:
    """The requests and tokens of one key, now and over the last minute."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`name` is the name of the key; `clock` returns seconds."""
        self._name = name
        self._clock = clock
        self._running = 0
        self._seconds: deque[float] = deque(maxlen=_RECENT_REQUESTS)
        self._charges: deque[int] = deque(maxlen=_RECENT_REQUESTS)
        self._requests = _Bucket()
        self._tokens = _Bucket()
        self._retry_running = _RetryTimes()
        self._retry_requests = _RetryTimes()
        self._retry_tokens = _RetryTimes()

    def take(self, limits: Limits) -> float:
        """Counts a request. Pass the returned value to `release` at its end.

        Raises:
            OverloadedError: The request would exceed a limit of the key.
        """
        now = self._clock()
        if limits.max_concurrent is not None:
            self._check_running(limits.max_concurrent, now)
        if limits.tokens_per_minute is not None:
            self._check_tokens(limits.tokens_per_minute, now)
        if limits.per_minute is not None:
            self._charge_request(limits.per_minute, now)
        self._running += 1
        return now

    def release(self, taken: float) -> None:
        """Records the end of a request. `taken` is what `take` returned."""
        self._running -= 1
        self._seconds.append(self._clock() - taken)

    def charge(self, tokens: int, limits: Limits) -> None:
        """Counts the tokens of a prompt or of an answer."""
        if limits.tokens_per_minute is not None and tokens:
            self._tokens.add(tokens, self._clock(), limits.tokens_per_minute)
            self._charges.append(tokens)

    def shares(self, limits: Limits) -> Iterator[tuple[str, float]]:
        """Yields the name and the used share of each limit; 1 is all. Tokens can exceed 1. Thread-safe."""
        now = self._clock()
        if limits.max_concurrent is not None:
            yield "max_concurrent", self._running / limits.max_concurrent
        if limits.per_minute is not None:
            yield "per_minute", self._requests.level(now, limits.per_minute) / limits.per_minute
        if limits.tokens_per_minute is not None:
            yield "tokens_per_minute", self._tokens.level(now, limits.tokens_per_minute) / limits.tokens_per_minute

    def _check_running(self, limit: int, now: float) -> None:
        if self._running < limit:
            return
        median = sorted(self._seconds)[len(self._seconds) // 2] if self._seconds else _FIRST_GUESS_SECONDS
        interval = median / limit
        raise self._refusal(
            f"may have {limit} requests running or waiting at the same time",
            self._retry_running.next(now, now + interval, interval),
        )

    def _check_tokens(self, limit: int, now: float) -> None:
        """Accepts a request while the bucket is not full, because the tokens of the request are not known yet."""
        if wait := self._tokens.room_in(1, now, limit):
            interval = sum(self._charges) / max(1, len(self._charges)) * _MINUTE / limit
            raise self._refusal(
                f"may use {limit} tokens a minute, prompts and answers together",
                self._retry_tokens.next(now, now + wait, interval),
            )

    def _charge_request(self, limit: int, now: float) -> None:
        if wait := self._requests.room_in(1, now, limit):
            raise self._refusal(
                f"may send {limit} requests a minute",
                self._retry_requests.next(now, now + wait, _MINUTE / limit),
            )
        self._requests.add(1, now, limit)

    def _refusal(self, limit: str, retry_after: float) -> OverloadedError:
        return OverloadedError("KEY_LIMIT", f"the key {self._name!r} {limit}", retry_after=retry_after)
