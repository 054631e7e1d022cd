"""The borders of the histogram's buckets."""

import pytest

from doherty_service.telemetry._histogram import BOUNDS, Histogram

AROUND_BOUNDS = sorted(value for bound in BOUNDS for value in (bound * 0.999, bound, bound * 1.001))


@pytest.mark.parametrize("count", [1, len(BOUNDS), len(AROUND_BOUNDS)])
def test_each_bucket_includes_its_upper_bound(count: int) -> None:
    values = AROUND_BOUNDS[-count:]
    one_by_one, together = Histogram(), Histogram()
    for value in values:
        one_by_one.observe(value)
    together.observe_each(values)
    expected = [(bound, sum(value <= bound for value in values)) for bound in (*BOUNDS, float("inf"))]
    assert list(one_by_one.cumulative()) == list(together.cumulative()) == expected
    assert one_by_one.sum == pytest.approx(sum(values))
    assert together.sum == pytest.approx(sum(values))
