"""Tests of two systems on the same samples, against independent formulas and other people's programs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartllm_eval import statistics as stats
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.scoring import Options, correct_for_many, evaluate, load_metrics, score_system

scipy_stats = pytest.importorskip("scipy.stats")


def test_mcnemar_by_hand() -> None:
    # 21 and 9 discordant pairs: the exact two-sided p is 2 * sum_{k<=9} C(30, k) / 2^30.
    p, ours, theirs = stats.mcnemar([True] * 21 + [False] * 9 + [True] * 40, [False] * 21 + [True] * 9 + [True] * 40)
    assert (ours, theirs) == (21, 9)
    assert p == pytest.approx(2 * sum(math.comb(30, k) for k in range(10)) / 2**30, rel=1e-12)
    assert p == pytest.approx(2 * scipy_stats.binom.cdf(9, 30, 0.5), rel=1e-12)


def closed_testing(values: list[float]) -> list[float]:
    """Holm's p by its definition as a closed test: the largest Bonferroni p of all families that hold a hypothesis."""
    count = len(values)
    families = [f for size in range(1, count + 1) for f in itertools.combinations(range(count), size)]
    return [
        max(min(1.0, len(family) * min(values[i] for i in family)) for family in families if index in family)
        for index in range(count)
    ]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_is_the_closed_bonferroni_test(values: list[float]) -> None:
    assert stats.holm(values) == pytest.approx(closed_testing(values), rel=1e-12)


def requests_of(answers: int, patients: int) -> list[Request]:
    return [
        Request(id=str(i), kind="qa", cluster=f"p{i % patients}", references=("yes",), options=("yes", "no"))
        for i in range(answers)
    ]


def said(requests: list[Request], right: np.ndarray) -> dict[str, Prediction]:
    return {
        request.id: Prediction(request.id, "yes" if on else "no") for request, on in zip(requests, right, strict=True)
    }


def test_the_paired_interval_is_scipys_bootstrap_of_the_patients_differences() -> None:
    generator = np.random.default_rng(7)
    requests = requests_of(900, 60)
    ours, theirs = generator.random(900) < 0.7, generator.random(900) < 0.62
    metrics = load_metrics(["exact_match.strict"])
    systems = [
        score_system(name, requests, said(requests, right), metrics) for name, right in (("a", ours), ("b", theirs))
    ]
    (found,) = evaluate(
        "t", requests, systems, metrics, compare="exact_match.strict", options=Options(resamples=20_000)
    ).differences
    patient = np.arange(900) % 60
    gain = np.bincount(patient, weights=ours.astype(float) - theirs)
    size = np.bincount(patient).astype(float)
    theirs_interval = scipy_stats.bootstrap(
        (gain, size),
        lambda g, n, axis=-1: 100 * g.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(8),
    ).confidence_interval
    assert found.value == pytest.approx(100 * (ours.mean() - theirs.mean()))
    assert found.low == pytest.approx(theirs_interval.low, abs=0.35)
    assert found.high == pytest.approx(theirs_interval.high, abs=0.35)
    # Swapping the two answers of a patient leaves their distribution alone if there is no difference (Fisher's test).
    permuted = scipy_stats.permutation_test(
        (gain / size, np.zeros(60)), lambda x, y, axis=-1: (x - y).mean(axis=axis), permutation_type="samples",
        n_resamples=20_000, vectorized=True, rng=np.random.default_rng(9),
    ).pvalue  # fmt: skip
    assert found.p_bootstrap == pytest.approx(permuted, abs=0.02)
    assert found.p_mcnemar == pytest.approx(
        scipy_stats.binomtest(int((ours & ~theirs).sum()), int((ours ^ theirs).sum())).pvalue, rel=1e-9
    )
    assert found.p == max(found.p_bootstrap or 0, found.p_mcnemar or 0)
    assert (found.model_value, found.control_value) == pytest.approx((100 * ours.mean(), 100 * theirs.mean()))


def test_few_patients_are_tested_by_sign_and_other_metrics_are_not() -> None:
    requests = requests_of(40, stats.MIN_CLUSTERS - 1)
    reports = [Request(id=r.id, kind="report", cluster=r.cluster, references=("sinus rhythm",)) for r in requests]
    right = np.arange(40) % 3 > 0
    found = []
    for asked, name in ((requests, "exact_match.strict"), (reports, "rouge.heartllm")):
        metrics = load_metrics([name])
        systems = [score_system(s, asked, said(asked, on), metrics) for s, on in (("a", right), ("b", ~right))]
        found += evaluate("t", asked, systems, metrics, compare=name, options=Options(resamples=200)).differences
    assert found[0].test == "mcnemar+sign"
    gains = np.bincount(np.arange(40) % 9, weights=right.astype(float) - ~right)
    sign = scipy_stats.binomtest(int((gains > 0).sum()), int((gains != 0).sum())).pvalue
    assert found[0].p == pytest.approx(max(sign, found[0].p_mcnemar or 0), rel=1e-9)
    assert all(part.p is None and part.low is None for part in found[1:])
    corrected = correct_for_many(found)
    assert corrected[0].p_holm == corrected[0].p  # a comparison that was not tested costs nothing
    assert all(part.p_holm is None for part in corrected[1:])


def test_the_same_answers_have_no_interval_and_p_1() -> None:
    requests = requests_of(200, 50)
    right = np.arange(200) % 3 > 0
    names = ["exact_match.strict", "exact_match.option_restricted"]
    metrics = load_metrics(names)
    systems = [score_system(name, requests, said(requests, right), metrics) for name in ("a", "b")]
    same, unknown = evaluate("t", requests, systems, metrics, compare=names, options=Options(resamples=200)).differences
    assert (same.value, same.low, same.high, same.p, same.only_model) == (0.0, None, None, 1.0, 0)
    # No answer has likelihoods: nothing was ranked, and nothing is tested.
    assert (unknown.value, unknown.p, unknown.p_mcnemar, unknown.only_model, unknown.n) == (None, None, None, None, 0)


def false_alarms(patients: int, each: int, alike: float) -> tuple[float, float]:
    """How often p < 0.05 where two systems are equally good: McNemar's test, and the larger of the two p."""
    generator = np.random.default_rng(11)
    weights = generator.multinomial(patients, np.full(patients, 1 / patients), size=400).astype(float)
    a, b = 0.6 * (1 - alike) / alike, 0.4 * (1 - alike) / alike
    alone, both = [], []
    for _ in range(200):
        rates = generator.beta(a, b, size=(2, patients, 1))
        ours, theirs = generator.random((2, patients, each)) < rates
        p = stats.binomial_two_sided(int((ours & ~theirs).sum()), int((ours ^ theirs).sum()))
        gain = (ours.astype(float) - theirs).mean(axis=1)
        alone.append(p)
        both.append(max(p, stats.paired_bootstrap_p(float(gain.mean()), weights @ gain / patients)))
    return float(np.mean(np.array(alone) < 0.05)), float(np.mean(np.array(both) < 0.05))


def test_why_mcnemars_test_is_not_believed_alone() -> None:
    alone, both = false_alarms(patients=60, each=12, alike=0.1)
    assert alone > 0.12  # it takes twelve questions about one patient as twelve patients
    assert both < 0.1
    alone, both = false_alarms(patients=60, each=1, alike=0.1)
    assert alone < 0.08
    assert both < 0.08


def test_few_patients_with_many_answers_each_raise_no_false_alarm() -> None:
    generator = np.random.default_rng(3)
    rows = np.repeat(np.arange(6), 30)
    alone, both = [], []
    for _ in range(300):
        rates = np.clip(0.6 + generator.normal(0, 0.2, (2, 6)), 0, 1)[:, rows]
        ours, theirs = generator.random((2, 180)) < rates
        alone.append(stats.mcnemar(ours.tolist(), theirs.tolist())[0])
        both.append(max(alone[-1], stats.sign_test(ours.astype(float) - theirs, rows)))
    assert np.mean(np.array(alone) < 0.05) > 0.2  # six patients are not 180
    assert np.mean(np.array(both) < 0.05) < 0.06


def test_a_control_that_ranks_nothing_is_not_beaten() -> None:
    requests = requests_of(60, 30)
    metrics = load_metrics(["exact_match.option_restricted"])
    ranked = {r.id: Prediction(r.id, "yes", None, {"yes": -0.1, "no": -3.0}) for r in requests}
    systems = [
        score_system("model", requests, ranked, metrics),
        score_system("majority", requests, {r.id: Prediction(r.id, "yes") for r in requests}, metrics),
    ]
    (found,) = evaluate("t", requests, systems, metrics, compare=metrics[0].name).differences
    assert (found.model_value, found.control_value) == (100.0, None)
    assert (found.value, found.p, found.p_mcnemar, found.only_model) == (None, None, None, None)


def test_a_difference_that_no_resample_moves_has_no_interval() -> None:
    requests = requests_of(24, 12)
    metrics = load_metrics(["exact_match.strict"])
    systems = [
        score_system(name, requests, said(requests, np.full(24, on)), metrics)
        for name, on in (("a", True), ("b", False))
    ]
    options = Options(resamples=200)
    (found,) = evaluate("t", requests, systems, metrics, compare=metrics[0].name, options=options).differences
    assert (found.value, found.low, found.high) == (100.0, None, None)
    assert found.p is not None
    assert found.p < 0.01
