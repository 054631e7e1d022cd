"""How much of its limits a key has used."""

import time
from collections import deque
from collections.abc import Callable, Iterator

from doherty_service._errors import OverloadedError
from doherty_service.security._limits import Limits

_MINUTE = 60.0
_FIRST_GUESS_SECONDS = 1.0
"""How long a request takes, while none has ended yet."""

_SOONEST_SECONDS = 0.05
"""Nobody is told to come back sooner."""

_MOST_RECENT = 100
"""Requests from whose time and tokens those of the next ones are estimated."""


class _Turns:
    """When those who are refused shall come back: one after the other, for one of them has room at a time."""

    def __init__(self) -> None:
        self._last = 0.0

    def next(self, now: float, earliest: float, apart: float) -> float:
        """Seconds from now.

        At most a minute, or a caller who never comes back would push all others away; or `earliest`, if that is later.
        """
        self._last = min(max(earliest, self._last + apart), max(earliest, now + _MINUTE))
        return max(_SOONEST_SECONDS, self._last - now)


class _Bucket:
    """Takes in all that is used, and loses a minute's allowance every minute.

    It keeps what was used, and not when that will be forgiven: a limit that changes counts at once.
    """

    def __init__(self) -> None:
        self._level = 0.0
        self._at = 0.0

    def level(self, now: float, per_minute: float) -> float:
        """What is in it; any thread may ask."""
        return max(0.0, self._level - (now - self._at) * per_minute / _MINUTE)

    def add(self, amount: float, now: float, per_minute: float) -> None:
        """Takes something in, whether there is room or not."""
        self._level, self._at = self.level(now, per_minute) + amount, now

    def room_in(self, amount: float, now: float, per_minute: float) -> float:
        """In how many seconds there is room for so much; 0 if there is."""
        wait = (self.level(now, per_minute) + amount - per_minute) * _MINUTE / per_minute
        # A caller who waited exactly as long as it was told must not fail by a rounding.
        return wait if wait > _MINUTE / per_minute * 1e-6 else 0.0


class Usage:
    """The requests and tokens of one key, now and over the last minute."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is used at first; `name` is the key's, and `clock` tells seconds."""
        self._name = name
        self._clock = clock
        self._running = 0
        self._seconds: deque[float] = deque(maxlen=_MOST_RECENT)
        self._charges: deque[int] = deque(maxlen=_MOST_RECENT)
        self._requests = _Bucket()
        self._tokens = _Bucket()
        self._turns_running = _Turns()
        self._turns_requests = _Turns()
        self._turns_tokens = _Turns()

    def take(self, limits: Limits) -> float:
        """Counts a request of the key, until `release` gets what this returns.

        Raises:
            OverloadedError: one more would be beyond a limit of the key.
        """
        now = self._clock()
        self._check_running(limits, now)
        self._check_tokens(limits, now)
        self._charge_request(limits, now)
        self._running += 1
        return now

    def release(self, taken: float) -> None:
        """A request has ended."""
        self._running -= 1
        self._seconds.append(self._clock() - taken)

    def charge(self, tokens: int, limits: Limits) -> None:
        """Tokens were used: those of a prompt or those of an answer."""
        if limits.tokens_per_minute is not None and tokens:
            self._tokens.add(tokens, self._clock(), limits.tokens_per_minute)
            self._charges.append(tokens)

    def shares(self, limits: Limits) -> Iterator[tuple[str, float]]:
        """How much of each limit is in use: 1 is all of it. Of tokens it can be more. Any thread may ask."""
        now = self._clock()
        if limits.max_concurrent is not None:
            yield "max_concurrent", self._running / limits.max_concurrent
        if limits.per_minute is not None:
            yield "per_minute", self._requests.level(now, limits.per_minute) / limits.per_minute
        if limits.tokens_per_minute is not None:
            yield "tokens_per_minute", self._tokens.level(now, limits.tokens_per_minute) / limits.tokens_per_minute

    def _check_running(self, limits: Limits, now: float) -> None:
        if limits.max_concurrent is None or self._running < limits.max_concurrent:
            return
        median = sorted(self._seconds)[len(self._seconds) // 2] if self._seconds else _FIRST_GUESS_SECONDS
        apart = median / limits.max_concurrent
        raise self._refusal(
            f"may have {limits.max_concurrent} requests running or waiting at a time",
            self._turns_running.next(now, now + apart, apart),
        )

    def _check_tokens(self, limits: Limits, now: float) -> None:
        """Lets a request in while the last minute's tokens are below the limit; what it will use is not known yet."""
        if limits.tokens_per_minute is None:
            return
        if wait := self._tokens.room_in(1, now, limits.tokens_per_minute):
            apart = sum(self._charges) / max(1, len(self._charges)) * _MINUTE / limits.tokens_per_minute
            raise self._refusal(
                f"may use {limits.tokens_per_minute} tokens a minute, prompts and answers together",
                self._turns_tokens.next(now, now + wait, apart),
            )

    def _charge_request(self, limits: Limits, now: float) -> None:
        if limits.per_minute is None:
            return
        if wait := self._requests.room_in(1, now, limits.per_minute):
            raise self._refusal(
                f"may send {limits.per_minute} requests a minute",
                self._turns_requests.next(now, now + wait, _MINUTE / limits.per_minute),
            )
        self._requests.add(1, now, limits.per_minute)

    def _refusal(self, what: str, retry_after: float) -> OverloadedError:
        return OverloadedError("KEY_LIMIT", f"the key {self._name!r} {what}", retry_after=retry_after)
