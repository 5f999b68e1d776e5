"""Bars and curves: the right heights, intervals, gaps and labels."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from matplotlib.container import BarContainer
from matplotlib.lines import Line2D

from heartllm.errors import DataError
from heartllm_eval.figures import ablation, curves, style
from heartllm_eval.figures.scores import Score, ordered, read_scores, seeds_of

SYSTEMS = ("HeartLLM", "w/o TAB", "w/o FT", "w/o DISC")
VALUES = {
    (system, metric): 70.0 - 7 * i - j
    for i, system in enumerate(SYSTEMS)
    for j, metric in enumerate(("verify", "choose", "query", "BLEU-1", "ROUGE-L"))
}
SCORES = [
    Score(system, metric, value, value - 3, value + 3, seeds=3) for (system, metric), value in reversed(VALUES.items())
]
FLOOR = [Score("blind", metric, 31.0) for metric in ("verify", "choose")]
GAPS = [Score(s, m, VALUES[s, m] - VALUES["HeartLLM", m], -9, -1, 3) for s, m in VALUES if s != "HeartLLM"]


def test_bars_have_the_scores_heights_in_the_order_of_systems_and_metrics() -> None:
    figure = ablation.draw_ablation(SCORES)
    reports, answers = figure.axes
    assert [tick.get_text() for tick in reports.get_xticklabels()] == ["BLEU-1", "ROUGE-L"]
    assert [tick.get_text() for tick in answers.get_xticklabels()] == ["verify", "choose", "query"]
    bars = [part for part in answers.containers if isinstance(part, BarContainer)]
    assert [part.get_label() for part in bars] == list(SYSTEMS)
    for part, system in zip(bars, SYSTEMS, strict=True):
        heights = [bar.get_height() for bar in part]
        assert heights == [VALUES[system, metric] for metric in ("verify", "choose", "query")]
        assert all(bar.get_facecolor() == part[0].get_facecolor() for bar in part)
        assert style.SYSTEMS[system].hatch == part[0].get_hatch() or not style.SYSTEMS[system].hatch
    lefts = sorted(bar.get_x() for part in bars for bar in part)
    widths = bars[0][0].get_width()
    assert all(b - a >= widths - 1e-9 for a, b in pairwise(lefts))  # none over another
    assert answers.get_ylim()[0] == 0


def test_a_later_panel_s_bars_and_intervals_lie_below_the_common_limit() -> None:
    low = [Score(system, "BLEU-1", 20.0, 17.0, 23.0) for system in SYSTEMS]
    figure = ablation.draw_ablation([*low, *(score for score in SCORES if score.metric == "verify")])
    assert figure.axes[-1].get_ylim()[1] > max(VALUES[system, "verify"] for system in SYSTEMS) + 3


def test_intervals_are_drawn_over_the_middle_of_their_bars() -> None:
    figure = ablation.draw_ablation(SCORES)
    _, answers = figure.axes
    lines = {(line.get_xdata()[0], *line.get_ydata()) for line in answers.lines if len(set(line.get_xdata())) == 1}
    for part, system in zip(answers.containers, SYSTEMS, strict=True):
        for bar, metric in zip(part, ("verify", "choose", "query"), strict=True):
            value = VALUES[system, metric]
            middle = bar.get_x() + bar.get_width() / 2
            assert any(x == pytest.approx(middle) and (low, high) == (value - 3, value + 3) for x, low, high in lines)


def test_the_floor_is_a_line_and_no_bar() -> None:
    figure = ablation.draw_ablation([*SCORES, *FLOOR])
    _, answers = figure.axes
    assert [part.get_label() for part in answers.containers] == list(SYSTEMS)
    level = [line for line in answers.lines if list(line.get_ydata()) == [31.0, 31.0]]
    assert len(level) == 2  # verify and choose
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *(f"{system} (3 seeds)" for system in SYSTEMS),
        "blind: no ECG",
    ]


def test_differences_are_a_second_row_with_the_full_model_left_out() -> None:
    figure = ablation.draw_ablation(SCORES, GAPS)
    assert len(figure.axes) == 4
    below = figure.axes[3]
    points = [line for line in below.lines if len(line.get_xdata()) == 1]
    shown = {(round(float(line.get_xdata()[0])), float(line.get_ydata()[0])) for line in points}
    expected = {
        (place, VALUES[system, metric] - VALUES["HeartLLM", metric])
        for place, metric in enumerate(("verify", "choose", "query"))
        for system in SYSTEMS[1:]
    }
    assert shown == expected
    assert "difference to\nHeartLLM" in figure.axes[2].get_ylabel()


def test_a_missing_score_leaves_a_gap_and_a_missing_interval_no_line() -> None:
    scores = [s for s in SCORES if (s.system, s.metric) != ("w/o FT", "choose") and s.metric in ("verify", "choose")]
    scores = [Score(s.system, s.metric, s.value) if s.system == "w/o TAB" else s for s in scores]
    figure = ablation.draw_ablation(scores)
    (axes,) = figure.axes
    by_label = {part.get_label(): part for part in axes.containers}
    assert len(by_label["w/o FT"]) == 1
    assert len(by_label["HeartLLM"]) == 2
    assert len(axes.lines) == 2 + 1 + 2  # HeartLLM, w/o FT, w/o DISC


def test_scores_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(DataError, match="no score belongs"):
        ablation.draw_ablation([Score("HeartLLM", "speed", 3.0)])
    with pytest.raises(DataError, match="two scores in verify"):
        ablation.draw_ablation([*SCORES, Score("HeartLLM", "verify", 3.0)])


def test_ablation_is_readable_inside_the_page_and_the_same_twice(tmp_path: Path) -> None:
    one = style.save(ablation.draw_ablation(SCORES, GAPS, synthetic=True), tmp_path / "1", "a", ablation.rows(SCORES))
    figure = ablation.draw_ablation(SCORES, GAPS, synthetic=True)
    two = style.save(figure, tmp_path / "2", "a", ablation.rows(SCORES))
    for a, b in zip(one, two, strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert style.smallest_font(figure) >= 7
    assert figure.get_supxlabel() == style.SYNTHETIC
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box.x0 >= -1
        assert box.x1 <= figure.bbox.x1 + 1


def test_rows_hold_scores_and_differences() -> None:
    found = ablation.rows(SCORES, GAPS)
    assert len(found) == len(SCORES) + len(GAPS)
    assert found[0].keys() == {"what", "system", "metric", "value", "low", "high", "seeds"}
    assert {row["what"] for row in found} == {"score", "difference to the full model"}


PLACES = (250, 1000, 4000)
CURVES = [
    Score(system, metric, 40 + 5 * k - 3 * i, 38 + 5 * k - 3 * i, 42 + 5 * k - 3 * i, 3, place)
    for i, system in enumerate(("HeartLLM", "CLIP"))
    for metric in ("verify", "BLEU-4")
    for k, place in enumerate(PLACES)
]


def line_of(axes: object, label: str) -> Line2D:
    (found,) = [line for line in axes.lines if line.get_label() == label]  # type: ignore[attr-defined]
    return found


def test_curves_pass_through_the_scores() -> None:
    figure = curves.draw_learning([*reversed(CURVES), Score("blind", "verify", 30.0)])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a  BLEU-4", "b  verify"]
    axes = figure.axes[1]
    ours = line_of(axes, "HeartLLM")
    assert list(ours.get_ydata()) == [40, 45, 50]
    assert list(ours.get_xdata()) == pytest.approx(PLACES, rel=0.05)
    assert line_of(axes, "CLIP").get_xdata()[0] != ours.get_xdata()[0]  # intervals do not hide each other
    assert list(line_of(axes, "blind").get_ydata()) == [30, 30]
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["250", "1k", "4k"]
    assert axes.get_xlabel() == "training ECGs"
    verticals = {tuple(line.get_ydata()) for line in axes.lines if len(set(line.get_xdata())) == 1}
    assert {(38, 42), (43, 47), (48, 52)} <= verticals
    assert style.smallest_font(figure) >= 7


def test_scaling_names_its_axis_and_is_one_column_wide() -> None:
    figure = curves.draw_scaling([s for s in CURVES if s.metric == "verify"], synthetic=True)
    assert figure.axes[0].get_xlabel() == "parameters of the language model"
    assert figure.get_figwidth() == style.COLUMN
    assert figure.get_supxlabel() == style.SYNTHETIC


def test_one_place_is_a_point() -> None:
    figure = curves.draw_learning([CURVES[0]])
    low, high = figure.axes[0].get_xlim()
    assert low < 250 < high


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([Score("HeartLLM", "verify", 1.0)], "no score has a place"),
        ([Score("HeartLLM", "verify", 1.0, at=10), Score("HeartLLM", "verify", 2.0, at=10)], "two scores in verify"),
        ([Score("HeartLLM", "verify", 1.0, at=0.0)], "logarithmic"),
    ],
)
def test_curves_that_cannot_be_drawn_are_refused(scores: list[Score], said: str) -> None:
    with pytest.raises(DataError, match=said):
        curves.draw_learning(scores)


def test_counts_are_short() -> None:
    assert [curves.short_count(n) for n in (250, 1500, 20_000_000, 3.2e9)] == ["250", "1.5k", "20M", "3.2B"]


def test_scores_are_written_and_read(tmp_path: Path) -> None:
    _, _, table = style.save(curves.draw_learning(CURVES), tmp_path, "learning", curves.rows(CURVES))
    assert read_scores(table) == CURVES
    table.write_text("system,metric,value,low,high\nHeartLLM,verify,1.5,,\n", encoding="utf-8")
    assert read_scores(table) == [Score("HeartLLM", "verify", 1.5)]
    for text in ("system,metric,value\nHeartLLM,verify,much\n", "system,value\nHeartLLM,1\n"):
        table.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=r"learning.csv:2: .*Columns are"):
            read_scores(table)


def test_order_and_seeds() -> None:
    assert ordered(["x", "CLIP", "HeartLLM", "x"], list(style.SYSTEMS)) == ["HeartLLM", "CLIP", "x"]
    assert seeds_of([Score("a", "b", 1.0)]) == "1 seed"
    assert seeds_of([Score("a", "b", 1.0, seeds=3), Score("a", "c", 1.0)]) == "1-3 seeds"
