"""The attention figures: what is drawn where, and files that are the same each time."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from heartllm.data.synthetic import simulate
from heartllm.data.synthetic.located import locate, window_mask
from heartllm.errors import DataError
from heartllm_eval.figures import style
from heartllm_eval.figures.attention import draw_attention, draw_coverage, draw_lead_groups, rows
from heartllm_eval.figures.attention_data import SHOWN_RATE, Example, read_examples, write
from heartllm_eval.figures.attention_maps import ATTENTION, BEATS, LEAD_GROUPS, SHUFFLED

NAME = "ventricular premature complex"


@cache
def example(*, real: bool = False) -> Example:
    for index in range(200):
        recording, truth = simulate(3, index)
        if (place := locate(truth).get(NAME)) is not None and len(place.spans) == 1:
            break
    mask = window_mask(place.spans, 313).astype(float)
    random = np.random.default_rng(1)
    found = 0.05 * random.random(313) + np.convolve(mask, np.ones(5) / 5, "same")
    signal = np.round(recording.signal[:, ::2] * 1000).astype(int)
    return Example(
        title=f"Does this ECG show symptoms of {NAME}? – yes",
        source="PTB-XL record 1 (Wagner et al. 2020, CC BY 4.0)" if real else "synthetic recording 1 of synthetic-a",
        synthetic=not real,
        signal=signal.tolist(),
        maps={ATTENTION: random.random(313).tolist(), BEATS: found.tolist(), SHUFFLED: random.random(313).tolist()},
        lead_groups=[(found * factor).tolist() for factor in (0.2, 1.0, 0.6, 0.4)],
        spans=[] if real else place.spans.tolist(),
    )


def summary_rows() -> list[dict[str, Any]]:
    return [
        {
            "kind": kind, "findings": "all", "method": method, "measure": "covered", "value": value,
            "low": value - 0.05, "high": value + 0.05, "chance": 0.2, "samples": 12, "patients": 12,
        }
        for kind in ("all", "extra beats", "QRS")
        for method, value in ((BEATS, 0.6), (ATTENTION, 0.3))
    ]  # fmt: skip


def test_figures_are_readable_and_the_same_each_time(tmp_path: Path) -> None:
    both = [example(), example(real=True)]
    drawn = draw_attention(both)
    first = style.save(drawn, tmp_path / "1", "attention", rows(both))
    again = style.save(draw_attention(both), tmp_path / "2", "attention", rows(both))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert style.smallest_font(drawn) >= style.FONT
    assert style.smallest_font(draw_lead_groups([example()])) >= style.FONT
    figure = draw_coverage(summary_rows(), {BEATS: "occlusion", ATTENTION: "attention"})
    assert style.smallest_font(figure) >= style.FONT
    assert len(figure.axes[0].patches) == 6
    assert "synthetic" in " ".join(text.get_text() for text in figure.texts) + figure.get_supxlabel()


def test_the_shading_lies_over_its_seconds() -> None:
    one = example()
    figure = draw_attention([one])
    assert figure.get_size_inches()[0] == pytest.approx(style.COLUMN)
    occlusion = figure.axes[1]
    (image,) = occlusion.images
    opacity = np.asarray(image.get_array())[0, :, 3]
    mask = window_mask(np.array(one.spans), 313)
    assert opacity[mask].mean() > 5 * opacity[~mask].mean()
    assert image.get_extent()[:2] == [0.0, 250.0]
    assert occlusion.get_xlim() == (0.0, 250.0)
    bars = [line for line in occlusion.lines if line.get_color() == style.GREEN]
    assert [list(np.asarray(bar.get_xdata()) / 25) for bar in bars] == [pytest.approx(span) for span in one.spans]


def test_rows_tell_seconds_and_where_the_finding_lies() -> None:
    table = rows([example(), example(real=True)])
    assert len(table) == 2 * 313
    assert table[312]["second"] == pytest.approx(312 * 10 / 313, abs=1e-3)
    assert sum(bool(row["finding"]) for row in table[:313]) > 5
    assert table[313]["finding"] is None
    assert f"occlusion of {next(iter(LEAD_GROUPS))}" in table[0]


def test_nothing_to_draw_and_broken_data_are_refused(tmp_path: Path) -> None:
    for draw in (draw_attention, draw_lead_groups):
        with pytest.raises(DataError, match="no example"):
            draw([])
    with pytest.raises(DataError, match="no coverage"):
        draw_coverage([], {BEATS: "occlusion"})
    path = tmp_path / "examples.json"
    with pytest.raises(DataError, match="cannot be read"):
        read_examples(path)
    for content in ("[]", '{"schema": 9, "examples": []}', '{"schema": 1, "examples": [{"title": 1}]}'):
        path.write_text(content)
        with pytest.raises(DataError, match=r"schema|cannot be read"):
            read_examples(path)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    sample = {
        "dataset": "synthetic-a", "recording": "1", "patient": "p", "finding": NAME, "kind": "extra beats",
        "answered": True, "method": BEATS, "covered": 0.5, "precision": 0.1, "auc": 0.7, "shift_rank": 0.9,
        "marked": 0.05, "ceiling": 1.0, "agreement": 1.0, "whole_drop": 0.1, "ecg_share": 0.5,
        "lead_group_found": None, "lead_group_chance": None,
    }  # fmt: skip
    write(tmp_path, [sample], [{"layer": 0, "head": 1, "auc": 0.6}], [example()], {"split": "test"})
    examples, about = read_examples(tmp_path / "examples.json")
    assert examples == [example()]
    assert about["split"] == "test"
    covered = [row for row in style.read_csv(tmp_path / "summary.csv") if row["measure"] == "covered"]
    assert covered[0]["value"] == "0.5"
    assert len(example().signal[0]) == 10 * SHOWN_RATE
