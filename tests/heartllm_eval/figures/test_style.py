"""Figures are written the same way each time, readable, and with their numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from heartllm.errors import DataError
from heartllm_eval.figures import style

matplotlib = pytest.importorskip("matplotlib")


@style.in_style
def example(points: int = 50):
    figure = style.new_figure(style.COLUMN, 2.0)
    axes = figure.subplots()
    x = np.random.default_rng(0).normal(size=(points, 2))
    axes.scatter(*x.T, s=3, color=style.BLUE, label="HeartLLM", rasterized=True)
    axes.bar([0, 1], [1, 2], hatch="///", alpha=0.3)
    axes.set(xlabel="first", ylabel="second", title="Example")
    axes.legend()
    style.letter(axes, "a")
    style.mark_synthetic(figure)
    return figure


ROWS = [{"system": "HeartLLM", "value": 0.1 + 0.2, "seeds": 3}, {"system": "CLIP", "value": None, "seeds": 1}]


def test_the_same_bytes_on_every_run(tmp_path: Path) -> None:
    first = style.save(example(), tmp_path / "one", "example", ROWS)
    matplotlib.rcParams["font.size"] = 30  # whatever the user's settings are
    try:
        second = style.save(example(), tmp_path / "two", "example", ROWS)
    finally:
        matplotlib.rcdefaults()
    assert [path.name for path in first] == ["example.svg", "example.png", "example.csv"]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert style.save(example(51), tmp_path / "two", "example", ROWS)[1].read_bytes() != first[1].read_bytes()


def test_files_name_no_date_and_no_program(tmp_path: Path) -> None:
    vector, bitmap, _ = style.save(example(), tmp_path, "example", ROWS)
    text = vector.read_text(encoding="utf-8")
    assert "<dc:date>" not in text
    assert "Matplotlib v" not in text
    assert b"Software" not in bitmap.read_bytes()


def test_drawing_leaves_the_users_settings_alone(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    style.save(example(), tmp_path, "example", ROWS)
    assert dict(matplotlib.rcParams) == before


def test_nothing_is_smaller_than_seven_points() -> None:
    figure = example()
    assert style.smallest_font(figure) >= 7
    figure.axes[0].text(0, 0, "tiny", fontsize=5)
    assert style.smallest_font(figure) == 5


def test_the_synthetic_note_is_in_the_figure_and_below_the_axes() -> None:
    figure = example()
    figure.draw_without_rendering()
    (note,) = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text() == style.SYNTHETIC]
    box = note.get_window_extent()
    assert 0 <= box.y0 < box.y1 <= figure.axes[0].get_tightbbox().y0 + 1
    assert box.x1 <= figure.bbox.x1


def test_every_system_has_its_own_signs() -> None:
    looks = list(style.SYSTEMS.values())
    for name in ("colour", "marker", "hatch"):
        values = [getattr(look, name) for look in looks]
        assert len(set(values)) == len(values), name
    assert style.look("majority") == style.CONTROL
    assert style.CONTROL.colour not in [look.colour for look in looks]


def test_csv() -> None:
    assert style.csv_text(ROWS) == "system,value,seeds\nHeartLLM,0.3,3\nCLIP,,1\n"
    assert style.csv_text([{"a": np.float32(0.25), "b": np.int64(3), "c": True}]) == "a,b,c\n0.25,3,True\n"
    for wrong in ([], [{"a": 1}, {"b": 2}]):
        with pytest.raises(DataError, match="Give the numbers"):
            style.csv_text(wrong)


def test_csv_is_read_back(tmp_path: Path) -> None:
    _, _, table = style.save(example(), tmp_path, "example", ROWS)
    assert style.read_csv(table)[0] == {"system": "HeartLLM", "value": "0.3", "seeds": "3"}
    with pytest.raises(DataError, match="Measure it again"):
        style.read_csv(tmp_path / "absent.csv")


def test_matplotlib_is_loaded_on_use_only() -> None:
    code = "import sys, heartllm_eval.figures.style; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
