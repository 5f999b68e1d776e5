"""The clinical metrics: F1 of findings, the rule for doubt, critical misses; summed, resampled, signed."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm_eval.metrics import DEFAULT_METRICS, get_metric, score
from heartllm_eval.metrics.clinical import ClinicalScore, CriticalFindings, findings
from heartllm_eval.metrics.clinical.lexicon import bundled
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.statistics import bootstrap

STATED = {
    "SR": "sinus rhythm", "AFIB": "atrial fibrillation", "IMI": "inferior infarct", "ASMI": "anteroseptal infarct",
    "CLBBB": "lbbb", "LVH": "left ventricular hypertrophy", "3AVB": "complete heart block", "PACE": "paced",
    "PVC": "pvcs",
}  # fmt: skip


def report(*references: str) -> Request:
    return Request("1", "report", references=references)


def figures(name: str, predictions: list[str], references: list[str]) -> dict[str, float]:
    found = score(name, predictions, [[text] for text in references])
    return {key.partition("/")[2]: value for key, value in found.items()}


def write(codes: list[str]) -> str:
    return ". ".join(STATED[code] for code in codes)


def test_equals_scikit_learn_where_nothing_is_in_doubt() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    draw = random.Random(1)
    names = list(STATED)
    right = [draw.sample(names, draw.randint(1, 5)) for _ in range(200)]
    said = [draw.sample(names, draw.randint(0, 5)) for _ in range(200)]
    truth, answer = (np.array([[name in codes for name in names] for codes in rows]) for rows in (right, said))
    found = figures("clinical", list(map(write, said)), list(map(write, right)))
    options = {"zero_division": 0.0}
    assert found["f1"] == pytest.approx(100 * sklearn.f1_score(truth, answer, average="micro", **options))
    assert found["precision"] == pytest.approx(100 * sklearn.precision_score(truth, answer, average="micro", **options))
    assert found["recall"] == pytest.approx(100 * sklearn.recall_score(truth, answer, average="micro", **options))
    assert found["macro_f1"] == pytest.approx(100 * sklearn.f1_score(truth, answer, average="macro", **options))
    assert found["sample_f1"] == pytest.approx(100 * sklearn.f1_score(truth, answer, average="samples", **options))


@pytest.mark.parametrize(
    ("variant", "f1"),
    [("clinical", 2 * 1.5 / (2 + 1.5)), ("clinical.stated", 2 * 1 / (2 + 1)), ("clinical.mentioned", 1.0)],
)
def test_the_rule_for_doubt(variant: str, f1: float) -> None:
    found = figures(variant, ["sinus rhythm. inferior infarct"], ["sinus rhythm. possible inferior infarct"])
    assert found["f1"] == pytest.approx(100 * f1)


def test_doubt_in_both_is_agreement_and_denial_is_nothing() -> None:
    same = "possible inferior infarct, no lbbb"
    assert figures("clinical", [same], [same])["f1"] == 100.0
    assert figures("clinical", ["no lbbb"], ["sinus rhythm"])["f1"] == 0.0
    assert np.isnan(figures("clinical", ["no lbbb"], ["no lbbb"])["f1"])


def test_near_synonyms_agree_by_group_only() -> None:
    found = figures("clinical", ["inferolateral infarct"], ["inferior infarct"])
    assert (found["f1"], found["group_f1"]) == (0.0, 100.0)


def test_macro_is_over_findings_of_the_references() -> None:
    found = figures("clinical", ["sinus rhythm. lbbb. pvcs", "sinus rhythm"], ["sinus rhythm", "sinus rhythm. lvh"])
    assert found["macro_f1"] == pytest.approx((100.0 + 0.0) / 2)


def test_the_best_of_several_references_counts() -> None:
    metric = ClinicalScore()
    rows = np.array(metric.statistics("lbbb", report("sinus rhythm", "lbbb. sinus rhythm", "lbbb")))
    assert metric.score(rows)[-1] == 100.0
    assert metric.sample_scores(tuple(rows.tolist())) == {"clinical/sample_f1": 100.0}


def test_without_a_reference_nothing_is_scored() -> None:
    for metric in (ClinicalScore(), CriticalFindings()):
        row = metric.statistics("lbbb", report())
        assert not any(row)
        assert np.isnan(metric.score(np.array(row))).all()
        assert metric.sample_scores(row) == {}


@pytest.mark.parametrize(
    ("prediction", "reference", "missed", "false"),
    [
        ("sinus rhythm", "atrial fibrillation", 1, 0),
        ("possible atrial fibrillation", "atrial fibrillation", 0, 0),
        ("atrial flutter", "atrial fibrillation", 0, 0),
        ("no atrial fibrillation", "atrial fibrillation", 1, 0),
        ("atrial fibrillation", "sinus rhythm", 0, 1),
        ("possible atrial fibrillation", "no atrial fibrillation", 0, 1),
        ("sinus rhythm", "possible atrial fibrillation", 0, 0),
        ("atrial fibrillation", "possible atrial fibrillation", 0, 0),
        ("", "atrial fibrillation", 1, 0),
    ],
)
def test_critical_misses(prediction: str, reference: str, missed: int, false: int) -> None:
    found = figures("clinical.critical", [prediction], [reference])
    assert (found["af_missed_n"], found["af_false_n"]) == (missed, false)


def test_critical_counts_and_rates() -> None:
    predictions = ["vt", "sinus rhythm", "sinus rhythm", "complete heart block", "paced", "stemi"]
    references = ["vt", "vt", "sinus rhythm", "sinus rhythm", "paced", "anterior infarct"]
    found = figures("clinical.critical", predictions, references)
    assert (found["vt_missed_n"], found["vt_missed"]) == (1.0, 50.0)
    assert (found["complete_block_false_n"], found["complete_block_false"]) == (1.0, pytest.approx(100 / 6))
    assert (found["pacing_missed"], found["infarct_missed"], found["acute_infarct_false_n"]) == (0.0, 0.0, 1.0)
    assert np.isnan(found["complete_block_missed"])  # none is stated
    metric = CriticalFindings()
    row = metric.statistics("sinus rhythm", report("vt"))
    assert metric.sample_scores(row) == {"clinical.critical/vt_missed_n": 1.0}


def test_rates_are_shares_of_their_own_reports_with_exact_intervals() -> None:
    from heartllm_eval.scoring import Options, evaluate, score_system

    metric = get_metric("clinical.critical")
    requests = [
        Request(str(i), "report", cluster=str(i), references=("atrial fibrillation" if i < 3 else "sinus rhythm",))
        for i in range(20)
    ]
    predictions = {request.id: Prediction(request.id, "sinus rhythm") for request in requests}
    scored = score_system("model", requests, predictions, [metric])
    found = {
        figure.metric: figure for figure in evaluate("t", requests, [scored], [metric], options=Options(100)).figures
    }
    missed, false = found["clinical.critical/af_missed"], found["clinical.critical/af_false"]
    assert (missed.value, missed.n, missed.interval) == (100.0, 3, "clopper-pearson")
    assert missed.low == pytest.approx(100 * 0.025 ** (1 / 3))
    assert (false.value, false.n, false.low) == (0.0, 17, 0.0)
    assert false.high == pytest.approx(100 * (1 - 0.025 ** (1 / 17)))
    count = found["clinical.critical/af_missed_n"]
    assert (count.value, count.low, count.interval) == (3.0, None, "none")
    assert (found["clinical.critical/vt_missed"].value, found["clinical.critical/vt_missed"].n) == (None, 0)


codes = st.lists(st.sampled_from(sorted(STATED)), max_size=5).map(write)


@given(st.lists(st.tuples(codes, codes), min_size=1, max_size=8))
def test_the_score_is_that_of_the_summed_statistics(pairs: list[tuple[str, str]]) -> None:
    for name in ("clinical", "clinical.critical"):
        metric = get_metric(name)
        requests = [Request(str(i), "report", references=(right,)) for i, (_, right) in enumerate(pairs)]
        matrix = metric.matrix([Prediction(str(i), said) for i, (said, _) in enumerate(pairs)], requests)
        rows = [metric.statistics(said, request) for (said, _), request in zip(pairs, requests, strict=True)]
        np.testing.assert_array_equal(matrix, np.array(rows))
        stacked = np.stack([matrix.sum(axis=0), matrix[0]])
        np.testing.assert_allclose(metric.score(stacked)[0], metric.score(matrix.sum(axis=0)))
        assert metric.score(stacked).shape == (2, len(metric.figures))


@given(codes, codes)
def test_f1_is_symmetric_and_perfect_for_the_same_findings(one: str, two: str) -> None:
    forth, back = figures("clinical", [one], [two]), figures("clinical", [two], [one])
    assert forth["f1"] == pytest.approx(back["f1"], nan_ok=True)
    assert forth["precision"] == pytest.approx(back["recall"], nan_ok=True)
    if findings(one):
        assert figures("clinical", [one], [one])["f1"] == 100.0


def test_bootstraps_from_its_statistics() -> None:
    draw = random.Random(2)
    metric = get_metric("clinical")
    pairs = [(write(draw.sample(list(STATED), 3)), write(draw.sample(list(STATED), 3))) for _ in range(40)]
    matrix = np.array([metric.statistics(said, report(right)) for said, right in pairs])
    found = bootstrap(matrix, [str(index) for index in range(40)], metric.score, resamples=200)
    assert len(found) == len(metric.figures)
    assert all(part.low is not None and part.low <= part.value <= part.high for part in found[:1])  # type: ignore[operator]


def test_signatures_name_lexicon_and_rule() -> None:
    signature = str(get_metric("clinical").signature)
    assert f"lexicon:{bundled().version}-{bundled().digest}" in signature
    assert "uncertain:half" in signature
    assert "uncertain:as_stated" in str(get_metric("clinical.mentioned").signature)
    assert "uncertain:left_out" in str(get_metric("clinical.stated").signature)
    assert "variant:critical" in str(get_metric("clinical.critical").signature)


def test_reports_are_scored_clinically_by_default() -> None:
    assert {"clinical", "clinical.critical"} <= set(DEFAULT_METRICS["report"])


def test_needs_no_torch() -> None:
    code = (
        "import sys; from heartllm_eval.metrics import score; "
        "print(score('clinical', ['AF'], [['AF']])['clinical/f1'], 'torch' in sys.modules, 'nltk' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["100.0", "False", "False"]
