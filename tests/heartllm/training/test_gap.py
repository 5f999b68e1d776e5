"""The reading gap on a tiny case: codes that carry a finding, and language models that read all or nothing of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartllm.codec.codec import CodecConfig
from heartllm.codec.store import TokenStore
from heartllm.data.records import Entry, Labels
from heartllm.errors import DataError
from heartllm.frontends.continuous import Continuous, ContinuousConfig
from heartllm.frontends.fsq import FSQCodes
from heartllm.training.gap import (
    choose_findings,
    language_scores,
    measure_gap,
    probe_inputs,
    probe_stem,
    question_texts,
    statement_table,
)
from heartllm.training.probe import ProbeSettings

NAMES = sorted(question_texts())[:2]
SIZES = {"train": 160, "valid": 60, "test": 80}
SETTINGS = ProbeSettings(steps=60, batch=16, width=16, dropout=0.0, evaluate_every=20)


def split_of(name: str, seed: int) -> tuple[TokenStore, list[Entry], np.ndarray]:
    """A store of two views, its entries and waveforms. The first finding sets every fourth code to the last one and
    adds a tall wave; the second shows nowhere."""
    rng = np.random.default_rng(seed)
    count = SIZES[name]
    truth = rng.random((count, 2)) < 0.4
    codes = rng.integers(0, 1000, (count, 2, 40)).astype(np.uint16)
    codes[truth[:, 0], :, ::4] = 1295
    signal = rng.normal(0, 50, (count, 12, 640))
    signal[truth[:, 0], :, ::50] += 1000
    keys = [f"{name}{i}" for i in range(count)]
    entries = [
        Entry(
            key,
            f"p-{key}",
            "made",
            Path(key),
            Labels({finding: 100.0 for finding, there in zip(NAMES, row, strict=True) if there}),
            age=50.0,
        )
        for key, row in zip(keys, truth, strict=True)
    ]
    store = TokenStore(Path(name), codes, {"keys": keys}, {key: row for row, key in enumerate(keys)})
    return store, entries, signal.astype(np.int16)


class FakeGenerator:
    """Says "yes" as far as it reads the codes: fully (1) or not at all (0)."""

    def __init__(self, reads: float) -> None:
        self.reads, self.items = reads, list[Any]()

    def option_scores(self, item: Any, questions: Sequence[str], options: Sequence[str]) -> np.ndarray:
        assert list(options) == ["yes", "no"]
        self.items.append(item)
        seen = self.reads * float((item.codes == 1295).mean())
        return np.array([[seen, 0.0] for _ in questions])


@pytest.fixture(scope="module")
def splits() -> dict[str, tuple[TokenStore, list[Entry], np.ndarray]]:
    return {name: split_of(name, seed) for seed, name in enumerate(SIZES)}


def test_gap_tells_what_the_language_model_does_not_read(
    splits: dict[str, tuple[TokenStore, list[Entry], np.ndarray]],
) -> None:
    codec, said = FSQCodes(CodecConfig(decoder_width=8)), list[str]()
    blind = measure_gap(codec, FakeGenerator(0.0), splits, settings=SETTINGS, say=said.append)  # type: ignore[arg-type]
    assert blind.findings == tuple(NAMES)
    assert blind.recordings == 80
    assert blind.language == 0.5
    shown, hidden = (blind.by_finding[name] for name in NAMES)
    assert shown[0] is not None
    assert shown[0] > 0.95
    assert shown[1] > 0.95
    assert shown[2] == 0.5
    assert abs(hidden[1] - 0.5) < 0.25
    assert blind.codes == pytest.approx((shown[1] + hidden[1]) / 2)
    assert blind.gap == pytest.approx(blind.codes - 0.5)
    low, high = blind.gap_interval
    assert 0 < low < blind.gap < high
    assert len(said) == 3
    text = blind.to_markdown("made, test")
    assert f"| gap (b) - (c) | {blind.gap:.3f} [{low:.3f}, {high:.3f}] |" in text
    assert all(f"| {name} |" in text for name in NAMES)


def test_no_gap_where_the_language_model_reads_as_well_as_the_probe(
    splits: dict[str, tuple[TokenStore, list[Entry], np.ndarray]],
) -> None:
    without = {name: (store, entries, None) for name, (store, entries, _) in splits.items()}
    reader = FakeGenerator(1.0)
    gap = measure_gap(
        FSQCodes(CodecConfig(decoder_width=8)),
        reader,  # type: ignore[arg-type]
        without,
        features=False,
        settings=SETTINGS,
    )
    assert gap.waveform is None
    assert gap.by_finding[NAMES[0]][0] is None
    assert gap.by_finding[NAMES[0]][2] == 1.0
    assert gap.gap < 0.1
    assert "| (a) probe on the waveform | - |" in gap.to_markdown("made")
    assert {item.features for item in reader.items} == {""}
    assert [item.recording_key for item in reader.items] == [entry.record_id for entry in splits["test"][1]]


def test_language_scores_are_in_the_order_asked(
    splits: dict[str, tuple[TokenStore, list[Entry], np.ndarray]],
) -> None:
    store, entries, _ = splits["valid"]
    backwards = entries[::-1][:5]
    reader = FakeGenerator(1.0)
    scores = language_scores(reader, store, backwards, NAMES, features=True)  # type: ignore[arg-type]
    assert scores.shape == (5, 2)
    expected = [float((store.of(entry.record_id) == 1295).mean()) for entry in backwards]
    assert scores[:, 0].tolist() == pytest.approx(expected)
    assert all("50" in item.features for item in reader.items)


def labelled(*statements: str) -> Entry:
    return Entry("r", "p", "made", Path("r"), Labels(dict.fromkeys(statements, 100.0)))


def test_findings_must_be_frequent_enough_and_asked_about() -> None:
    first, second = NAMES
    train = [labelled(first, second, "not in any template")] * 5 + [labelled(first)] * 5
    test = [labelled(first, second, "not in any template")] * 3 + [labelled()] * 3
    assert choose_findings(train, test, minimum=5, minimum_test=3) == [first, second]
    assert choose_findings(train, test, minimum=6, minimum_test=3) == [first]
    assert choose_findings(train, test[:5], minimum=5, minimum_test=3) == []  # too few without it
    assert choose_findings(train, test[1:], minimum=5, minimum_test=3) == []  # too few with it


def test_nothing_to_measure_is_an_error(splits: dict[str, tuple[TokenStore, list[Entry], np.ndarray]]) -> None:
    store, entries, _ = splits["train"]
    few = {
        "train": (store, entries[:20], None),
        "valid": (store, entries[:4], None),
        "test": (store, entries[:4], None),
    }
    with pytest.raises(DataError, match="no finding is frequent enough"):
        measure_gap(FSQCodes(CodecConfig(decoder_width=8)), FakeGenerator(1.0), few)  # type: ignore[arg-type]


def test_unlabelled_recordings_have_no_findings() -> None:
    table = statement_table([Labels(), Labels({NAMES[0]: 0.0})], NAMES)
    assert table.tolist() == [[False, False], [True, False]]  # likelihood 0 means present, likelihood unknown


def test_the_probe_reads_whatever_a_front_end_gives() -> None:
    """Digits of codes, codes that are names (with filling as a name of its own), and values."""

    class Names(FSQCodes):
        levels = ()

    rng = np.random.default_rng(0)
    codec = CodecConfig(levels=(3, 2), decoder_width=8)
    codes, ragged = rng.integers(6, size=(4, 9)).astype(np.uint16), np.full((4, 9), 0xFFFF, np.uint16)
    for front, stored, width, what in (
        (FSQCodes(codec), codes, 5, "codes, as digits"),
        (Names(codec), ragged, 7, "codes"),
        (Continuous(ContinuousConfig(codec, width=3)), rng.normal(size=(4, 9, 3)).astype(np.float16), 3, "values"),
    ):
        stem, read = probe_stem(front, 11)
        assert read == what
        assert stem.linear.in_features == width  # type: ignore[union-attr]
        assert stem(probe_inputs(front, stored)).shape == (4, 11, 9)
