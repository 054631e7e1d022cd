"""Who runs, who waits, and who is refused."""

import asyncio

import pytest

from doherty_service._admission import Admission, Priority
from doherty_service._errors import OverloadedError

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
    admission.release(first)
    await third
    assert (admission.running, admission.queued) == (2, 0)


async def test_is_first_in_first_out_within_a_priority_and_batch_goes_last() -> None:
    admission = Admission(slots=1, max_queued=10, max_queued_bytes=100)
    held = await admission.acquire(INTERACTIVE, 1)
    order: list[str] = []

    async def take(name: str, priority: Priority) -> None:
        acquired = await admission.acquire(priority, 1)
        order.append(name)
        admission.release(acquired)

    async with asyncio.TaskGroup() as tasks:
        arrivals = [("batch 1", BATCH), ("person 1", INTERACTIVE), ("batch 2", BATCH), ("person 2", INTERACTIVE)]
        for number, (name, priority) in enumerate(arrivals, start=1):
            tasks.create_task(take(name, priority))
            await asyncio.sleep(0)  # lets it run as far as it gets
            assert admission.queued == number
        admission.release(held)
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
    admission.release(held)
    admission.release(await person)
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
    admission.release(held)
    assert admission.running == 0


async def test_a_slot_granted_to_one_who_is_cancelled_at_that_moment_is_not_lost() -> None:
    admission = Admission(slots=1, max_queued=10, max_queued_bytes=100)
    held = await admission.acquire(INTERACTIVE, 1)
    task = await waiting(admission, INTERACTIVE)
    admission.release(held)
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
    admission.release(held)
    await person
    assert (admission.running, admission.queued) == (1, 0)
