"""TEST's training: each loss against a slow plain loop, what it draws, that it learns, resumes and refuses."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from heartllm.errors import DataError, UsageError
from heartllm.frontends.test import TEST, TESTConfig
from heartllm.training import test as training
from heartllm.training.loop import LoopConfig
from heartllm.training.test import (
    Contrast,
    draw_windows,
    feature_loss,
    instance_loss,
    strong_view,
    text_loss,
    text_prototypes,
    train_test,
    triplet_loss,
    weak_view,
)
from heartllm.training.tokenizer import Waveforms

CONFIG = TESTConfig(width=8, channels=6, layers=2, window=32, windows=3, prototypes=4)
LOOP = LoopConfig(steps=8, learning_rate=3e-3, warmup=2, evaluate_every=4)
TEXT: Any = SimpleNamespace(rows=torch.randn(40, 8, generator=torch.Generator().manual_seed(5)))


def waves(count: int, samples: int = 320, seed: int = 0) -> Waveforms:
    """(R, 12, samples) microvolts: sines of drawn frequency and amplitude."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 500
    frequency, gain = rng.uniform(1, 20, (count, 1, 1)), rng.uniform(0.2, 1.0, (count, 12, 1))
    return np.round(1000 * gain * np.sin(2 * np.pi * frequency * time)).astype(np.int16)


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def batch(seed: int, rows: int = 5, width: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second, third = torch.randn(3, rows, width, generator=generator, dtype=torch.float64)
    return first, second, third


@pytest.mark.parametrize("seed", [0, 1])
def test_equation_1(seed: int) -> None:
    anchor, positive, _ = (part.tolist() for part in batch(seed))
    total = 0.0
    for i, e in enumerate(anchor):
        near = math.exp(cosine(e, positive[i]) / 0.2)
        far = sum(math.exp(cosine(e, other) / 0.2) for j, other in enumerate(anchor) if j != i)
        total -= math.log(near / (near + far))
    found = instance_loss(torch.tensor(anchor), torch.tensor(positive), 0.2)
    assert float(found) == pytest.approx(total / len(anchor), rel=1e-5)


def plain_feature_loss(a: Any, p: Any, n: Any, tau: float) -> float:
    """Equation 2, column by column of lists of rows, as a mean over the columns."""

    def columns(matrix: Any) -> list[list[float]]:
        return [list(column) for column in zip(*matrix, strict=True)]

    anchors, positives, negatives = columns(a), columns(p), columns(n)
    total = 0.0
    for i, m in enumerate(anchors):
        others = sum(
            math.exp(cosine(m, positives[j]) / tau) + math.exp(cosine(m, negatives[j]) / tau)
            for j in range(len(anchors))
        )
        total -= math.log(math.exp(cosine(m, positives[i]) / tau) / others)
    return total / len(anchors)


@pytest.mark.parametrize("seed", [0, 1])
def test_equation_2(seed: int) -> None:
    parts = batch(seed)
    expected = plain_feature_loss(*(part.tolist() for part in parts), 0.2)
    assert float(feature_loss(*parts, 0.2)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_equation_3(seed: int) -> None:
    parts = batch(seed)
    prototypes = torch.randn(3, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)

    def coordinates(rows: Any) -> list[list[float]]:
        return [[sum(x * y for x, y in zip(e, tp, strict=True)) for tp in prototypes.tolist()] for e in rows]

    near = [cosine(tp, e) for e in parts[0].tolist() for tp in prototypes.tolist()]
    contrast = plain_feature_loss(*(coordinates(part.tolist()) for part in parts), 0.2)
    loss, similarity = text_loss(prototypes, *parts, 0.2)
    assert float(similarity) == pytest.approx(sum(near) / len(near))
    assert float(loss) == pytest.approx(contrast - sum(near) / len(near))


def test_released_triplet_loss() -> None:
    anchor, positive, other = batch(3)
    negatives = torch.stack([other, other.flip(0)], 1)  # (B, 2, M)
    total = 0.0
    for a, p, ns in zip(anchor.tolist(), positive.tolist(), negatives.tolist(), strict=True):
        dots = [sum(x * y for x, y in zip(a, b, strict=True)) for b in (p, *ns)]
        total += math.log(1 + math.exp(-dots[0])) + sum(math.log(1 + math.exp(dot)) for dot in dots[1:]) / 2
    assert float(triplet_loss(anchor, positive, negatives)) == pytest.approx(total / len(anchor))


def test_prototypes_are_the_centres_of_k_means() -> None:
    from scipy.cluster.vq import kmeans2

    generator = torch.Generator().manual_seed(0)
    homes = 10 * torch.randn(4, 3, generator=generator)
    rows = homes.repeat(25, 1) + 0.1 * torch.randn(100, 3, generator=generator)
    found = text_prototypes(rows, 4)
    expected, _ = kmeans2(rows.numpy(), homes.numpy(), minit="matrix")
    order = torch.cdist(found, homes).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    torch.testing.assert_close(found, torch.from_numpy(expected)[order], rtol=1e-4, atol=1e-4)
    assert torch.equal(found, text_prototypes(rows, 4))
    with pytest.raises(DataError, match="prototypes"):
        text_prototypes(rows[:3], 4)


def test_prototypes_of_equal_rows() -> None:
    assert torch.equal(text_prototypes(torch.ones(6, 2), 3), torch.ones(3, 2))


def test_views_keep_what_they_are_named_for() -> None:
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    windows = torch.randn(6, 12, 32)
    quiet = replace(CONFIG, jitter=0.0)
    weak = weak_view(windows, quiet, generator)
    gains = weak / windows
    torch.testing.assert_close(gains, gains[..., :1].expand_as(gains), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(gains, torch.ones_like(gains), atol=0.01)
    strong = strong_view(windows, quiet, generator, rng)
    torch.testing.assert_close(strong.sort(-1).values, windows.sort(-1).values)
    assert not torch.equal(strong, windows)
    for before, after in zip(windows, strong, strict=True):  # at most `segments` pieces: 3 seams, the same in all leads
        place = [(before == column[:, None]).all(0).nonzero().item() for column in after.T]
        assert sum(second != first + 1 for first, second in itertools.pairwise(place)) < quiet.segments


def test_windows_of_a_recording_do_not_overlap() -> None:
    ramp = np.broadcast_to(np.arange(200, dtype=np.int16), (3, 12, 200))
    drawn = 1000 * draw_windows(ramp, CONFIG, 2, np.random.default_rng(1))[:, 0]  # the samples' own numbers
    assert drawn.shape == (6, 32)
    for part in drawn.round().long().view(2, -1):
        assert len(part.unique()) == 96
    with pytest.raises(DataError, match="room for 2 windows"):
        draw_windows(ramp[..., :64], CONFIG, 2, np.random.default_rng(1))


def test_triplet_negatives_come_from_other_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each recording is a constant of its own, so that the scaled crops tell where they are from."""
    config = replace(CONFIG, objective="triplet", negatives=40)
    front = TEST(config)
    monkeypatch.setattr(front, "embed_windows", lambda crops: crops[:, :1, 0])
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(training, "triplet_loss", lambda *parts: seen.extend(parts) or torch.zeros(()))
    windows = torch.arange(4.0).repeat_interleave(3)[:, None, None].expand(12, 12, 32)
    Contrast(front, None)(windows, np.random.default_rng(0))
    anchor, positive, negatives = seen
    assert torch.equal(anchor, positive)
    assert not (negatives[..., 0] == anchor).any()
    assert len(negatives[0].unique()) == 3


def train(folder: Path, config: TESTConfig = CONFIG, loop: LoopConfig = LOOP, text: Any = TEXT) -> Any:
    return train_test(config, loop, waves(12), waves(4, seed=1), folder, text=text, batch=4)


def test_the_loss_falls(tmp_path: Path) -> None:
    front, log = train(tmp_path, loop=replace(LOOP, steps=40, evaluate_every=10, learning_rate=1e-2))
    assert log[-1]["valid_loss"] < log[0]["valid_loss"] - 0.1
    assert {"valid_instance", "valid_feature", "valid_text", "valid_cosine"} <= set(log[-1])
    assert not front.training
    values = front.encode(torch.from_numpy(waves(12).astype(np.float32) / 1000))
    assert float(values.square().mean()) == pytest.approx(1.0, rel=1e-3)


def test_the_triplet_loss_falls_below_that_of_no_embedding(tmp_path: Path) -> None:
    loop = replace(LOOP, steps=40, evaluate_every=40, learning_rate=1e-2)
    _, log = train(tmp_path, replace(CONFIG, objective="triplet"), loop, text=None)
    assert log[-1]["valid_loss"] < 2 * math.log(2) - 0.1


def test_the_text_term_alone_draws_embeddings_to_the_rows(tmp_path: Path) -> None:
    config = replace(CONFIG, instance=0.0, feature=0.0, prototypes=1)
    _, log = train(tmp_path, config, replace(LOOP, steps=40, evaluate_every=40, learning_rate=1e-2))
    assert log[-1]["valid_cosine"] > 0.8


def test_stopped_and_continued_is_as_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, whole_log = train(tmp_path / "whole")
    again, _ = train(tmp_path / "again")
    real, calls = training.millivolts, iter(range(1, 1000))

    def read(*arguments: Any) -> torch.Tensor:
        if next(calls) == 6:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(training, "millivolts", read)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts")
    monkeypatch.setattr(training, "millivolts", real)
    assert (tmp_path / "parts" / "state.pt").exists()
    parts, log = train(tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        assert torch.equal(value, parts.state_dict()[name]), name
    assert [entry["valid_loss"] for entry in log] == [entry["valid_loss"] for entry in whole_log]
    assert len(json.loads((tmp_path / "parts" / "log.jsonl").read_text().splitlines()[-1])) > 4


def test_text_is_asked_for_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--text CHECKPOINT"):
        train(tmp_path, text=None)
    with pytest.raises(UsageError, match="Set width = 5"):
        train(tmp_path, text=SimpleNamespace(rows=torch.zeros(40, 5)))
    with pytest.raises(DataError, match="nothing to contrast"):
        train_test(CONFIG, LOOP, waves(0), waves(0), tmp_path, text=TEXT)


@pytest.mark.parametrize("config", [replace(CONFIG, text=0.0), replace(CONFIG, objective="triplet")])
def test_without_the_text_term_no_text_is_needed(tmp_path: Path, config: TESTConfig) -> None:
    loop = replace(LOOP, steps=2, evaluate_every=2)
    reports: list[str | None] = [None] * 12
    front, log = train_test(config, loop, waves(12), waves(0), tmp_path, reports=reports, batch=4)
    assert front.config == config
    assert "text" not in log[-1]
