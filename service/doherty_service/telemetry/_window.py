"""A rolling window over the requests of the last minutes: their outcomes and latencies."""

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
"""The Doherty threshold in seconds: W. J. Doherty and A. J. Thadani, "The Economic Value of Rapid Response Time", IBM,
1982."""

_MAX_REQUESTS = 20_000
"""Maximum number of requests whose latencies are kept. Sorting them takes about 20 ms."""

_NOT_OWED_STATUSES = frozenset(
    {"INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"}
)
_NOT_OWED_REASONS = frozenset({"KEY_LIMIT"})


class Outcome(NamedTuple):
    """How a call ended, and the key that it used."""

    status: str
    reason: str
    """The error reason; empty for OK, and if the caller cancelled or its deadline passed."""
    key: str
    """The name of the API key."""

    @property
    def is_owed(self) -> bool:
        """Whether the server owed the caller a first token.

        It does if the request was valid, and exceeded no limit of its key or of the transport.
        """
        if self.status == "RESOURCE_EXHAUSTED" and not self.reason:  # only the transport gives no reason
            return False
        return self.status not in _NOT_OWED_STATUSES and self.reason not in _NOT_OWED_REASONS


class Refusal(NamedTuple):
    """Why a request was refused, and the name of its API key."""

    reason: str
    key: str


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Three quantiles in seconds, by nearest rank. None means that there is no value at that rank."""

    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of ended calls."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    """Requests for an answer, by outcome."""
    refusals: Counter[Refusal] = field(default_factory=Counter)
    """Calls of all RPCs that were refused before the server did any work for them."""

    def add(self, outcome: Outcome, *, is_answer: bool) -> None:
        """Counts a call that has ended."""
        if is_answer:
            self.outcomes[outcome] += 1
        if outcome.reason in REFUSALS:
            self.refusals[Refusal(outcome.reason, outcome.key)] += 1

    def update(self, other: "Tally") -> None:
        """Adds the counts of another tally. `dict` copies them atomically, because the event loop may change them."""
        self.outcomes.update(dict(other.outcomes))
        self.refusals.update(dict(other.refusals))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A summary of the requests that ended within a window.

    All quantiles and shares except `owed_...` and `waits` are over the answers that ended OK.
    """

    window: float
    """The length of the window in seconds."""
    answers: int
    """Number of answers that ended OK."""
    queue: Quantiles
    time_to_first_token: Quantiles
    time_to_last_token: Quantiles
    time_per_output_token: Quantiles
    first_token_share: float | None
    last_token_share: float | None
    ended: Tally
    owed: int
    """Number of requests that were owed a first token."""
    owed_share: float | None
    """The share of these whose first token came within the threshold."""
    owed_time_to_first_token: Quantiles
    """None if the request at that rank never got a first token."""
    waits: Quantiles
    """Waits for a slot, of all requests that waited, regardless of their outcome."""


class _Latencies:
    """The latencies of those requests that have any, in seconds."""

    __slots__ = ("answers", "first_token", "last_token", "owed_first_token", "per_token", "queue", "requests", "waits")

    def __init__(self) -> None:
        self.requests = 0
        self.answers = 0
        """Number of requests that ended OK. The next four series are theirs."""
        self.queue = array("d")
        self.first_token = array("d")
        self.last_token = array("d")
        self.per_token = array("d")
        self.owed_first_token = array("d")
        self.waits = array("d")

    def add(self, record: RequestRecord, outcome: Outcome) -> None:
        """Adds a request for an answer that has ended."""
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
            if queue is not None:
                self.queue.append(queue)
            if first is not None:
                self.first_token.append(first)
            if (last := record.time_to_last_token) is not None:
                self.last_token.append(last)
            if (per_token := record.time_per_output_token) is not None:
                self.per_token.append(per_token)

    def update(self, other: "_Latencies") -> None:
        """Adds the latencies of another object."""
        self.answers += other.answers
        self.queue += other.queue
        self.first_token += other.first_token
        self.last_token += other.last_token
        self.per_token += other.per_token
        self.owed_first_token += other.owed_first_token
        self.waits += other.waits


class _Second:
    """The calls that ended within one second."""

    __slots__ = ("ends_at", "latencies", "tally")

    def __init__(self, ends_at: int) -> None:
        self.ends_at = ends_at
        self.tally = Tally()
        self.latencies = _Latencies()


class RollingWindow:
    """Groups ended calls by second. Drops seconds that are too old, and the oldest ones if there are too many calls."""

    def __init__(self, length: float) -> None:
        """`length` is in seconds."""
        self.length = length
        self._seconds: deque[_Second] = deque()
        self._complete_since = -math.inf
        """The end of the last second that was dropped because there were too many calls."""

    @property
    def size(self) -> int:
        """Number of requests whose latencies are kept."""
        return sum(second.latencies.requests for second in self._seconds)

    def add(self, record: RequestRecord, outcome: Outcome, *, is_answer: bool) -> None:
        """Adds a call that ends now."""
        now = time.monotonic()
        if not self._seconds or self._seconds[-1].ends_at <= now:
            self._seconds.append(_Second(math.floor(now) + 1))
            self._drop_old_seconds(now)
        newest = self._seconds[-1]
        newest.tally.add(outcome, is_answer=is_answer)
        if is_answer:
            newest.latencies.add(record, outcome)

    def snapshot(self, window: float | None) -> Snapshot:
        """Summarizes the last `window` seconds, or everything that is kept. Thread-safe."""
        now = time.monotonic()
        window = min(self.length if window is None else window, self.length, now - self._complete_since)
        seconds = [second for second in tuple(self._seconds) if second.ends_at > now - window]
        ended, latencies = Tally(), _Latencies()
        for second in seconds:
            ended.update(second.tally)
            latencies.update(second.latencies)
        owed = sum(count for outcome, count in ended.outcomes.items() if outcome.is_owed)
        first, last, owed_first = map(sorted, (latencies.first_token, latencies.last_token, latencies.owed_first_token))
        return Snapshot(
            window=window,
            answers=latencies.answers,
            queue=quantiles(sorted(latencies.queue)),
            time_to_first_token=quantiles(first),
            time_to_last_token=quantiles(last),
            time_per_output_token=quantiles(sorted(latencies.per_token)),
            first_token_share=_share_within(first, latencies.answers),
            last_token_share=_share_within(last, latencies.answers),
            ended=ended,
            owed=owed,
            owed_share=_share_within(owed_first, owed),
            owed_time_to_first_token=quantiles(owed_first, missing=owed - len(owed_first)),
            waits=quantiles(sorted(latencies.waits)),
        )

    def _drop_old_seconds(self, now: float) -> None:
        seconds = self._seconds
        while seconds[0].ends_at <= now - self.length:
            seconds.popleft()
        while self.size > _MAX_REQUESTS:
            self._complete_since = seconds.popleft().ends_at


def is_in_time(record: RequestRecord) -> bool:
    """Whether the request got its first token within the threshold."""
    first = record.time_to_first_token
    return first is not None and first <= THRESHOLD


def quantiles(ordered: Sequence[float], *, missing: int = 0) -> Quantiles:
    """Returns the quantiles of values in ascending order. `missing` more events never happened, and rank last."""
    count = len(ordered) + missing
    if not count:
        return Quantiles(None, None, None)
    ranks = (math.ceil(share * count) - 1 for share in (0.5, 0.9, 0.99))
    p50, p90, p99 = (ordered[rank] if rank < len(ordered) else None for rank in ranks)
    return Quantiles(p50, p90, p99)


def _share_within(ordered: Sequence[float], count: int) -> float | None:
    """Returns the number of values within the threshold, as a share of `count`. The values must be ascending."""
    return bisect_right(ordered, THRESHOLD) / count if count else None
