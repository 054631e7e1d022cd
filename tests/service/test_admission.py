"""Which requests get a slot, wait, or are refused. The tests set the clock."""

import pytest

from doherty_service._errors import DeadlinePassedError, OverloadedError, UnavailableError
from doherty_service.admission import Priority
from support.admission import PER_TOKEN, AdmissionLab, Clock, error_of, has_slot, request


async def test_no_more_requests_run_than_there_are_slots(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=2)
    first, _ = lab.fill()
    third = lab.enter(request(size=7))
    assert (lab.admission.running, lab.admission.queued, lab.admission.queued_bytes) == (2, 1, 7)
    lab.end(first)
    assert has_slot(third)
    assert (lab.admission.running, lab.admission.queued, lab.admission.queued_bytes) == (2, 0, 0)


async def test_a_single_key_gets_all_slots(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=8)
    lab.fill(key="a")
    assert lab.admission.running == 8


@pytest.mark.parametrize(("whole", "needed"), [(True, 3.0 + 2.0), (False, 3.0 + PER_TOKEN)])
async def test_a_request_that_would_miss_its_deadline_is_refused_immediately(
    clock: Clock,
    whole: bool,  # noqa: FBT001 - a parameter of the test
    needed: float,
) -> None:
    lab = AdmissionLab(clock, slots=2)
    lab.learn(400)
    tickets = lab.fill()
    lab.pass_time(5, *tickets)  # both slots become free in 3 seconds
    refusal = lab.refused(request(deadline=clock.now + needed * 0.9, whole=whole, max_tokens=100))
    assert refusal.reason == "DEADLINE_TOO_SHORT"
    assert refusal.retry_after is not None
    lab.enter(request(deadline=clock.now + needed * 2.1, whole=whole, max_tokens=100))
    assert lab.refusals == {"DEADLINE_TOO_SHORT": 1}


async def test_answers_that_were_cut_off_make_the_estimate_longer(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(50)
    running = lab.fill()
    lab.pass_time(0.5, *running)
    ask = {"whole": True, "max_tokens": 1000}
    lab.admission.leave(lab.enter(request(deadline=clock.now + 2.5, **ask)))
    lab.end(running[0], ended=False)
    lab.learn(100, ended=False)  # each answer had its slot for two seconds, and was not complete
    running = lab.fill()
    lab.pass_time(0.5, *running)
    assert lab.refused(request(deadline=clock.now + 2.5, **ask)).reason == "DEADLINE_TOO_SHORT"


async def test_an_answer_longer_than_all_samples_is_expected_to_continue(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(50)
    running = lab.fill(max_tokens=1000)
    lab.pass_time(3, *running)
    assert lab.refused(request(deadline=clock.now + 2)).reason == "DEADLINE_TOO_SHORT"


async def test_a_cold_server_uses_max_output_tokens(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=4)
    running = lab.fill(max_tokens=100)
    lab.pass_time(1, *running)  # half of the maximum length of their answers
    ask = {"whole": True, "max_tokens": 100}
    assert lab.refused(request(deadline=clock.now + 2.1, **ask)).reason == "DEADLINE_TOO_SHORT"
    lab.enter(request(deadline=clock.now + 4, **ask))


async def test_a_slot_is_not_given_to_a_request_that_is_too_late(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
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
    """At the time limit, the answer ends with the part that exists."""
    lab = AdmissionLab(clock, slots=1)
    lab.learn(500)
    lab.fill()
    lab.enter(request(ends_at=clock.now + 1, deadline=clock.now + 2, whole=True))
    assert not lab.refusals


async def test_an_idle_server_never_refuses(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=4, seconds=0)
    lab.learn(500, ended=False)
    for _ in range(2):
        lab.enter(request(deadline=clock.now + 0.01, whole=True))
    assert lab.admission.running == 2
    assert not lab.refusals


async def test_a_busy_server_gives_no_slot_to_a_hopeless_request(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=4)
    lab.learn(500)
    for _ in range(3):
        lab.enter(request())
    assert lab.refused(request(deadline=clock.now + 1, whole=True)).is_pointless
    lab.enter(request(deadline=clock.now + 100, whole=True))
    assert lab.admission.running == 4


async def test_a_caller_that_stops_waiting_leaves_the_queue(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    (held,) = lab.fill()
    waiting = lab.enter(request())
    lab.admission.leave(waiting)
    assert lab.admission.queued == 0
    lab.end(held)
    assert lab.admission.running == 0


async def test_a_slot_for_a_caller_that_is_leaving_is_not_lost(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    (held,) = lab.fill()
    leaving, next_one = lab.enter(request()), lab.enter(request())
    lab.end(held)
    assert has_slot(leaving)
    lab.admission.leave(leaving)
    assert has_slot(next_one)


async def test_a_cancelled_waiting_request_is_skipped(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    (held,) = lab.fill()
    leaving, next_one = lab.enter(request()), lab.enter(request())
    assert leaving.admitted is not None
    leaving.admitted.cancel()
    lab.end(held)
    assert has_slot(next_one)
    lab.admission.leave(leaving)
    assert (lab.admission.running, lab.admission.queued) == (1, 0)


async def test_all_waiting_requests_can_be_ended(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    (held,) = lab.fill()
    waiting = [lab.enter(request(priority=priority)) for priority in Priority]
    leaving = lab.enter(request())
    assert leaving.admitted is not None
    leaving.admitted.cancel()
    lab.admission.fail_waiting(UnavailableError("DRAINED", "gone"))
    assert all(isinstance(error_of(ticket), UnavailableError) for ticket in waiting)
    lab.end(held)
    assert (lab.admission.running, lab.admission.queued) == (0, 0)


async def test_hopeless_requests_get_at_most_half_of_the_slots_plus_one(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=4)
    lab.learn(500)
    for _ in range(3):
        lab.enter(request(deadline=clock.now + 1, whole=True))
    lab.refused(request(deadline=clock.now + 1, whole=True))


async def test_a_retry_for_which_the_deadline_leaves_no_time_is_pointless(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(50)
    lab.fill()
    ask = {"whole": True, "max_tokens": 50}
    hopeless = lab.refused(request(deadline=clock.now + 1.5, **ask))
    later = lab.refused(request(deadline=clock.now + 2.5, **ask))
    assert (hopeless.is_pointless, later.is_pointless) == (True, False)
