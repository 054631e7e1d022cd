"""Admission: which requests run, wait or are refused. The tests set the clock."""

import sys
from collections import Counter
from dataclasses import dataclass
from math import inf
from types import SimpleNamespace

import pytest

from doherty_service._errors import DeadlinePassedError, OverloadedError, UnavailableError
from doherty_service.admission import Admission, Pace, Priority, QueueBounds, Ticket

BATCH = Priority.BATCH
PER_TOKEN = 0.02
"""Seconds."""


class Clock:
    """The time, which only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("_admission", "_pace"):
        monkeypatch.setattr(f"doherty_service.admission.{module}.time", SimpleNamespace(monotonic=clock))
    return clock


@dataclass
class Progress:
    first_token: float | None = None
    last_token: float | None = None
    output_tokens: int = 0


class Lab:
    """An admission, and an engine that generates a token every 0.02 s for whoever has a slot."""

    def __init__(
        self, clock: Clock, slots: int, *, requests: int = 1000, most_bytes: int = 1000, seconds: float = inf
    ) -> None:
        self.clock = clock
        self.refusals: Counter[str] = Counter()
        self.bounds = QueueBounds(requests, most_bytes, seconds)
        self.pace = Pace(slots)
        self.admission = Admission(self.bounds, pace=self.pace, refusals=self.refusals)

    def enter(self, ticket: Ticket) -> Ticket:
        """Asks for a slot; the ticket may have to wait for it."""
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
        """Lets time pass, in which those that run get their tokens."""
        self.clock.now += seconds
        for ticket in running:
            progress = ticket.progress
            assert isinstance(progress, Progress)
            began = self.pace._running[ticket].began  # noqa: SLF001 - when it got its slot
            progress.first_token = began + PER_TOKEN
            progress.last_token = self.clock.now
            progress.output_tokens = round((self.clock.now - began) / PER_TOKEN)

    def end(self, ticket: Ticket, *, ended: bool = True) -> None:
        """Ends an answer; by itself, or else because it was cut off."""
        self.pass_time(0, ticket)
        assert ticket.progress is not None
        self.admission.release(ticket, ticket.progress.output_tokens, ended=ended)

    def learn(self, tokens: int, count: int = 40, *, ended: bool = True) -> None:
        """Answers so many requests, one after the other, with so many tokens each."""
        for _ in range(count):
            ticket = self.enter(request())
            self.pass_time(tokens * PER_TOKEN, ticket)
            self.end(ticket, ended=ended)
        self.clock.now += 1  # so that what is known is looked at again


def request(**fields: object) -> Ticket:
    values: dict[str, object] = {"priority": Priority.INTERACTIVE, "size": 1, "progress": Progress()}
    return Ticket(**(values | fields))  # type: ignore[arg-type]  # a ticket's fields


def has_slot(ticket: Ticket) -> bool:
    return ticket.admitted is None or (ticket.admitted.done() and not ticket.admitted.exception())


def error_of(ticket: Ticket) -> BaseException | None:
    assert ticket.admitted is not None
    assert ticket.admitted.done()
    return ticket.admitted.exception()


async def order_of(lab: Lab, running: list[Ticket], waiting: dict[str, Ticket], each: float = 1.0) -> list[str]:
    """In which order those that wait get their slots, if each slot is given back after so many seconds."""
    order: list[str] = []
    while waiting:
        ticket = running.pop(0)
        lab.pass_time(each, ticket)
        lab.end(ticket)
        (name,) = [name for name, one in waiting.items() if has_slot(one)]
        order.append(name)
        running.append(waiting.pop(name))
    return order


async def test_hands_out_no_more_than_the_slots(clock: Clock) -> None:
    lab = Lab(clock, slots=2)
    first, _ = lab.fill()
    third = lab.enter(request(size=7))
    assert (lab.admission.running, lab.admission.queued, lab.admission.queued_bytes) == (2, 1, 7)
    lab.end(first)
    assert has_slot(third)
    assert (lab.admission.running, lab.admission.queued, lab.admission.queued_bytes) == (2, 0, 0)


async def test_requests_of_a_key_are_ordered_by_their_first_attempt(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    running = lab.fill()
    waiting = {"a": lab.enter(request())}
    clock.now += 1
    waiting["b"] = lab.enter(request())
    waiting["tried for half a second"] = lab.enter(request(tried_for=0.5))
    waiting["tried for long"] = lab.enter(request(tried_for=30.0))
    assert await order_of(lab, running, waiting) == ["tried for long", "a", "tried for half a second", "b"]


async def test_at_most_one_minute_of_claimed_trying_counts(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    running = lab.fill()
    waiting = {"here for long": lab.enter(request())}
    clock.now += 70
    waiting["liar"] = lab.enter(request(tried_for=1e6))
    assert await order_of(lab, running, waiting) == ["here for long", "liar"]


async def test_slots_are_shared_among_keys_whatever_the_age_of_their_requests(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    lab.learn(50)
    running = lab.fill(key="flood")
    waiting = {f"flood {number}": lab.enter(request(key="flood", tried_for=50)) for number in range(4)}
    waiting |= {f"alice {number}": lab.enter(request(key="alice")) for number in range(2)}
    order = await order_of(lab, running, waiting)
    assert [name.split()[0] for name in order] == ["alice", "flood", "alice", "flood", "flood", "flood"]


async def test_keys_share_time_by_weight_not_by_number_of_answers(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    lab.learn(50)
    (running,) = lab.fill(key="heavy", weight=2.0)
    got: Counter[str] = Counter()
    seconds = {"heavy": 3.0, "light": 1.0}
    waiting = [lab.enter(request(key=key, weight=weight)) for key, weight in (("heavy", 2.0), ("light", 1.0)) * 200]
    for _ in range(200):
        lab.pass_time(seconds[running.key], running)
        got[running.key] += 1
        lab.end(running)
        (running,) = [one for one in waiting if has_slot(one)]
        waiting.remove(running)
    assert got["heavy"] * 3.0 / got["light"] == pytest.approx(2.0, rel=0.1)


async def test_a_single_key_gets_all_slots(clock: Clock) -> None:
    lab = Lab(clock, slots=8)
    lab.fill(key="a")
    assert lab.admission.running == 8


async def test_a_key_that_had_less_than_its_share_gets_all_of_it_at_once(clock: Clock) -> None:
    lab = Lab(clock, slots=8)
    lab.learn(50)
    running = lab.fill(key="flood")
    for _ in range(8):  # by now all that it has, it has waited for
        lab.enter(request(key="flood"))
    for ticket in running:
        lab.pass_time(1, ticket)
        lab.end(ticket)
    running = list(lab.pace._running)  # noqa: SLF001 - those that have them
    for _ in range(8):
        lab.enter(request(key="flood"))
    hers = [lab.enter(request(key="alice")) for _ in range(4)]
    for ticket in running[:4]:
        lab.pass_time(0.3, ticket)
        lab.end(ticket)
    assert all(map(has_slot, hers))


async def test_batch_gets_a_tenth_of_the_time_and_persons_the_rest(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    lab.learn(50)
    running = lab.fill()
    waiting = {f"person {number}": lab.enter(request()) for number in range(100)}
    waiting |= {f"batch {number}": lab.enter(request(priority=BATCH)) for number in range(100)}
    order = [name.split()[0] for name in await order_of(lab, running, waiting)]
    assert 8 <= order[:100].count("batch") <= 12
    assert 4 <= order[:50].count("batch") <= 6


async def test_requests_with_long_deadlines_do_not_block_short_ones(clock: Clock) -> None:
    """Requests of one key: a long line of those without a deadline, and one that has a second."""
    lab = Lab(clock, slots=1)
    lab.learn(10)
    running = lab.fill()
    waiting = {str(number): lab.enter(request()) for number in range(50)}
    waiting["urgent"] = lab.enter(request(deadline=clock.now + 1, whole=True, most_tokens=10))
    assert "urgent" in (await order_of(lab, running, waiting, 0.2))[:2]


@pytest.mark.parametrize(("whole", "needed"), [(True, 3.0 + 2.0), (False, 3.0 + PER_TOKEN)])
async def test_a_request_that_would_miss_its_deadline_is_refused_at_once(
    clock: Clock,
    whole: bool,  # noqa: FBT001 - a parameter of the test
    needed: float,
) -> None:
    lab = Lab(clock, slots=2)
    lab.learn(400)
    tickets = lab.fill()
    lab.pass_time(5, *tickets)  # both slots are free in 3 seconds
    refusal = lab.refused(request(deadline=clock.now + needed * 0.9, whole=whole, most_tokens=100))
    assert refusal.reason == "DEADLINE_TOO_SHORT"
    assert refusal.retry_after is not None
    lab.enter(request(deadline=clock.now + needed * 2.1, whole=whole, most_tokens=100))
    assert lab.refusals == {"DEADLINE_TOO_SHORT": 1}


async def test_answers_that_were_cut_off_make_the_estimate_longer(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    lab.learn(50)
    running = lab.fill()
    lab.pass_time(0.5, *running)
    ask = {"whole": True, "most_tokens": 1000}
    lab.admission.leave(lab.enter(request(deadline=clock.now + 2.5, **ask)))
    lab.end(running[0], ended=False)
    lab.learn(100, ended=False)  # each had its slot for two seconds, and was not complete
    running = lab.fill()
    lab.pass_time(0.5, *running)
    assert lab.refused(request(deadline=clock.now + 2.5, **ask)).reason == "DEADLINE_TOO_SHORT"


async def test_an_answer_longer_than_all_samples_is_expected_to_continue(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    lab.learn(50)
    running = lab.fill(most_tokens=1000)
    lab.pass_time(3, *running)
    assert lab.refused(request(deadline=clock.now + 2)).reason == "DEADLINE_TOO_SHORT"


async def test_a_cold_server_uses_max_output_tokens(clock: Clock) -> None:
    lab = Lab(clock, slots=4)
    running = lab.fill(most_tokens=100)
    lab.pass_time(1, *running)  # half of the answers that they may have
    ask = {"whole": True, "most_tokens": 100}
    assert lab.refused(request(deadline=clock.now + 2.1, **ask)).reason == "DEADLINE_TOO_SHORT"
    lab.enter(request(deadline=clock.now + 4, **ask))


async def test_a_slot_is_not_given_to_a_request_that_is_too_late(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    lab.learn(50)
    running = lab.fill()
    over = lab.enter(request(deadline=clock.now + 3.5, whole=True))
    short = lab.enter(request(deadline=clock.now + 20.5, whole=True))
    patient = lab.enter(request(deadline=clock.now + 60, whole=True))
    lab.pass_time(20, *running)
    lab.end(running[0])
    assert isinstance(error_of(over), DeadlinePassedError)
    refusal = error_of(short)
    assert isinstance(refusal, OverloadedError)
    assert (refusal.reason, refusal.is_pointless) == ("DEADLINE_TOO_SHORT", True)
    assert has_slot(patient)
    assert lab.refusals == {"DEADLINE_TOO_SHORT": 1}


async def test_a_time_limit_is_no_reason_to_refuse(clock: Clock) -> None:
    """The answer ends then with what there is."""
    lab = Lab(clock, slots=1)
    lab.learn(500)
    lab.fill()
    lab.enter(request(ends_at=clock.now + 1, deadline=clock.now + 2, whole=True))
    assert not lab.refusals


async def test_an_idle_server_never_refuses(clock: Clock) -> None:
    lab = Lab(clock, slots=4, seconds=0)
    lab.learn(500, ended=False)
    for _ in range(2):
        lab.enter(request(deadline=clock.now + 0.01, whole=True))
    assert lab.admission.running == 2
    assert not lab.refusals


async def test_a_busy_server_gives_no_slot_to_a_hopeless_request(clock: Clock) -> None:
    lab = Lab(clock, slots=4)
    lab.learn(500)
    for _ in range(3):
        lab.enter(request())
    assert lab.refused(request(deadline=clock.now + 1, whole=True)).is_pointless
    lab.enter(request(deadline=clock.now + 100, whole=True))
    assert lab.admission.running == 4


async def test_the_queue_is_bounded_by_the_wait_of_its_last_request(clock: Clock) -> None:
    lab = Lab(clock, slots=2, seconds=5.0)
    lab.learn(50)
    running = lab.fill()
    lab.pass_time(0.5, *running)
    for _ in range(7):
        lab.enter(request())
    with pytest.raises(OverloadedError) as caught:  # noqa: PT012 - the estimate may be off by one or two
        for _ in range(4):
            lab.enter(request())
    assert caught.value.reason == "QUEUE_FULL"
    assert caught.value.retry_after == pytest.approx(2.5, abs=0.5)  # half of its wait
    lab.enter(request(key="another"))  # the line of one key is not that of another


async def test_an_older_request_replaces_the_youngest(clock: Clock) -> None:
    lab = Lab(clock, slots=1, seconds=3.0)
    lab.learn(50)
    lab.fill()
    waiting: list[Ticket] = []
    while not lab.refusals:
        try:
            waiting.append(lab.enter(request()))
        except OverloadedError:
            clock.now += 0.01
    back = lab.enter(request(tried_for=2))
    refusal = error_of(waiting[-1])
    assert isinstance(refusal, OverloadedError)
    assert (refusal.reason, refusal.is_pointless) == ("QUEUE_FULL", False)
    assert back.waits


async def test_a_full_queue_refuses_the_youngest_of_the_largest_key(clock: Clock) -> None:
    lab = Lab(clock, slots=1, requests=4)
    lab.fill()
    flood = [lab.enter(request(key="flood")) for _ in range(3)]
    lab.enter(request(key="bob"))
    alice = lab.enter(request(key="alice"))
    assert isinstance(error_of(flood[-1]), OverloadedError)
    assert alice.waits
    assert lab.refused(request(key="flood")).reason == "QUEUE_FULL"
    assert lab.admission.queued == 4


async def test_batch_gives_way_first(clock: Clock) -> None:
    lab = Lab(clock, slots=1, requests=2)
    lab.fill()
    older, younger = (lab.enter(request(priority=BATCH)) for _ in range(2))
    for batch in (younger, older):
        person = lab.enter(request())
        assert isinstance(error_of(batch), OverloadedError)
        assert person.waits
    lab.refused(request(priority=BATCH))
    lab.refused(request())


async def test_batch_keeps_its_share_of_the_queue(clock: Clock) -> None:
    lab = Lab(clock, slots=1, requests=20)
    lab.fill()
    batch = [lab.enter(request(priority=BATCH)) for _ in range(20)]
    for _ in range(18):
        lab.enter(request())
    lab.refused(request())
    assert [one.waits for one in batch] == [True] * 2 + [False] * 18


async def test_bytes_bound_the_queue_and_no_request_is_refused_in_vain(clock: Clock) -> None:
    lab = Lab(clock, slots=1, most_bytes=50)
    lab.fill()
    person, batch = lab.enter(request(size=30)), lab.enter(request(priority=BATCH, size=5))
    lab.refused(request(size=40))
    assert (person.waits, batch.waits) == (True, True)
    assert lab.admission.queued_bytes == 35


async def test_a_caller_that_stops_waiting_leaves_the_queue(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    (held,) = lab.fill()
    waiting = lab.enter(request())
    lab.admission.leave(waiting)
    assert lab.admission.queued == 0
    lab.end(held)
    assert lab.admission.running == 0


async def test_a_slot_for_a_caller_that_is_leaving_is_not_lost(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    (held,) = lab.fill()
    leaving, next_one = lab.enter(request()), lab.enter(request())
    lab.end(held)
    assert has_slot(leaving)
    lab.admission.leave(leaving)
    assert has_slot(next_one)


async def test_a_cancelled_waiting_request_is_skipped(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    (held,) = lab.fill()
    leaving, next_one = lab.enter(request()), lab.enter(request())
    assert leaving.admitted is not None
    leaving.admitted.cancel()
    lab.end(held)
    assert has_slot(next_one)
    lab.admission.leave(leaving)
    assert (lab.admission.running, lab.admission.queued) == (1, 0)


async def test_the_wait_of_all_can_be_ended(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    (held,) = lab.fill()
    waiting = [lab.enter(request(priority=priority)) for priority in Priority]
    lab.admission.fail_waiting(UnavailableError("DRAINED", "gone"))
    assert all(isinstance(error_of(ticket), UnavailableError) for ticket in waiting)
    lab.end(held)
    assert (lab.admission.running, lab.admission.queued) == (0, 0)


async def test_keys_without_requests_are_forgotten(clock: Clock) -> None:
    lab = Lab(clock, slots=2, requests=3)
    running = [lab.enter(request(key=f"runs {number}")) for number in range(2)]
    waiting = [lab.enter(request(key=f"waits {number}")) for number in range(3)]
    for number in range(50):
        lab.refused(request(key=f"late {number}"))
    for ticket in waiting:
        lab.admission.leave(ticket)
    for ticket in running:
        lab.end(ticket)
    assert not lab.admission._queue.all.children  # noqa: SLF001 - nothing else tells


async def test_a_request_costs_as_little_with_ten_thousand_waiting(clock: Clock) -> None:
    """Counted in calls of Python's functions, for the time depends on the machine."""
    lab = Lab(clock, slots=8, requests=20_000, most_bytes=10**6)
    lab.learn(50)
    lab.fill()

    def calls_of_one(number: int) -> int:
        count = 0

        def trace(*_: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(trace)
        try:
            ticket = lab.enter(request(key=str(number % 100), deadline=clock.now + 1e6))
            lab.admission.leave(ticket)
        finally:
            sys.setprofile(None)
        return count

    few = calls_of_one(0)
    for number in range(10_000):
        lab.enter(request(key=str(number % 100), deadline=clock.now + 1e6))
    assert calls_of_one(1) < 4 * few


async def test_a_wait_is_the_rest_of_running_answers_and_the_queue_before(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    lab.learn(50)
    running = lab.fill()
    lab.pass_time(0.5, *running)
    lab.pace.update()
    waits = [lab.pace.wait(rank, 2.0) for rank in (0, 1, 2, 3, 20)]
    assert waits == pytest.approx([0.5, 2.5, 4.5, 6.5, 40.5], abs=0.1)


async def test_a_free_server_has_no_wait(clock: Clock) -> None:
    assert Lab(clock, slots=2).pace.wait(5, 1.0) == 0


async def test_one_long_answer_does_not_make_the_wait_long(clock: Clock) -> None:
    lab = Lab(clock, slots=2)
    lab.learn(50)
    long, _ = lab.fill(most_tokens=100_000)
    lab.pass_time(30, long)
    lab.pace.update()
    assert lab.pace.wait(4, 1.0) < 7


async def test_a_time_limit_up_to_the_deadline_makes_an_answer_certain(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    lab.learn(500)
    deadline = clock.now + 2
    chances = [
        lab.pace.chance(request(deadline=deadline, ends_at=ends_at, whole=True), 2.0)
        for ends_at in (deadline - 1, deadline, deadline + 1, None)
    ]
    assert chances[:2] == [1.0, 1.0]
    assert chances[2] == chances[3] < 0.1


async def test_an_answer_is_certain_when_there_is_time_for_all_that_it_may_have(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    lab.learn(500)
    ask = request(deadline=clock.now + 60, whole=True, most_tokens=100)
    enough = lab.pace.delay + 99 * lab.pace.per_token
    assert lab.pace.chance(ask, enough + 1e-6) == 1.0
    assert lab.pace.chance(ask, enough - 0.1) < 0.1
    assert lab.pace.chance(ask, lab.pace.delay / 2) == 0.0
    assert lab.pace.needed(ask) == pytest.approx(100 * PER_TOKEN, rel=0.1)
    assert lab.pace.needed(request()) == lab.pace.delay == pytest.approx(PER_TOKEN)


async def test_the_seconds_a_token_are_those_of_the_last_seconds(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    lab.learn(50)
    assert lab.pace.per_token == pytest.approx(PER_TOKEN)
    (ticket,) = lab.fill()
    lab.pass_time(0.5, ticket)
    lab.pace.update()
    assert isinstance(ticket.progress, Progress)
    for _ in range(20):
        clock.now += 1.0
        ticket.progress.output_tokens += 10
        ticket.progress.last_token = clock.now
        lab.pace.update()
    assert lab.pace.per_token == pytest.approx(0.1, rel=0.05)


async def test_callers_that_leave_early_do_not_displace_samples(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    lab.learn(50)
    lab.pace.update()
    known = lab.pace.lengths.mean(1000)
    lab.learn(3, count=100, ended=False)
    lab.pace.update()
    assert lab.pace.lengths.mean(1000) == pytest.approx(known)


async def test_streams_that_were_cut_off_before_their_first_token_count(clock: Clock) -> None:
    lab = Lab(clock, slots=2)
    for _ in range(40):
        ticket = lab.enter(request(deadline=clock.now + 5))
        clock.now += 5
        lab.admission.release(ticket, 0)
    clock.now += 1
    lab.fill()
    assert lab.pace.delay > 5
    assert lab.refused(request(deadline=clock.now + 5)).reason == "DEADLINE_TOO_SHORT"


async def test_estimates_survive_a_restart_but_running_requests_do_not(clock: Clock) -> None:
    lab = Lab(clock, slots=4)
    lab.learn(50)
    lab.fill()
    pace = Pace(2, lab.pace)
    assert (pace.slots, pace.running) == (2, 0)
    assert pace.wait(0, 1.0) == 0
    assert pace.lengths.mean(1000) == pytest.approx(lab.pace.lengths.mean(1000), rel=0.2)


async def test_hopeless_requests_get_at_most_half_of_the_slots_and_one(clock: Clock) -> None:
    lab = Lab(clock, slots=4)
    lab.learn(500)
    for _ in range(3):
        lab.enter(request(deadline=clock.now + 1, whole=True))
    lab.refused(request(deadline=clock.now + 1, whole=True))


async def test_a_queue_is_full_at_its_bounds_but_takes_a_single_larger_request(clock: Clock) -> None:
    lab = Lab(clock, slots=1, requests=3, most_bytes=50)
    lab.fill()
    large = lab.enter(request(size=80))
    lab.refused(request(size=1, key=""))
    lab.admission.leave(large)
    for size in (20, 20, 10):
        lab.enter(request(size=size))
    assert (lab.admission.queued, lab.admission.queued_bytes) == (3, 50)
    lab.refused(request(size=0))
    assert (lab.admission.queued, lab.admission.queued_bytes) == (3, 50)


async def test_a_key_may_use_as_much_of_the_queue_as_its_weight_says(clock: Clock) -> None:
    lab = Lab(clock, slots=1, requests=6)
    lab.fill()
    heavy = [lab.enter(request(key="heavy", weight=3.0)) for _ in range(4)]
    light = [lab.enter(request(key="light")) for _ in range(2)]
    lab.enter(request(key="third"))
    assert all(ticket.waits for ticket in heavy)
    assert [ticket.waits for ticket in light] == [True, False]


async def test_a_retry_that_the_deadline_leaves_no_time_for_is_pointless(clock: Clock) -> None:
    lab = Lab(clock, slots=1)
    lab.learn(50)
    lab.fill()
    ask = {"whole": True, "most_tokens": 50}
    hopeless = lab.refused(request(deadline=clock.now + 1.5, **ask))
    later = lab.refused(request(deadline=clock.now + 2.5, **ask))
    assert (hopeless.is_pointless, later.is_pointless) == (True, False)


async def test_a_key_is_expected_to_keep_more_than_its_fair_part(clock: Clock) -> None:
    lab = Lab(clock, slots=4)
    for key in ("few", "many", "many", "many"):
        lab.enter(request(key=key))
    waiting = [lab.enter(request(key=key)) for key in ("few", "many")]
    parts = [ticket.line.parent.part() for ticket in waiting if ticket.line.parent is not None]
    assert parts == [0.5, 0.75]
