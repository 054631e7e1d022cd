"""An admission with a simulated engine, for tests that set the clock."""

from collections import Counter
from dataclasses import dataclass
from math import inf

import pytest

from doherty_service._errors import OverloadedError
from doherty_service.admission import Admission, Pace, Priority, QueueBounds, Ticket

BATCH = Priority.BATCH
PER_TOKEN = 0.02
"""Seconds."""


class Clock:
    """A clock that moves only if a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Progress:
    first_token: float | None = None
    last_token: float | None = None
    output_tokens: int = 0


class AdmissionLab:
    """An admission with a simulated engine, which generates a token every 0.02 s for each request that has a slot."""

    def __init__(
        self, clock: Clock, slots: int, *, requests: int = 1000, max_bytes: int = 1000, seconds: float = inf
    ) -> None:
        self.clock = clock
        self.delay = PER_TOKEN
        """The time from getting the slot to the first token, in seconds."""
        self.refusals: Counter[str] = Counter()
        self.bounds = QueueBounds(requests, max_bytes, seconds)
        self.pace = Pace(slots)
        self.admission = Admission(self.bounds, pace=self.pace, refusals=self.refusals)

    def enter(self, ticket: Ticket) -> Ticket:
        """Asks for a slot. The request may have to wait for it."""
        self.admission.enter(ticket)
        return ticket

    def fill(self, **fields: object) -> list[Ticket]:
        """Takes all slots."""
        return [self.enter(request(**fields)) for _ in range(self.admission.slots)]

    def refused(self, ticket: Ticket) -> OverloadedError:
        with pytest.raises(OverloadedError) as caught:
            self.admission.enter(ticket)
        return caught.value

    def pass_time(self, seconds: float, *running: Ticket) -> None:
        """Moves the clock, and delivers the tokens that running requests generate in this time."""
        self.clock.now += seconds
        for ticket in running:
            progress = ticket.progress
            assert isinstance(progress, Progress)
            first = self.pace._running[ticket].began + self.delay  # noqa: SLF001 - no public attribute holds the time
            if self.clock.now >= first:
                progress.first_token, progress.last_token = first, self.clock.now
                progress.output_tokens = 1 + round((self.clock.now - first) / PER_TOKEN)

    def end(self, ticket: Ticket, *, ended: bool = True) -> None:
        """Ends an answer, either because it is complete (`ended`) or because it was cut off."""
        self.pass_time(0, ticket)
        assert ticket.progress is not None
        self.admission.release(ticket, ticket.progress.output_tokens, ended=ended)

    def learn(self, tokens: int, count: int = 40, *, ended: bool = True) -> None:
        """Answers `count` requests with `tokens` tokens each, one after the other."""
        for _ in range(count):
            ticket = self.enter(request())
            self.pass_time(self.delay + (tokens - 1) * PER_TOKEN, ticket)
            self.end(ticket, ended=ended)
        self.clock.now += 1  # the estimates are updated when they are read next


def request(**fields: object) -> Ticket:
    values: dict[str, object] = {"priority": Priority.INTERACTIVE, "size": 1, "progress": Progress()}
    return Ticket(**(values | fields))  # type: ignore[arg-type]  # a ticket's fields


def has_slot(ticket: Ticket) -> bool:
    return ticket.admitted is None or (ticket.admitted.done() and not ticket.admitted.exception())


def error_of(ticket: Ticket) -> BaseException | None:
    assert ticket.admitted is not None
    assert ticket.admitted.done()
    return ticket.admitted.exception()
