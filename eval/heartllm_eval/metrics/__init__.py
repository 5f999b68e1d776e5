"""The metrics, by name. Three lines score a file from Python, without torch:

>>> from heartllm_eval.metrics import get_metric
>>> metric = get_metric("exact_match.strict")
>>> right, counted = metric.statistics("Yes.", request)
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from heartllm.errors import UsageError

if TYPE_CHECKING:
    from heartllm_eval.metrics.base import Metric

# Name -> module and class; modules load on first use, since nltk and sacrebleu take a second to import.
METRICS: dict[str, tuple[str, str]] = {
    "exact_match.strict": ("exact_match", "StrictExactMatch"),
    "exact_match.heartllm": ("exact_match", "HeartLLMExactMatch"),
    "exact_match.official_llm": ("exact_match", "OfficialLLMExactMatch"),
    "bleu.heartllm": ("bleu", "SentenceBLEU"),
    "bleu.standard": ("bleu", "CorpusBLEU"),
    "meteor.heartllm": ("meteor", "WhitespaceMETEOR"),
    "meteor.standard": ("meteor", "NormalisedMETEOR"),
    "rouge.heartllm": ("rouge", "SetROUGE"),
    "rouge.standard": ("rouge", "StandardROUGE"),
}
OPTION_METRICS = frozenset({"exact_match.option_restricted"})
DEFAULT_METRICS = {
    "qa": ("exact_match.strict", "exact_match.official_llm", "exact_match.heartllm"),
    "report": tuple(name for name in METRICS if not name.startswith("exact_match")),
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
    metric: Metric = getattr(importlib.import_module(f"heartllm_eval.metrics.{module}"), kind)()
    return metric
