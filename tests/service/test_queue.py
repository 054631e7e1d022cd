"""The queue: the order in which requests get slots, and which requests are refused when it is full.

The tests set the clock.
"""

import sys
from collections import Counter

import pytest

from doherty_service._errors import OverloadedError
from doherty_service.admission import Ticket
from support.admission import BATCH, AdmissionLab, Clock, error_of, has_slot, request


async def order_of(
    lab: AdmissionLab, running: list[Ticket], waiting: dict[str, Ticket], each: float = 1.0
) -> list[str]:
    """Returns the order in which waiting requests get slots, if each request has its slot for `each` seconds."""
    order: list[str] = []
    while waiting:
        ticket = running.pop(0)
        lab.pass_time(each, ticket)
        lab.end(ticket)
        (name,) = [name for name, other in waiting.items() if has_slot(other)]
        order.append(name)
        running.append(waiting.pop(name))
    return order


async def test_requests_of_a_key_are_ordered_by_their_first_attempt(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    running = lab.fill()
    waiting = {"a": lab.enter(request())}
    clock.now += 1
    waiting["b"] = lab.enter(request())
    waiting["tried for half a second"] = lab.enter(request(tried_for=0.5))
    waiting["tried for long"] = lab.enter(request(tried_for=30.0))
    assert await order_of(lab, running, waiting) == ["tried for long", "a", "tried for half a second", "b"]


async def test_at_most_one_minute_of_claimed_waiting_counts(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    running = lab.fill()
    waiting = {"here for long": lab.enter(request())}
    clock.now += 70
    waiting["liar"] = lab.enter(request(tried_for=1e6))
    assert await order_of(lab, running, waiting) == ["here for long", "liar"]


async def test_slots_are_shared_among_keys_regardless_of_the_age_of_requests(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(50)
    running = lab.fill(key="flood")
    waiting = {f"flood {number}": lab.enter(request(key="flood", tried_for=50)) for number in range(4)}
    waiting |= {f"alice {number}": lab.enter(request(key="alice")) for number in range(2)}
    order = await order_of(lab, running, waiting)
    assert [name.split()[0] for name in order] == ["alice", "flood", "alice", "flood", "flood", "flood"]


async def test_keys_share_time_by_weight_not_by_number_of_answers(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(50)
    (running,) = lab.fill(key="heavy", weight=2.0)
    got: Counter[str] = Counter()
    seconds = {"heavy": 3.0, "light": 1.0}
    waiting = [lab.enter(request(key=key, weight=weight)) for key, weight in (("heavy", 2.0), ("light", 1.0)) * 200]
    for _ in range(200):
        lab.pass_time(seconds[running.key], running)
        got[running.key] += 1
        lab.end(running)
        (running,) = [ticket for ticket in waiting if has_slot(ticket)]
        waiting.remove(running)
    assert got["heavy"] * 3.0 / got["light"] == pytest.approx(2.0, rel=0.1)


async def test_a_key_that_had_less_than_its_share_gets_all_of_it_immediately(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=8)
    lab.learn(50)
    running = lab.fill(key="flood")
    for _ in range(8):  # by now, it has waited for all its time
        lab.enter(request(key="flood"))
    for ticket in running:
        lab.pass_time(1, ticket)
        lab.end(ticket)
    running = list(lab.pace._running)  # noqa: SLF001 - nothing else lists the owners of slots
    for _ in range(8):
        lab.enter(request(key="flood"))
    hers = [lab.enter(request(key="alice")) for _ in range(4)]
    for ticket in running[:4]:
        lab.pass_time(0.3, ticket)
        lab.end(ticket)
    assert all(map(has_slot, hers))


async def test_batch_requests_get_a_tenth_of_the_time(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(50)
    running = lab.fill()
    waiting = {f"person {number}": lab.enter(request()) for number in range(100)}
    waiting |= {f"batch {number}": lab.enter(request(priority=BATCH)) for number in range(100)}
    order = [name.split()[0] for name in await order_of(lab, running, waiting)]
    assert 8 <= order[:100].count("batch") <= 12
    assert 4 <= order[:50].count("batch") <= 6


async def test_requests_with_long_deadlines_do_not_block_short_ones(clock: Clock) -> None:
    """Requests of one key: a long line without deadlines, and a request whose deadline is a second away."""
    lab = AdmissionLab(clock, slots=1)
    lab.learn(10)
    running = lab.fill()
    waiting = {str(number): lab.enter(request()) for number in range(50)}
    waiting["urgent"] = lab.enter(request(deadline=clock.now + 1, whole=True, max_tokens=10))
    assert "urgent" in (await order_of(lab, running, waiting, 0.2))[:2]


async def test_the_queue_is_bounded_by_the_wait_of_its_last_request(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=2, seconds=5.0)
    lab.learn(50)
    running = lab.fill()
    lab.pass_time(0.5, *running)
    for _ in range(7):
        lab.enter(request())
    with pytest.raises(OverloadedError) as caught:  # noqa: PT012 - the estimate may differ by one or two
        for _ in range(4):
            lab.enter(request())
    assert caught.value.reason == "QUEUE_FULL"
    assert caught.value.retry_after == pytest.approx(2.5, abs=0.5)  # half of its wait
    lab.enter(request(key="another"))  # the lines of keys are separate


async def test_an_older_request_replaces_the_youngest(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1, seconds=3.0)
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
    lab = AdmissionLab(clock, slots=1, requests=4)
    lab.fill()
    flood = [lab.enter(request(key="flood")) for _ in range(3)]
    lab.enter(request(key="bob"))
    alice = lab.enter(request(key="alice"))
    assert isinstance(error_of(flood[-1]), OverloadedError)
    assert alice.waits
    assert lab.refused(request(key="flood")).reason == "QUEUE_FULL"
    assert lab.admission.queued == 4


async def test_batch_gives_way_first(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1, requests=2)
    lab.fill()
    older, younger = (lab.enter(request(priority=BATCH)) for _ in range(2))
    for batch in (younger, older):
        person = lab.enter(request())
        assert isinstance(error_of(batch), OverloadedError)
        assert person.waits
    lab.refused(request(priority=BATCH))
    lab.refused(request())


async def test_batch_keeps_its_share_of_the_queue(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1, requests=20)
    lab.fill()
    batch = [lab.enter(request(priority=BATCH)) for _ in range(20)]
    for _ in range(18):
        lab.enter(request())
    lab.refused(request())
    assert [ticket.waits for ticket in batch] == [True] * 2 + [False] * 18


async def test_the_queue_is_bounded_by_bytes_and_refuses_only_if_that_makes_room(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1, max_bytes=50)
    lab.fill()
    person, batch = lab.enter(request(size=30)), lab.enter(request(priority=BATCH, size=5))
    lab.refused(request(size=40))
    assert (person.waits, batch.waits) == (True, True)
    assert lab.admission.queued_bytes == 35


async def test_keys_without_requests_are_forgotten(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=2, requests=3)
    running = [lab.enter(request(key=f"runs {number}")) for number in range(2)]
    waiting = [lab.enter(request(key=f"waits {number}")) for number in range(3)]
    for number in range(50):
        lab.refused(request(key=f"late {number}"))
    for ticket in waiting:
        lab.admission.leave(ticket)
    for ticket in running:
        lab.end(ticket)
    assert not lab.admission._queue.all.children  # noqa: SLF001 - no public attribute shows it


async def test_the_cost_of_a_request_does_not_grow_with_the_queue(clock: Clock) -> None:
    """Counts calls of Python functions, because times would depend on the machine."""
    lab = AdmissionLab(clock, slots=8, requests=20_000, max_bytes=10**6)
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
    for number in range(2_000):
        lab.enter(request(key=str(number % 100), deadline=clock.now + 1e6))
    assert calls_of_one(1) < 4 * few


async def test_a_queue_is_full_at_its_limits_but_accepts_a_single_larger_request(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1, requests=3, max_bytes=50)
    lab.fill()
    large = lab.enter(request(size=80))
    lab.refused(request(size=1, key=""))
    lab.admission.leave(large)
    for size in (20, 20, 10):
        lab.enter(request(size=size))
    assert (lab.admission.queued, lab.admission.queued_bytes) == (3, 50)
    lab.refused(request(size=0))
    assert (lab.admission.queued, lab.admission.queued_bytes) == (3, 50)


async def test_a_key_may_use_a_part_of_the_queue_according_to_its_weight(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1, requests=6)
    lab.fill()
    heavy = [lab.enter(request(key="heavy", weight=3.0)) for _ in range(4)]
    light = [lab.enter(request(key="light")) for _ in range(2)]
    lab.enter(request(key="third"))
    assert all(ticket.waits for ticket in heavy)
    assert [ticket.waits for ticket in light] == [True, False]


async def test_a_key_is_expected_to_keep_more_than_its_fair_part(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=4)
    for key in ("few", "many", "many", "many"):
        lab.enter(request(key=key))
    waiting = [lab.enter(request(key=key)) for key in ("few", "many")]
    parts = [ticket.line.parent.part() for ticket in waiting if ticket.line.parent is not None]
    assert parts == [0.5, 0.75]


async def test_an_interactive_request_goes_before_earlier_batch_requests(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    running = lab.fill()
    waiting = {name: lab.enter(request(priority=BATCH)) for name in ("batch", "batch 2")}
    waiting["person"] = lab.enter(request())
    assert (await order_of(lab, running, waiting))[0] == "person"


async def test_more_batch_requests_do_not_delay_the_first(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(50)
    (running,) = lab.fill()
    batch = lab.enter(request(priority=BATCH))
    for _ in range(20):
        person = lab.enter(request())
        lab.enter(request(priority=BATCH))
        lab.pass_time(1, running)
        lab.end(running)
        if has_slot(batch):
            break
        running = person
    assert has_slot(batch)


async def test_a_batch_request_alone_gets_a_slot_immediately(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    assert has_slot(lab.enter(request(priority=BATCH)))


async def test_the_work_before_a_request_includes_that_of_other_keys(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(50)
    lab.fill(key="a")
    last = [lab.enter(request(key=key)) for key in "abbaa"][-1]
    work = lab.admission._queue.work_before(last)  # noqa: SLF001 - no public attribute shows it
    each = lab.pace.seconds(last.tokens)
    assert work == pytest.approx(2 / 1.0 * each)  # "a" has the slot, and therefore gets all of it
    last = lab.enter(request(key="b"))
    work = lab.admission._queue.work_before(last)  # noqa: SLF001 - as above
    assert work == pytest.approx(2 / 0.5 * each)


async def test_a_key_gets_no_compensation_for_time_without_requests(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(50)
    running = lab.fill(key="flood")
    await order_of(lab, running, {str(number): lab.enter(request(key="flood")) for number in range(15)})
    waiting = {f"{key} {number}": lab.enter(request(key=key)) for key in ("flood", "alice") for number in range(10)}
    order = [name.split()[0] for name in await order_of(lab, running, waiting)]
    assert 4 <= order[:10].count("alice") <= 6


async def test_both_requests_and_bytes_of_a_key_count_when_the_queue_is_full(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1, requests=10, max_bytes=100)
    lab.fill()
    large = [lab.enter(request(key="large", size=40)) for _ in range(2)]
    small = [lab.enter(request(key="small", size=1)) for _ in range(5)]
    lab.enter(request(key="other", size=30))
    assert [ticket.waits for ticket in large + small] == [True, False] + [True] * 5
    small += [lab.enter(request(key="small", size=1)) for _ in range(3)]
    lab.enter(request(key="last", size=0))
    assert large[0].waits
    assert [ticket.waits for ticket in small] == [True] * 7 + [False]
