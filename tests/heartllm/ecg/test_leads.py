"""Lead names and order: any spelling, any order, derivation where exact, refusal elsewhere."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.ecg import LEADS, arrange, canonical
from heartllm.ecg.leads import LIMB_FROM_I_II, LIMB_LEADS, is_ignored
from heartllm.errors import DataError

SPELLINGS = (
    "{}",
    "lead {}",
    "Lead {}",
    "MDC_ECG_LEAD_{}",
    "ECG {}",
    "ecg_{}",
    " {} ",
    "Lead {} (mV)",
    "{} [uV]",
    "ECG-{}",
)


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("AVR", "aVR"),
        ("avr", "aVR"),
        ("MDC_ECG_LEAD_AVR", "aVR"),
        ("Lead II", "II"),
        ("Lead I (Einthoven)", "I"),
        ("DIII", "III"),
        ("L2", "II"),
        ("lead 3", "III"),
        ("C1", "V1"),
        ("V-6", "V6"),
        ("Ⅱ", "II"),
        ("aV_F", "aVF"),
        ("-aVR", "aVR"),
    ],
)
def test_known_spellings(name: str, lead: str) -> None:
    assert canonical(name) == lead


@given(st.sampled_from(LEADS), st.sampled_from(SPELLINGS), st.sampled_from([str, str.upper, str.lower]))
def test_any_spelling_of_a_lead_is_found_and_is_a_fixed_point(lead: str, spelling: str, case: type[str]) -> None:
    assert canonical(case(spelling.format(lead))) == lead
    assert canonical(canonical(lead)) == lead


@pytest.mark.parametrize("name", ["", "V0", "V10", "IV", "MLII", "aVX", "1", "lead", "iii i"])
def test_unknown_names_are_refused_with_file_name_and_remedy(name: str) -> None:
    with pytest.raises(DataError, match=r"rec\.hea: unknown lead name .*Name it as one of I II III"):
        canonical(name, where="rec.hea")


@given(st.text(max_size=12))
def test_a_name_is_a_lead_or_an_ignored_channel_or_an_error(name: str) -> None:
    try:
        lead = canonical(name)
    except DataError as error:
        outcome = str(error)
    else:
        outcome = repr(name)
        assert lead in LEADS
        assert not is_ignored(name)
    assert repr(name) in outcome


@given(st.permutations(range(12)), st.lists(st.sampled_from(SPELLINGS), min_size=12, max_size=12))
def test_order_and_spelling_of_the_file_do_not_matter(order: list[int], spellings: list[str]) -> None:
    signal = np.random.default_rng(0).normal(size=(12, 7))
    names = [spelling.format(LEADS[i]) for i, spelling in zip(order, spellings, strict=True)]
    arranged, notes = arrange(signal[order], names)
    np.testing.assert_array_equal(arranged, signal)
    assert notes == ()


@given(st.sets(st.sampled_from(LIMB_LEADS), min_size=2), st.integers(0, 2**32 - 1))
def test_any_two_limb_leads_give_the_others(kept: set[str], seed: int) -> None:
    random = np.random.default_rng(seed)
    signal = np.vstack([LIMB_FROM_I_II @ random.normal(size=(2, 9)), random.normal(size=(6, 9))])
    present = [i for i, lead in enumerate(LEADS) if lead in kept or i >= 6]
    arranged, notes = arrange(signal[present], [LEADS[i] for i in present])
    np.testing.assert_allclose(arranged, signal, atol=1e-12)
    assert len(notes) == 6 - len(kept)
    assert all(" derived from " in note for note in notes)


def test_einthoven_and_goldberger_as_textbooks_write_them() -> None:
    first, second = np.array([1.0, 0.25]), np.array([0.5, -2.0])
    chest = np.zeros((6, 2))
    arranged, _ = arrange(np.vstack([second, first, chest]), ["II", "I", *LEADS[6:]])
    rows = dict(zip(LEADS, arranged, strict=True))
    np.testing.assert_allclose(rows["III"], second - first)
    np.testing.assert_allclose(rows["aVR"], -(first + second) / 2)
    np.testing.assert_allclose(rows["aVL"], (rows["I"] - rows["III"]) / 2)
    np.testing.assert_allclose(rows["aVF"], (rows["II"] + rows["III"]) / 2)


@pytest.mark.parametrize("kept", [(), *combinations(LIMB_LEADS, 1)])
def test_fewer_than_two_limb_leads_are_refused(kept: tuple[str, ...]) -> None:
    names = [*kept, *LEADS[6:]]
    with pytest.raises(DataError, match="two limb leads are needed"):
        arrange(np.zeros((len(names), 3)), names)


def test_missing_chest_leads_are_refused() -> None:
    with pytest.raises(DataError, match=r"a\.csv: missing lead V3; chest leads cannot be derived"):
        arrange(np.zeros((11, 3)), [lead for lead in LEADS if lead != "V3"], where="a.csv")


def test_repeated_leads_are_refused() -> None:
    with pytest.raises(DataError, match=r"lead V1 occurs twice \(the second time as 'C1'\)"):
        arrange(np.zeros((13, 3)), [*LEADS, "C1"])


def test_other_channels_are_left_out_and_noted() -> None:
    extra = ["RESP", "vx", "V4R", "SpO2", "PLETH"]
    signal = np.arange(17.0)[:, None] * np.ones((1, 3))
    arranged, notes = arrange(signal, [*extra, *LEADS])
    np.testing.assert_array_equal(arranged, signal[5:])
    assert len(notes) == 5
    assert all("ignored" in note for note in notes)


def test_cabrera_stores_avr_upside_down() -> None:
    signal = np.ones((12, 3))
    arranged, notes = arrange(signal, ["-aVR" if lead == "aVR" else lead for lead in LEADS])
    assert arranged[3].tolist() == [-1, -1, -1]
    assert "inverted" in notes[0]


def test_a_count_of_names_that_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="11 lead names"):
        arrange(np.zeros((12, 3)), LEADS[:11])
