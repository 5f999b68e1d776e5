"""Examples: written, reopened, drawn from; constant memory; each recording once a pass."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.codec.store import TokenStore
from heartllm.data.records import Entry, Labels, Question
from heartllm.errors import CheckpointError, DataError
from heartllm.language.packing import IGNORED, Packed
from heartllm.training.examples import (
    EXACT,
    Drawing,
    Examples,
    at,
    draw_sequence,
    example_fingerprint,
    move_digits,
    order,
    write_examples,
)

LEVELS = (3, 3, 2, 2)
SIX = (6, 6, 6, 6)


def make_store(folder: Path, count: int, views: int = 2, codes: int = 20) -> TokenStore:
    folder.mkdir(parents=True)
    values = np.random.default_rng(0).integers(0, 36, (count, views, codes)).astype(np.uint16)
    np.save(folder / "codes.npy", values)
    keys = [f"r{number}" for number in range(count)]
    manifest = {
        "schema": 1,
        "codec": "c",
        "dataset": "d",
        "data": f"h{count}",
        "shape": list(values.shape),
        "keys": keys,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return TokenStore.open(folder, "c")


def make_entries(count: int) -> list[Entry]:
    return [
        Entry(
            f"r{number}",
            f"p{number}",
            "d",
            Path("nowhere"),
            labels=Labels(statements={"sinus rhythm": 0.0} if number % 2 else {}),
            report=f"report {number}" if number % 3 == 0 else None,
            age=40.0 + number % 50,
            sex="female",
        )
        for number in range(count)
    ]


def ask(key: str, number: int) -> Question:
    return Question(1, number, number, "single-verify", "scp_code", f"Question {number}?", ("yes",), (key,), ("a",))


def make_examples(folder: Path, vocabulary: Any, count: int = 12, **settings: Any) -> Examples:
    store = make_store(folder / "store", count)
    questions = {f"r{number}": [ask(f"r{number}", i) for i in range(number % 5)] for number in range(count)}
    write_examples(
        folder / "examples",
        [(0, store, make_entries(count), questions)],
        vocabulary,
        mark="m",
        minimum=2,
        **settings,
    )
    return Examples(folder / "examples", [store], vocabulary, "m")


def test_written_examples_come_back(vocabulary: Any, tmp_path: Path) -> None:
    examples = make_examples(tmp_path, vocabulary)
    assert len(examples) == 12
    assert examples.names == ["statement: sinus rhythm"]
    for number in range(12):
        row = examples.row(number)
        assert (row.codes == examples.stores[0].codes[number]).all()
        assert vocabulary.decode(row.features.tolist()) == f"Age: {40 + number} years. Sex: female."
        wanted = [(f"Question: Question {i}? Answer:", "yes") for i in range(number % 5)]
        if number % 3 == 0:
            wanted.append(("Report:", f"report {number}"))
        found = [(vocabulary.decode(a.tolist()), vocabulary.decode(b[:-1].tolist())) for a, b in row.pairs]
        assert found == wanted
        assert all(answer[-1] == vocabulary.eos for _, answer in row.pairs)
        assert row.findings.tolist() == [number % 2]


def test_settings_of_the_writer(vocabulary: Any, tmp_path: Path) -> None:
    bare = make_examples(tmp_path / "a", vocabulary, features=False, reports=0, names=["statement: other"])
    assert len(bare.row(3).features) == 0
    assert len(bare.row(3).pairs) == 3
    assert bare.names == ["statement: other"]
    assert not bare.findings.any()
    twice = make_examples(tmp_path / "b", vocabulary, repeat={0: 2})
    assert len(twice) == 24
    assert (twice.ecgs[0] == twice.ecgs[1]).all()


def test_what_does_not_belong_is_refused(vocabulary: Any, tmp_path: Path) -> None:
    examples = make_examples(tmp_path, vocabulary)
    with pytest.raises(CheckpointError, match="other data or settings"):
        Examples(tmp_path / "examples", examples.stores, vocabulary, "another mark")
    (tmp_path / "examples" / "pairs.npy").write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Examples(tmp_path / "examples", examples.stores, vocabulary, "m")
    with pytest.raises(DataError, match="no recording of the token stores"):
        write_examples(tmp_path / "none", [(0, examples.stores[0], [], {})], vocabulary, mark="m")


def test_the_fingerprint_follows_data_vocabulary_and_settings(vocabulary: Any, tmp_path: Path) -> None:
    a, b = make_store(tmp_path / "a", 3), make_store(tmp_path / "b", 4)
    marks = {
        example_fingerprint([a], vocabulary, 1),
        example_fingerprint([b], vocabulary, 1),
        example_fingerprint([a, b], vocabulary, 1),
        example_fingerprint([a], vocabulary, 2),
        example_fingerprint([a], replace(vocabulary, base=vocabulary.base + 1), 1),
    }
    assert len(marks) == 5
    assert example_fingerprint([a], vocabulary, 1) in marks


def peak(examples: Examples, vocabulary: Any) -> int:
    """Bytes that drawing 150 sequences allocates at the most."""
    tracemalloc.start()
    for step in range(150):
        row = examples.row(at(step, len(examples), 0))
        draw_sequence(row, vocabulary, LEVELS, Drawing(crop=5), np.random.default_rng(step))
    top = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return top


def test_memory_does_not_grow_with_the_data(vocabulary: Any, tmp_path: Path) -> None:
    small = make_examples(tmp_path / "small", vocabulary, 150)
    large = make_examples(tmp_path / "large", vocabulary, 3000)
    files = [tmp_path / name / "examples" / "tokens.npy" for name in ("small", "large")]
    assert files[1].stat().st_size > 15 * files[0].stat().st_size
    for values in (large.tokens, large.pairs, large.ecgs, large.findings, large.stores[0].codes):
        assert isinstance(values, np.memmap)
    peak(small, vocabulary)  # imports and caches
    assert peak(large, vocabulary) < 1.5 * peak(small, vocabulary) + 20_000


@given(count=st.integers(1, 400), seed=st.integers(0, 5), turn=st.integers(0, 3))
def test_each_recording_comes_once_a_pass(count: int, seed: int, turn: int) -> None:
    found = [at(turn * count + i, count, seed) for i in range(count)]
    assert sorted(found) == list(range(count))


def test_passes_differ_and_order_is_at_in_sequence() -> None:
    passes = [[at(turn * 211 + i, 211, 0) for i in range(211)] for turn in range(4)]
    assert len({tuple(one) for one in passes}) == 4
    assert passes[0] != list(range(211))
    iterator = order(211, 0)
    assert [next(iterator) for _ in range(422)] == passes[0] + passes[1]
    assert [at(i, 211, 1) for i in range(211)] != passes[0]


@given(
    levels=st.lists(st.integers(2, 8), min_size=1, max_size=5),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_moved_digits_stay_in_range_and_move_one_level(levels: list[int], share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, math.prod(levels), 50)
    moved = move_digits(codes, tuple(levels), share, rng)
    radix = 1
    for level in levels:
        before, after = codes // radix % level, moved // radix % level
        assert (abs(before - after) <= 1).all()
        radix *= level
    assert (moved >= 0).all()
    assert (moved < radix).all()


def test_the_share_of_moved_digits_is_the_one_asked_for() -> None:
    rng = np.random.default_rng(0)
    codes = np.full(20_000, 2 + 6 * (2 + 6 * (2 + 6 * 2)))  # inner levels: every move is possible
    moved = move_digits(codes, SIX, 0.1, rng)
    assert float((moved % 6 != 2).mean()) == pytest.approx(0.1, abs=0.01)
    assert (move_digits(codes, SIX, 0.0, rng) == codes).all()


def codes_of(sequence: Packed, vocabulary: Any) -> list[int]:
    inside = (sequence.ids >= vocabulary.first_code) & (sequence.branch == 0)
    return [int(i) for i in sequence.ids[inside] - vocabulary.first_code]


def test_every_setting_of_a_drawing(vocabulary: Any, tmp_path: Path) -> None:
    examples = make_examples(tmp_path, vocabulary)
    row = examples.row(9)  # four questions and a report
    views = [view.tolist() for view in row.codes.astype(int)]

    def draw(how: Drawing, seed: int = 0) -> Packed:
        return draw_sequence(row, vocabulary, LEVELS, how, np.random.default_rng(seed))

    exact = draw(EXACT)
    assert codes_of(exact, vocabulary) == views[0]
    assert exact.branch.max() == 5
    assert exact.ids[0] == vocabulary.bos[0]
    assert vocabulary.decode(exact.ids[exact.branch == 0].tolist()) == "Age: 49 years. Sex: female."

    assert {tuple(codes_of(draw(replace(EXACT, views=True), s), vocabulary)) for s in range(20)} == set(
        map(tuple, views)
    )
    lengths = {len(codes_of(draw(replace(EXACT, crop=5), seed), vocabulary)) for seed in range(60)}
    assert lengths == set(range(15, 21))
    cropped = codes_of(draw(replace(EXACT, crop=5), 1), vocabulary)
    assert cropped == views[0][-len(cropped) :]
    assert codes_of(draw(replace(EXACT, flip=0.5)), vocabulary) != views[0]
    assert {int(draw(replace(EXACT, questions=2), seed).branch.max()) for seed in range(5)} == {2}
    assert int(draw(replace(EXACT, questions=0)).branch.max()) == 0

    def features(how: Drawing, seed: int = 0) -> str:
        sequence = draw(how, seed)
        text: str = vocabulary.decode(sequence.ids[sequence.branch == 0].tolist())
        return text

    shown = [features(replace(EXACT, features=0.5), seed) != "" for seed in range(100)]
    assert 30 < sum(shown) < 70
    assert features(replace(EXACT, features=0.0)) == ""

    targets = np.flatnonzero(exact.forecast != IGNORED)
    assert [int(i) for i in exact.forecast[targets] - vocabulary.first_code] == views[0]
    assert (exact.forecast[targets] == exact.ids[targets + 1]).all()


def test_a_blind_sequence_shows_nothing_of_the_ecg(vocabulary: Any, tmp_path: Path) -> None:
    row = make_examples(tmp_path, vocabulary).row(9)
    sequences = [
        draw_sequence(row, vocabulary, LEVELS, replace(EXACT, blind=True, views=True), np.random.default_rng(seed))
        for seed in range(5)
    ]
    for sequence in sequences:
        assert (sequence.ids < vocabulary.base).all()
        assert (sequence.forecast == IGNORED).all()
        assert (sequence.ids == sequences[0].ids).all()
        assert (sequence.labels != IGNORED).any()
