"""10,000 resamples by patient over 40,000 samples, against the loop that a script would write in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from heartllm_eval.statistics import bootstrap

SAMPLES, PATIENTS, RESAMPLES, PLAIN = 40_000, 18_000, 10_000, 20
MOST_SECONDS = 2.0


@pytest.mark.benchmark(group="statistics")
def test_intervals_by_patient_of_forty_thousand_samples(race: Any) -> None:
    rng = np.random.default_rng(0)
    patient = rng.integers(0, PATIENTS, SAMPLES)
    names = [f"p{number}" for number in patient]
    hits = np.stack([rng.random(SAMPLES) < 0.3 + 0.4 * (patient % 2), np.ones(SAMPLES)], 1).astype(np.float64)
    found = []

    def ours() -> None:
        found.append(bootstrap(hits, names, lambda sums: sums[..., :1] / sums[..., 1:], resamples=RESAMPLES)[0])

    groups = [np.flatnonzero(patient == number) for number in np.unique(patient)]

    def plain(resamples: int = PLAIN) -> list[float]:
        generator = np.random.default_rng(1)
        drawn = (generator.integers(0, len(groups), len(groups)) for _ in range(resamples))
        return [float(hits[np.concatenate([groups[i] for i in draw]), 0].mean()) for draw in drawn]

    race(
        "bootstrap by patient: 40,000 samples, 18,000 patients, 10,000 resamples",
        unit="resample",
        ours=ours,
        plain=plain,
        plain_is="a numpy loop that draws patients and takes their samples",
        units=RESAMPLES,
        plain_units=PLAIN,
        rounds=3,
        least=20.0,
        most_seconds=MOST_SECONDS,
    )
    # The same distribution: the loop's mean and deviation, to what so few of its draws can tell.
    draws = np.array(plain(200))
    low, high = found[0].low, found[0].high
    assert low is not None
    assert high is not None
    assert abs(draws.mean() - found[0].value) < 4 * draws.std() / len(draws) ** 0.5
    assert draws.std() == pytest.approx((high - low) / (2 * 1.96), rel=0.2)
