"""Estimates how long answers take and when slots become free."""

import math
import time
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field
from heapq import heapreplace
from typing import Final

from doherty_service.admission._survival import Sample, SurvivalCurve
from doherty_service.admission._ticket import Ticket

_EXTRA_ANSWERS = 40
"""The estimates use the latest answers: one per slot, and this many more. With more, they would adapt too slowly."""

_INITIAL_LENGTHS = [Sample(tokens, ended=True, weight=0.5) for tokens in (16, 32, 64, 128, 256, 512)]
"""Assumed lengths of answers in tokens. Measured ones soon outweigh them."""
_INITIAL_DELAYS = [Sample(seconds, ended=True, weight=0.5) for seconds in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)]
"""Assumed seconds from the slot to the first token."""
_INITIAL_PER_TOKEN = 0.02
"""Assumed seconds per token, until the first ones are measured."""
_MIN_SECONDS = 1e-6

_DECAY_SECONDS = 5.0
"""Time constant of the exponential average of the seconds per token."""

UPDATE_SECONDS: Final = 0.1
"""Minimum time between two updates of the estimates."""

_MIN_SHARE_ENDED = 0.1
"""An answer that was cut off before this share of the others had ended carries no information, and is dropped."""

_MIN_ENDS = 32
_GOLDEN_RATIO = 0.6180339887


@dataclass(slots=True, eq=False)
class _Answer:
    """The progress of an answer."""

    began: float
    """When the request got its slot."""
    tokens: int = 0
    last_token: float | None = None
    delay: float = _MIN_SECONDS
    """Seconds from the slot to the first token, or to now if there is none yet."""
    ended: bool = False
    """Whether the answer ended by itself."""
    ends: list[float] = field(default_factory=list)
    """Times at which its slot may become free; all are equally likely."""


class Pace:
    """Estimates the length of answers, the time per token, and when the slots of one start of an engine become free.

    The estimates use the answers that began last. Answers that were cut off (by their token limit or their caller's
    deadline) and answers that still run are lower bounds, which `SurvivalCurve` takes into account. Answers are
    selected by when they began, not by when they ended: the last ones to end would include too few long answers.

    The length of a single answer is unknown. So each running request has one or more possible ends, spread over the
    distribution of lengths: the first of many answers ends much earlier than the average one.
    """

    def __init__(self, slots: int, earlier: "Pace | None" = None) -> None:
        """Starts with the estimates of an earlier start of the engine, if there was one."""
        self.slots = slots
        self._running: dict[Ticket, _Answer] = {}
        self._latest: deque[_Answer] = deque(maxlen=slots + _EXTRA_ANSWERS)
        """In the order in which they began."""
        self._tokens = self._seconds = 0.0
        """The number of recent tokens and the seconds that they took, with exponential decay."""
        self._ends_each = -(-_MIN_ENDS // slots)
        """The number of possible ends per request."""
        self._ends: list[float] = []
        """The possible ends of running requests, in ascending order."""
        self._without_ends: dict[Ticket, _Answer] = {}
        """Running requests whose ends are not estimated yet. Only `wait` needs the ends: they are estimated there."""
        self._offset = 0.0
        self._updated = -math.inf
        self._has_changed = True
        """Whether a request has had a slot since the last update."""
        self.per_token: float = _INITIAL_PER_TOKEN
        """The current seconds per token."""
        if earlier is not None:
            self.per_token = earlier.per_token
            self._latest.extend(earlier._latest)  # noqa: SLF001 - an instance of the same class
        self.update()
        self._has_changed = earlier is not None  # requests of the earlier start may still end

    @property
    def is_current(self) -> bool:
        """Whether another update would change nothing, however old the estimates are."""
        return not self._has_changed

    @property
    def running(self) -> int:
        """The number of requests that have a slot."""
        return len(self._running)

    def begin(self, ticket: Ticket) -> None:
        """Records that a request gets a slot now."""
        self._has_changed = True
        answer = self._running[ticket] = self._without_ends[ticket] = _Answer(time.monotonic())
        self._latest.append(answer)

    def end(self, ticket: Ticket, tokens: int | None, *, ended: bool) -> float:
        """Records that the slot of a request is free again.

        Args:
            ticket: The request.
            tokens: The number of generated tokens; None if the answer must not affect the estimates.
            ended: Whether the answer ended by itself.

        Returns:
            The seconds for which the request had the slot.
        """
        answer = self._running.pop(ticket)
        self._without_ends.pop(ticket, None)
        for end in answer.ends:
            del self._ends[bisect_left(self._ends, end)]
        self._follow(ticket, answer)
        if (tokens is None or not (ended or self._tells_much(tokens, answer))) and answer in self._latest:
            self._latest.remove(answer)
        answer.tokens, answer.ended = max(tokens or 0, 1), ended
        return time.monotonic() - answer.began

    def update(self) -> None:
        """Updates the estimates, unless they are recent."""
        now = time.monotonic()
        if now - self._updated < UPDATE_SECONDS:
            return
        decay = math.exp((self._updated - now) / _DECAY_SECONDS)
        self._tokens *= decay
        self._seconds *= decay
        self._updated = now
        if not self._has_changed:
            return
        self._has_changed = bool(self._running)
        for ticket, answer in self._running.items():
            self._follow(ticket, answer)
        if self._tokens >= 1:
            self.per_token = max(self._seconds / self._tokens, _MIN_SECONDS)
        self.lengths = SurvivalCurve(
            _INITIAL_LENGTHS + [Sample(answer.tokens, answer.ended) for answer in self._latest if answer.tokens]
        )
        """The distribution of the lengths of answers in tokens."""
        self.delays = SurvivalCurve(
            _INITIAL_DELAYS + [Sample(answer.delay, answer.last_token is not None) for answer in self._latest]
        )
        """The distribution of the seconds from the slot to the first token."""
        self.delay = self.delays.quantile(0.5)
        """The median of `delays`."""
        self._ends.clear()
        for answer in self._running.values():
            answer.ends.clear()
        self._without_ends = self._running.copy()

    def seconds(self, tokens: float) -> float:
        """The seconds for which a request with this many tokens has its slot."""
        return self.delay + tokens * self.per_token

    def needed(self, ticket: Ticket) -> float:
        """The seconds from the slot until the caller has what it waits for: the whole answer or the first token."""
        return self.seconds(self.lengths.mean(ticket.max_tokens)) if ticket.whole else self.delay

    def chance(self, ticket: Ticket, seconds: float) -> float:
        """The probability that a request that gets a slot is answered within `seconds`.

        A unary caller needs the whole answer, a stream only the first token. A request whose time limit is before its
        deadline is always answered in time.
        """
        if ticket.deadline is None or (ticket.ends_at is not None and ticket.ends_at <= ticket.deadline):
            return 1.0
        if not ticket.whole:
            return self.delays.share_within(seconds)
        tokens = 1 + (seconds - self.delay) / self.per_token
        if tokens >= ticket.max_tokens:
            return 1.0
        # If prompts differ much, a short answer is often in time although the median delay is too long.
        left_for_delay = seconds - (ticket.max_tokens - 1) * self.per_token
        return max(self.lengths.share_within(tokens), self.delays.share_within(left_for_delay))

    def wait(self, rank: float, seconds: float) -> float:
        """Estimates the seconds until a request gets a slot.

        Args:
            rank: The number of requests that get a slot before it.
            seconds: How long each of them has its slot.
        """
        for ticket, answer in self._without_ends.items():
            self._expect_end(ticket, answer)
        self._without_ends.clear()
        if not self._ends:
            return 0.0
        # Once each slot was assigned, the pattern repeats. So whole rounds are skipped.
        rounds = max(int(rank / self.slots) - 1, 0)
        ends = self._ends.copy()
        for _ in range(int((rank - rounds * self.slots + 0.5) * self._ends_each)):
            heapreplace(ends, ends[0] + seconds)  # the slot that becomes free first is assigned to the next request
        return max(ends[0] - time.monotonic(), 0.0) + rounds * seconds

    def _tells_much(self, tokens: int, answer: _Answer) -> bool:
        """Whether an answer that was cut off lasted long enough to affect the estimates."""
        share_ended = self.lengths.share_within(tokens) if tokens else self.delays.share_within(answer.delay)
        return share_ended > _MIN_SHARE_ENDED

    def _follow(self, ticket: Ticket, answer: _Answer) -> None:
        """Adds the tokens that a running answer got since the last update."""
        progress = ticket.progress
        if progress is None or progress.first_token is None or progress.last_token is None:
            answer.delay = max(time.monotonic() - answer.began, _MIN_SECONDS)
            return
        if answer.last_token is None:
            answer.tokens, answer.last_token = 1, progress.first_token
            answer.delay = max(progress.first_token - answer.began, _MIN_SECONDS)
        self._tokens += progress.output_tokens - answer.tokens
        self._seconds += progress.last_token - answer.last_token
        answer.tokens, answer.last_token = progress.output_tokens, progress.last_token

    def _expect_end(self, ticket: Ticket, answer: _Answer) -> None:
        """Estimates the possible ends of a request. Each request gets other quantiles of the lengths."""
        self._offset = (self._offset + _GOLDEN_RATIO) % 1
        begins = max(time.monotonic(), 0.0 if answer.tokens else answer.began + self.delay)
        latest = min(ticket.deadline or math.inf, ticket.ends_at or math.inf)
        for part in range(self._ends_each):
            length = self.lengths.quantile((part + self._offset) / self._ends_each, answer.tokens)
            answer.ends.append(min(begins + (min(length, ticket.max_tokens) - answer.tokens) * self.per_token, latest))
        for end in answer.ends:
            insort(self._ends, end)
