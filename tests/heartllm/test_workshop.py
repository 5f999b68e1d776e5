"""What a language model is trained on: choices of recordings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")

from heartllm.data.records import Entry
from heartllm.workshop import some_patients


def entries(patients: list[int]) -> list[Entry]:
    return [Entry(str(number), f"p{patient}", "ptbxl", Path(str(number))) for number, patient in enumerate(patients)]


@given(st.lists(st.integers(0, 12), max_size=40), st.integers(1, 50), st.integers(0, 20))
def test_fewer_recordings_are_whole_patients_of_any_larger_choice(patients: list[int], most: int, more: int) -> None:
    everyone = entries(patients)
    few, many = some_patients(everyone, most), some_patients(everyone, most + more)
    assert len(few) <= most
    assert set(few_ids := [entry.record_id for entry in few]) <= {entry.record_id for entry in many}
    assert few_ids == [entry.record_id for entry in everyone if entry.record_id in few_ids]  # in the given order
    chosen = {entry.patient_id for entry in few}
    assert len(few) == sum(entry.patient_id in chosen for entry in everyone)


def test_all_are_chosen_where_there_are_enough() -> None:
    everyone = entries([0, 0, 1, 2, 2, 2])
    assert some_patients(everyone, 6) == everyone
    assert some_patients(everyone, 1) in ([], entries([0, 0, 1])[2:])  # a patient with more does not fit
