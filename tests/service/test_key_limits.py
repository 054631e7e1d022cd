"""The limits of a key. The tests set the clock."""

import pytest

from doherty_service._errors import OverloadedError
from doherty_service.security import Limits
from doherty_service.security._usage import Usage


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refusal(usage: Usage, key: Limits) -> float:
    """Returns the seconds after which the server expects to have room again."""
    with pytest.raises(OverloadedError) as refused:
        usage.take(key)
    assert refused.value.reason == "KEY_LIMIT"
    assert refused.value.retry_after is not None
    return refused.value.retry_after


def test_the_requests_of_a_minute_may_come_together_and_later_ones_evenly() -> None:
    clock, key = Clock(), Limits(per_minute=60)
    usage = Usage("a", clock)
    for _ in range(60):
        usage.release(usage.take(key))
    assert refusal(usage, key) == pytest.approx(1)
    clock.now += 0.99
    refusal(usage, key)
    clock.now += 0.01
    usage.take(key)
    refusal(usage, key)
    clock.now += 60
    for _ in range(60):
        usage.take(key)
    refusal(usage, key)


def test_refused_requests_get_consecutive_retry_times() -> None:
    clock, key = Clock(), Limits(per_minute=60)
    usage = Usage("a", clock)
    for _ in range(60):
        usage.take(key)
    assert [refusal(usage, key) for _ in range(3)] == pytest.approx([1, 2, 3])
    assert max(refusal(usage, key) for _ in range(100)) <= 60


def test_a_retry_after_the_retry_delay_is_admitted() -> None:
    clock, key = Clock(), Limits(per_minute=600)
    usage = Usage("a", clock)
    for _ in range(600):
        usage.take(key)
    for wait in [refusal(usage, key) for _ in range(300)]:
        clock.now = 1000 + wait
        usage.take(key)


def test_concurrent_requests_count_until_they_end() -> None:
    clock, key = Clock(), Limits(max_concurrent=2)
    usage = Usage("a", clock)
    first, _ = usage.take(key), usage.take(key)
    assert refusal(usage, key) == pytest.approx(0.5)  # no request has ended yet, so the guess is a second
    clock.now += 4
    usage.release(first)
    usage.take(key)
    assert refusal(usage, key) == pytest.approx(2)  # requests take 4 seconds, and two of them run


def test_a_request_that_is_refused_is_not_charged() -> None:
    clock, key = Clock(), Limits(max_concurrent=1, per_minute=2)
    usage = Usage("a", clock)
    taken = usage.take(key)
    for _ in range(10):
        refusal(usage, key)
    usage.release(taken)
    usage.take(key)


def test_tokens_are_charged_when_they_are_used_and_a_debt_is_paid_off() -> None:
    clock, key = Clock(), Limits(tokens_per_minute=600)
    usage = Usage("a", clock)
    for _ in range(3):
        usage.take(key)  # no token is used yet
    usage.charge(500, key)
    usage.take(key)
    usage.charge(1000, key)  # more than the remaining tokens
    assert refusal(usage, key) == pytest.approx((1500 - 600 + 1) / 10)
    assert list(usage.shares(key)) == [("tokens_per_minute", 2.5)]
    clock.now += 90.1
    usage.take(key)
    clock.now += 60
    assert list(usage.shares(key)) == [("tokens_per_minute", 0)]


def test_a_new_limit_applies_immediately() -> None:
    clock = Clock()
    usage = Usage("a", clock)
    low = Limits(per_minute=60, tokens_per_minute=60)
    usage.take(low)
    usage.charge(6000, low)
    refusal(usage, low)
    high = Limits(per_minute=60, tokens_per_minute=60_000)
    usage.take(high)
    assert refusal(usage, Limits(max_concurrent=1)) > 0


def test_use_is_reported_for_limits_that_are_set() -> None:
    usage = Usage("a", Clock())
    usage.take(Limits(per_minute=4))
    limits = Limits(max_concurrent=2, per_minute=4, tokens_per_minute=100)
    usage.charge(25, limits)
    assert dict(usage.shares(limits)) == {"max_concurrent": 0.5, "per_minute": 0.25, "tokens_per_minute": 0.25}
    assert dict(usage.shares(Limits())) == {}
