"""The Kaplan-Meier estimator."""

import pytest

from doherty_service.admission._survival import Sample, SurvivalCurve


def test_complete_samples_give_the_empirical_distribution() -> None:
    curve = SurvivalCurve([Sample(value, ended=True) for value in (10, 20, 20, 40)])
    assert [curve.share_within(value) for value in (0, 9, 10, 20, 39, 40, 99)] == [0, 0, 0.25, 0.75, 0.75, 1, 1]
    assert [curve.quantile(share) for share in (0.2, 0.5, 0.9)] == [10, 20, 40]
    assert curve.mean(1000) == pytest.approx(22.5)
    assert curve.mean(15) == pytest.approx(10 + 5 * 0.75)  # where what gets to 15 ends there
    assert curve.quantile(0.5, beyond=20) == 40


def test_cut_off_samples_are_lower_bounds() -> None:
    """The textbook's way: of 4 that got to 10 one ended there, of 2 that got to 30, one."""
    samples = [Sample(10, ended=True), Sample(20, ended=False), Sample(30, ended=True), Sample(35, ended=False)]
    curve = SurvivalCurve(samples)
    assert curve.share_within(10) == pytest.approx(1 / 4)
    assert curve.share_within(30) == pytest.approx(1 - 3 / 4 / 2)
    assert curve.quantile(0.9) == 70  # nothing is known beyond 35
