"""Figures of what is finished: the reading gap of a checkpoint, and what a codec keeps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from heartllm.checkpoint import load_codec
from heartllm.codec.report import codec_stage_report
from heartllm.codec.store import TokenStore
from heartllm.data.dataset import Dataset
from heartllm.data.dataset_check import read_all
from heartllm.data.records import Entry
from heartllm.responder import Responder
from heartllm.training.gap import measure_gap
from heartllm.training.probe import ProbeSettings
from heartllm.training.tokenizer import Waveforms, cache_waveforms

Say = Callable[[str], object]


def gap_stage(
    dataset: Dataset,
    checkpoint: Path,
    tokens: Path,
    *,
    split: str = "test",
    with_waveforms: bool = True,
    steps: int = 3000,
    say: Say = print,
) -> str:
    """Measures the reading gap of a checkpoint on one split and returns it as Markdown."""
    responder = Responder.load(checkpoint)
    with tempfile.TemporaryDirectory() as scratch:
        splits: dict[str, tuple[TokenStore, Sequence[Entry], Waveforms | None]] = {}
        for name in ("train", "valid", split):
            store = TokenStore.open(tokens / dataset.name / name, responder.codec_hash)
            entries = [entry for entry in dataset.entries(name) if entry.record_id in store.rows]
            waveforms = None
            if with_waveforms:
                recordings = (recording for _, recording in read_all(dataset, entries, nan_policy="interpolate"))
                waveforms = cache_waveforms(recordings, len(entries), Path(scratch) / f"{name}.npy")
            splits[name] = (store, entries, waveforms)
        gap = measure_gap(
            responder.front,
            responder.generator,
            splits,
            split=split,
            features=responder.config.features,
            settings=ProbeSettings(steps=steps),
            say=say,
        )
    return gap.to_markdown(f"{dataset.name} {split}")


def codec_report_stage(
    dataset: Dataset, codec_folder: Path, *, split: str, most: int | None = None, out: Path | None = None
) -> None:
    """Prints what a codec keeps of one split's recordings, and writes it into `out` if asked."""
    codec, codec_hash = load_codec(codec_folder)
    entries = dataset.entries(split)[:most]
    recordings = (recording for _, recording in read_all(dataset, entries, nan_policy="interpolate"))
    about = {"codec": codec_hash[:12], "recordings": f"{dataset.name} {split}"}
    codec_stage_report(codec, recordings, title=f"Codec on {dataset.name}, {split} split", about=about, out=out)
