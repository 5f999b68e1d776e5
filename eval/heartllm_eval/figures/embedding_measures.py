"""How far apart two clouds of vectors are, ECG and text, in numbers that do not depend on any projection.

UMAP pictures persuade and mislead, so figure 1 prints these beside each panel. All vectors are scaled to length 1
first: a language model of the Llama kind normalises whatever enters a layer, so it cannot see lengths, and a difference
in length alone would part the modalities in every measure. Intervals are bootstraps by patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from heartllm.errors import DataError
from heartllm_eval.statistics import Draws, Interval, bootstrap, interval, number_clusters

Vectors = npt.NDArray[np.floating[Any]]
Floats = npt.NDArray[np.float64]

FOLDS = 5
NEIGHBOURS = 10
RECALL_AT = (1, 5, 10)
RESAMPLES = 1000
MINIMUM = 2 * NEIGHBOURS


@dataclass(frozen=True)
class Cloud:
    """The vectors of both modalities in one space.

    Attributes:
        ecg: (n, D). text: (m, D).
        ecg_groups: n names; what shares a name is drawn together and never split between folds: the patient.
        text_groups: m names; the patient of a report, or the token itself.
        pairs: (n,) the row of `text` that belongs to each row of `ecg`; None where nothing belongs together.
    """

    ecg: Vectors
    text: Vectors
    ecg_groups: tuple[str, ...]
    text_groups: tuple[str, ...]
    pairs: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        check(self.ecg, self.text)
        if len(self.ecg_groups) != len(self.ecg) or len(self.text_groups) != len(self.text):
            raise DataError("vectors and their groups differ in number", where="embeddings", remedy=_REMEDY)
        if self.pairs is not None and (
            self.pairs.shape != (len(self.ecg),) or self.pairs.min() < 0 or self.pairs.max() >= len(self.text)
        ):
            raise DataError("pairs do not name one text for each ECG", where="embeddings", remedy=_REMEDY)


@dataclass(frozen=True)
class Number:
    """One measure: its value, its interval, and what two clouds that cannot be told apart would have."""

    measure: str
    value: float
    low: float | None
    high: float | None
    chance: float
    count: int


_REMEDY = "Measure both modalities from the same checkpoint and recordings."


def check(ecg: Vectors, text: Vectors) -> None:
    """Refuses what cannot be compared.

    Raises:
        DataError: for other than two tables of the same width, with `MINIMUM` rows or more, all finite.
    """
    if ecg.ndim != 2 or text.ndim != 2:
        raise DataError(
            f"have the shapes {ecg.shape} and {text.shape}", where="embeddings", remedy="Give tables (items, width)."
        )
    if ecg.shape[1] != text.shape[1]:
        raise DataError(
            f"ECG vectors are {ecg.shape[1]} wide and text vectors {text.shape[1]}", where="embeddings", remedy=_REMEDY
        )
    if min(len(ecg), len(text)) < MINIMUM:
        raise DataError(
            f"{len(ecg)} ECG and {len(text)} text vectors are too few",
            where="embeddings",
            remedy=f"Measure on more recordings; {MINIMUM} distinct vectors of each modality are the least.",
        )
    if not (np.isfinite(ecg).all() and np.isfinite(text).all()):
        raise DataError("hold NaN or infinity", where="embeddings", remedy="Check the checkpoint's training log.")


def unit(vectors: Vectors) -> Floats:
    """(n, D) -> the same directions, each of length 1."""
    values = np.asarray(vectors, np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def balanced(cloud: Cloud, *, most: int, seed: int = 0) -> Cloud:
    """As many vectors of either modality, at most `most`, drawn without replacement; pairs are dropped."""
    count, generator = min(len(cloud.ecg), len(cloud.text), most), np.random.default_rng(seed)
    one = np.sort(generator.choice(len(cloud.ecg), count, replace=False))
    two = np.sort(generator.choice(len(cloud.text), count, replace=False))
    return Cloud(
        cloud.ecg[one],
        cloud.text[two],
        tuple(cloud.ecg_groups[i] for i in one),
        tuple(cloud.text_groups[i] for i in two),
    )


def separation(cloud: Cloud, *, resamples: int = RESAMPLES, seed: int = 0) -> list[Number]:
    """Probe AUC, kNN mixing and centroid distance of a balanced cloud."""
    vectors = unit(np.concatenate([cloud.ecg, cloud.text]))
    is_ecg = np.arange(len(vectors)) < len(cloud.ecg)
    groups = [*cloud.ecg_groups, *cloud.text_groups]
    rows = number_clusters(groups)
    weights = _weights(int(rows.max()) + 1, resamples, seed)[:, rows]
    clusters = int(rows.max()) + 1

    scores = probe_scores(vectors, is_ecg, groups, seed=seed)
    auc = interval(auc_of(scores, is_ecg), weighted_auc(scores, is_ecg, weights), clusters=clusters)
    shares = other_neighbours(vectors, is_ecg)
    both = np.stack([shares, np.ones(len(shares))], 1)
    mixing = bootstrap(both, groups, _share, resamples=resamples, seed=seed)[0]
    far = interval(
        float(centroid_distance(vectors, is_ecg, np.ones((1, len(vectors))))[0]),
        centroid_distance(vectors, is_ecg, weights),
        clusters=clusters,
    )
    values: list[tuple[str, Interval, float]] = [
        ("probe AUC", auc, 0.5),
        ("kNN mixing", mixing, 1.0),
        ("centroid distance", far, 0.0),
    ]
    return [Number(name, got.value, got.low, got.high, chance, len(vectors)) for name, got, chance in values]


def _weights(clusters: int, resamples: int, seed: int) -> Floats:
    """(resamples, clusters): how often each draw takes each cluster."""
    return np.concatenate(list(Draws(clusters, resamples=resamples, seed=seed).sums(np.eye(clusters))))


def probe_scores(vectors: Floats, is_ecg: npt.NDArray[np.bool_], groups: Sequence[str], *, seed: int = 0) -> Floats:
    """(n,) what a linear probe, fitted without a vector's fold, says for "ECG": logistic regression, `FOLDS` folds.

    Folds keep groups together. Features are standardised within the training folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    scores: Floats = cross_val_predict(
        probe, vectors, is_ecg, groups=np.asarray(groups), cv=folds, method="predict_proba"
    )[:, 1]
    return scores


def auc_of(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve; ties count one half."""
    return float(weighted_auc(scores, positive, np.ones((1, len(scores))))[0])


def weighted_auc(scores: Floats, positive: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """(R,) the AUC under each row of `weights` (R, n); NaN where one side has no weight."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    above = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    below = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    won = (above * (np.cumsum(below, axis=1) - below / 2)).sum(1)
    possible = above.sum(1) * below.sum(1)
    return np.divide(won, possible, out=np.full(len(won), np.nan), where=possible > 0)


def other_neighbours(vectors: Floats, is_ecg: npt.NDArray[np.bool_], count: int = NEIGHBOURS) -> Floats:
    """(n,) the other modality's share among a vector's nearest, over that in a perfect mixture: 1 mixed, 0 apart."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(vectors).kneighbors(return_distance=False)
    share = (is_ecg[found] != is_ecg[:, None]).mean(1)
    others = np.where(is_ecg, (~is_ecg).sum(), is_ecg.sum())
    return np.asarray(share / (others / (len(vectors) - 1)), np.float64)


def centroid_distance(vectors: Floats, is_ecg: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """(R,) distance between the modalities' means, in root mean square distances of a vector from its own mean.

    Args:
        weights: (R, n).
    """
    means, spread = [], np.zeros(len(weights))
    for side in (is_ecg, ~is_ecg):
        w, x = weights[:, side], vectors[side]
        total = w.sum(1)
        mean = np.divide(w @ x, total[:, None], out=np.full((len(w), x.shape[1]), np.nan), where=total[:, None] > 0)
        means.append(mean)
        square = np.divide(w @ (x**2).sum(1), total, out=np.full(len(w), np.nan), where=total > 0)
        spread += np.maximum(square - (mean**2).sum(1), 0) / 2
    return np.linalg.norm(means[0] - means[1], axis=1) / np.sqrt(np.maximum(spread, 1e-24))


def retrieval(cloud: Cloud, *, resamples: int = RESAMPLES, seed: int = 0) -> list[Number]:
    """How often an ECG finds its own text among all texts, by cosine; three measures at each k of `RECALL_AT`.

        recall@k      as the vectors are, after each modality's mean is taken away (else a few texts in the ECGs'
                      direction are everyone's nearest)
        mapped@k      after a linear map from ECG to text vectors, fitted on other patients: what they tell of each
                      other although they may lie apart
        commonest@k   naming the k commonest texts for every ECG: what a model must beat

    `chance` is that of a random order.

    Raises:
        DataError: for a cloud without pairs.
    """
    if cloud.pairs is None:
        raise DataError("have no pairs of ECG and text", where="embeddings", remedy=_REMEDY)
    common = np.bincount(cloud.pairs, minlength=len(cloud.text))
    orders = {
        "recall": ranks(unit(cloud.ecg), unit(cloud.text), cloud.pairs),
        "mapped": ranks(*mapped(cloud, seed=seed), cloud.pairs),
        "commonest": np.argsort(np.argsort(-common, kind="stable"))[cloud.pairs],
    }
    numbers = []
    for name, order in orders.items():
        for k in RECALL_AT:
            hits = np.stack([order < k, np.ones(len(order))], 1).astype(np.float64)
            got = bootstrap(hits, cloud.ecg_groups, _share, resamples=resamples, seed=seed)[0]
            chance = min(1.0, k / len(cloud.text))
            numbers.append(Number(f"{name}@{k}", got.value, got.low, got.high, chance, len(order)))
    return numbers


def _share(sums: Floats) -> Floats:
    """(..., 2) sums of hits and of ones -> (..., 1) their share."""
    return sums[..., :1] / sums[..., 1:]


def ranks(ecg: Floats, text: Floats, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(n,) how many texts are nearer to each ECG than its own, by cosine of what is left without the modality's mean.

    Of equally near ones, half count.
    """
    one, two = (unit(part - part.mean(0)) for part in (ecg, text))
    likeness = np.round(one @ two.T, 12)  # vectors that are equal must tie, whatever the order of the sums
    own = likeness[np.arange(len(one)), pairs][:, None]
    return (likeness > own).sum(1) + ((likeness == own).sum(1) - 1) // 2


def mapped(cloud: Cloud, *, penalty: float = 1.0, seed: int = 0) -> tuple[Floats, Floats]:
    """ECG vectors sent to the text's space by ridge regression, each by a map that never saw its patient; the texts."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    assert cloud.pairs is not None
    ecg, text = unit(cloud.ecg), unit(cloud.text)
    text = (text - text.mean(0)) / np.maximum(text.std(0), 1e-9)
    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), Ridge(alpha=penalty * len(ecg)))
    sent: Floats = cross_val_predict(model, ecg, text[cloud.pairs], groups=np.asarray(cloud.ecg_groups), cv=folds)
    return sent, text


def umap_points(cloud: Cloud, *, seed: int = 0) -> Floats:
    """(n + m, 2) a UMAP of ECG rows, then text rows (cosine, 15 neighbours), centred and scaled to deviation 1.

    The seed is fixed and one thread works, so the same vectors give the same picture.
    """
    import warnings

    from umap import UMAP

    vectors = unit(np.concatenate([cloud.ecg, cloud.text]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed means one thread
        points = UMAP(n_neighbors=15, min_dist=0.1, metric="cosine", random_state=seed, n_jobs=1).fit_transform(vectors)
    points = np.asarray(points, np.float64)
    points -= points.mean(0)
    return points / max(float(points.std()), 1e-12)


def as_rows(system: str, level: str, numbers: Sequence[Number]) -> list[dict[str, Any]]:
    """Numbers as rows of a CSV or JSON file."""
    return [
        {
            "system": system,
            "level": level,
            "measure": number.measure,
            "value": number.value,
            "low": number.low,
            "high": number.high,
            "chance": number.chance,
            "n": number.count,
        }
        for number in numbers
    ]


def find(rows: Sequence[Mapping[str, Any]], level: str, measure: str) -> Mapping[str, Any] | None:
    """The row of one measure at one level."""
    return next((row for row in rows if row["level"] == level and row["measure"] == measure), None)
