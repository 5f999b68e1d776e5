"""Exact intervals of a share of right answers, for few patients.

The special functions are computed here, so that the base install needs no scipy.
"""

from __future__ import annotations

import math

import numpy as np

from heartllm_eval.metrics.base import Array

METHOD = "clopper-pearson"
EXACT_BELOW = 50  # patients; with fewer the percentile bootstrap of a share covers less than it says
RARE_BELOW = 10  # patients with the rarer kind of answer; near 0 or 100 % the bootstrap fails with many patients, too


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (Abramowitz and Stegun 26.5.8).

    Args:
        x: 0 to 1.
        a, b: above 0; they need not be whole numbers.
    """
    if x <= 0.0 or x >= 1.0:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side only
        return 1.0 - incomplete_beta(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)  # modified Lentz: neither may become 0
    d = 1.0 / (d if abs(d) > tiny else tiny)
    fraction = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + term * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + term / c
            c = c if abs(c) > tiny else tiny
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return math.exp(log_front) * fraction / a


def beta_quantile(p: float, a: float, b: float) -> float:
    """The x with I_x(a, b) = p: Newton's steps, kept inside a bracket that halves where they leave it."""
    if p <= 0.0 or p >= 1.0:
        return min(max(p, 0.0), 1.0)
    low, high = 0.0, 1.0
    x = a / (a + b)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    for _ in range(200):
        off = incomplete_beta(x, a, b) - p
        if off > 0:
            high = x
        else:
            low = x
        log_density = log_front + (a - 1) * math.log(x) + (b - 1) * math.log1p(-x)
        step = off * math.exp(-log_density) if -log_density < 700 else math.inf
        following = x - step
        if not low < following < high:
            following = (low + high) / 2
        if abs(following - x) <= 1e-15 * x or following in (low, high):
            return following
        x = following
    return x


def t_quantile(p: float, degrees: float) -> float:
    """Student's t quantile for p above 0.5."""
    x = beta_quantile(2 * (1 - p), degrees / 2, 0.5)
    return math.sqrt(degrees * (1 - x) / x) if x > 0 else math.inf


def clopper_pearson(successes: float, trials: float, confidence: float) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934), from 0 to 1; fractions of trials are allowed.

    Raises:
        ValueError: unless 0 <= successes <= trials and trials > 0.
    """
    if not 0 <= successes <= trials or trials <= 0:
        raise ValueError(f"{successes} of {trials} trials")
    tail = (1 - confidence) / 2
    low = 0.0 if successes <= 0 else beta_quantile(tail, successes, trials - successes + 1)
    high = 1.0 if successes >= trials else beta_quantile(1 - tail, successes + 1, trials - successes)
    return low, high


def effective_trials(right: Array, count: Array, confidence: float) -> float:
    """How many independent answers the answers are worth, those of one patient being alike (Korn and Graubard 1998).

    That is share x (1 - share) over the share's variance between patients, times the square of the ratio of the two t
    quantiles (answers - 1 and patients - 1 degrees of freedom); never more than there are answers. Where all answers
    are right, or all wrong, that variance says nothing, and Kish's count is taken: as if each patient's answers were
    one answer.

    Args:
        right, count: (patients,) right answers and answers of each patient; at least two patients, no count 0.
    """
    total, patients = float(count.sum()), len(count)
    share = float(right.sum()) / total
    variance = float(np.sum((right - share * count) ** 2)) * patients / (patients - 1) / total**2
    if share in (0.0, 1.0) or variance == 0.0:
        return total**2 / float(np.sum(count**2))
    if total == patients:  # one answer a patient: the plain binomial
        return total
    tail = (1 + confidence) / 2
    correction = t_quantile(tail, total - 1) / t_quantile(tail, patients - 1)
    return min(total, share * (1 - share) / variance * correction**2)


def clustered_interval(right: Array, count: Array, confidence: float) -> tuple[float, float] | None:
    """Clopper and Pearson's interval on the effective number of answers, in per cent; None below two patients.

    With one answer a patient it is the plain exact interval.
    """
    held = count > 0
    right, count = right[held], count[held]
    if len(count) < 2:
        return None
    trials = effective_trials(right, count, confidence)
    low, high = clopper_pearson(float(right.sum() / count.sum()) * trials, trials, confidence)
    return 100 * low, 100 * high


def calls_for_exact(right: Array, count: Array) -> bool:
    """Whether patients, or patients with the rarer kind of answer, are too few for the bootstrap."""
    held = int(np.sum(count > 0))
    rarer = min(int(np.sum(right > 0)), int(np.sum(count - right > 0)))
    return held < EXACT_BELOW or rarer < RARE_BELOW
