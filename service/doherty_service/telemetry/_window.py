"""The requests of the last minutes: how they ended, and how long those took that got somewhere."""

import math
import time
from array import array
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from doherty_service.telemetry._causes import REFUSALS
from doherty_service.telemetry._record import RequestRecord

THRESHOLD = 0.4
"""Seconds. People and computers keep pace when neither waits longer: W. J. Doherty and A. J. Thadani, "The Economic
Value of Rapid Response Time", IBM, 1982."""

_MOST_REQUESTS = 20_000
"""How many requests are kept with their times at the most: sorting those takes some 20 ms."""

_NOT_OWED_STATUSES = frozenset(
    {"INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"}
)
_NOT_OWED_REASONS = frozenset({"KEY_LIMIT"})


class Outcome(NamedTuple):
    """How a call ended, and whose it was."""

    status: str
    reason: str
    """What its caller was told; empty with OK, and where the caller left or its deadline passed."""
    key: str
    """The name of its API key."""

    @property
    def is_owed(self) -> bool:
        """Whether the server should have given it a first token: the caller made no mistake and kept to its limits."""
        return self.status not in _NOT_OWED_STATUSES and self.reason not in _NOT_OWED_REASONS


class Refusal(NamedTuple):
    """Why a request was refused, and whose it was."""

    reason: str
    key: str


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Three quantiles in seconds, by nearest rank; None where nothing was measured at that rank."""

    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of what ended."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    """Requests for an answer."""
    refusals: Counter[Refusal] = field(default_factory=Counter)
    """Calls of any kind that were refused before any work was done for them."""

    def add(self, outcome: Outcome, *, is_answer: bool) -> None:
        """Counts a call that has ended."""
        if is_answer:
            self.outcomes[outcome] += 1
        if outcome.reason in REFUSALS:
            self.refusals[Refusal(outcome.reason, outcome.key)] += 1

    def update(self, other: "Tally") -> None:
        """Adds the counts of another one, which the event loop may be adding to: `dict` copies them in one go."""
        self.outcomes.update(dict(other.outcomes))
        self.refusals.update(dict(other.refusals))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What ended within a window.

    The quantiles and shares that are not in `owed_...` and `waits` are over the answers that ended OK.
    """

    window: float
    answers: int
    """How many ended OK."""
    queue: Quantiles
    time_to_first_token: Quantiles
    time_to_last_token: Quantiles
    time_per_output_token: Quantiles
    first_token_share: float | None
    last_token_share: float | None
    ended: Tally
    owed: int
    """How many requests the server should have given a first token."""
    owed_share: float | None
    """The share of these whose first token came within the threshold."""
    owed_time_to_first_token: Quantiles
    """None where a request at that rank never got a first token."""
    waits: Quantiles
    """For a slot, of all requests that waited, however they ended."""


class _Times:
    """The times of requests that got as far as to have some, in seconds."""

    __slots__ = ("answers", "first_token", "last_token", "owed_first_token", "per_token", "queue", "requests", "waits")

    def __init__(self) -> None:
        self.requests = 0
        self.answers = 0
        """Those that ended OK; the next four are of these."""
        self.queue = array("d")
        self.first_token = array("d")
        self.last_token = array("d")
        self.per_token = array("d")
        self.owed_first_token = array("d")
        self.waits = array("d")

    def add(self, record: RequestRecord, outcome: Outcome) -> None:
        """Takes in a request for an answer that ends."""
        queue, first = record.queue, record.time_to_first_token
        is_answered = record.summarized is not None and outcome.status == "OK"
        if not is_answered and queue is None and first is None:
            return
        self.requests += 1
        if queue is not None:
            self.waits.append(queue)
        if first is not None and outcome.is_owed:
            self.owed_first_token.append(first)
        if is_answered:
            self.answers += 1
            for series, value in (
                (self.queue, queue),
                (self.first_token, first),
                (self.last_token, record.time_to_last_token),
                (self.per_token, record.time_per_output_token),
            ):
                if value is not None:
                    series.append(value)

    def update(self, other: "_Times") -> None:
        """Adds those of another one."""
        self.answers += other.answers
        self.queue += other.queue
        self.first_token += other.first_token
        self.last_token += other.last_token
        self.per_token += other.per_token
        self.owed_first_token += other.owed_first_token
        self.waits += other.waits


class _Second:
    """What ended within one second."""

    __slots__ = ("ends_at", "tally", "times")

    def __init__(self, ends_at: int) -> None:
        self.ends_at = ends_at
        self.tally = Tally()
        self.times = _Times()


class RollingWindow:
    """Keeps what ended, second by second, and forgets what is older than the window or too much."""

    def __init__(self, length: float) -> None:
        """`length` is in seconds."""
        self.length = length
        self._seconds: deque[_Second] = deque()
        self._kept_since = -math.inf
        """When the last second ended that had to be forgotten for lack of room."""

    @property
    def kept(self) -> int:
        """How many requests are kept with their times."""
        return sum(second.times.requests for second in self._seconds)

    def add(self, record: RequestRecord, outcome: Outcome, *, is_answer: bool) -> None:
        """Takes in a call that ends now."""
        now = time.monotonic()
        if not self._seconds or self._seconds[-1].ends_at <= now:
            self._seconds.append(_Second(math.floor(now) + 1))
            self._forget(now)
        newest = self._seconds[-1]
        newest.tally.add(outcome, is_answer=is_answer)
        if is_answer:
            newest.times.add(record, outcome)

    def snapshot(self, window: float | None) -> Snapshot:
        """Sums up the last `window` seconds, or all that is kept; any thread may ask."""
        now = time.monotonic()
        window = min(self.length if window is None else window, self.length, now - self._kept_since)
        seconds = [second for second in tuple(self._seconds) if second.ends_at > now - window]
        ended, times = Tally(), _Times()
        for second in seconds:
            ended.update(second.tally)
            times.update(second.times)
        owed = sum(count for outcome, count in ended.outcomes.items() if outcome.is_owed)
        first, last, owed_first = map(sorted, (times.first_token, times.last_token, times.owed_first_token))
        return Snapshot(
            window=window,
            answers=times.answers,
            queue=quantiles(sorted(times.queue)),
            time_to_first_token=quantiles(first),
            time_to_last_token=quantiles(last),
            time_per_output_token=quantiles(sorted(times.per_token)),
            first_token_share=_share_within(first, times.answers),
            last_token_share=_share_within(last, times.answers),
            ended=ended,
            owed=owed,
            owed_share=_share_within(owed_first, owed),
            owed_time_to_first_token=quantiles(owed_first, never=owed - len(owed_first)),
            waits=quantiles(sorted(times.waits)),
        )

    def _forget(self, now: float) -> None:
        """Lets go of what is too old, and of the oldest seconds while there are too many times."""
        seconds = self._seconds
        while seconds[0].ends_at <= now - self.length:
            seconds.popleft()
        while self.kept > _MOST_REQUESTS:
            self._kept_since = seconds.popleft().ends_at


def is_in_time(record: RequestRecord) -> bool:
    """Whether its first token came within the threshold; one that never came is outside of it."""
    first = record.time_to_first_token
    return first is not None and first <= THRESHOLD


def quantiles(ordered: Sequence[float], *, never: int = 0) -> Quantiles:
    """The three quantiles of values in ascending order, and of `never` more that came never and rank behind them."""
    count = len(ordered) + never
    if not count:
        return Quantiles(None, None, None)
    ranks = (math.ceil(share * count) - 1 for share in (0.5, 0.9, 0.99))
    p50, p90, p99 = (ordered[rank] if rank < len(ordered) else None for rank in ranks)
    return Quantiles(p50, p90, p99)


def _share_within(ordered: Sequence[float], count: int) -> float | None:
    """How many of the values, in ascending order, are within the threshold, as a share of `count`."""
    return bisect_right(ordered, THRESHOLD) / count if count else None
