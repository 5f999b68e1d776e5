"""Reading targets: what labels say, what they leave open, and where the head reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from heartllm.data.questions import answer_to
from heartllm.data.records import Entry, Labels
from heartllm.data.templates import all_asked
from heartllm.training.reading import (
    FIRST_POSITION,
    ReadingHead,
    finding_names,
    findings,
    labelled,
    read_positions,
    target_row,
    wordings,
)

FULL = Labels(
    statements={"sinus rhythm": 0.0, "left ventricular hypertrophy": 80.0},
    noise={"baseline drift": frozenset({"I", "V6"}), "static noise": frozenset()},
    infarction_stages=frozenset({"early stage of myocardial infarction"}),
    extra_systoles=frozenset(),
    heart_axis="left axis deviation",
    intervals={"pr interval": 220.0, "qrs duration": 90.0, "heart rate": 70.0},
)


def test_facts_of_a_full_set_of_labels() -> None:
    facts = findings(FULL)
    assert facts["statement: sinus rhythm"]
    assert facts["noise: baseline drift"]
    assert facts["noise: baseline drift in V6"]
    assert not facts["noise: baseline drift in II"]
    assert not facts["noise: static noise"]
    assert facts["infarction: early stage of myocardial infarction"]
    assert facts["axis: left axis deviation"]
    assert (facts["pr interval: below"], facts["pr interval: above"]) == (False, True)
    assert (facts["qrs duration: below"], facts["qrs duration: above"]) == (False, False)
    assert not any("heart rate" in name for name in facts)


def test_absence_is_no_where_labelled_and_open_where_not() -> None:
    names = ["statement: atrial fibrillation", "beats: extrasystoles", "axis: normal heart axis", "pr interval: above"]
    assert target_row(FULL, names).tolist() == [0, 0, 0, 1]
    assert target_row(Labels(), names).tolist() == [-1, -1, -1, -1]
    assert target_row(Labels(statements={}), names).tolist() == [0, -1, -1, -1]
    assert target_row(Labels(intervals={"qrs duration": 90.0}), names).tolist() == [-1, -1, -1, -1]
    assert labelled(FULL, "pr interval: below")
    assert not labelled(FULL, "qt interval: below")


def test_findings_need_enough_positives() -> None:
    labels = [Labels(statements={"a": 1.0, "b": 1.0}), Labels(statements={"a": 1.0}), Labels()]
    assert finding_names(labels, 2) == ["statement: a"]
    assert finding_names(labels, 1) == ["statement: a", "statement: b"]
    assert finding_names([Labels(intervals={"pr interval": 100.0})], 1) == ["pr interval: below"]


def test_the_head_reads_past_the_first_two_seconds_of_the_prefix() -> None:
    ecg = torch.zeros(1, 112, dtype=torch.int64)
    ecg[0, 1:101] = 1  # 100 codes
    positions = read_positions(ecg)
    assert positions[0].nonzero().flatten().tolist() == list(range(1 + FIRST_POSITION, 101))


def test_the_loss_is_a_mean_over_labelled_findings() -> None:
    torch.manual_seed(0)
    head = ReadingHead(6, 3)
    states, where = torch.randn(2, 5, 6), torch.zeros(2, 5, dtype=torch.bool)
    where[0, 2] = where[1, 3] = where[1, 4] = True
    targets = torch.tensor([[1, 0, -1], [-1, 1, -1]], dtype=torch.int8)
    wanted = []
    for row, position in ((0, 2), (1, 3), (1, 4)):
        for finding in range(3):
            if targets[row, finding] >= 0:
                logit = head.linear(states[row, position])[finding]
                wanted.append(F.binary_cross_entropy_with_logits(logit, targets[row, finding].float()).item())
    assert head(states, where, targets).item() == pytest.approx(np.mean(wanted), abs=1e-6)


def test_nothing_to_read_costs_nothing() -> None:
    head = ReadingHead(6, 2)
    nowhere = torch.zeros(1, 4, dtype=torch.bool)
    loss = head(torch.randn(1, 4, 6), nowhere, torch.tensor([[1, 0]], dtype=torch.int8))
    assert loss.item() == 0.0
    loss.backward()


def test_findings_are_asked_for_in_the_templates_words() -> None:
    names = [*findings(FULL), "noise: static noise in aVR", "axis: normal heart axis", "p duration: below"]
    found = wordings(names)
    assert set(names) - set(found) == {"p duration: below"}  # ECG-QA knows no P wave that is too short
    assert found["statement: sinus rhythm"][0] == "Does this ECG show symptoms of sinus rhythm?"
    assert "lead aVR" in found["noise: static noise in aVR"][0]
    assert "above the normal range" in found["pr interval: above"][0]
    assert all(len(texts) == len(set(texts)) > 1 for texts in found.values())


@pytest.mark.parametrize("milliseconds", [50.0, 105.0, 160.0, 340.0, 435.0, 500.0, 700.0, 1200.0])
def test_targets_are_the_answers_to_the_questions_that_ask_for_them(milliseconds: float) -> None:
    features = ("rr interval", "p duration", "pr interval", "qrs duration", "qt interval", "qt corrected")
    labels = Labels(
        statements={"sinus rhythm": 0.0},
        noise={"baseline drift": frozenset({"I", "V6"}), "static noise": frozenset()},
        infarction_stages=frozenset({"early stage of myocardial infarction"}),
        extra_systoles=frozenset({"extrasystoles"}),
        heart_axis="left axis deviation",
        intervals=dict.fromkeys(features, milliseconds),
    )
    entry = Entry(record_id="1", patient_id="1", path=Path(), source="ptbxl", labels=labels)
    asked = {one.text: one for one in all_asked()}
    names = [f"{feature}: {side}" for feature in features for side in ("below", "above")]
    names += ["noise: baseline drift in V6", "noise: static noise", "noise: burst noise", "noise: burst noise in II"]
    names += ["statement: sinus rhythm", "statement: atrial fibrillation", "axis: normal heart axis"]
    texts = wordings(names)
    assert len(texts) >= len(names) - 1  # none asks for a P duration below its range
    for name, (text, *_) in texts.items():
        answer = answer_to(asked[text], entry)
        assert target_row(labels, [name])[0] == {None: -1, ("no",): 0, ("yes",): 1}[answer], (name, answer)
