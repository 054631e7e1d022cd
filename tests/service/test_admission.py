"""Who runs, who waits, and who is refused."""

import asyncio
import time

import pytest

from doherty_service._admission import Admission, Priority
from doherty_service._errors import OverloadedError, UnavailableError

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


async def waiting(admission: Admission, priority: Priority, size: int = 1) -> "asyncio.Task[float]":
    """A task that waits in the queue by the time that this returns."""
    before = admission.queued
    task = asyncio.create_task(admission.acquire(priority, size))
    await asyncio.sleep(0)  # lets it run as far as it gets
    assert admission.queued == before + 1
    return task


async def test_hands_out_no_more_than_the_slots() -> None:
    admission = Admission(slots=2, max_queued=10, max_queued_bytes=100)
    first = await admission.acquire(INTERACTIVE, 1)
    await admission.acquire(INTERACTIVE, 1)
    third = await waiting(admission, INTERACTIVE)
    assert (admission.running, admission.queued) == (2, 1)
    admission.release(first, completed=True)
    await third
    assert (admission.running, admission.queued) == (2, 0)


async def test_is_first_in_first_out_within_a_priority_and_batch_goes_last() -> None:
    admission = Admission(slots=1, max_queued=10, max_queued_bytes=100)
    held = await admission.acquire(INTERACTIVE, 1)
    order: list[str] = []

    async def take(name: str, priority: Priority) -> None:
        acquired = await admission.acquire(priority, 1)
        order.append(name)
        admission.release(acquired, completed=True)

    async with asyncio.TaskGroup() as tasks:
        arrivals = [("batch 1", BATCH), ("person 1", INTERACTIVE), ("batch 2", BATCH), ("person 2", INTERACTIVE)]
        for number, (name, priority) in enumerate(arrivals, start=1):
            tasks.create_task(take(name, priority))
            await asyncio.sleep(0)  # lets it run as far as it gets
            assert admission.queued == number
        admission.release(held, completed=True)
    assert order == ["person 1", "person 2", "batch 1", "batch 2"]
    assert admission.running == 0


async def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    admission = Admission(slots=1, max_queued=1, max_queued_bytes=100)
    await admission.acquire(INTERACTIVE, 1)
    task = await waiting(admission, INTERACTIVE)
    with pytest.raises(OverloadedError) as refused:
        await admission.acquire(INTERACTIVE, 1)
    assert refused.value.retry_after is not None
    assert refused.value.retry_after > 0
    assert admission.refusals == 1
    task.cancel()


async def test_bytes_bound_the_queue_too() -> None:
    admission = Admission(slots=1, max_queued=10, max_queued_bytes=100)
    await admission.acquire(INTERACTIVE, 1)
    task = await waiting(admission, INTERACTIVE, size=60)
    with pytest.raises(OverloadedError):
        await admission.acquire(INTERACTIVE, 60)
    task.cancel()


async def test_the_youngest_batch_request_gives_way_to_a_person() -> None:
    admission = Admission(slots=1, max_queued=2, max_queued_bytes=100)
    held = await admission.acquire(INTERACTIVE, 1)
    older, younger = await waiting(admission, BATCH), await waiting(admission, BATCH)
    person = asyncio.create_task(admission.acquire(INTERACTIVE, 1))
    with pytest.raises(OverloadedError):
        await younger
    admission.release(held, completed=True)
    admission.release(await person, completed=True)
    await older
    assert admission.running == 1


async def test_batch_does_not_push_anybody_out() -> None:
    admission = Admission(slots=1, max_queued=1, max_queued_bytes=100)
    await admission.acquire(INTERACTIVE, 1)
    task = await waiting(admission, BATCH)
    with pytest.raises(OverloadedError):
        await admission.acquire(BATCH, 1)
    task.cancel()


async def test_one_who_stops_waiting_leaves_the_queue() -> None:
    admission = Admission(slots=1, max_queued=10, max_queued_bytes=100)
    held = await admission.acquire(INTERACTIVE, 1)
    task = await waiting(admission, INTERACTIVE)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert admission.queued == 0
    admission.release(held, completed=True)
    assert admission.running == 0


async def test_a_slot_granted_to_one_who_is_cancelled_at_that_moment_is_not_lost() -> None:
    admission = Admission(slots=1, max_queued=10, max_queued_bytes=100)
    held = await admission.acquire(INTERACTIVE, 1)
    task = await waiting(admission, INTERACTIVE)
    admission.release(held, completed=True)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (admission.running, admission.queued) == (0, 0)


async def test_shedding_passes_over_one_who_is_cancelled_at_that_moment() -> None:
    admission = Admission(slots=1, max_queued=1, max_queued_bytes=100)
    held = await admission.acquire(INTERACTIVE, 1)
    batch = await waiting(admission, BATCH)
    batch.cancel()
    person = asyncio.create_task(admission.acquire(INTERACTIVE, 1))
    await asyncio.gather(batch, return_exceptions=True)
    admission.release(held, completed=True)
    await person
    assert (admission.running, admission.queued) == (1, 0)


async def test_nobody_is_pushed_out_for_one_who_does_not_fit_even_then() -> None:
    admission = Admission(slots=1, max_queued=10, max_queued_bytes=50)
    held = await admission.acquire(INTERACTIVE, 1)
    person, batch = await waiting(admission, INTERACTIVE, size=30), await waiting(admission, BATCH, size=5)
    with pytest.raises(OverloadedError):
        await admission.acquire(INTERACTIVE, 40)
    assert admission.refusals == 1
    admission.release(held, completed=True)
    admission.release(await person, completed=True)
    await batch


async def test_only_complete_answers_tell_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    admission = Admission(slots=1, max_queued=0, max_queued_bytes=0)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)

    async def retry_after() -> float | None:
        held = await admission.acquire(INTERACTIVE, 1)
        with pytest.raises(OverloadedError) as refused:
            await admission.acquire(INTERACTIVE, 1)
        admission.release(held, completed=False)
        return refused.value.retry_after

    admission.release(await admission.acquire(INTERACTIVE, 1) - 4.0, completed=True)
    assert await retry_after() == pytest.approx(4.0)
    assert await retry_after() == pytest.approx(4.0)  # what was refused or aborted in between took no time


async def test_the_wait_of_all_can_be_ended() -> None:
    admission = Admission(slots=1, max_queued=10, max_queued_bytes=100)
    held = await admission.acquire(INTERACTIVE, 1)
    tasks = [await waiting(admission, priority) for priority in (INTERACTIVE, BATCH)]
    admission.fail_waiting(UnavailableError("DRAINED", "gone"))
    for task in tasks:
        with pytest.raises(UnavailableError):
            await task
    admission.release(held, completed=True)
    assert (admission.running, admission.queued) == (0, 0)
