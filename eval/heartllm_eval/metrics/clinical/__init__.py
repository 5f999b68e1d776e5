"""The clinical score of a report: findings by a lexicon, label F1, and what must not be missed.

>>> from heartllm_eval.metrics.clinical import findings
>>> dict(findings("Sinus rhythm. Possible old inferior infarct, no ischemia."))
{'SR': 'stated', 'IMI': 'uncertain', 'ISC_': 'denied'}
"""

from heartllm_eval.metrics.clinical.extraction import Found, Status, findings, mentions
from heartllm_eval.metrics.clinical.score import ClinicalScore, CriticalFindings, MentionedScore, StatedScore

__all__ = [
    "ClinicalScore",
    "CriticalFindings",
    "Found",
    "MentionedScore",
    "StatedScore",
    "Status",
    "findings",
    "mentions",
]
