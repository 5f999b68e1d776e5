"""Every text metric equals other people's program for it, on random pairs and on the awkward ones.

The quick tests take a few hundred pairs, the slow ones more than five thousand.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm_eval.metrics import get_metric
from heartllm_eval.metrics.bleu import HEARTLLM_WEIGHTS
from heartllm_eval.metrics.rouge import rouge_1_0_1
from heartllm_eval.schema import Prediction, Request

TOLERANCE = 1e-9
VOCABULARY = """sinus rhythm. normal ecg left right axis deviation t wave abnormal abnormality inferior infarct,
infarction possible old block. AV 1st degree Sinus bradycardia qrs prolonged prolongation - otherwise überleitung não
心電図 low voltage. atrial fibrillation fibrillations heart cardiac big large 0.12 s. ÉCG İ straße ΣΑΣ"""
WORDS = VOCABULARY.split()
AWKWARD = [
    ("", "sinus rhythm"),
    ("", ""),
    (" ", "sinus"),
    ("sinus", "sinus"),
    ("sinus", "rhythm"),
    ("sinus", "sinus rhythm normal ecg"),
    ("sinus rhythm normal ecg", "sinus"),
    ("sinus rhythm normal ecg", "sinus rhythm normal ecg"),
    ("ecg normal rhythm sinus", "sinus rhythm normal ecg"),
    ("Sinus rhythm.Normal ECG.", "Normal ECG.Sinus rhythm."),
    ("...", "sinus rhythm."),
    (". .", "a. b"),
    ("SINUS RHYTHM", "sinus rhythm"),
    ("心電図 正常", "心電図 正常 洞調律"),
    ("the the the the the the the", "the cat is on the mat"),
    ("a a b a b a", "b a a b a b"),
    ("x y z", "a b c"),
    ("a b c d e f", "a b c d"),
    ("a\u00a0b\u2003c\nd\te", "a b c d e"),
    ("it is big; the heart is big", "it is large, the hearts are large"),
]


def _text(generator: random.Random, least: int, most: int) -> str:
    return " ".join(generator.choices(WORDS, k=generator.randint(least, most)))


def _pair(generator: random.Random) -> tuple[str, str]:
    reference = _text(generator, 1, 30)
    words = reference.split()
    match generator.randrange(8):
        case 0:
            return reference, reference
        case 1:
            generator.shuffle(words)
            return " ".join(words), reference
        case 2 | 3:  # words exchanged, as models write them
            for _ in range(generator.randint(1, 4)):
                words[generator.randrange(len(words))] = generator.choice(WORDS)
            return " ".join(words), reference
        case 4:
            return generator.choice(WORDS), reference
        case 5:
            return reference.replace(" ", "") if len(words) < 3 else reference.replace(". ", "."), reference.lower()
        case _:
            return _text(generator, 0, 30), reference


@cache
def corpus(count: int, long: int, seed: int = 1) -> tuple[tuple[str, str], ...]:
    """The awkward pairs, `long` pairs of several hundred words, and `count` random ones."""
    generator = random.Random(seed)
    lengthy = [(_text(generator, 300, 500), _text(generator, 200, 400)) for _ in range(long)]
    return (*AWKWARD, *lengthy, *(_pair(generator) for _ in range(count)))


@pytest.fixture(
    params=[
        pytest.param((400, 2), id="422 pairs"),
        pytest.param((5000, 12), id="5032 pairs", marks=pytest.mark.slow),
    ]
)
def pairs(request: pytest.FixtureRequest) -> Iterator[tuple[tuple[str, str], ...]]:
    depth = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)  # the rouge package recurses once for every word
    yield corpus(*request.param)
    sys.setrecursionlimit(depth)


def rows(name: str, pairs: tuple[tuple[str, str], ...]) -> np.ndarray:
    """Statistics by the metric `name`, all pairs at once."""
    requests = [Request("1", "report", references=(reference,)) for _, reference in pairs]
    return get_metric(name).matrix([Prediction("1", hypothesis) for hypothesis, _ in pairs], requests)


def check(ours: np.ndarray, theirs: list[tuple[float, ...]], pairs: tuple[tuple[str, str], ...]) -> None:
    assert (ours[:, -1] == 1).all()
    far = np.abs(ours[:, :-1] - np.array(theirs)).max(axis=1)
    worst = int(far.argmax())
    assert far[worst] <= TOLERANCE, (far[worst], pairs[worst])


def test_sentence_bleu_is_nltks(pairs: tuple[tuple[str, str], ...]) -> None:
    bleu = pytest.importorskip("nltk.translate.bleu_score")
    smooth = bleu.SmoothingFunction().method1
    theirs = [
        tuple(
            bleu.sentence_bleu([reference.split()], hypothesis.split(), weights=weights, smoothing_function=smooth)
            for weights in HEARTLLM_WEIGHTS
        )
        for hypothesis, reference in pairs
    ]
    check(rows("bleu.heartllm", pairs), theirs, pairs)


@pytest.mark.usefixtures("wordnet")
@pytest.mark.parametrize("profile", ["heartllm", "standard"])
def test_meteor_is_nltks(pairs: tuple[tuple[str, str], ...], profile: str) -> None:
    from nltk.translate.meteor_score import meteor_score

    get_metric.cache_clear()
    metric: Any = get_metric(f"meteor.{profile}")
    assert metric.name == f"meteor.{profile}"
    wordnet = metric._wordnet._corpus
    tokens = str.split if profile == "heartllm" else metric.tokenise
    theirs = [
        (meteor_score([tokens(reference)], tokens(hypothesis), wordnet=wordnet),) for hypothesis, reference in pairs
    ]
    check(rows(f"meteor.{profile}", pairs), theirs, pairs)


def test_rouge_is_that_of_the_rouge_package(pairs: tuple[tuple[str, str], ...]) -> None:
    package = pytest.importorskip("rouge").Rouge()
    theirs = []
    for hypothesis, reference in pairs:
        if any(hypothesis.split(".")) and any(reference.split(".")):
            found = package.get_scores(hypothesis, reference)[0]
            theirs.append(tuple(found[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l")))
        else:
            theirs.append((0.0, 0.0, 0.0))  # where the package raises ValueError
    check(rows("rouge.heartllm", pairs), theirs, pairs)


@given(st.text("ab .", max_size=14), st.text("ab .", max_size=14))
def test_rouge_is_that_of_the_rouge_package_on_odd_spaces_and_periods(hypothesis: str, reference: str) -> None:
    package = pytest.importorskip("rouge").Rouge()
    try:
        theirs = package.get_scores(hypothesis, reference)[0]
        expected = [theirs[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l")]
    except ValueError:
        expected = [0.0, 0.0, 0.0]
    assert rouge_1_0_1([hypothesis], [reference])[0] == pytest.approx(expected, abs=TOLERANCE)


def test_standard_rouge_is_rouge_scores(pairs: tuple[tuple[str, str], ...]) -> None:
    names = ["rouge1", "rouge2", "rougeL"]
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(names)
    theirs = []
    for hypothesis, reference in pairs:
        found = scorer.score(reference, hypothesis)
        theirs.append(tuple(found[name].fmeasure for name in names))
    check(rows("rouge.standard", pairs), theirs, pairs)


@pytest.mark.parametrize("lower", [False, True])
def test_corpus_bleu_is_sacrebleus(pairs: tuple[tuple[str, str], ...], lower: bool) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    metric = get_metric("bleu.standard-lower" if lower else "bleu.standard")
    found = rows(metric.name, pairs)
    scorer = sacrebleu.metrics.BLEU(effective_order=True, lowercase=lower)
    for row, (hypothesis, reference) in zip(found, pairs, strict=True):
        theirs = scorer.sentence_score(hypothesis, [reference])
        assert row.tolist() == [*theirs.counts, *theirs.totals, theirs.sys_len, theirs.ref_len], (hypothesis, reference)
    edges = (slice(None), slice(0, 1), slice(4, 5), slice(16, 17), slice(0, len(AWKWARD)))
    for part in edges:
        ours = metric.score(found[part].sum(axis=0))
        hypotheses, references = zip(*pairs[part], strict=True)
        for order in range(1, 5):
            corpus_bleu = sacrebleu.metrics.BLEU(max_ngram_order=order, lowercase=lower)
            theirs = corpus_bleu.corpus_score(list(hypotheses), [list(references)]).score
            assert ours[order - 1] == pytest.approx(theirs, abs=TOLERANCE)


@pytest.mark.usefixtures("wordnet")
def test_several_references_are_those_of_the_packages() -> None:
    from nltk.translate.meteor_score import meteor_score

    bleu = pytest.importorskip("nltk.translate.bleu_score")
    sacrebleu = pytest.importorskip("sacrebleu").metrics.BLEU(effective_order=True)
    get_metric.cache_clear()
    smooth, source = bleu.SmoothingFunction().method1, corpus(400, 2)
    wordnet = get_metric("meteor.heartllm")._wordnet._corpus  # type: ignore[attr-defined]
    for (hypothesis, first), (second, third) in zip(source[22:140], source[140:258], strict=True):
        references = (first, second, third)
        request = Request("1", "report", references=references)
        tokens = [text.split() for text in references]
        for value, weights in zip(
            get_metric("bleu.heartllm").statistics(hypothesis, request), HEARTLLM_WEIGHTS, strict=False
        ):
            theirs = bleu.sentence_bleu(tokens, hypothesis.split(), weights=weights, smoothing_function=smooth)
            assert value == pytest.approx(theirs, abs=TOLERANCE)
        found = sacrebleu.sentence_score(hypothesis, list(references))
        expected = [*found.counts, *found.totals, found.sys_len, found.ref_len]
        assert list(get_metric("bleu.standard").statistics(hypothesis, request)) == expected
        meteor = get_metric("meteor.heartllm").statistics(hypothesis, request)[0]
        assert meteor == pytest.approx(meteor_score(tokens, hypothesis.split(), wordnet=wordnet), abs=TOLERANCE)
        rouge = get_metric("rouge.heartllm")
        alone = [rouge.statistics(hypothesis, Request("1", "report", references=(text,))) for text in references]
        assert rouge.statistics(hypothesis, request) == tuple(map(max, zip(*alone, strict=True)))


@pytest.mark.slow
def test_endless_texts_are_scored_like_others() -> None:
    """A model that never stops: 100,000 words against 200, and 3,000 against 3,000."""
    generator = random.Random(3)
    reference = _text(generator, 200, 200)
    endless = _text(generator, 100_000, 100_000)
    pair = ((endless, reference),)
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2"])
    theirs = scorer.score(reference, endless)
    assert rows("rouge.standard", pair)[0, :2] == pytest.approx(
        [theirs[name].fmeasure for name in theirs], abs=TOLERANCE
    )
    for name in ("bleu.heartllm", "bleu.standard", "meteor.heartllm", "rouge.heartllm"):
        assert np.isfinite(rows(name, pair)).all()
    both = ((_text(generator, 3000, 3000), _text(generator, 3000, 3000)),)
    bleu = pytest.importorskip("nltk.translate.bleu_score")
    expected = bleu.sentence_bleu([both[0][1].split()], both[0][0].split())
    assert rows("bleu.heartllm", both)[0, 3] == pytest.approx(expected, abs=TOLERANCE)
