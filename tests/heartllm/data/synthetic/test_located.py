"""Where drawn findings lie, against the waveform itself and by brute force."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.data.synthetic import simulate, write_site
from heartllm.data.synthetic.located import ATRIAL, EXTRA, KINDS, NOISE, locate, redraw, window_mask
from heartllm.data.synthetic.simulation import Truth
from heartllm.errors import DataError


def drawn(wanted: str, count: int, site: str = "a") -> list[Truth]:
    found = []
    for index in range(600):
        truth = simulate(3, index, site)[1]
        if wanted in locate(truth):
            found.append(truth)
        if len(found) == count:
            return found
    raise AssertionError(f"too few {wanted}")


def test_a_burst_is_where_the_signal_is_noisy() -> None:
    for truth in drawn("burst noise", 3):
        place = locate(truth)["burst noise"]
        rough = np.abs(np.diff(truth.digital.astype(float), axis=1)).sum(0)  # slopes over all leads
        times = np.arange(rough.size) / 500
        first, last = place.spans[0]
        inside = (times > first + 0.1) & (times < last - 0.1)
        outside = (times < first) | (times > last)
        assert place.kind == NOISE
        assert np.median(rough[inside]) > 1.5 * np.median(rough[outside])
        assert place.leads == truth.noise.leads["burst noise"]


def test_extra_beats_are_the_premature_ones() -> None:
    for truth in drawn("ventricular extrasystoles", 3):
        place = locate(truth)["ventricular extrasystoles"]
        assert place.kind == EXTRA
        assert len(place.spans) == truth.extra_beats[1]  # type: ignore[index]
        np.testing.assert_allclose(place.spans[:, 0], truth.onsets[truth.kinds == 1])
        assert "ventricular premature complex" in locate(truth)


def test_waves_lie_before_and_after_the_onsets() -> None:
    truth = drawn("first degree av block", 1)[0]
    place = locate(truth)["first degree av block"]
    assert place.kind == ATRIAL
    assert truth.intervals.pr is not None
    whole = place.spans[place.spans[:, 0] > 0]
    np.testing.assert_allclose(whole[:, 1] - whole[:, 0], truth.intervals.pr / 1000)
    infarct = drawn("myocardial infarction in inferior leads", 1)[0]
    assert locate(infarct)["myocardial infarction in inferior leads"].leads == ("II", "III", "aVF")
    scar = replace(infarct, case=replace(infarct.case, stage="Stadium III"))
    fresh = replace(infarct, case=replace(infarct.case, stage="Stadium I"))
    spans = [len(locate(truth)["myocardial infarction in inferior leads"].spans) for truth in (scar, fresh)]
    assert spans[1] > spans[0]


def test_a_healthy_recording_has_no_places_and_all_lie_inside() -> None:
    for index in range(60):
        truth = simulate(5, index, "b")[1]
        places = locate(truth)
        if truth.case.healthy and not truth.noise.leads:
            assert not {place.kind for place in places.values()} - {"QRS", "ST-T"}  # read off the beat: voltage, T
        for place in places.values():
            assert place.kind in KINDS
            assert (place.spans >= 0).all()
            assert (place.spans <= 10).all()
            assert (np.diff(place.spans) > 0).all()


def test_a_written_site_is_drawn_again_as_it_is(tmp_path: Path) -> None:
    folder = write_site("a", tmp_path, recordings=3, seed=4, workers=1)
    assert np.array_equal(redraw(folder, "50002").digital, simulate(4, 1, "a")[1].digital)
    for wrong in ("50004", "x"):
        with pytest.raises(DataError, match="no recording"):
            redraw(folder, wrong)
    with pytest.raises(DataError, match="no finished"):
        redraw(tmp_path, "50001")
    plan = (folder / "complete.json").read_text().replace('"version": ', '"version": 9')
    (folder / "complete.json").write_text(plan)
    with pytest.raises(DataError, match="version"):
        redraw(folder, "50001")


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0.05, 2)), max_size=4))
def test_the_mask_is_what_a_fine_grid_says(drawn: list[tuple[float, float]]) -> None:
    spans = []
    for first, length in sorted(drawn):  # apart from one another
        if not spans or first > spans[-1][1]:
            spans.append((first, min(first + length, 10.0)))
    windows = 25
    fine = (np.arange(25_000) + 0.5) / 2500
    inside = np.zeros(25_000, bool)
    for first, last in spans:
        inside |= (fine >= first) & (fine <= last)
    share = inside.reshape(windows, -1).mean(1)
    mask = window_mask(np.array(spans).reshape(-1, 2), windows)
    sure = np.abs(share - 0.5) > 0.01
    long = all(last - first >= 0.4 for first, last in spans)  # each covers half of a window somewhere
    assert (mask[share > 0.51]).all()
    if long:
        assert np.array_equal(mask[sure], share[sure] > 0.5)


def test_a_short_span_marks_one_window() -> None:
    assert window_mask(np.array([[1.05, 1.1]]), 25).sum() == 1
    assert window_mask(np.zeros((0, 2)), 25).sum() == 0
