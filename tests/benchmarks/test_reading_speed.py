"""Reading: our reader against `wfdb.rdsamp`, and a tuning step's input from the token store against the waveforms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")
wfdb = pytest.importorskip("wfdb", reason="needs the model stack: pip install 'heartllm[model]'")

from heartllm.checkpoint import load_codec, load_language  # noqa: E402
from heartllm.codec.store import TokenStore, ecg_of  # noqa: E402
from heartllm.data.dataset import Dataset, open_dataset  # noqa: E402
from heartllm.data.dataset_check import read_all  # noqa: E402
from heartllm.data.records import Entry  # noqa: E402
from heartllm.data.synthetic import write_site  # noqa: E402
from heartllm.ecg import read_recording  # noqa: E402
from heartllm.ecg.recording import LEADS  # noqa: E402
from heartllm.frontends.tokenise import write_store  # noqa: E402
from heartllm.language.packing import Batch, collate  # noqa: E402
from heartllm.recipe import QuestionSettings  # noqa: E402
from heartllm.training.examples import Drawing, ECGRow, Examples, draw_sequence, write_examples  # noqa: E402
from heartllm.workshop import questions_of  # noqa: E402

REFERENCE = Path(__file__).parents[2] / "reports" / "reference" / "checkpoint"
RECORDINGS, BATCH = 40, 8


@dataclass(frozen=True)
class Site:
    """Some recordings of a synthetic site in PTB-XL's files, and what training makes of them."""

    dataset: Dataset
    entries: Sequence[Entry]
    store: TokenStore
    examples: Examples
    codec: Any
    levels: tuple[int, ...]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("reading")
    write_site("a", root, recordings=RECORDINGS, seed=11, workers=1)
    dataset = open_dataset("synthetic-a", root)
    entries = dataset.entries()
    codec, digest = load_codec(REFERENCE)
    store = write_store(
        root / "tokens", codec, digest, entries, lambda part: read_all(dataset, part), dataset=dataset.name
    )
    model, _ = load_language(REFERENCE)
    questions = questions_of(entries, QuestionSettings(min_positives=1), "train")
    write_examples(root / "examples", [(0, store, entries, questions)], model.vocabulary, mark="", minimum=1)
    return Site(dataset, entries, store, Examples(root / "examples", [store], model.vocabulary), codec, model.levels)


def by_wfdb(path: Path) -> np.ndarray:
    """(12, T) float32 mV, as a script reads it."""
    signal, fields = wfdb.rdsamp(str(path))
    names = [name.upper() for name in fields["sig_name"]]
    return np.ascontiguousarray(signal.T[[names.index(lead.upper()) for lead in LEADS]], np.float32)


@pytest.mark.benchmark(group="reading")
def test_recordings_are_read_several_times_faster_than_by_wfdb(site: Site, race: Any) -> None:
    paths = [entry.path.with_suffix("") for entry in site.entries]
    for path in paths:
        np.testing.assert_array_equal(read_recording(path).signal, by_wfdb(path))
    race(
        "reading 10 s recordings",
        unit="recording",
        ours=lambda: [read_recording(path) for path in paths],
        plain=lambda: [by_wfdb(path) for path in paths],
        plain_is="wfdb.rdsamp",
        units=RECORDINGS,
        least=5.0,
        aim=5.0,
    )


def from_waveform(site: Site, row: int) -> np.ndarray:
    """The codes (1, N) of a recording, from its file."""
    codes: np.ndarray = site.codec.encode(torch.from_numpy(by_wfdb(site.entries[row].path.with_suffix("")))[None])
    return np.asarray(codes)


@pytest.mark.benchmark(group="token store")
def test_codes_of_a_step_come_from_the_store_many_times_faster_than_from_waveforms(site: Site, race: Any) -> None:
    rows = range(BATCH)
    for row in rows:
        np.testing.assert_array_equal(ecg_of(site.store.codes[row, 0]), from_waveform(site, row)[0])
    race(
        "ECGs of a tuning step, from the store",
        unit="recording",
        ours=lambda: [ecg_of(site.store.codes[row, 0]) for _ in range(50) for row in rows],
        plain=lambda: [from_waveform(site, row) for row in rows],
        plain_is="wfdb.rdsamp and the codec at every step",
        units=50 * BATCH,
        plain_units=BATCH,
        least=50.0,
        aim=50.0,
    )


@pytest.mark.benchmark(group="token store")
def test_whole_inputs_of_a_step_come_faster_from_the_store(site: Site, race: Any) -> None:
    """With texts, drawn questions, packing and padding, which both ways do alike."""
    how = Drawing(crop=0, flip=0.0, views=False)

    def batch(rows: Sequence[ECGRow]) -> Batch:
        rng = np.random.default_rng(0)
        vocabulary = site.examples.vocabulary
        return collate([draw_sequence(row, vocabulary, site.levels, how, rng) for row in rows], vocabulary.pad)

    def ours() -> Batch:
        return batch([site.examples.row(row) for row in range(BATCH)])

    def plain() -> Batch:
        rows = [(row, site.examples.row(row)) for row in range(BATCH)]
        return batch([replace(one, codes=from_waveform(site, row).astype(np.uint16)) for row, one in rows])

    assert torch.equal(ours().ids, plain().ids)
    race(
        "whole input of a tuning step, packed",
        unit="recording",
        ours=ours,
        plain=plain,
        plain_is="wfdb.rdsamp and the codec at every step",
        units=BATCH,
        least=4.0,
    )
