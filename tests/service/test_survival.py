"""The Kaplan-Meier estimator."""

import pytest

from doherty_service.admission._survival import Sample, SurvivalCurve


def test_complete_samples_give_the_empirical_distribution() -> None:
    curve = SurvivalCurve([Sample(value, ended=True) for value in (10, 20, 20, 40)])
    assert [curve.share_within(value) for value in (-1, 0, 9, 10, 20, 39, 40, 99)] == [0, 0, 0, 0.25, 0.75, 0.75, 1, 1]
    assert [curve.quantile(share) for share in (0.2, 0.25, 0.5, 0.75, 0.9)] == [10, 10, 20, 20, 40]
    assert curve.mean(1000) == pytest.approx(22.5)
    assert curve.mean(15) == pytest.approx(10 + 5 * 0.75)  # every sample that reaches 15 ends there
    assert curve.quantile(0.5, beyond=20) == 40
    assert curve.quantile(0, beyond=15) == 15


def test_cut_off_samples_are_lower_bounds() -> None:
    """As in a textbook: of 4 samples that reached 10, one ended there; of 2 that reached 30, one."""
    samples = [Sample(10, ended=True), Sample(20, ended=False), Sample(30, ended=True), Sample(35, ended=False)]
    curve = SurvivalCurve(samples)
    assert curve.share_within(10) == pytest.approx(1 / 4)
    assert curve.share_within(30) == pytest.approx(1 - 3 / 4 / 2)
    assert curve.quantile(0.9) == 70  # nothing is known beyond 35


def test_a_quantile_that_is_a_whole_number_of_samples_is_the_last_of_them() -> None:
    """Rounding must not matter: after the first of ten samples, the curve has 0.09999999999999998."""
    curve = SurvivalCurve([Sample(value, ended=True) for value in range(1, 11)])
    assert [curve.quantile(count / 10) for count in range(1, 11)] == list(range(1, 11))
    assert [curve.quantile(count / 5, beyond=5) for count in range(1, 6)] == list(range(6, 11))


def test_a_sample_that_is_cut_off_at_the_end_of_another_counts_as_reaching_it() -> None:
    curve = SurvivalCurve([Sample(10, ended=False), Sample(10, ended=True), Sample(20, ended=True)])
    assert curve.share_within(10) == pytest.approx(1 / 3)
    assert curve.share_within(20) == 1


def test_a_weight_counts_like_that_many_samples() -> None:
    heavy = SurvivalCurve([Sample(10, ended=True, weight=3.0), Sample(20, ended=False), Sample(30, ended=True)])
    equal = SurvivalCurve([Sample(10, ended=True)] * 3 + [Sample(20, ended=False), Sample(30, ended=True)])
    assert heavy.share_within(10) == pytest.approx(equal.share_within(10))
    assert heavy.mean(25) == pytest.approx(equal.mean(25)) == pytest.approx(10 + 15 * 2 / 5)
