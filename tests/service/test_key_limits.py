"""How the limits of a key count, by a clock that the tests set."""

import pytest

from doherty_service._errors import OverloadedError
from doherty_service.security import ApiKey, new_key
from doherty_service.security._usage import Usage


class Clock:
    """Tells the seconds that a test has set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def limited(*, max_concurrent: int | None = None, per_minute: int | None = None) -> ApiKey:
    return new_key("a", adapters=None, max_concurrent=max_concurrent, per_minute=per_minute)[0]


def refusal(usage: Usage, key: ApiKey) -> float:
    """The seconds after which the server says that there is room again."""
    with pytest.raises(OverloadedError) as refused:
        usage.take(key)
    assert refused.value.reason == "KEY_LIMIT"
    assert refused.value.retry_after is not None
    return refused.value.retry_after


def test_a_minute_of_requests_may_come_at_once_and_then_evenly() -> None:
    clock, key = Clock(), limited(per_minute=60)
    usage = Usage(clock)
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


def test_those_who_are_refused_are_told_to_come_one_after_the_other() -> None:
    clock, key = Clock(), limited(per_minute=60)
    usage = Usage(clock)
    for _ in range(60):
        usage.take(key)
    assert [refusal(usage, key) for _ in range(3)] == pytest.approx([1, 2, 3])
    assert max(refusal(usage, key) for _ in range(100)) <= 60


def test_who_waits_as_long_as_told_is_let_in() -> None:
    clock, key = Clock(), limited(per_minute=600)
    usage = Usage(clock)
    for _ in range(600):
        usage.take(key)
    for wait in [refusal(usage, key) for _ in range(300)]:
        clock.now = 1000 + wait
        usage.take(key)


def test_requests_at_a_time_are_counted_while_they_last() -> None:
    clock, key = Clock(), limited(max_concurrent=2)
    usage = Usage(clock)
    first, _ = usage.take(key), usage.take(key)
    assert refusal(usage, key) == pytest.approx(0.5)  # nothing has ended yet, and a second is the guess
    clock.now += 4
    usage.release(first)
    usage.take(key)
    assert refusal(usage, key) == pytest.approx(2)  # requests take 4 seconds, and there are two of them


def test_a_request_that_is_refused_is_not_charged() -> None:
    clock, key = Clock(), limited(max_concurrent=1, per_minute=2)
    usage = Usage(clock)
    taken = usage.take(key)
    for _ in range(10):
        refusal(usage, key)
    usage.release(taken)
    usage.take(key)
