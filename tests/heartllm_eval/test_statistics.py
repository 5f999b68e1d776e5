from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm_eval import statistics as stats


def mean(totals: np.ndarray) -> np.ndarray:
    return totals[..., :1] / totals[..., 1:]


def clustered(seed: int = 3, clusters: int = 40) -> tuple[np.ndarray, list[str]]:
    generator = np.random.default_rng(seed)
    rows, names = [], []
    for cluster in range(clusters):
        rate = generator.uniform(0.2, 0.9)
        for _ in range(generator.integers(1, 9)):
            rows.append((float(generator.random() < rate), 1.0))
            names.append(f"p{cluster}")
    return np.array(rows), names


def by_cluster(rows: np.ndarray, names: list[str]) -> np.ndarray:
    return stats.sum_by_cluster(rows, stats.number_clusters(names), len(set(names)))


def test_sums_by_cluster() -> None:
    rows = np.array([[1.0, 2.0], [10.0, 0.5], [100.0, 0.0]])
    assert by_cluster(rows, ["b", "a", "b"]).tolist() == [[101.0, 2.0], [10.0, 0.5]]
    assert stats.bootstrap(rows, ["b", "a", "b"], mean, resamples=5)[0].value == pytest.approx(111 / 2.5)


def test_cluster_bootstrap_agrees_with_scipy() -> None:
    scipy = pytest.importorskip("scipy.stats")
    rows, names = clustered()
    ours = stats.bootstrap(rows, names, mean, resamples=20_000, seed=1)[0]
    totals = by_cluster(rows, names)
    theirs = scipy.bootstrap(
        (totals[:, 0], totals[:, 1]),
        lambda right, count, axis=-1: right.sum(axis=axis) / count.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert ours.value == pytest.approx(rows[:, 0].mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.004)
    assert ours.high == pytest.approx(theirs.high, abs=0.004)


def test_an_interval_by_patient_is_wider_than_one_by_question() -> None:
    rows = np.repeat(np.array([[1.0, 1.0], [0.0, 1.0]] * 10), 20, axis=0)
    names = [f"p{index // 20}" for index in range(len(rows))]
    by_patient = stats.bootstrap(rows, names, mean, resamples=2000)[0]
    by_question = stats.bootstrap(rows, [str(index) for index in range(len(rows))], mean, resamples=2000)[0]
    assert by_patient.low is not None
    assert by_patient.high is not None
    assert by_question.low is not None
    assert by_question.high is not None
    assert by_patient.high - by_patient.low > 3 * (by_question.high - by_question.low)


def test_few_patients_give_no_interval() -> None:
    rows, names = clustered(clusters=stats.MIN_CLUSTERS - 1)
    found = stats.bootstrap(rows, names, mean, resamples=100)[0]
    assert (found.low, found.high) == (None, None)
    assert 0 < found.value < 1


def test_draws_do_not_depend_on_what_is_summed_nor_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, names = clustered()
    totals = by_cluster(rows, names)
    draws = stats.Draws(len(totals), resamples=500, seed=7)
    alone = np.concatenate(list(draws.sums(totals[:, :1])))
    both = np.concatenate(list(draws.sums(totals)))
    assert np.array_equal(alone[:, 0], both[:, 0])
    monkeypatch.setattr(stats, "_CHUNK_CELLS", 40 * 13)
    monkeypatch.setattr(stats, "_KEPT_CELLS", 0)
    draws = stats.Draws(len(totals), resamples=500, seed=7)
    for _ in range(2):  # the second time they are drawn anew, since none are kept
        parts = list(draws.sums(totals))
        assert len(parts) > 30
        assert np.array_equal(np.concatenate(parts), both)


def test_every_resample_draws_as_many_clusters_as_there_are() -> None:
    drawn = np.concatenate(list(stats.Draws(17, resamples=200).sums(np.ones((17, 1)))))
    assert (drawn == 17).all()


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemars_p_is_scipys_binomial(only_ours: int, only_theirs: int) -> None:
    scipy = pytest.importorskip("scipy.stats")
    ours = [True] * only_ours + [False] * only_theirs + [True, False]
    theirs = [False] * only_ours + [True] * only_theirs + [True, False]
    p, first, second = stats.mcnemar(ours, theirs)
    assert (first, second) == (only_ours, only_theirs)
    trials = only_ours + only_theirs
    expected = scipy.binomtest(only_ours, trials, 0.5).pvalue if trials else 1.0
    assert p == pytest.approx(expected, rel=1e-9)


def test_exact_p_of_many_trials() -> None:
    scipy = pytest.importorskip("scipy.stats")
    assert stats.binomial_two_sided(20_400, 40_000) == pytest.approx(scipy.binomtest(20_400, 40_000).pvalue, rel=1e-7)


def test_holm() -> None:
    # Worked by hand: 0.01*4, then max(0.04, 0.02*3), max(0.06, 0.03*2), max(0.06, 0.04*1).
    assert stats.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    adjusted = stats.holm([0.5, math.nan, 0.9])
    assert adjusted[0] == pytest.approx(1.0)
    assert math.isnan(adjusted[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_and_keeps_order(values: list[float]) -> None:
    adjusted = stats.holm(values)
    assert all(a >= p and a <= 1 for a, p in zip(adjusted, values, strict=True))
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_paired_p_is_small_only_where_there_is_a_difference() -> None:
    generator = np.random.default_rng(5)
    draws = generator.normal(3.0, 1.0, 10_000)
    assert stats.paired_bootstrap_p(3.0, draws) == pytest.approx(0.0027, abs=0.0015)
    assert stats.paired_bootstrap_p(0.1, draws - 2.9) > 0.85
    assert math.isnan(stats.paired_bootstrap_p(math.nan, draws))
