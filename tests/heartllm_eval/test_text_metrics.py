"""What text metrics do beside the formulas (`test_metric_parity.py`): forms, names, signatures, sums of statistics."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from heartllm.errors import UsageError
from heartllm_eval.metrics import METRICS, TEXT_METRICS, get_metric, kinds_of, score
from heartllm_eval.metrics.forms import FORMS, TextForm
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.scoring import load_metrics

PAIRS = [
    ("Sinus rhythm.Normal ECG.", "sinus rhythm. normal ecg"),
    ("", "sinus rhythm"),
    ("sinus rhythm normal ecg", "sinus rhythm normal ecg"),
    ("left axis deviation", "left axis deviation, otherwise normal ecg"),
    *((f"pr {index} ms. possible old infarct", f"pr {index % 3} ms possible inferior infarct.") for index in range(40)),
]


def request(*references: str) -> Request:
    return Request("1", "report", references=references)


@pytest.fixture
def fresh_metrics() -> Iterator[None]:
    get_metric.cache_clear()
    yield None
    from heartllm_eval.metrics.wordnet import load_wordnet

    get_metric.cache_clear()
    load_wordnet.cache_clear()


@pytest.mark.usefixtures("fresh_metrics")
def test_meteor_without_wordnet_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    from heartllm_eval.metrics import wordnet

    monkeypatch.setattr(wordnet, "_user_corpus", lambda: None)
    monkeypatch.setenv("HEARTLLM_CACHE", str(tmp_path))
    wordnet.load_wordnet.cache_clear()
    metric = get_metric("meteor.standard")
    assert metric.name == "meteor-nowordnet.standard"
    assert str(metric.signature).startswith("metric:meteor-nowordnet|")
    assert "wordnet:none" in str(metric.signature)
    assert metric.statistics("Sinus rhythm.", request("sinus rhythm ."))[0] > 0.9
    told: list[str] = []
    load_metrics(["bleu.heartllm"], told.append)
    assert not told
    load_metrics(["bleu.heartllm", "meteor.heartllm-lower"], told.append)
    assert "fetch-wordnet" in told[0]


REPORT_METRICS = ["bleu.heartllm", "bleu.standard", "rouge.heartllm", "rouge.standard"]


@pytest.mark.parametrize("name", REPORT_METRICS)
def test_the_score_of_one_sample_is_that_of_its_statistics(name: str) -> None:
    metric = get_metric(name)
    statistics = metric.statistics("sinus rhythm normal ecg", request("sinus rhythm normal ecg"))
    assert len(statistics) > len(metric.figures)
    scores = metric.sample_scores(statistics)
    assert list(scores) == [f"{name}/{figure}" for figure in metric.figures]
    assert scores[f"{name}/{metric.figures[0]}"] == pytest.approx(100.0, abs=1e-5)


@pytest.mark.parametrize("name", REPORT_METRICS)
def test_scores_of_many_sums_at_once_are_those_one_by_one(name: str) -> None:
    metric = get_metric(name)
    rows = np.array([metric.statistics(hypothesis, request(reference)) for hypothesis, reference in PAIRS])
    sums = np.stack([rows[:5].sum(0), rows[5:30].sum(0), rows.sum(0)])
    together = metric.score(sums)
    for part, expected in zip(together, sums, strict=True):
        assert part == pytest.approx(metric.score(expected))


def test_signatures_name_everything(wordnet: None) -> None:
    signatures = {name: str(get_metric(name).signature) for name in (*REPORT_METRICS, "exact_match.strict")}
    assert len(set(signatures.values())) == len(signatures)
    for text in signatures.values():
        assert text.startswith("metric:")
        assert "|version:" in text
    assert "sacrebleu:" in signatures["bleu.standard"]


def test_an_empty_text_scores_nothing() -> None:
    score: Callable[[str], float] = lambda name: get_metric(name).statistics("", request("sinus rhythm"))[0]  # noqa: E731
    assert [score(name) for name in ("bleu.heartllm", "rouge.heartllm", "rouge.standard")] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        (TextForm(), "Sinus rhythm.Normal  ECG.", "Sinus rhythm.Normal  ECG."),
        (TextForm(lower=True), "Sinus rhythm.Normal  ECG.", "sinus rhythm.normal  ecg."),
        (TextForm(periods=True), "Sinus rhythm.Normal  ECG.", "Sinus rhythm . Normal ECG ."),
        (TextForm(periods=True), "PR 0.22 s. QRS .12 s at 60.", "PR 0.22 s . QRS . 12 s at 60 ."),
        (TextForm(lower=True, periods=True), "A.B..c", "a . b . . c"),
        (TextForm(periods=True), "", ""),
    ],
)
def test_forms(form: TextForm, text: str, expected: str) -> None:
    assert form(text) == expected


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_every_report_metric_comes_in_four_forms_that_say_so(name: str) -> None:
    raw, clean = "Sinus rhythm.Normal ECG.", "sinus rhythm . normal ecg ."
    signatures = set()
    for form in FORMS:
        metric = get_metric(f"{name}{form.suffix}")
        assert metric.name.endswith(f".{name.partition('.')[2]}{form.suffix}")
        assert f"|input:{'lower' if form.lower else 'as-is'}|" in str(metric.signature)
        assert f"|periods:{'separate' if form.periods else 'as-is'}|" in str(metric.signature)
        signatures.add(str(metric.signature))
        applied = get_metric(name).statistics(form(raw), request(form(clean)))
        assert metric.statistics(raw, request(clean)) == applied
    assert len(signatures) == 4
    found = get_metric(f"{name}-lower-periods")
    assert found.sample_scores(found.statistics(raw, request(clean))) == pytest.approx(
        found.sample_scores(found.statistics(clean, request(clean)))
    )


def test_small_print_moves_a_score() -> None:
    pair = "Sinus rhythm.Normal ECG.", request("normal ecg. sinus rhythm.")
    plain, formed = (get_metric(name).statistics(*pair)[0] for name in ("bleu.heartllm", "bleu.heartllm-lower-periods"))
    assert plain == 0.0
    assert formed == 1.0


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_texts_scored_together_are_scored_as_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = get_metric(name)
    requests = [request(reference) for _, reference in PAIRS]
    predictions = [Prediction("1", hypothesis) for hypothesis, _ in PAIRS]
    together = metric.matrix(predictions, requests)
    alone = np.array([metric.of(*pair) for pair in zip(predictions, requests, strict=True)])
    assert np.array_equal(together, alone)
    monkeypatch.setattr("heartllm_eval.metrics.base.CHUNK", 7)
    assert np.array_equal(metric.matrix(predictions, requests), together)
    failed = metric.of(Prediction("1", "sinus rhythm", error="timeout"), requests[0])
    assert failed == metric.statistics("", requests[0])


def test_a_report_without_reference_is_not_counted() -> None:
    for name in TEXT_METRICS:
        assert get_metric(name).statistics("sinus rhythm", request())[-1] == 0.0


def test_three_lines_score_texts() -> None:
    import doctest

    import heartllm_eval.metrics as module

    found = doctest.testmod(module)
    assert found.attempted >= 3
    assert found.failed == 0
    assert module.score("bleu.heartllm-lower", ["Sinus rhythm"], [["sinus rhythm"]])["bleu.heartllm-lower/bleu1"] == 100
    assert module.score("exact_match.official_llm", ["It is no."], [["no"]], options=[["no", "yes"]]) == {
        "exact_match.official_llm": 100.0
    }


def test_a_reference_may_be_one_text() -> None:
    assert score("exact_match.strict", ["Yes.", "no"], ["yes", "yes"]) == {"exact_match.strict": 50.0}
    assert score("rouge.standard", ["sinus rhythm"], ["sinus rhythm"])["rouge.standard/rougeL"] == 100.0
    for predictions, references, told in (
        ("yes", ["yes"], "one text where a list is needed"),
        (["yes"], "yes", "one text where a list is needed"),
        (["yes", "no"], [["yes"]], "2 predictions, 1 references and 1 lists of options"),
    ):
        with pytest.raises(UsageError, match=told):
            score("exact_match.strict", predictions, references)


def test_what_each_metric_is_for_is_known_without_loading_it() -> None:
    assert {name: kinds_of(name) for name in METRICS} == {name: get_metric(name).kind for name in METRICS}
    assert len(METRICS) >= 31


@pytest.mark.usefixtures("fresh_metrics")
def test_a_folder_scored_without_wordnet_is_scored_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from heartllm_eval import files
    from heartllm_eval.metrics import wordnet
    from heartllm_eval.scoring import Options

    monkeypatch.setattr(wordnet, "_user_corpus", lambda: None)
    monkeypatch.setenv("HEARTLLM_CACHE", str(tmp_path))
    wordnet.load_wordnet.cache_clear()
    asked, options = [request("sinus rhythm .")], Options(resamples=50)
    (tmp_path / "said.jsonl").write_text(json.dumps({"id": asked[0].id, "prediction": "sinus rhythm"}) + "\n")
    record = files.score_predictions(
        tmp_path / "said.jsonl", asked, name="reports", metrics=["meteor.standard"], options=options, verbosity=0
    )
    files.write(record, tmp_path / "out")
    files.write_answers(tmp_path / "out", "reports", asked, tmp_path / "said.jsonl")
    for _ in range(2):
        again = files.rescore(tmp_path / "out", options=options, verbosity=0)
        assert again.tasks["reports"]["primary"] == "meteor-nowordnet.standard"
        assert again.figures[0].value == record.figures[0].value
