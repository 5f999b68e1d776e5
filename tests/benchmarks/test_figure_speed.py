"""The points of figure 1: our UMAP of ECG and text rows against the library called with its defaults."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from heartllm_eval.figures.embedding_measures import Cloud, umap_points

VECTORS, WIDTH = 400, 128


@pytest.mark.slow
@pytest.mark.benchmark(group="figures")
def test_umap_points(race: Any) -> None:
    """Ours fixes the seed, and so the picture; that costs the library its threads, not processor time."""
    umap = pytest.importorskip("umap")
    rng = np.random.default_rng(0)
    names = tuple(map(str, range(VECTORS)))
    cloud = Cloud(rng.normal(size=(VECTORS, WIDTH)), rng.normal(size=(VECTORS, WIDTH)) + 0.5, names, names)
    both = np.concatenate([cloud.ecg, cloud.text])
    assert umap_points(cloud).shape == (2 * VECTORS, 2)
    race(
        "UMAP of 800 vectors",
        unit="figure",
        ours=lambda: umap_points(cloud),
        plain=lambda: umap.UMAP(metric="cosine").fit_transform(both),
        plain_is="umap-learn without a seed",
        rounds=3,
        least=0.5,
    )
