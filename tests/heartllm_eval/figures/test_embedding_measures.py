"""Numbers between two clouds: against scikit-learn, against brute force, and on clouds whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'heartllm[figures]'")

from heartllm.errors import DataError
from heartllm_eval.figures import embedding_measures as measures
from heartllm_eval.figures.embedding_measures import Cloud, balanced, retrieval, separation

SIZE, WIDTH = 120, 8


def cloud(apart: float, seed: int = 0, width: int = WIDTH) -> Cloud:
    """Two Gaussian clouds whose means lie `apart` deviations from each other."""
    rng = np.random.default_rng(seed)
    ecg, text = rng.normal(size=(SIZE, width)), rng.normal(size=(SIZE, width))
    ecg[:, 0] -= apart / 2
    text[:, 0] += apart / 2
    groups = tuple(f"patient {i // 2}" for i in range(SIZE))
    return Cloud(ecg.astype(np.float32), text.astype(np.float32), groups, tuple(f"token {i}" for i in range(SIZE)))


def by_name(numbers: list[measures.Number]) -> dict[str, measures.Number]:
    return {number.measure: number for number in numbers}


def test_mixed_clouds_have_the_values_of_chance() -> None:
    found = by_name(separation(cloud(0.0), resamples=300))
    auc, mixing, far = found["probe AUC"], found["kNN mixing"], found["centroid distance"]
    assert auc.low is not None
    assert auc.low < 0.5 < auc.high
    assert mixing.value == pytest.approx(1.0, abs=0.08)
    assert far.value < 0.25
    assert auc.count == 2 * SIZE


def test_clouds_far_apart() -> None:
    found = by_name(separation(cloud(60.0), resamples=100))
    assert found["probe AUC"].value == 1.0
    assert found["kNN mixing"].value == 0.0
    assert found["centroid distance"].value > 1.0


def test_between_them_every_measure_grows_or_falls_with_distance() -> None:
    found = [by_name(separation(cloud(apart), resamples=100)) for apart in (0.0, 1.5, 4.0)]
    assert found[0]["probe AUC"].value < found[1]["probe AUC"].value < found[2]["probe AUC"].value
    assert found[0]["kNN mixing"].value > found[1]["kNN mixing"].value > found[2]["kNN mixing"].value


def test_lengths_of_vectors_do_not_count() -> None:
    one = cloud(1.5)
    longer = Cloud(one.ecg * 7, one.text, one.ecg_groups, one.text_groups)
    assert [n.value for n in separation(longer, resamples=100)] == pytest.approx(
        [n.value for n in separation(one, resamples=100)], abs=1e-6
    )


@settings(max_examples=40)
@given(st.integers(2, 40), st.integers(0, 10_000), st.booleans())
def test_auc_is_scikit_learns_with_ties_and_with_weights(size: int, seed: int, ties: bool) -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    positive = np.r_[True, False, rng.random(size) < 0.5]
    scores = rng.normal(size=size + 2)
    scores = scores.round() if ties else scores
    assert measures.auc_of(scores, positive) == pytest.approx(roc_auc_score(positive, scores))
    weights = rng.integers(0, 4, size=(3, size + 2)).astype(float)
    weights[:, :2] += 1
    found = measures.weighted_auc(scores, positive, weights)
    assert found == pytest.approx([roc_auc_score(positive, scores, sample_weight=row) for row in weights])


def test_a_resample_without_one_side_has_no_auc() -> None:
    found = measures.weighted_auc(np.array([1.0, 2.0]), np.array([True, False]), np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert np.isnan(found[0])
    assert found[1] == 0.0


def test_the_probe_is_scikit_learns_by_hand() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.preprocessing import StandardScaler

    part = cloud(1.0)
    vectors = measures.unit(np.concatenate([part.ecg, part.text]))
    is_ecg = np.arange(2 * SIZE) < SIZE
    groups = np.array([*part.ecg_groups, *part.text_groups])
    found = measures.probe_scores(vectors, is_ecg, list(groups), seed=3)
    folds = StratifiedGroupKFold(measures.FOLDS, shuffle=True, random_state=3)
    for train, test in folds.split(vectors, is_ecg, groups):
        assert not set(groups[train]) & set(groups[test])
        scale = StandardScaler().fit(vectors[train])
        model = LogisticRegression(max_iter=1000).fit(scale.transform(vectors[train]), is_ecg[train])
        assert found[test] == pytest.approx(model.predict_proba(scale.transform(vectors[test]))[:, 1])


def test_neighbours_by_brute_force() -> None:
    rng = np.random.default_rng(1)
    vectors, is_ecg = rng.normal(size=(30, 4)), np.arange(30) < 12
    found = measures.other_neighbours(vectors, is_ecg, 5)
    for index in range(30):
        distance = np.linalg.norm(vectors - vectors[index], axis=1)
        near = [i for i in np.argsort(distance) if i != index][:5]
        expected = np.mean([is_ecg[i] != is_ecg[index] for i in near]) / ((18 if is_ecg[index] else 12) / 29)
        assert found[index] == pytest.approx(expected)


def test_centroid_distance_by_hand() -> None:
    vectors = np.array([[0.0, 1.0], [0.0, -1.0], [4.0, 1.0], [4.0, -1.0]])
    is_ecg = np.array([True, True, False, False])
    weights = np.array([[1.0, 1.0, 1.0, 1.0], [2.0, 0.0, 1.0, 1.0]])
    found = measures.centroid_distance(vectors, is_ecg, weights)
    assert found[0] == pytest.approx(4.0)  # means 4 apart, each vector 1 from its mean
    assert found[1] == pytest.approx(np.hypot(4, 1) / np.sqrt(0.5))  # one side has shrunk to a point


def paired(noise: float, texts: int = 40, each: int = 3, seed: int = 0) -> Cloud:
    """ECGs that are their text's vector plus noise, in another place and turned."""
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(texts, WIDTH))
    pairs = np.repeat(np.arange(texts), each)
    ecg = text[pairs] + noise * rng.normal(size=(len(pairs), WIDTH))
    groups = tuple(f"patient {i}" for i in range(len(pairs)))
    return Cloud(ecg, text, groups, tuple(f"patient {i * each}" for i in range(texts)), pairs)


def test_ranks_by_brute_force_and_ties_count_half() -> None:
    part = paired(1.0)
    assert part.pairs is not None
    found = measures.ranks(part.ecg, part.text, part.pairs)
    ecg, text = part.ecg - part.ecg.mean(0), part.text - part.text.mean(0)
    for index, own in enumerate(part.pairs):
        cosines = [float(ecg[index] @ other / np.linalg.norm(ecg[index]) / np.linalg.norm(other)) for other in text]
        assert found[index] == sum(value > cosines[own] for value in cosines)
    text = np.zeros((30, 3))
    text[:, 0] = 1.0  # all alike: nobody's own is nearer than another's
    ecg = np.random.default_rng(0).normal(size=(30, 3))
    assert set(measures.ranks(ecg, text, np.arange(30)).tolist()) == {14}


def test_recall_of_a_perfect_and_of_a_hopeless_match() -> None:
    perfect = by_name(retrieval(paired(0.0), resamples=100))
    assert perfect["recall@1"].value == 1.0
    assert perfect["recall@1"].chance == pytest.approx(1 / 40)
    hopeless = by_name(retrieval(paired(50.0), resamples=200))
    assert hopeless["recall@10"].value == pytest.approx(0.25, abs=0.12)
    assert hopeless["recall@10"].low < 0.25 < hopeless["recall@10"].high
    assert hopeless["recall@1"].value <= hopeless["recall@5"].value <= hopeless["recall@10"].value


def test_commonest_texts_are_what_a_guess_reaches() -> None:
    part = paired(50.0, texts=30, each=1)
    pairs = np.array([0] * 15 + list(range(15, 30)))
    found = by_name(retrieval(Cloud(part.ecg, part.text, part.ecg_groups, part.text_groups, pairs), resamples=100))
    assert found["commonest@1"].value == 0.5
    assert found["commonest@5"].value == pytest.approx(0.5 + 4 / 30)


def test_a_turned_space_is_found_by_the_map_alone() -> None:
    part = paired(0.1, texts=60)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(WIDTH, WIDTH)))[0]
    found = by_name(retrieval(Cloud(part.ecg @ turn, part.text, part.ecg_groups, part.text_groups, part.pairs)))
    assert found["recall@5"].value < 0.35
    assert found["mapped@5"].value > 0.8


def test_the_map_learns_nothing_from_noise() -> None:
    found = by_name(retrieval(paired(80.0), resamples=200))
    assert found["mapped@10"].low < 0.25 < found["mapped@10"].high + 0.02


def test_a_balanced_cloud_has_as_many_of_both_and_does_not_depend_on_the_day() -> None:
    part = cloud(0.0)
    short = Cloud(part.ecg, part.text[:50], part.ecg_groups, part.text_groups[:50])
    one, two = balanced(short, most=40, seed=1), balanced(short, most=40, seed=1)
    assert len(one.ecg) == len(one.text) == 40
    assert (one.ecg == two.ecg).all()
    assert len(balanced(short, most=400).ecg) == 50
    assert one.pairs is None


@pytest.mark.parametrize(
    ("ecg", "text", "said"),
    [
        (np.zeros((30, 4)), np.zeros((30, 5)), "ECG vectors are 4 wide and text vectors 5"),
        (np.zeros((3, 4)), np.zeros((30, 4)), "too few"),
        (np.full((30, 4), np.nan), np.zeros((30, 4)), "NaN"),
        (np.zeros(30), np.zeros((30, 4)), "shapes"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_remedy(ecg: np.ndarray, text: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        Cloud(ecg, text, ("a",) * len(ecg), ("b",) * len(text))
    assert caught.value.remedy


def test_pairs_and_groups_must_fit() -> None:
    part = cloud(0.0)
    with pytest.raises(DataError, match="differ in number"):
        Cloud(part.ecg, part.text, ("a",), part.text_groups)
    with pytest.raises(DataError, match="one text for each ECG"):
        Cloud(part.ecg, part.text, part.ecg_groups, part.text_groups, np.array([0, 1]))
    with pytest.raises(DataError, match="no pairs"):
        retrieval(part)
