from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm_eval import binomial
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.scoring import Options, evaluate, load_metrics, score_system

scipy_stats = pytest.importorskip("scipy.stats")
special = pytest.importorskip("scipy.special")

SHAPES = st.floats(0.05, 3000)


@given(st.floats(0, 1), SHAPES, SHAPES)
def test_incomplete_beta_is_scipys(x: float, a: float, b: float) -> None:
    assert binomial.incomplete_beta(x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-9, abs=1e-12)


@given(st.floats(1e-4, 1 - 1e-4), st.floats(0.4, 3000), st.floats(0.4, 3000))
def test_beta_quantile_is_scipys(p: float, a: float, b: float) -> None:
    assert binomial.beta_quantile(p, a, b) == pytest.approx(special.betaincinv(a, b, p), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("degrees", [1, 2, 4, 9, 29, 1000])
@pytest.mark.parametrize("p", [0.75, 0.9, 0.975, 0.9995])
def test_t_quantile_is_scipys(p: float, degrees: int) -> None:
    assert binomial.t_quantile(p, degrees) == pytest.approx(scipy_stats.t.ppf(p, degrees), rel=1e-9)


@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_clopper_pearson_is_scipys(trials: int, share: float, confidence: float) -> None:
    successes = round(share * trials)
    low, high = binomial.clopper_pearson(successes, trials, confidence)
    expected = scipy_stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-8, abs=1e-10)


def test_clopper_pearson_by_hand() -> None:
    # No success in n trials: the upper bound is 1 - (a/2)^(1/n).
    assert binomial.clopper_pearson(0, 20, 0.95) == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)))
    with pytest.raises(ValueError, match="3 of 2"):
        binomial.clopper_pearson(3, 2, 0.95)


def test_one_answer_a_patient_is_the_plain_exact_interval() -> None:
    right = np.array([1.0] * 13 + [0.0] * 7)
    found = binomial.clustered_interval(right, np.ones(20), 0.95)
    expected = scipy_stats.binomtest(13, 20).proportion_ci(0.95, method="exact")
    assert found == pytest.approx((100 * expected.low, 100 * expected.high))


def test_effective_trials_by_hand() -> None:
    # Five patients of four answers each, all alike within a patient: three patients right, two wrong.
    right, count = np.array([4.0, 4.0, 4.0, 0.0, 0.0]), np.full(5, 4.0)
    # share 0.6; variance 5/4 * sum((r - 0.6 * 4)^2) / 20^2 = 5/4 * (3 * 1.6^2 + 2 * 2.4^2) / 400 = 0.06
    t = scipy_stats.t.ppf(0.975, 19) / scipy_stats.t.ppf(0.975, 4)
    assert binomial.effective_trials(right, count, 0.95) == pytest.approx(0.6 * 0.4 / 0.06 * t**2)
    # All right: as if each patient's answers were one.
    assert binomial.effective_trials(count, count, 0.95) == pytest.approx(5.0)
    assert binomial.clustered_interval(np.ones(1), np.ones(1), 0.95) is None


def clustered(patients: int, share: float, alike: float, repeats: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Right answers and answers (patients, repeats); `alike` is the intraclass correlation within a patient."""
    generator = np.random.default_rng(seed)
    count = generator.integers(1, 20, size=(patients, repeats))
    rate = generator.beta(share * (1 - alike) / alike, (1 - share) * (1 - alike) / alike, size=(patients, repeats))
    return generator.binomial(count, rate).astype(float), count.astype(float)


@pytest.mark.parametrize(
    ("patients", "share", "alike"), [(5, 0.6, 0.2), (12, 0.9, 0.1), (20, 0.6, 0.3), (40, 0.9, 0.1)]
)
def test_the_exact_interval_covers(patients: int, share: float, alike: float) -> None:
    right, count = clustered(patients, share, alike, 300, seed=1)
    found = [binomial.clustered_interval(right[:, i], count[:, i], 0.95) for i in range(right.shape[1])]
    covered = np.mean([pair is not None and pair[0] <= 100 * share <= pair[1] for pair in found])
    assert covered >= 0.92  # 300 repeats: two standard errors below 0.95 are 0.925


def bootstrap_coverage(patients: int, share: float, alike: float) -> float:
    right, count = clustered(patients, share, alike, 400, seed=2)
    generator = np.random.default_rng(3)
    weights = generator.multinomial(patients, np.full(patients, 1 / patients), size=1000).astype(float)
    low, high = np.quantile((weights @ right) / (weights @ count), [0.025, 0.975], axis=0)
    return float(np.mean((low <= share) & (share <= high)))


def test_the_bootstrap_covers_above_the_threshold_and_not_far_below_it() -> None:
    assert bootstrap_coverage(200, 0.6, 0.1) == pytest.approx(0.95, abs=0.025)
    assert bootstrap_coverage(binomial.EXACT_BELOW, 0.6, 0.1) > 0.9
    assert bootstrap_coverage(8, 0.9, 0.2) < 0.85  # why there is a threshold


def questions(patients: int, each: int) -> list[Request]:
    return [
        Request(id=f"{p}-{q}", kind="qa", cluster=f"p{p}", references=("yes",), options=("yes", "no"))
        for p in range(patients)
        for q in range(each)
    ]


@pytest.mark.parametrize(
    ("patients", "wrong", "method"),
    [
        (binomial.EXACT_BELOW - 1, 20, "clopper-pearson"),
        (binomial.EXACT_BELOW, 20, "bootstrap"),
        (binomial.EXACT_BELOW, binomial.RARE_BELOW - 1, "clopper-pearson"),
        (200, 0, "clopper-pearson"),
        (1, 0, "none"),
    ],
)
def test_a_figure_says_how_its_interval_was_made(patients: int, wrong: int, method: str) -> None:
    requests = questions(patients, 3)
    said = {
        request.id: Prediction(
            request.id, "no" if int(request.cluster[1:]) < wrong and request.id.endswith("-0") else "yes"
        )
        for request in requests
    }
    metrics = load_metrics(["exact_match.strict"])
    scored = score_system("model", requests, said, metrics)
    (figure,) = evaluate("t", requests, [scored], metrics, options=Options(resamples=200)).figures
    assert figure.interval == method
    assert (figure.low is None) == (method == "none")
    if figure.low is not None and figure.high is not None and figure.value is not None:
        assert figure.low < 100
        assert figure.low <= figure.value <= figure.high


def test_the_record_states_the_thresholds() -> None:
    said = Options(resamples=7).describe()
    assert said["resamples"] == 7
    assert said["exact_below_clusters"] == binomial.EXACT_BELOW
    assert "clopper-pearson" in str(said["exact_interval"])
