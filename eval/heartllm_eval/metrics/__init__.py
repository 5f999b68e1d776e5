"""The metrics, by name. Three lines score texts from Python, without torch:

>>> from heartllm_eval.metrics import get_metric, score
>>> score("exact_match.strict", ["Yes.", "no"], [["yes"], ["yes"]])
{'exact_match.strict': 50.0}
>>> print(get_metric("exact_match.heartllm").signature)  # doctest: +ELLIPSIS
metric:exact_match|variant:heartllm|case:yes|space:ends|split:[.]|match:set|version:...
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from heartllm.errors import UsageError
from heartllm_eval.metrics.forms import FORMS

if TYPE_CHECKING:
    from heartllm_eval.metrics.base import Metric

# Name -> module and class; modules load on first use, since nltk and sacrebleu take a second to import.
METRICS: dict[str, tuple[str, str]] = {
    "exact_match.strict": ("exact_match", "StrictExactMatch"),
    "exact_match.heartllm": ("exact_match", "HeartLLMExactMatch"),
    "exact_match.official_llm": ("exact_match", "OfficialLLMExactMatch"),
    "exact_match.option_restricted": ("option_ranking", "OptionRestrictedExactMatch"),
    "jaccard.strict": ("answers", "Jaccard"),
    "labels.strict": ("answers", "LabelScores"),
    "answer_form.strict": ("answers", "AnswerForm"),
    "bleu.heartllm": ("bleu", "SentenceBLEU"),
    "bleu.standard": ("bleu", "CorpusBLEU"),
    "meteor.heartllm": ("meteor", "WhitespaceMETEOR"),
    "meteor.standard": ("meteor", "NormalisedMETEOR"),
    "rouge.heartllm": ("rouge", "SetROUGE"),
    "rouge.standard": ("rouge", "StandardROUGE"),
    "clinical": ("clinical", "ClinicalScore"),
    "clinical.critical": ("clinical", "CriticalFindings"),
    "clinical.stated": ("clinical", "StatedScore"),
    "clinical.mentioned": ("clinical", "MentionedScore"),
}
# The report metrics read texts as they stand; each also as `NAME-lower`, `NAME-periods` and `NAME-lower-periods`.
TEXT_METRICS = tuple(name for name in METRICS if name.startswith(("bleu.", "meteor.", "rouge.")))
_FORMS = {f"{name}{form.suffix}": (name, form) for name in TEXT_METRICS for form in FORMS[1:]}
METRICS.update({name: METRICS[plain] for name, (plain, _) in _FORMS.items()})
OPTION_METRICS = frozenset({"exact_match.option_restricted"})
DEFAULT_METRICS = {
    "qa": (
        "exact_match.strict",
        "exact_match.official_llm",
        "exact_match.heartllm",
        "jaccard.strict",
        "labels.strict",
        "answer_form.strict",
    ),
    "report": (*TEXT_METRICS, "clinical", "clinical.critical"),
}


def check_metric(name: str, *, where: str = "metrics") -> None:
    """Raises UsageError, with the nearest right name, unless `name` is a metric."""
    if name not in METRICS:
        near = [known for known in METRICS if known.startswith(f"{name}.")] or difflib.get_close_matches(
            name, METRICS, n=1
        )
        known = " or ".join(map(repr, near))
        hint = f"Did you mean {known}?" if near else f"Known metrics: {', '.join(METRICS)}."
        raise UsageError(f"unknown metric {name!r}", where=where, remedy=hint)


def needs_option_scores(names: Iterable[str]) -> bool:
    """Whether one of these metrics looks at `Prediction.option_scores`, which a model gives only when asked."""
    return not OPTION_METRICS.isdisjoint(names)


@cache
def get_metric(name: str) -> Metric:
    """The metric called `name`.

    Its own `name` can differ in one case: METEOR without WordNet data calls itself `meteor-nowordnet`.
    """
    check_metric(name)
    module, kind = METRICS[name]
    make = getattr(importlib.import_module(f"heartllm_eval.metrics.{module}"), kind)
    metric: Metric = make(_FORMS[name][1]) if name in _FORMS else make()
    return metric


def kinds_of(name: str) -> str:
    """What a metric is for: "qa" or "report"."""
    return "report" if name in _FORMS or name in TEXT_METRICS or name.startswith("clinical") else "qa"


def score(
    name: str,
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    *,
    options: Sequence[Sequence[str]] = (),
) -> dict[str, float]:
    """Scores texts: figure -> per cent.

    Args:
        name: a metric.
        predictions: one text a sample; several answers are written "a; b".
        references: the right answers of each sample, or its acceptable reports; a text stands for a list of one.
        options: the answers that each sample's question allows, for the metrics that need them.

    Raises:
        UsageError: if they are not of one length, or the predictions are one text.
    """
    from heartllm_eval.schema import Prediction, Request

    metric = get_metric(name)
    allowed = options or [()] * len(references)
    if isinstance(predictions, str) or isinstance(references, str):
        raise UsageError("one text where a list is needed", where="score", remedy="Give lists, with an entry a sample.")
    if not len(predictions) == len(references) == len(allowed):
        raise UsageError(
            f"{len(predictions)} predictions, {len(references)} references and {len(allowed)} lists of options",
            where="score",
            remedy="Give one of each for every sample.",
        )
    requests = [
        Request(
            str(index),
            metric.kind,
            references=(right,) if isinstance(right, str) else tuple(right),
            options=tuple(some),
        )
        for index, (right, some) in enumerate(zip(references, allowed, strict=True))
    ]
    given = [Prediction(request.id, text) for request, text in zip(requests, predictions, strict=True)]
    values = metric.score(metric.matrix(given, requests).sum(axis=0))
    return {metric.full_name(figure): float(value) for figure, value in zip(metric.figures, values, strict=True)}
