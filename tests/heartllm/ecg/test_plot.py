"""The plot is true to scale: what is measured with a ruler on the figure is what is in the recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heartllm.ecg import LEADS, Recording, plot_ecg, save
from heartllm.ecg.plot import Paper
from heartllm.errors import UsageError

matplotlib = pytest.importorskip("matplotlib")

MM = 25.4


@pytest.fixture
def recording(beats: np.ndarray) -> Recording:
    return Recording(beats.astype(np.float32), 500.0, "rec $1")


def traces(figure: object) -> list[np.ndarray]:
    """The drawn leads as (T, 2) in millimetres on the paper, measured through matplotlib's own transforms."""
    axes = figure.axes[0]  # type: ignore[attr-defined]
    lines = [line for line in axes.lines if len(line.get_xdata()) > 10]
    return [axes.transData.transform(line.get_xydata()) / figure.dpi * MM for line in lines]  # type: ignore[attr-defined]


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_25_mm_a_second_and_10_mm_a_millivolt(recording: Recording, scale: float) -> None:
    drawn = traces(plot_ecg(recording, scale=scale))
    assert len(drawn) == 13
    for lead, line in zip(["I", "aVR", "V1", "V4"], drawn[:4], strict=True):
        column = ["I", "aVR", "V1", "V4"].index(lead)
        values = recording.lead(lead)[column * 1250 : column * 1250 + 1251][: len(line)]
        np.testing.assert_allclose(np.ptp(line[:, 1]), np.ptp(values) * 10 * scale, rtol=1e-4)
        np.testing.assert_allclose(line[-1, 0] - line[0, 0], (len(line) - 1) / 500 * 25 * scale, rtol=1e-6)
    rhythm = drawn[-1]
    np.testing.assert_allclose(rhythm[-1, 0] - rhythm[0, 0], 4999 / 500 * 25 * scale, rtol=1e-6)


def test_columns_line_up_in_time_with_the_rhythm_strip(recording: Recording) -> None:
    drawn = traces(plot_ecg(recording))
    rhythm = drawn[-1]
    for row in range(3):
        for column in range(4):
            line = drawn[4 * row + column]
            np.testing.assert_allclose(line[0, 0], rhythm[1250 * column, 0], atol=1e-9)


def test_every_lead_is_named_once_and_the_scales_are_stated(recording: Recording) -> None:
    figure = plot_ecg(recording)
    names = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(names) == sorted([*LEADS, "II"])
    assert {text.get_text() for text in figure.texts} == {"rec $1", "25 mm/s   10 mm/mV   500 Hz"}


def test_the_calibration_pulse_is_one_millivolt_for_a_fifth_of_a_second(recording: Recording) -> None:
    axes = plot_ecg(recording).axes[0]
    pulses = [line for line in axes.lines if len(line.get_xdata()) == 6]
    assert len(pulses) == 4
    assert np.ptp(pulses[0].get_ydata()) == 10
    assert pulses[0].get_xdata()[3] - pulses[0].get_xdata()[2] == 5


def test_other_layouts(recording: Recording) -> None:
    assert len(traces(plot_ecg(recording, rhythm_lead=None))) == 12
    slow = traces(plot_ecg(recording, paper=Paper(speed=50.0, gain=5.0)))
    assert slow[-1][-1, 0] - slow[-1][0, 0] == pytest.approx(4999 / 500 * 50)
    with pytest.raises(UsageError, match="unknown rhythm lead 'V9'"):
        plot_ecg(recording, rhythm_lead="V9")


def test_tall_complexes_stay_on_the_paper(recording: Recording) -> None:
    tall = recording.signal.copy()
    tall[9] *= 4
    tall[1] *= -4
    figure = plot_ecg(Recording(tall, 500.0))
    axes = figure.axes[0]
    low, high = axes.get_ylim()
    lines = [line.get_ydata() for line in axes.lines]
    assert max(line.max() for line in lines) < high
    assert min(line.min() for line in lines) > low
    assert high % 5 == 0


def test_short_long_and_gappy_recordings(recording: Recording) -> None:
    assert len(traces(plot_ecg(Recording(recording.signal[:, :1500], 500.0)))) == 7
    long = plot_ecg(Recording(np.tile(recording.signal, 2), 500.0))
    assert "first 10 s of 20 s" in long.texts[-1].get_text()
    gappy = recording.signal.copy()
    gappy[:, 100:400] = np.nan
    plot_ecg(Recording(gappy, 500.0)).canvas.draw()


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_saving(recording: Recording, tmp_path: Path, suffix: str) -> None:
    path = save(plot_ecg(recording), tmp_path / f"ecg{suffix}", dpi=50)
    assert path.stat().st_size > 10_000


def test_a_saved_image_has_its_true_size(recording: Recording, tmp_path: Path) -> None:
    figure = plot_ecg(recording)
    image = matplotlib.image.imread(save(figure, tmp_path / "ecg.png", dpi=100))
    assert image.shape[1] == pytest.approx(280 / MM * 100, abs=1)


def test_saving_where_it_cannot_be(recording: Recording, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown kind of figure"):
        save(plot_ecg(recording), tmp_path / "ecg.xyz")
    with pytest.raises(UsageError, match="cannot be written"):
        save(plot_ecg(recording), tmp_path / "no" / "ecg.png")


def test_no_window_and_no_pyplot_state(recording: Recording) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    plot_ecg(recording)
    assert plt.get_fignums() == before
