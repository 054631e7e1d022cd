"""The expected duration of answers, and the times at which slots become free. The tests set the clock."""

import asyncio

import pytest

from doherty_service.admission import Pace
from support.admission import PER_TOKEN, AdmissionLab, Clock, Progress, request


async def test_a_wait_is_the_rest_of_running_answers_and_the_queue_ahead(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(50)
    running = lab.fill()
    lab.pass_time(0.5, *running)
    lab.pace.update()
    waits = [lab.pace.wait(rank, 2.0) for rank in (0, 1, 2, 3, 20)]
    assert waits == pytest.approx([0.5, 2.5, 4.5, 6.5, 40.5], abs=0.1)


async def test_a_free_server_has_no_wait(clock: Clock) -> None:
    assert AdmissionLab(clock, slots=2).pace.wait(5, 1.0) == 0


async def test_one_long_answer_does_not_make_the_wait_long(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=2)
    lab.learn(50)
    long, _ = lab.fill(max_tokens=100_000)
    lab.pass_time(30, long)
    lab.pace.update()
    assert lab.pace.wait(4, 1.0) < 7


async def test_a_time_limit_up_to_the_deadline_makes_an_answer_certain(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(500)
    deadline = clock.now + 2
    chances = [
        lab.pace.chance(request(deadline=deadline, ends_at=ends_at, whole=True), 2.0)
        for ends_at in (deadline - 1, deadline, deadline + 1, None)
    ]
    assert chances[:2] == [1.0, 1.0]
    assert chances[2] == chances[3] < 0.1


async def test_an_answer_is_certain_if_there_is_time_for_its_maximum_length(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(500)
    ask = request(deadline=clock.now + 60, whole=True, max_tokens=100)
    enough = lab.pace.delay + 99 * lab.pace.per_token
    assert lab.pace.chance(ask, enough + 1e-6) == 1.0
    assert lab.pace.chance(ask, enough - 1e-6) < 0.1
    assert lab.pace.chance(ask, lab.pace.delay / 2) == 0.0
    assert lab.pace.needed(ask) == pytest.approx(100 * PER_TOKEN, rel=0.1)
    assert lab.pace.needed(request()) == lab.pace.delay == pytest.approx(PER_TOKEN)


async def test_a_short_answer_has_a_chance_although_most_prompts_take_too_long(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    for delay in (0.1, 20.0, 20.0, 20.0) * 10:
        lab.delay = delay
        lab.learn(2, count=1)
    lab.pace.update()
    assert lab.pace.delay == pytest.approx(20.0)
    short, long = (request(deadline=clock.now + 10, whole=True, max_tokens=most) for most in (3, 5000))
    assert lab.pace.chance(short, 10.0) == pytest.approx(0.25, abs=0.1)
    assert lab.pace.chance(long, 10.0) == 0.0


async def test_the_time_per_token_is_that_of_the_last_seconds(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(50)
    assert lab.pace.per_token == pytest.approx(PER_TOKEN)
    (ticket,) = lab.fill()
    lab.pass_time(0.5, ticket)
    lab.pace.update()
    assert isinstance(ticket.progress, Progress)
    after: list[float] = []
    for _ in range(20):
        clock.now += 1.0
        ticket.progress.output_tokens += 10
        ticket.progress.last_token = clock.now
        lab.pace.update()
        after.append(lab.pace.per_token)
    assert after[4] == pytest.approx(0.047, rel=0.1)  # 1/e of the earlier seconds and tokens still counts
    assert after[-1] == pytest.approx(0.1, rel=0.05)


async def test_callers_that_leave_early_do_not_displace_samples(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(50)
    lab.pace.update()
    known = lab.pace.lengths.mean(1000)
    lab.learn(3, count=100, ended=False)
    lab.pace.update()
    assert lab.pace.lengths.mean(1000) == pytest.approx(known)


async def test_streams_that_were_cut_off_before_their_first_token_count(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=2)
    for _ in range(40):
        ticket = lab.enter(request(deadline=clock.now + 5))
        clock.now += 5
        lab.admission.release(ticket, 0)
    clock.now += 1
    lab.fill()
    assert 5 < lab.pace.delay <= 10
    assert lab.refused(request(deadline=clock.now + 5)).reason == "DEADLINE_TOO_SHORT"


async def test_estimates_survive_a_restart_but_running_requests_do_not(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=4)
    lab.learn(50)
    lab.fill()
    pace = Pace(2, lab.pace)
    assert (pace.slots, pace.running) == (2, 0)
    assert pace.wait(0, 1.0) == 0
    assert pace.lengths.mean(1000) == pytest.approx(lab.pace.lengths.mean(1000), rel=0.2)


def test_a_new_server_has_assumptions(clock: Clock) -> None:
    pace = Pace(4)
    assert (pace.per_token, pace.delay, pace.lengths.quantile(0.5)) == (0.02, 0.2, 64)
    assert pace.chance(request(deadline=clock.now + 1), 0.1) == pytest.approx(2 / 6)
    assert pace.lengths.mean(16) == 16


async def test_measurements_outweigh_assumptions(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(50, count=3)
    lab.pace.update()
    assert lab.pace.lengths.share_within(50) - lab.pace.lengths.share_within(49) == pytest.approx(0.5)


async def test_estimates_are_updated_ten_times_a_second(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.fill()
    lengths = lab.pace.lengths
    clock.now += 0.09
    lab.pace.update()
    assert lab.pace.lengths is lengths
    clock.now += 0.02
    lab.pace.update()
    assert lab.pace.lengths is not lengths


async def updated(lab: AdmissionLab, lengths: object) -> None:
    """Waits until the estimates are updated."""
    async with asyncio.timeout(30):
        while lab.pace.lengths is lengths:  # noqa: ASYNC110 - the update is no event
            await asyncio.sleep(0.01)


async def test_the_first_request_after_a_pause_finds_current_estimates(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=2)
    lab.learn(50)
    lengths = lab.pace.lengths
    await updated(lab, lengths)
    lengths = lab.pace.lengths
    clock.now += 60
    lab.fill()
    assert lab.pace.lengths is lengths
    assert lengths.share_within(50) - lengths.share_within(49) > 0.9


async def timer_fired(lab: AdmissionLab) -> None:
    """Waits until the timer of the next update is another one."""
    timer = lab.admission._idle_update  # noqa: SLF001 - it has no other effect here
    async with asyncio.timeout(30):
        while lab.admission._idle_update is timer:  # noqa: ASYNC110, SLF001 - as above
            await asyncio.sleep(0.01)


async def test_the_estimates_are_updated_after_the_last_request_before_a_pause(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(50)
    ticket = lab.enter(request())
    lengths = lab.pace.lengths
    lab.pass_time(PER_TOKEN, ticket)
    lab.end(ticket)
    await timer_fired(lab)  # by the clock of the estimates, it is too early for an update
    assert lab.pace.lengths is lengths
    clock.now += 1
    await updated(lab, lengths)
    assert lab.pace.is_current


async def test_the_delay_is_the_median_of_the_last_ones(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    for delay in (1.0, 3.0):
        lab.delay = delay
        lab.learn(10, count=10 if delay == 1 else 11)
    lab.pace.update()
    assert lab.pace.delay == 1.0  # with the six initial values, which are below a second
    lab.learn(10, count=8)
    lab.pace.update()
    assert lab.pace.delay == 3.0


async def test_a_request_without_a_token_is_expected_to_get_its_first_after_the_delay(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.delay = 2.0
    lab.learn(50)
    (ticket,) = lab.fill()
    lab.pace.update()
    each = 50 * PER_TOKEN
    assert lab.pace.wait(0, 1.0) == pytest.approx(2.0 + each, abs=0.1)
    lab.pass_time(1.0, ticket)
    lab.pace.update()
    assert lab.pace.wait(0, 1.0) == pytest.approx(1.0 + each, abs=0.1)
    clock.now += 5  # it is late, and may get its first token now
    lab.pace.update()
    assert lab.pace.wait(0, 1.0) == pytest.approx(each, abs=0.1)


@pytest.mark.parametrize("limit", ["deadline", "ends_at"])
async def test_a_slot_is_expected_to_be_free_when_the_time_of_its_request_is_over(clock: Clock, limit: str) -> None:
    lab = AdmissionLab(clock, slots=1)
    lab.learn(500)
    lab.fill(**{limit: clock.now + 2})
    lab.pace.update()
    assert lab.pace.wait(0, 1.0) == pytest.approx(2.0)
    clock.now += 3  # it is over, but the engine has not reported it yet
    assert lab.pace.wait(0, 1.0) == 0.0
    assert lab.pace.wait(1, 5.0) == pytest.approx(4.0)


async def test_empty_answers_count_as_short_ones(clock: Clock) -> None:
    lab = AdmissionLab(clock, slots=1)
    for _ in range(40):
        lab.admission.release(lab.enter(request()), 0, ended=True)
    clock.now += 1
    lab.pace.update()
    assert lab.pace.lengths.quantile(0.5) == 1
    assert lab.pace.lengths.share_within(0) == 0
