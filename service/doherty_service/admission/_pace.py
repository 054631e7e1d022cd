"""How long answers take, and how long a slot takes to become free: all estimates are made here."""

import math
import time
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field
from heapq import heapreplace

from doherty_service.admission._survival import Sample, SurvivalCurve
from doherty_service.admission._ticket import Ticket

_MOST_ENDED = 40
"""How many answers are remembered beside as many as there are slots: few enough to follow a change soon."""

_FIRST_LENGTHS = [Sample(tokens, ended=True, weight=0.5) for tokens in (16, 32, 64, 128, 256, 512)]
"""Lengths of answers in tokens that are assumed at first. Real ones soon outweigh them."""
_FIRST_DELAYS = [Sample(seconds, ended=True, weight=0.5) for seconds in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)]
"""Seconds from the slot to the first token that are assumed at first."""
_FIRST_PER_TOKEN = 0.02
"""Seconds per token, as long as no tokens have been seen."""
_LEAST_SECONDS = 1e-6

_PACE_SECONDS = 5.0
"""Tokens that are so old count for a third in the current seconds per token."""

_LOOK_SECONDS = 0.1
"""How old the estimates may be."""

_LEAST_KNOWN = 0.1
"""An answer that is cut off before this share of the others has ended teaches nothing, and is forgotten."""

_LEAST_ENDS = 32
_GOLDEN = 0.6180339887


@dataclass(slots=True, eq=False)
class _Answer:
    """How far an answer has come."""

    began: float
    """When the request got its slot."""
    tokens: int = 0
    last_token: float | None = None
    delay: float = _LEAST_SECONDS
    """Seconds from the slot to the first token; if there is none yet, to now."""
    ended: bool = False
    """Whether the answer ended by itself."""
    ends: list[float] = field(default_factory=list)
    """When its slot may be free again; each of these times is equally likely."""


class Pace:
    """How many tokens answers have, how long a token takes, and when the slots of one start of an engine will be free.

    It looks at the answers that began last. Those that were cut off, by their own limit of tokens or by their caller's
    deadline, and those that still run are lower bounds: `SurvivalCurve` says how they count. Answers are chosen by
    their beginning because long ones are rare among the last to end, and frequent among those that run.

    How long an answer will be is known by chance only. So each running request has one or more possible ends, spread
    over what answers take: the first of many answers ends much earlier than the average one.
    """

    def __init__(self, slots: int, earlier: "Pace | None" = None) -> None:
        """Begins with what was learned from an earlier start of the engine, or else with careful guesses."""
        self.slots = slots
        self._running: dict[Ticket, _Answer] = {}
        self._latest: deque[_Answer] = deque(maxlen=slots + _MOST_ENDED)
        """In the order in which they began."""
        self._tokens = self._seconds = 0.0
        """How many tokens came lately, and how long they took."""
        self._ends_each = -(-_LEAST_ENDS // slots)
        """How many possible ends a request has."""
        self._ends: list[float] = []
        """The possible ends of all running requests, in ascending order."""
        self._offset = 0.0
        self._looked = -math.inf
        self.per_token: float = _FIRST_PER_TOKEN
        """Seconds per token at present."""
        if earlier is not None:
            self.per_token = earlier.per_token
            self._latest.extend(earlier._latest)  # noqa: SLF001 - of its own class
        self.look()

    @property
    def running(self) -> int:
        """How many requests have a slot."""
        return len(self._running)

    def begin(self, ticket: Ticket) -> None:
        """Watches a request that gets a slot now."""
        answer = self._running[ticket] = _Answer(time.monotonic())
        self._latest.append(answer)
        self._expect_end(ticket, answer)

    def end(self, ticket: Ticket, tokens: int | None, *, ended: bool) -> float:
        """Learns from a request that gives its slot back.

        Args:
            ticket: The request.
            tokens: How many tokens were generated; None if nothing is to be learned from it.
            ended: Whether the answer ended by itself.

        Returns:
            For how many seconds it had the slot.
        """
        answer = self._running.pop(ticket)
        for end in answer.ends:
            del self._ends[bisect_left(self._ends, end)]
        self._follow(ticket, answer)
        known = self.lengths.share_within(tokens) if tokens else self.delays.share_within(answer.delay)
        if answer in self._latest and (tokens is None or not (ended or known > _LEAST_KNOWN)):
            self._latest.remove(answer)
        answer.tokens, answer.ended = max(tokens or 0, 1), ended
        return time.monotonic() - answer.began

    def look(self) -> None:
        """Brings the estimates up to date if they are old."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        fading = math.exp((self._looked - now) / _PACE_SECONDS)
        self._tokens *= fading
        self._seconds *= fading
        self._looked = now
        for ticket, answer in self._running.items():
            self._follow(ticket, answer)
        if self._tokens >= 1:
            self.per_token = max(self._seconds / self._tokens, _LEAST_SECONDS)
        self.lengths = SurvivalCurve(
            _FIRST_LENGTHS + [Sample(answer.tokens, answer.ended) for answer in self._latest if answer.tokens]
        )
        """Of answers, in tokens."""
        self.delays = SurvivalCurve(
            _FIRST_DELAYS + [Sample(answer.delay, answer.last_token is not None) for answer in self._latest]
        )
        """From the slot to the first token, in seconds."""
        self.delay = self.delays.quantile(0.5)
        """The median of these."""
        self._ends.clear()
        for ticket, answer in self._running.items():
            self._expect_end(ticket, answer)

    def seconds(self, tokens: float) -> float:
        """How long a request with so many tokens has its slot."""
        return self.delay + tokens * self.per_token

    def need(self, ticket: Ticket) -> float:
        """How long a request has to have a slot until its caller has what it waits for."""
        return self.seconds(self.lengths.mean(ticket.most_tokens)) if ticket.whole else self.delay

    def chance(self, ticket: Ticket, seconds: float) -> float:
        """How likely a request that gets a slot is answered within so many seconds, as its caller needs it.

        A unary caller needs the whole answer, a stream the first token. A request with a time limit before its
        deadline takes what there is by then.
        """
        if ticket.deadline is None or (ticket.ends_at is not None and ticket.ends_at <= ticket.deadline):
            return 1.0
        if not ticket.whole:
            return self.delays.share_within(seconds)
        if seconds < self.delay:
            return 0.0
        tokens = 1 + (seconds - self.delay) / self.per_token
        return 1.0 if tokens >= ticket.most_tokens else self.lengths.share_within(tokens)

    def wait(self, rank: float, seconds: float) -> float:
        """How long it takes until a request gets a slot.

        Args:
            rank: How many requests get a slot before it.
            seconds: How long each of them has its slot.
        """
        if not self._ends:
            return 0.0
        rounds = max(int(rank / self.slots) - 1, 0)  # after all slots were given away some times, the pattern repeats
        ends = self._ends.copy()
        for _ in range(int((rank - rounds * self.slots + 0.5) * self._ends_each)):
            heapreplace(ends, ends[0] + seconds)  # the request that gets this slot ends so much later
        return max(ends[0] - time.monotonic(), 0.0) + rounds * seconds

    def _follow(self, ticket: Ticket, answer: _Answer) -> None:
        """Takes in what was generated since the last look at a running answer."""
        progress = ticket.progress
        if progress is None or progress.first_token is None or progress.last_token is None:
            answer.delay = max(time.monotonic() - answer.began, _LEAST_SECONDS)
            return
        if answer.last_token is None:
            answer.tokens, answer.last_token = 1, progress.first_token
            answer.delay = max(progress.first_token - answer.began, _LEAST_SECONDS)
        self._tokens += progress.output_tokens - answer.tokens
        self._seconds += progress.last_token - answer.last_token
        answer.tokens, answer.last_token = progress.output_tokens, progress.last_token

    def _expect_end(self, ticket: Ticket, answer: _Answer) -> None:
        """Estimates the possible ends of a request, at shares of all answers that differ from request to request."""
        self._offset = (self._offset + _GOLDEN) % 1
        begins = max(time.monotonic(), 0.0 if answer.tokens else answer.began + self.delay)
        most = max(ticket.most_tokens, answer.tokens)
        latest = min(ticket.deadline or math.inf, ticket.ends_at or math.inf)
        answer.ends = []
        for part in range(self._ends_each):
            length = self.lengths.quantile((part + self._offset) / self._ends_each, answer.tokens)
            answer.ends.append(min(begins + (min(length, most) - answer.tokens) * self.per_token, latest))
        for end in answer.ends:
            insort(self._ends, end)
