"""Who runs, who waits, and who is refused."""

import asyncio
from collections import Counter
from types import SimpleNamespace

import pytest

from doherty_service._errors import DeadlinePassedError, OverloadedError, UnavailableError
from doherty_service.admission import Admission, Pace, Priority, Promises, Ticket
from doherty_service.admission._promises import Promise

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


class Clock:
    """The time, which only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("_admission", "_pace", "_promises"):
        monkeypatch.setattr(f"doherty_service.admission.{module}.time", SimpleNamespace(monotonic=clock))
    return clock


class Lab:
    """An admission with what outlives it."""

    def __init__(self, slots: int, max_queued: int = 10, max_queued_bytes: int = 100) -> None:
        self.refusals: Counter[str] = Counter()
        self.pace = Pace()
        self.admission = Admission(
            slots, max_queued, max_queued_bytes, pace=self.pace, promises=Promises(), refusals=self.refusals
        )

    def learn(self, held: float, first_token: float = 0.0, count: int = 20) -> None:
        for _ in range(count):
            self.pace.note(held, first_token)

    async def take(self) -> Ticket:
        return await self.acquire(ticket())

    async def acquire(self, asked: Ticket) -> Ticket:
        await self.admission.acquire(asked)
        return asked

    async def wait(self, asked: Ticket) -> "asyncio.Task[Ticket]":
        """A task that waits in the queue by the time that this returns."""
        before = self.admission.queued
        task = asyncio.create_task(self.acquire(asked))
        await asyncio.sleep(0)  # lets it run as far as it gets
        assert self.admission.queued == before + 1
        return task

    async def refused(self, asked: Ticket) -> OverloadedError:
        with pytest.raises(OverloadedError) as caught:
            await self.admission.acquire(asked)
        return caught.value

    def end(self, slot: Ticket) -> None:
        self.admission.release(slot, completed=False)


def ticket(  # noqa: PLR0913 - a ticket's fields
    priority: Priority = INTERACTIVE,
    size: int = 1,
    name: str = "",
    deadline: float | None = None,
    *,
    whole: bool = False,
    again: bool = False,
) -> Ticket:
    return Ticket(priority, size, hash(name), deadline, whole, again)


async def test_hands_out_no_more_than_the_slots() -> None:
    lab = Lab(slots=2)
    first = await lab.take()
    await lab.take()
    third = await lab.wait(ticket(size=7))
    assert (lab.admission.running, lab.admission.queued, lab.admission.queued_bytes) == (2, 1, 7)
    lab.end(first)
    await third
    assert (lab.admission.running, lab.admission.queued, lab.admission.queued_bytes) == (2, 0, 0)


async def test_is_first_in_first_out_within_a_priority_and_batch_goes_last() -> None:
    lab = Lab(slots=1)
    held = await lab.take()
    order: list[str] = []

    async def take(name: str, priority: Priority) -> None:
        slot = await lab.acquire(ticket(priority))
        order.append(name)
        lab.end(slot)

    async with asyncio.TaskGroup() as tasks:
        arrivals = [("batch 1", BATCH), ("person 1", INTERACTIVE), ("batch 2", BATCH), ("person 2", INTERACTIVE)]
        for number, (name, priority) in enumerate(arrivals, start=1):
            tasks.create_task(take(name, priority))
            await asyncio.sleep(0)  # lets it run as far as it gets
            assert lab.admission.queued == number
        lab.end(held)
    assert order == ["person 1", "person 2", "batch 1", "batch 2"]
    assert lab.admission.running == 0


async def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    lab = Lab(slots=1, max_queued=1)
    await lab.take()
    task = await lab.wait(ticket())
    refusal = await lab.refused(ticket())
    assert refusal.reason == "QUEUE_FULL"
    assert refusal.retry_after is not None
    assert refusal.retry_after > 0
    assert lab.refusals == {"QUEUE_FULL": 1}
    task.cancel()


async def test_bytes_bound_the_queue_too() -> None:
    lab = Lab(slots=1)
    await lab.take()
    task = await lab.wait(ticket(size=60))
    await lab.refused(ticket(size=60))
    task.cancel()


async def test_the_youngest_batch_request_gives_way_to_a_person() -> None:
    lab = Lab(slots=1, max_queued=2)
    held = await lab.take()
    older, younger = await lab.wait(ticket(BATCH)), await lab.wait(ticket(BATCH))
    person = asyncio.create_task(lab.acquire(ticket()))
    with pytest.raises(OverloadedError):
        await younger
    lab.end(held)
    lab.end(await person)
    await older
    assert lab.admission.running == 1


async def test_batch_does_not_push_anybody_out() -> None:
    lab = Lab(slots=1, max_queued=1)
    await lab.take()
    task = await lab.wait(ticket(BATCH))
    await lab.refused(ticket(BATCH))
    task.cancel()


async def test_one_who_stops_waiting_leaves_the_queue() -> None:
    lab = Lab(slots=1)
    held = await lab.take()
    task = await lab.wait(ticket())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert lab.admission.queued == 0
    lab.end(held)
    assert lab.admission.running == 0


async def test_a_slot_granted_to_one_who_is_cancelled_at_that_moment_is_not_lost() -> None:
    lab = Lab(slots=1)
    held = await lab.take()
    task = await lab.wait(ticket())
    lab.end(held)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (lab.admission.running, lab.admission.queued) == (0, 0)


async def test_shedding_passes_over_one_who_is_cancelled_at_that_moment() -> None:
    lab = Lab(slots=1, max_queued=1)
    held = await lab.take()
    batch = await lab.wait(ticket(BATCH))
    batch.cancel()
    person = asyncio.create_task(lab.acquire(ticket()))
    await asyncio.gather(batch, return_exceptions=True)
    lab.end(held)
    await person
    assert (lab.admission.running, lab.admission.queued) == (1, 0)
    assert not lab.refusals


async def test_nobody_is_pushed_out_for_one_who_does_not_fit_even_then() -> None:
    lab = Lab(slots=1, max_queued_bytes=50)
    held = await lab.take()
    person, batch = await lab.wait(ticket(size=30)), await lab.wait(ticket(BATCH, size=5))
    await lab.refused(ticket(size=40))
    assert lab.refusals.total() == 1
    lab.end(held)
    lab.end(await person)
    await batch


async def test_only_complete_answers_tell_when_to_come_back(clock: Clock) -> None:
    lab = Lab(slots=1, max_queued=0)
    slot = await lab.take()
    clock.now += 4
    lab.admission.release(slot, completed=True)
    for attempt in "ab":  # what was aborted in between took no time, and says nothing
        held = await lab.take()
        refusal = await lab.refused(ticket(name=attempt))
        assert refusal.retry_after == pytest.approx(4 * 1.15)  # and a little later, to be sure
        lab.end(held)
        clock.now += 100


async def test_a_time_to_come_back_counts_from_what_already_runs(clock: Clock) -> None:
    lab = Lab(slots=2, max_queued=0)
    lab.learn(held=10)
    await lab.take()
    clock.now += 7
    await lab.take()
    seconds = [(await lab.refused(ticket(name=name))).retry_after for name in "abc"]
    assert seconds == [pytest.approx(expected + 10 * 0.15) for expected in (3, 10, 13)]


async def test_one_who_comes_back_as_told_is_let_in_and_not_one_who_comes_between(clock: Clock) -> None:
    lab = Lab(slots=1, max_queued=0)
    lab.learn(held=10)
    slot = await lab.take()
    refusal = await lab.refused(ticket(name="patient"))
    assert refusal.retry_after is not None
    clock.now += refusal.retry_after
    lab.end(slot)
    await lab.refused(ticket(name="quick"))
    await lab.acquire(ticket(name="patient"))
    assert lab.admission.running == 1


async def test_one_who_comes_back_stands_where_it_would_have_stood(clock: Clock) -> None:
    lab = Lab(slots=1, max_queued=2)
    lab.learn(held=10)
    first = await lab.take()
    waiting = [await lab.wait(ticket(name=name)) for name in "ab"]
    refusal = await lab.refused(ticket(name="patient"))
    lab.end(first)
    await waiting[0]
    clock.now += refusal.retry_after or 0
    patient = await lab.wait(ticket(name="patient"))
    lab.end(waiting[0].result())
    await waiting[1]
    lab.end(waiting[1].result())
    await patient


async def test_places_are_not_kept_for_those_who_never_come_back(clock: Clock) -> None:
    lab = Lab(slots=1, max_queued=1)
    lab.learn(held=1)
    await lab.take()
    for name in range(100):
        task = await lab.wait(ticket())
        await lab.refused(ticket(name=str(name)))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        clock.now += 1000
    promised = await lab.wait(ticket())
    await lab.refused(ticket(name="gone"))
    promised.cancel()
    await asyncio.gather(promised, return_exceptions=True)
    await lab.wait(ticket(name="another"))  # in spite of the promise


async def test_a_slot_is_not_kept_for_long(clock: Clock) -> None:
    lab = Lab(slots=2, max_queued=0)
    lab.learn(held=1)
    slots = [await lab.take(), await lab.take()]
    for number in range(100):  # a crowd, none of which comes back
        await lab.refused(ticket(name=str(number)))
    clock.now += 1
    for slot in slots:
        lab.end(slot)
    await lab.refused(ticket(name="quick"))
    clock.now += 1
    for name in "ab":
        await lab.acquire(ticket(name=name))
    assert lab.admission.running == 2


async def test_one_whose_promise_expires_while_it_is_let_in_is_let_in(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(slots=1, max_queued=1)
    await lab.take()
    waiting = await lab.wait(ticket())
    refusal = await lab.refused(ticket(name="slow"))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    clock.now += (refusal.retry_after or 0) * 1.5
    find = Promises.find

    def find_at_the_last_moment(promises: Promises, fingerprint: int, *, again: bool) -> Promise | None:
        found = find(promises, fingerprint, again=again)
        assert found is not None
        clock.now = found.expires + 0.001
        assert not len(promises)
        return found

    monkeypatch.setattr(Promises, "find", find_at_the_last_moment)
    await lab.wait(ticket(name="slow"))


async def test_one_that_says_that_it_comes_again_needs_no_promise_of_its_own(clock: Clock) -> None:
    lab = Lab(slots=1, max_queued=0)
    lab.learn(held=10)
    slot = await lab.take()
    first, second = [(await lab.refused(ticket(name="same"))).retry_after or 0 for _ in range(2)]
    assert first < second
    clock.now += first
    lab.end(slot)
    slot = await lab.acquire(ticket(name="same"))  # takes the promise of another
    lab.end(slot)
    await lab.refused(ticket(name="same"))
    await lab.acquire(ticket(name="same", again=True))


@pytest.mark.parametrize(("whole", "needed"), [(False, 3.0 + 1.0), (True, 3.0 + 10.0)])
async def test_a_deadline_that_the_wait_outlasts_is_refused_at_once(
    clock: Clock,
    whole: bool,  # noqa: FBT001 - a parameter of the test
    needed: float,
) -> None:
    lab = Lab(slots=2)
    lab.learn(held=10, first_token=1)
    await lab.take()
    clock.now += 7  # the next slot is free in 3 seconds
    await lab.take()
    ahead = await lab.wait(ticket())
    needed += 7  # and the one behind it in 10
    refusal = await lab.refused(ticket(deadline=clock.now + needed - 0.1, whole=whole))
    assert refusal.reason == "DEADLINE_TOO_SHORT"
    assert refusal.retry_after is not None
    task = await lab.wait(ticket(name="longer", deadline=clock.now + needed + 0.1, whole=whole))
    task.cancel()
    ahead.cancel()


async def test_nobody_is_refused_for_a_deadline_with_nothing_queued_ahead(clock: Clock) -> None:
    lab = Lab(slots=1)
    lab.learn(held=10)
    await lab.take()
    task = await lab.wait(ticket(deadline=clock.now + 0.1, whole=True))
    task.cancel()


async def test_nobody_is_refused_for_a_deadline_before_enough_is_known(clock: Clock) -> None:
    lab = Lab(slots=1)
    lab.learn(held=10, count=19)
    await lab.take()
    tasks = [await lab.wait(ticket(deadline=clock.now + 0.1, whole=True)) for _ in range(2)]
    lab.learn(held=10, count=1)
    await lab.refused(ticket(deadline=clock.now + 0.1, whole=True))
    for task in tasks:
        task.cancel()


async def test_batch_stands_behind_all_persons(clock: Clock) -> None:
    lab = Lab(slots=1)
    lab.learn(held=10)
    await lab.take()
    tasks = [await lab.wait(ticket()) for _ in range(3)]
    deadline = clock.now + 35
    assert (await lab.refused(ticket(BATCH, deadline=deadline))).reason == "DEADLINE_TOO_SHORT"
    tasks.append(await lab.wait(ticket(BATCH, name="longer", deadline=deadline + 10)))
    for task in tasks:
        task.cancel()


async def test_a_deadline_that_passes_in_the_queue_never_gets_a_slot(clock: Clock) -> None:
    lab = Lab(slots=1)
    held = await lab.take()
    late, patient = await lab.wait(ticket(deadline=clock.now + 1)), await lab.wait(ticket())
    clock.now += 2
    lab.end(held)
    with pytest.raises(DeadlinePassedError):
        await late
    await patient
    assert lab.admission.running == 1


async def test_the_wait_of_all_can_be_ended() -> None:
    lab = Lab(slots=1)
    held = await lab.take()
    tasks = [await lab.wait(ticket(priority)) for priority in (INTERACTIVE, BATCH)]
    lab.admission.fail_waiting(UnavailableError("DRAINED", "gone"))
    for task in tasks:
        with pytest.raises(UnavailableError):
            await task
    lab.end(held)
    assert (lab.admission.running, lab.admission.queued) == (0, 0)
