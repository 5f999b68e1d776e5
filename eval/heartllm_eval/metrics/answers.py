"""What exact match hides: how much of a set of answers is right, label by label, and which answers are none.

"Questions with several answers" are all that are not answered by yes or no (`has_several_answers`); the answer "none"
is a label like any other, as it is a class in ECG-QA. Answers are read as `exact_match.strict` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from heartllm_eval.metrics.base import Array, MeanMetric, Metric, Signature, text_of
from heartllm_eval.metrics.exact_match import extract_options, normalise, parse_answers, reference_set
from heartllm_eval.metrics.option_ranking import has_several_answers
from heartllm_eval.schema import Prediction, Request


class Jaccard(MeanMetric):
    """|right and given| / |right or given|, averaged over the questions with several answers."""

    name = "jaccard.strict"
    kind = "qa"
    figures = ("jaccard",)

    @property
    def signature(self) -> Signature:
        return Signature(
            metric="jaccard", variant="strict", case="no", split="[;.newline]", on="several_answers", agg="mean"
        )

    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        if not has_several_answers(request):
            return 0.0, 0.0
        given, right = parse_answers(prediction), reference_set(request.references)
        return len(given & right) / len(given | right), 1.0


class LabelScores(Metric):
    """Precision, recall and F1 over labels on the questions with several answers, micro and macro.

    The labels are all options and right answers of the requests; whatever else is said is one more label, which only
    micro figures count (as a false alarm). Macro figures are means over the labels that were right or given at least
    once; a precision or recall without denominator is 0 (scikit-learn's `zero_division=0`).

    Macro figures have no interval: rare labels vanish from resamples, so that a 95 % interval held the truth in half of
    the cases.

    Statistics: for every label true positives, false positives and false negatives; then the false alarms outside the
    labels, and 1.
    """

    name = "labels.strict"
    kind = "qa"
    figures = ("micro_precision", "micro_recall", "micro_f1", "macro_precision", "macro_recall", "macro_f1")
    without_interval = frozenset(figures[3:])

    @property
    def signature(self) -> Signature:
        return Signature(
            metric="labels",
            variant="strict",
            case="no",
            split="[;.newline]",
            on="several_answers",
            macro="mean_over_occurring_labels",
            zero_division=0,
        )

    @staticmethod
    def labels(requests: Sequence[Request]) -> list[str]:
        """The labels of these requests, in alphabetical order."""
        asked = [request for request in requests if has_several_answers(request)]
        options = {normalise(option) for request in asked for option in request.options} - {""}
        return sorted(options.union(*(reference_set(request.references) for request in asked)))

    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        """Over the labels of this request alone; those of many requests are on common labels (`matrix`)."""
        return tuple(self.matrix([Prediction(request.id, prediction)], [request])[0].tolist())

    def matrix(self, predictions: Sequence[Prediction], requests: Sequence[Request]) -> Array:
        column = {label: 3 * index for index, label in enumerate(self.labels(requests))}
        found: Array = np.zeros((len(requests), 3 * len(column) + 2))
        for row, prediction, request in zip(found, predictions, requests, strict=True):
            if not has_several_answers(request):
                continue
            given, right = parse_answers(text_of(prediction)), reference_set(request.references)
            for label in given | right:
                if label not in column:
                    row[-2] += 1
                else:
                    row[column[label] + (0 if label in given & right else 1 if label in given else 2)] = 1
            row[-1] = 1
        return found

    def score(self, totals: Array) -> Array:
        # Labels that never occur add nothing; the bootstrap of a slice has mostly such labels.
        used = totals[..., :-2].any(axis=tuple(range(totals.ndim - 1))).reshape(-1, 3).any(axis=-1)
        counts = totals[..., :-2].reshape(*totals.shape[:-1], -1, 3)[..., used, :]
        hits, alarms, missed = counts[..., 0], counts[..., 1], counts[..., 2]
        micro = np.stack([part.sum(axis=-1) for part in (hits, alarms, missed)], axis=-1)
        micro[..., 1] += totals[..., -2]
        given, right = hits + alarms, hits + missed
        labels = np.maximum((given + missed > 0).sum(axis=-1), 1)
        shares = (hits / np.maximum(given, 1), hits / np.maximum(right, 1), 2 * hits / np.maximum(given + right, 1))
        macro = np.stack([share.sum(axis=-1) / labels for share in shares], axis=-1)
        scores: Array = 100.0 * np.concatenate([precision_recall_f1(micro), macro], axis=-1)
        return np.where(totals[..., -1:] > 0, scores, np.nan)

    def sample_scores(self, statistics: tuple[float, ...]) -> dict[str, float]:
        """None: they are figures of many samples."""
        return {}

    def table(self, predictions: Sequence[Prediction], requests: Sequence[Request]) -> Mapping[str, dict[str, float]]:
        """Label -> precision, recall and f1 in per cent, and how often it was right (`support`) and `given`."""
        counts = self.matrix(predictions, requests).sum(axis=0)[:-2].reshape(-1, 3)
        names = ("precision", "recall", "f1")
        return {
            label: {
                **dict(zip(names, (100.0 * values).tolist(), strict=True)),
                "support": float(hits + missed),
                "given": float(hits + alarms),
            }
            for label, values, (hits, alarms, missed) in zip(
                self.labels(requests), precision_recall_f1(counts), counts, strict=True
            )
        }


def precision_recall_f1(counts: Array) -> Array:
    """(..., 3) true positives, false positives, false negatives -> (..., 3) precision, recall, F1 (0 to 1)."""
    hits, given, right = counts[..., 0], counts[..., 0] + counts[..., 1], counts[..., 0] + counts[..., 2]
    parts = [hits / np.maximum(given, 1), hits / np.maximum(right, 1), 2 * hits / np.maximum(given + right, 1)]
    stacked: Array = np.stack(parts, axis=-1)
    return stacked


class AnswerForm(MeanMetric):
    """The share of answers that are no proper answer, whatever is right. One answer can be both of the last two.

    empty: nothing but white space, or no prediction at all; of all questions.
    unparseable: there is text, but none of the question's options can be found in it (`exact_match.official_llm`'s
    search), so that no rule could call it right.
    out_of_option: taken as `exact_match.strict` takes it, the text names something that is none of the options.
    The last two need known options; requests without are left out of their n.

    Statistics: the three, then whether the options are known, and 1.
    """

    name = "answer_form.strict"
    kind = "qa"
    figures = ("empty", "unparseable", "out_of_option")

    def share(self, figure: int) -> tuple[int, int]:
        return figure, (-1, 3, 3)[figure]  # frozen runs may lack the 1: all their questions had options

    def score(self, totals: Array) -> Array:
        trials = totals[..., [self.share(figure)[1] for figure in range(3)]]
        return np.where(trials > 0, 100.0 * totals[..., :3] / np.maximum(trials, 1), np.nan)

    @property
    def signature(self) -> Signature:
        return Signature(
            metric="answer_form", variant="strict", case="no", split="[;.newline]", extract="longest_first", agg="share"
        )

    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        known = float(bool(request.options))
        if not prediction.strip():
            return 1.0, 0.0, 0.0, known, 1.0
        if not known:
            return 0.0, 0.0, 0.0, 0.0, 1.0
        unreadable = not extract_options(prediction, request.options)
        outside = not parse_answers(prediction) <= {normalise(option) for option in request.options}
        return 0.0, float(unreadable), float(outside), 1.0, 1.0
