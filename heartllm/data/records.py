"""The three plain things that every dataset is turned into: entries, labels, questions.

An `Entry` is a recording's metadata (the waveform stays on disk), `Labels` are its findings under ECG-QA's names, and a
`Question` is one row of ECG-QA. Datasets produce them, builders and splits combine them, training and evaluation
read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SPLITS = ("train", "valid", "test")
# Several answers in one text: no ECG-QA answer holds a semicolon, while some hold commas.
ANSWER_SEPARATOR = "; "
NOISE_KINDS = ("baseline drift", "static noise", "burst noise", "electrodes problems")


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known about one recording, in ECG-QA's vocabulary.

    None means "not labelled", empty means "labelled, and none".

    Attributes:
        statements: SCP-ECG statement name, as ECG-QA spells it ("left ventricular hypertrophy") -> likelihood in
            per cent; 0 stands for "present, likelihood unknown" as in PTB-XL.
        noise: noise kind (`NOISE_KINDS`) -> canonical lead names that carry it, empty where none does. A kind that is
            absent is not labelled: PTB-XL sometimes notes a noise without its leads.
        infarction_stages: ECG-QA stage names ("early stage of myocardial infarction", ...).
        extra_systoles: ECG-QA names ("extrasystoles", "ventricular extrasystoles", "supraventricular extrasystoles").
        heart_axis: ECG-QA axis name ("normal heart axis", "left axis deviation", ...).
        statement_leads: form statement name ("inverted t-waves") -> canonical lead names that show it; PTB-XL does not
            tell. A present form statement that is absent here is not located.
        intervals: ECG-QA numeric feature name ("pr interval", "qrs duration", ...) -> milliseconds.
    """

    statements: Mapping[str, float] | None = None
    noise: Mapping[str, frozenset[str]] | None = None
    infarction_stages: frozenset[str] | None = None
    extra_systoles: frozenset[str] | None = None
    heart_axis: str | None = None
    intervals: Mapping[str, float] | None = None
    statement_leads: Mapping[str, frozenset[str]] | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One recording's metadata.

    Attributes:
        record_id: unique within the dataset ("17014").
        patient_id: the cluster of every interval and the unit of every split; never shown to a model.
        source: dataset name ("ptbxl", "mimic", "synthetic-a", "georgia", ...).
        path: the waveform file without its extension, absolute.
        split: "train", "valid", "test", or None where the dataset defines none.
        age: years; PTB-XL's 300 ("90 or older") is kept as 90 with `age_censored`.
        sex: "male" or "female".
        height: centimetres. weight: kilograms.
        report: the report text that a model should write.
    """

    record_id: str
    patient_id: str
    source: str
    path: Path
    labels: Labels = field(default_factory=Labels)
    split: str | None = None
    report: str | None = None
    age: float | None = None
    age_censored: bool = False
    sex: str | None = None
    height: float | None = None
    weight: float | None = None
    device: str | None = None
    site: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One ECG-QA row (ECG-QA 1.0.2 field names; ids as text). `derived` marks rows that we built from labels."""

    template_id: int
    question_id: int
    sample_id: int
    question_type: str
    attribute_type: str
    question: str
    answer: tuple[str, ...]
    ecg_id: tuple[str, ...]
    attribute: tuple[str, ...]
    derived: bool = False
