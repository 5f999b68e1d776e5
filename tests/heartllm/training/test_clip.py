"""CLIP-style training: InfoNCE against its formula, missing and repeated reports, learning, resuming, refusing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from heartllm.errors import DataError, UsageError
from heartllm.frontends.clip import ClipConfig
from heartllm.training import clip as training
from heartllm.training.clip import Pairs, info_nce, recall_at, retrieval_figures, train_clip
from heartllm.training.loop import LoopConfig
from heartllm.training.tokenizer import Waveforms

CONFIG = ClipConfig(channels=4, blocks=1, embedding=16, heads=2, text_width=6)
LOOP = LoopConfig(steps=6, learning_rate=3e-3, warmup=2, evaluate_every=3)
KINDS = ("slow.", "faster.", "fast.", "very fast.")


class Text:
    """A text side that knows each text by its letters."""

    rows = torch.zeros(10, 6)
    fingerprint = "letters"

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.stack(
            [torch.randn(6, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in texts]
        )


TEXT: Any = Text()


def waves(count: int, seed: int = 0, samples: int = 640) -> tuple[Waveforms, list[str]]:
    """(R, 12, samples) microvolts, sines of one of four frequencies, and the report that tells which."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) % len(KINDS)
    time = np.arange(samples) / 500 + rng.uniform(0, 1, (count, 1, 1))
    signal = rng.uniform(0.5, 1.0, (count, 12, 1)) * np.sin(2 * np.pi * (2.0 ** kinds[:, None, None]) * time)
    return np.round(1000 * signal).astype(np.int16), [KINDS[kind] for kind in kinds]


def unit(seed: int, rows: int = 5) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def test_info_nce_is_its_formula() -> None:
    first, second = unit(0), unit(1)
    total, (a, b) = 0.0, (first.tolist(), second.tolist())
    for x, y in ((a, b), (b, a)):
        for i, row in enumerate(x):
            scores = [math.exp(sum(p * q for p, q in zip(row, other, strict=True)) / 0.07) for other in y]
            total -= math.log(scores[i] / sum(scores))
    assert float(info_nce(first, second, 0.07)) == pytest.approx(total / (2 * len(a)))


def test_info_nce_of_a_pair_by_hand() -> None:
    """Two orthogonal pairs, temperature 1: -log(e / (e + 1)), from either side."""
    assert float(info_nce(torch.eye(2), torch.eye(2), 1.0)) == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-6)


def test_equal_texts_are_no_negatives() -> None:
    """With the last row a copy of the first, each of both sees the other rows and itself only."""
    first, second, same = unit(0), unit(1), torch.tensor([0, 1, 2, 3, 0])
    logits = first @ second.T / 0.07
    total = 0.0
    for i in range(5):
        keep = [j for j in range(5) if j == i or same[j] != same[i]]
        for scores in (logits, logits.T):
            total += float(F.cross_entropy(scores[i, keep], torch.tensor(keep.index(i))))
    assert float(info_nce(first, second, 0.07, same)) == pytest.approx(total / 10)
    assert float(info_nce(first, second, 0.07, torch.arange(5))) == float(info_nce(first, second, 0.07))


def test_recall_counts_the_nearest() -> None:
    candidates = torch.eye(4)
    queries = torch.tensor([[1.0, 0, 0, 0], [0.9, 0.5, 0, 0], [0.5, 0.4, 0.3, 0.2]])
    found = recall_at(queries, candidates, torch.tensor([0, 1, 3]), (1, 2, 4))
    assert found == {"recall@1": pytest.approx(1 / 3), "recall@2": pytest.approx(2 / 3), "recall@4": 1.0}


def test_pairs_leave_out_what_has_no_report() -> None:
    signal, _ = waves(5)
    pairs = Pairs(signal, ["b.", None, "a.", "  ", "b."], TEXT)
    assert pairs.rows.tolist() == [0, 2, 4]
    assert pairs.distinct == ["b.", "a."]
    assert pairs.texts.tolist() == [0, 1, 0]
    torch.testing.assert_close(pairs.features, TEXT.embed(["b.", "a."]))
    torch.testing.assert_close(pairs.signal(np.array([2]))[0], torch.from_numpy(signal[4].astype(np.float32) / 1000))
    with pytest.raises(DataError, match="3 reports for 5 recordings"):
        Pairs(signal, ["a."] * 3, TEXT)


def train(folder: Path, config: ClipConfig = CONFIG, loop: LoopConfig = LOOP, **options: Any) -> Any:
    (signal, reports), (valid, valid_reports) = waves(24), waves(8, seed=1)
    given = {"reports": reports, "text": TEXT, "valid_reports": valid_reports, "batch": 8, **options}
    return train_clip(config, loop, signal, valid, folder, **given)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_it_learns_to_find_the_report(tmp_path: Path, weight: float) -> None:
    config = replace(CONFIG, uni_modal=weight)
    front, log = train(tmp_path, config, replace(LOOP, steps=60, evaluate_every=20, learning_rate=1e-2))
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["valid_recall@1"] > 0.7 > log[-1]["valid_chance@1"] == 0.25
    assert ("uni_modal" in log[-1]) == bool(weight)
    signal, reports = waves(8, seed=2)
    figures = retrieval_figures(front, Pairs(signal, reports, TEXT))
    assert figures["recall@1"] > 0.7
    values = front.encode(torch.from_numpy(waves(24)[0].astype(np.float32) / 1000)).flatten(0, 1)
    torch.testing.assert_close(values.mean(0), torch.zeros(32), atol=1e-3, rtol=0)
    assert not front.training
    front.check_text(TEXT.fingerprint)


def test_stopped_and_continued_is_as_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, uni_modal=1.0)  # its dropout draws from torch's own state
    whole, whole_log = train(tmp_path / "whole", config)
    again, _ = train(tmp_path / "again", config)
    real, calls = training.millivolts, iter(range(1, 1000))

    def read(*arguments: Any) -> torch.Tensor:
        if next(calls) == 6:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(training, "millivolts", read)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", config)
    monkeypatch.setattr(training, "millivolts", real)
    assert (tmp_path / "parts" / "state.pt").exists()
    parts, log = train(tmp_path / "parts", config)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        assert torch.equal(value, parts.state_dict()[name]), name
    assert [entry["valid_loss"] for entry in log] == [entry["valid_loss"] for entry in whole_log]


def test_missing_reports_are_left_out_of_training(tmp_path: Path) -> None:
    """What a recording without a report looks like does not matter, but for the leads' scale."""
    signal, reports = waves(24)
    some: list[str | None] = [None if i % 3 == 0 else report for i, report in enumerate(reports)]
    other = signal.copy()
    other[::3] = -other[::3]
    fronts = [
        train_clip(CONFIG, LOOP, given, given[:0], tmp_path / name, reports=some, text=TEXT, batch=8)[0]
        for name, given in (("a", signal), ("b", other))
    ]
    for name, value in fronts[0].network.state_dict().items():
        assert torch.equal(value, fronts[1].network.state_dict()[name]), name


def test_what_cannot_be_aligned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--text CHECKPOINT"):
        train(tmp_path, text=None)
    with pytest.raises(UsageError, match="Set text_width = 6"):
        train(tmp_path, replace(CONFIG, text_width=7))
    for reports in (None, [None] * 24, ["the same."] * 24):
        with pytest.raises(DataError, match="nothing to tell apart"):
            train(tmp_path, reports=reports)
