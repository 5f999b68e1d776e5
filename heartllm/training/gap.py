"""The reading gap: what is in the codes that the language model does not tell.

    (a) a small convolutional probe on the waveform
    (b) the same probe on what the frozen front-end gives: codes, as digits, or values
    (c) the language model: log p(yes) - log p(no) for "does this ECG show X?"

each as macro AUC over the same findings and recordings. (a) - (b) is lost by the front-end, (b) - (c) by the language
model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from heartllm.codec.store import TokenStore, ecg_of
from heartllm.data.records import Entry, Labels
from heartllm.data.tabular import patient_features
from heartllm.data.templates import all_asked
from heartllm.errors import DataError
from heartllm.frontends.base import FrontEnd
from heartllm.language.generation import Generator, ResponderItem
from heartllm.training.probe import (
    Bools,
    DigitStem,
    Floats,
    ProbeSettings,
    ValueStem,
    WaveformStem,
    auc,
    bootstrap_difference,
    macro_auc,
    predict,
    train_probe,
)
from heartllm.training.tokenizer import Waveforms, millivolts


@dataclass(frozen=True)
class Gap:
    """Macro AUC of the three readers on one split, and by finding. `waveform` is None where no waveforms were given."""

    findings: tuple[str, ...]
    recordings: int
    waveform: float | None
    codes: float
    language: float
    gap_interval: tuple[float, float]
    by_finding: dict[str, tuple[float | None, float, float]]
    read: str = "codes, as digits"

    @property
    def gap(self) -> float:
        """(b) - (c)."""
        return self.codes - self.language

    def to_markdown(self, title: str) -> str:
        low, high = self.gap_interval
        lines = [
            f"Reading gap, {title}: macro AUC over {len(self.findings)} findings, {self.recordings} recordings.\n",
            "| reader | macro AUC |",
            "|---|---|",
            f"| (a) probe on the waveform | {_figure(self.waveform)} |",
            f"| (b) the same probe on the {self.read} | {self.codes:.3f} |",
            f"| (c) language model, yes against no | {self.language:.3f} |",
            f"| gap (b) - (c) | {self.gap:.3f} [{low:.3f}, {high:.3f}] |",
            "\n| finding | waveform | codes | language model |",
            "|---|---|---|---|",
        ]
        for name, (a, b, c) in self.by_finding.items():
            lines.append(f"| {name} | {_figure(a)} | {b:.3f} | {c:.3f} |")
        return "\n".join(lines) + "\n"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def statement_table(labels: Sequence[Labels], names: Sequence[str]) -> Bools:
    """(R, F): the statement is there, with any likelihood."""
    return np.array([[name in (one.statements or {}) for name in names] for one in labels], dtype=bool)


def choose_findings(
    train: Sequence[Entry], test: Sequence[Entry], *, minimum: int = 30, minimum_test: int = 4
) -> list[str]:
    """Statements that enough training recordings have and that enough test recordings have and have not."""
    names = sorted({name for entry in train for name in entry.labels.statements or {}})
    counts = statement_table([entry.labels for entry in train], names).sum(0)
    tests = statement_table([entry.labels for entry in test], names).sum(0)
    asked = question_texts()
    return [
        name
        for name, count, there in zip(names, counts, tests, strict=True)
        if count >= minimum and minimum_test <= there <= len(test) - minimum_test and name in asked
    ]


def question_texts() -> dict[str, str]:
    """Statement name -> the wording of ECG-QA's template 1 about it."""
    return {asked.attribute[0]: asked.text for asked in all_asked() if asked.template.id == 1}


def language_scores(
    generator: Generator, store: TokenStore, entries: Sequence[Entry], names: Sequence[str], *, features: bool
) -> Floats:
    """(R, F) log p(yes) - log p(no) in nats."""
    texts = question_texts()
    rows = []
    for entry in entries:
        text = patient_features(entry) if features else ""
        item = ResponderItem(entry.record_id, ecg_of(store.of(entry.record_id)), None, text)
        scores = generator.option_scores(item, [texts[name] for name in names], ["yes", "no"])
        rows.append(scores[:, 0] - scores[:, 1])
    return np.array(rows)


def probe_inputs(front: FrontEnd, stored: npt.NDArray[Any]) -> torch.Tensor:
    """Stored codes (R, N) uint16, where what fills up short ECGs becomes a code more, or values (R, N, width)."""
    if front.codes is None:
        return torch.from_numpy(stored.astype(np.float32))
    return torch.from_numpy(np.minimum(stored.astype(np.int64), front.codes if not front.levels else front.codes - 1))


def probe_stem(front: FrontEnd, width: int) -> tuple[torch.nn.Module, str]:
    """The probe's first layer for what a front-end gives, and the name of that."""
    if front.width is not None:
        return ValueStem(front.width, width), "values"
    if front.levels:
        return DigitStem(front.levels, width), "codes, as digits"
    return DigitStem(((front.codes or 0) + 1,), width), "codes"


def measure_gap(
    front: FrontEnd,
    generator: Generator,
    splits: dict[str, tuple[TokenStore, Sequence[Entry], Waveforms | None]],
    *,
    split: str = "test",
    features: bool = True,
    settings: ProbeSettings | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> Gap:
    """Trains the two probes on "train", chooses their epoch on "valid", and scores all three readers on `split`.

    Args:
        splits: "train", "valid" and `split` -> token store, the entries it holds, and their waveforms in the same
            order or None.
    """
    settings = settings or ProbeSettings()
    train_store, train_entries, train_waveforms = splits["train"]
    store, entries, waveforms = splits[split]
    names = choose_findings(train_entries, entries)
    if not names:
        raise DataError("no finding is frequent enough to measure", where=split, remedy="Use more recordings.")
    truth = {key: statement_table([entry.labels for entry in value[1]], names) for key, value in splits.items()}

    def codes_of(key: str) -> torch.Tensor:
        stored, listed, _ = splits[key]
        return probe_inputs(front, stored.codes[[stored.rows[entry.record_id] for entry in listed], 0])

    row_of = np.array([train_store.rows[entry.record_id] for entry in train_entries])

    def code_batch(rows: npt.NDArray[np.int64], rng: np.random.Generator) -> torch.Tensor:
        views = rng.integers(train_store.codes.shape[1], size=len(rows))
        return probe_inputs(front, train_store.codes[row_of[rows], views])

    first, read = probe_stem(front, settings.width)
    say(f"(b) probe on {read}: {settings.steps} steps")
    probe = train_probe(first, code_batch, truth["train"], codes_of("valid"), truth["valid"], settings)
    codes = predict(probe, codes_of(split))
    wave: Floats | None = None
    if train_waveforms is not None and waveforms is not None and splits["valid"][2] is not None:

        def wave_batch(rows: npt.NDArray[np.int64], rng: np.random.Generator) -> torch.Tensor:
            shift = rng.integers(-16, 17)
            gain = torch.from_numpy(rng.uniform(0.9, 1.1, (len(rows), 1, 1)).astype(np.float32))
            return gain * torch.roll(_whole(train_waveforms, rows), int(shift), -1)

        say(f"(a) probe on waveforms: {settings.steps} steps")
        valid_waveforms = splits["valid"][2]
        all_valid, all_test = np.arange(len(valid_waveforms)), np.arange(len(waveforms))
        stem = WaveformStem(settings.width)
        probe = train_probe(
            stem, wave_batch, truth["train"], _whole(valid_waveforms, all_valid), truth["valid"], settings
        )
        wave = predict(probe, _whole(waveforms, all_test))
    say("(c) language model")
    language = language_scores(generator, store, entries, names, features=features)
    wanted = truth[split]
    return Gap(
        findings=tuple(names),
        recordings=len(entries),
        waveform=None if wave is None else macro_auc(wave, wanted),
        codes=macro_auc(codes, wanted),
        language=macro_auc(language, wanted),
        gap_interval=bootstrap_difference(codes, language, wanted, [entry.patient_id for entry in entries]),
        by_finding={
            name: (
                None if wave is None else auc(wave[:, i], wanted[:, i]),
                auc(codes[:, i], wanted[:, i]),
                auc(language[:, i], wanted[:, i]),
            )
            for i, name in enumerate(names)
        },
        read=read,
    )


def _whole(waveforms: Waveforms, rows: npt.NDArray[np.int64]) -> torch.Tensor:
    return millivolts(waveforms, rows, np.zeros(len(rows), np.int64), waveforms.shape[2])
