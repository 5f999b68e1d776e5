"""Every text metric against other people's programs, on random pairs and on the awkward ones."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm_eval.metrics import get_metric
from heartllm_eval.metrics.bleu import HEARTLLM_WEIGHTS, sentence_bleu
from heartllm_eval.metrics.rouge import rouge_1_0_1
from heartllm_eval.schema import Request

WORDS = [
    "sinus",
    "rhythm.",
    "normal",
    "ecg",
    "left",
    "right",
    "axis",
    "deviation",
    "t",
    "wave",
    "abnormal",
    "inferior",
    "infarct,",
    "possible",
    "old",
    "block.",
    "AV",
    "1st",
    "degree",
    "Sinus",
    "bradycardia",
    "qrs",
    "prolonged",
    "-",
    "otherwise",
    "überleitung",
    "não",
    "心電図",
    "low",
    "voltage.",
    "atrial",
    "fibrillation",
]
AWKWARD = [
    ("", "sinus rhythm"),
    ("sinus", "sinus rhythm normal ecg"),
    ("sinus rhythm normal ecg", "sinus rhythm normal ecg"),
    ("ecg normal rhythm sinus", "sinus rhythm normal ecg"),
    ("Sinus rhythm.Normal ECG.", "Normal ECG.Sinus rhythm."),
    ("...", "sinus rhythm."),
    (". .", "a. b"),
    ("SINUS RHYTHM", "sinus rhythm"),
    ("心電図 正常", "心電図 正常 洞調律"),
    ("the the the the the the the", "the cat is on the mat"),
    ("sinus rhythm " * 120, "sinus rhythm normal ecg " * 60),
    ("x y z", "a b c"),
    ("a b c d e f", "a b c d"),
]


def random_pairs(count: int, seed: int = 1) -> list[tuple[str, str]]:
    generator = random.Random(seed)

    def text(least: int) -> str:
        return " ".join(generator.choices(WORDS, k=generator.randint(least, 25)))

    pairs = []
    for _ in range(count):
        reference = text(1)
        hypothesis = text(0)
        if generator.random() < 0.4:  # a reference with words exchanged, as models write them
            words = reference.split()
            words[generator.randrange(len(words))] = generator.choice(WORDS)
            hypothesis = " ".join(words)
        pairs.append((hypothesis, reference))
    return pairs


PAIRS = [*AWKWARD, *random_pairs(600)]


def request(*references: str) -> Request:
    return Request("1", "report", references=references)


def test_sentence_bleu_is_nltks() -> None:
    bleu = pytest.importorskip("nltk.translate.bleu_score")
    smooth = bleu.SmoothingFunction().method1
    for hypothesis, reference in PAIRS:
        ours = sentence_bleu([reference.split()], hypothesis.split())
        for value, weights in zip(ours, HEARTLLM_WEIGHTS, strict=True):
            theirs = bleu.sentence_bleu(
                [reference.split()], hypothesis.split(), weights=weights, smoothing_function=smooth
            )
            assert value == pytest.approx(theirs, abs=1e-12), (hypothesis, reference, weights)


def test_sentence_bleu_with_several_references_is_nltks() -> None:
    bleu = pytest.importorskip("nltk.translate.bleu_score")
    smooth = bleu.SmoothingFunction().method1
    for (hypothesis, first), (second, third) in zip(PAIRS[:150], PAIRS[150:300], strict=True):
        references = [text.split() for text in (first, second, third)]
        ours = sentence_bleu(references, hypothesis.split())
        for value, weights in zip(ours, HEARTLLM_WEIGHTS, strict=True):
            theirs = bleu.sentence_bleu(references, hypothesis.split(), weights=weights, smoothing_function=smooth)
            assert value == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(
    "pairs",
    [PAIRS, PAIRS[:1], PAIRS[1:2], PAIRS[11:12], AWKWARD],
    ids=["all", "empty", "one word", "nothing in common", "awkward"],
)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_corpus_bleu_is_sacrebleus(pairs: list[tuple[str, str]], order: int) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    metric = get_metric("bleu.standard")
    totals = np.sum([metric.statistics(hypothesis, request(reference)) for hypothesis, reference in pairs], axis=0)
    ours = metric.score(totals)[order - 1]
    hypotheses, references = zip(*pairs, strict=True)
    theirs = sacrebleu.metrics.BLEU(max_ngram_order=order).corpus_score(list(hypotheses), [list(references)]).score
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_corpus_bleu_of_nothing_is_no_number() -> None:
    metric = get_metric("bleu.standard")
    assert np.isnan(metric.score(np.zeros(10))).all()


def test_rouge_is_that_of_the_rouge_package() -> None:
    rouge = pytest.importorskip("rouge").Rouge()
    for hypothesis, reference in PAIRS:
        ours = rouge_1_0_1(hypothesis, reference)
        if not hypothesis.replace(".", ""):
            if not any(hypothesis.split(".")):
                assert ours == (0.0, 0.0, 0.0)  # the package raises ValueError
            continue
        theirs = rouge.get_scores(hypothesis, reference)[0]
        expected = tuple(theirs[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l"))
        assert ours == pytest.approx(expected, abs=1e-12), (hypothesis, reference)


@given(st.text("ab .", max_size=14), st.text("ab .", max_size=14))
def test_rouge_is_that_of_the_rouge_package_on_odd_spaces_and_periods(hypothesis: str, reference: str) -> None:
    package = pytest.importorskip("rouge").Rouge()
    try:
        theirs = package.get_scores(hypothesis, reference)[0]
        expected = tuple(theirs[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l"))
    except ValueError:
        expected = (0.0, 0.0, 0.0)
    assert rouge_1_0_1(hypothesis, reference) == pytest.approx(expected, abs=1e-12)


def test_standard_rouge_is_rouge_scores() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeL"])
    metric = get_metric("rouge.standard")
    for hypothesis, reference in PAIRS:
        theirs = scorer.score(reference, hypothesis)
        expected = [theirs[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")]
        assert metric.statistics(hypothesis, request(reference)) == pytest.approx([*expected, 1.0], abs=1e-12)


@pytest.fixture
def fresh_metrics() -> object:
    get_metric.cache_clear()
    yield None
    from heartllm_eval.metrics.wordnet import load_wordnet

    get_metric.cache_clear()
    load_wordnet.cache_clear()


@pytest.mark.usefixtures("wordnet", "fresh_metrics")
def test_meteor_with_wordnet_is_nltks_uncached() -> None:
    from nltk.stem.porter import PorterStemmer
    from nltk.translate.meteor_score import meteor_score

    metric = get_metric("meteor.heartllm")
    assert metric.name == "meteor.heartllm"
    assert "wordnet:3" in str(metric.signature)
    guide = "It is a guide to action which ensures that the military always obeys the commands of the party"
    action = "It is a guide to action that ensures that the military will forever heed Party commands"
    assert metric.statistics(guide, request(action))[0] == pytest.approx(0.6944, abs=5e-5)  # NLTK's documented value
    corpus = metric._wordnet._corpus  # type: ignore[attr-defined]
    for hypothesis, reference in [*AWKWARD[:10], *PAIRS[20:140]]:
        theirs = meteor_score([reference.split()], hypothesis.split(), stemmer=PorterStemmer(), wordnet=corpus)
        assert metric.statistics(hypothesis, request(reference))[0] == pytest.approx(theirs, abs=1e-12)


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
    rows = np.array([metric.statistics(hypothesis, request(reference)) for hypothesis, reference in PAIRS[:40]])
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
