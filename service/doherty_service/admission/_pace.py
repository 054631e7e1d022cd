"""How long answers take: what every estimate of a wait is made from."""

import math
import time
from collections import deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

from doherty_service.admission._survival import Sample, SurvivalCurve
from doherty_service.admission._ticket import Ticket

_RECENT_SECONDS = 300.0
_MOST_SAMPLES = 40
"""Few enough to follow a change soon."""

_FIRST_LENGTHS = (16, 32, 64, 128, 256, 512)
"""Tokens of answers, as long as none are known. What is known soon outweighs them."""
_FIRST_DELAYS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds from the slot to the first token, likewise."""
_FIRST_WEIGHT = 0.5
_FIRST_GUESS_PER_TOKEN = 0.02
"""Seconds a token, until tokens flow."""

_LEAST_PER_TOKEN = _LEAST_DELAY = 1e-6

_PACE_SECONDS = 5.0
"""Tokens that came so long ago count for a third in the current pace."""

_LOOK_SECONDS = 0.1
"""How old an estimate may be."""

_UNINFORMATIVE = 0.1
"""One that was cut off before this share of the others ends says nothing, and must not push out what does."""


class _Past(NamedTuple):
    """How far an answer got."""

    began: float
    end: float
    value: float
    ended: bool
    """By itself."""

    def sample(self, since: float) -> Sample:
        """What it says of the time since then."""
        entered = 0.0
        if self.began < since:
            entered = self.value * (since - self.began) / max(self.end - self.began, since - self.began)
        return Sample(self.value, self.ended, entered)


class Pace:
    """How many tokens answers have, how long a token takes, and how long the first one; outlives the engine.

    Answers that were cut off, by their own limit of tokens or by their caller's deadline, and those that still run, are
    lower bounds: `SurvivalCurve` says how they count. The current pace of tokens is that of the running requests.
    """

    def __init__(self) -> None:
        """Nothing is known at first, and careful guesses stand in."""
        self._lengths: deque[_Past] = deque(maxlen=_MOST_SAMPLES)
        """The tokens of the last answers."""
        self._delays: deque[_Past] = deque(maxlen=_MOST_SAMPLES)
        """Their seconds to the first token."""
        self._fresh_tokens = 0.0
        self._fresh_seconds = 0.0
        self._looked = -math.inf
        self._learn(())

    def look(self, running: Collection[Ticket]) -> bool:
        """Brings the estimates up to date if they are old; O(running) then. Says whether they were."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return False
        if running:
            fading = math.exp(-min(now - self._looked, 1e3) / _PACE_SECONDS)
            self._fresh_tokens *= fading
            self._fresh_seconds *= fading
        self._looked = now
        for ticket in running:
            self._measure(ticket)
        self._learn(running)
        return True

    def note(self, ticket: Ticket, tokens: int, *, ended: bool) -> None:
        """Takes in a request that gave its slot back after so many tokens; `ended` if its answer ended by itself."""
        now, progress = time.monotonic(), ticket.progress
        self._measure(ticket)
        if ended or self.lengths.share_within(tokens) > _UNINFORMATIVE:
            self._lengths.append(_Past(ticket.began, now, max(tokens, 1), ended))
        first = None if progress is None else progress.first_token
        delay = max((now if first is None else first) - ticket.began, _LEAST_DELAY)
        if first is not None or self.delays.share_within(delay) > _UNINFORMATIVE:
            self._delays.append(_Past(ticket.began, now, delay, first is not None))

    def seconds(self, tokens: float) -> float:
        """How long a request with so many tokens has its slot."""
        return self.delay + tokens * self.per_token

    def chance(self, ticket: Ticket, seconds: float) -> float:
        """How likely a request that gets a slot is answered within so many seconds, as its caller needs it.

        A caller that waits for the whole answer needs all of it, and one that streams, the first token. One with a time
        limit takes what there is by then.
        """
        if ticket.deadline is None or (ticket.ends_at is not None and ticket.ends_at <= ticket.deadline):
            return 1.0
        if not ticket.whole:
            return self.delays.share_within(seconds)
        if seconds < self.delay:
            return 0.0
        tokens = 1 + (seconds - self.delay) / self.per_token
        return 1.0 if tokens >= ticket.most_tokens else self.lengths.share_within(tokens)

    def need(self, ticket: Ticket) -> float:
        """How long a request has to have a slot until its caller has what it waits for."""
        return self.seconds(self.lengths.mean(ticket.most_tokens)) if ticket.whole else self.delay

    def ends(self, ticket: Ticket, shares: Sequence[float]) -> list[float]:
        """When a request that runs will have ended, one time for each of `shares`: with so much probability before."""
        now, progress = time.monotonic(), ticket.progress
        tokens = 0 if progress is None else progress.output_tokens
        begins = now if tokens else max(now, ticket.began + self.delay)
        most = max(float(ticket.most_tokens), tokens)
        latest = min(ticket.deadline or math.inf, ticket.ends_at or math.inf)
        return [
            min(begins + (min(self.lengths.quantile(share, tokens), most) - tokens) * self.per_token, latest)
            for share in shares
        ]

    def _measure(self, ticket: Ticket) -> None:
        """Takes in the tokens that have come since a request was looked at."""
        progress = ticket.progress
        if progress is None or progress.first_token is None or progress.last_token is None:
            return
        before, at = (ticket.seen_tokens, ticket.seen_at) if ticket.seen_tokens else (1, progress.first_token)
        ticket.seen_tokens, ticket.seen_at = progress.output_tokens, progress.last_token
        self._fresh_tokens += ticket.seen_tokens - before
        self._fresh_seconds += ticket.seen_at - at

    def _learn(self, running: Collection[Ticket]) -> None:
        now = time.monotonic()
        for known in (self._lengths, self._delays):
            while known and known[0].end < now - _RECENT_SECONDS:
                known.popleft()
        # Before this time others may have ended, of which nothing is known any more.
        since = self._lengths[0].end if len(self._lengths) == _MOST_SAMPLES else -math.inf
        lengths = [Sample(length, ended=True, weight=_FIRST_WEIGHT) for length in _FIRST_LENGTHS]
        lengths += [past.sample(since) for past in self._lengths if past.end > since]
        delays = [Sample(delay, ended=True, weight=_FIRST_WEIGHT) for delay in _FIRST_DELAYS]
        delays += [past.sample(-math.inf) for past in self._delays]
        for ticket in running:
            progress = ticket.progress
            first = None if progress is None else progress.first_token
            if progress is not None and progress.output_tokens:
                lengths.append(_Past(ticket.began, now, progress.output_tokens, ended=False).sample(since))
            delays.append(Sample(max((first or now) - ticket.began, _LEAST_DELAY), ended=first is not None))
        self.lengths = SurvivalCurve(lengths)
        """Of answers, in tokens."""
        self.delays = SurvivalCurve(delays)
        """From the slot to the first token, in seconds."""
        self.delay = self.delays.quantile(0.5)
        self.per_token = _FIRST_GUESS_PER_TOKEN
        """Seconds."""
        if self._fresh_tokens >= 1:
            self.per_token = max(self._fresh_seconds / self._fresh_tokens, _LEAST_PER_TOKEN)
