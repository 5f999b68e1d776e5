"""The codec's figures: what is measured, on signals whose answer is known, and what is drawn from it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("matplotlib")
pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")

from heartllm.codec.codec import Codec, CodecConfig
from heartllm.data.synthetic.simulation import simulate
from heartllm.ecg.recording import LEADS, SAMPLING_RATE, Recording
from heartllm.errors import DataError, UsageError
from heartllm_eval.figures import codec, codec_copies, codec_measures, style
from heartllm_eval.figures.codec_copies import Copier, Floats

CLEAN = [simulate(8, 5 * i, noiseless=True)[0] for i in range(4)]
SIGNALS = [recording.signal.astype(np.float64) for recording in CLEAN]
PATIENTS = ["one", "one", "two", "three"]


def through(text: str) -> list[dict[str, str]]:
    """Rows as a CSV file gives them back."""
    return list(csv.DictReader(io.StringIO(text)))


def halving(signal: Floats) -> tuple[Floats, float]:
    return signal / 2, 1000.0


def perfect(signal: Floats) -> tuple[Floats, float]:
    return signal, 5000.0


@pytest.fixture(scope="module")
def small_codec() -> Codec:
    import torch

    torch.manual_seed(0)
    return Codec(CodecConfig(levels=(3, 3), decoder_width=16)).eval()


def test_errors_and_snr_of_known_copies() -> None:
    rmse, r = codec_copies.errors(SIGNALS[0], SIGNALS[0] / 2)
    assert rmse == pytest.approx(np.sqrt(np.mean(SIGNALS[0] ** 2)) / 2)
    assert r == pytest.approx(1)
    assert codec_copies.snr(SIGNALS[0], SIGNALS[0] / 2) == pytest.approx(20 * np.log10(2))
    flat = np.zeros((12, 500))
    assert np.isnan(codec_copies.errors(flat, flat)[1])


def test_noise_free_ecgs_differ_from_recorded_ones_by_noise_only() -> None:
    recorded, truth = simulate(8, 0)
    assert np.isfinite(truth.snr_db)
    assert codec_copies.snr(SIGNALS[0], recorded.signal.astype(np.float64)) == pytest.approx(truth.snr_db, abs=4)
    quiet = CLEAN[0].signal[:, 1:] - CLEAN[0].signal[:, :-1]
    noisy = recorded.signal[:, 1:] - recorded.signal[:, :-1]
    assert np.median(np.abs(quiet)) < 0.5 * np.median(np.abs(noisy))


def test_rate_distortion_counts_bits_and_keeps_copies_for_a_probe() -> None:
    ways = [Copier("codec", "half", halving), Copier("DCT", "all", perfect)]
    kept: list[list[Any]] = []
    rows = codec_measures.rate_distortion(ways, SIGNALS, PATIENTS, kept=kept)
    assert [row["system"] for row in rows] == ["original", "codec", "DCT"]
    assert [row["bits_per_second"] for row in rows] == [None, 100.0, 500.0]
    assert [row["patients"] for row in rows] == [3, 3, 3]
    assert rows[2]["rmse_mv"] == 0
    assert rows[1]["rmse_low"] <= rows[1]["rmse_mv"] <= rows[1]["rmse_high"]
    truth = np.array([[True], [False], [True], [False]])

    def probe(copies: Any) -> Floats:
        return np.array([[float(copy.std() > 0.1) * place] for place, copy in zip((4, 1, 3, 2), copies, strict=True)])

    read = codec_measures.read_by(probe, truth, ["one", "two", "three", "four"], rows, kept)
    assert [row[name] for row in read[2:] for name in ("probe_auc", "probe_low", "probe_high")] == [1.0] * 3
    with pytest.raises(DataError, match="no recordings"):
        codec_measures.rate_distortion(ways, [], [])


def test_usage_adds_up_and_perplexity_is_the_number_of_even_codes(small_codec: Codec) -> None:
    rows = codec_measures.code_usage(small_codec, SIGNALS[:2], "synthetic-a")
    shares = [row["share"] for row in rows]
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    assert {row["code"] for row in rows} == set(range(9))
    assert codec_measures.perplexity(np.array([0.25] * 4 + [0.0])) == pytest.approx(4)


def test_noise_comes_in_at_its_level_and_a_perfect_copy_lets_it_through() -> None:
    ways = [Copier("no codec", "", perfect), codec_copies.low_pass_copier(40)]
    rows = codec_measures.denoising(ways, CLEAN, kinds=("white",), decibels=(0.0, 20.0))
    same = [row for row in rows if row["system"] == "no codec"]
    for row in same:
        assert row["snr_out"] == pytest.approx(row["snr_in"], abs=0.1)
        assert row["snr_kept"] == pytest.approx(row["snr_in"], abs=0.1)
    filtered = [row for row in rows if row["system"] == "low pass"]
    assert filtered[0]["snr_kept"] == pytest.approx(
        10 * np.log10(250 / 40), abs=1
    )  # white noise: its share of the band


def test_readings_of_perfect_and_of_halved_copies() -> None:
    ways = [Copier("no codec", "", perfect), Copier("codec", "", halving)]
    rows = codec_measures.reading_errors(ways, CLEAN, PATIENTS, inputs={"clean": SIGNALS}, dataset="synthetic-a")
    found = {(row["system"], row["figure"]): row for row in rows}
    assert all(row["median_error"] in (0.0, None) for (system, _), row in found.items() if system == "no codec")
    truth = [codec_measures.readings(one)["R amplitude"] for one in CLEAN]
    expected = np.median([np.median(values) / 2 for values in truth if not np.isnan(values).all()])
    assert found["codec", "R amplitude"]["median_error"] == pytest.approx(expected, rel=0.15)


def test_intervals_are_by_patient() -> None:
    values = [1.0] * 50 + [0.0]
    wide = codec_measures.interval(values, ["a"] * 50 + ["b"])
    narrow = codec_measures.interval(values, [str(i) for i in range(51)])
    assert wide == [0.0, 1.0]
    assert narrow[0] > 0.9
    assert np.isnan(codec_measures.interval([float("nan"), 1.0], ["a", "b"])).all()


def test_the_floors_are_at_the_codecs_rate(small_codec: Codec) -> None:
    rate = codec_copies.codec_rate(small_codec)
    assert rate == pytest.approx(np.log2(9) * 500 / 16)
    short = [
        signal[:, :2500] for signal in (*SIGNALS, *(simulate(9, i)[0].signal.astype(np.float64) for i in range(60)))
    ]
    for way in [codec_copies.codec_copier(small_codec), *codec_copies.floors(small_codec, short, [rate])]:
        copy, bits = way.copy(SIGNALS[0])
        assert copy.shape == SIGNALS[0].shape
        assert bits is not None
        assert bits / 10 <= rate * 1.001


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, small_codec: Codec) -> Path:
    folder = tmp_path_factory.mktemp("data") / "codec"
    ways = [Copier("codec", "9 codes", halving), Copier("DCT", "500 bit/s", perfect)]
    filters = [codec_copies.low_pass_copier(hertz) for hertz in (40.0, 20.0)]
    files = {
        "rate_distortion/ptbxl.csv": [
            {"dataset": "ptbxl", **row} for row in codec_measures.rate_distortion(ways, SIGNALS, PATIENTS)
        ],
        "code_usage/synthetic-a.csv": codec_measures.code_usage(small_codec, SIGNALS[:1], "synthetic-a"),
        "denoising.csv": codec_measures.denoising([*ways, *filters], CLEAN[:2], kinds=("white",), decibels=(0.0, 10.0)),
        "readings/ptbxl.csv": codec_measures.reading_errors(
            ways, CLEAN, PATIENTS, inputs={"as recorded": SIGNALS}, dataset="ptbxl"
        ),
        "readings_noise.csv": codec_measures.reading_errors(
            ways, CLEAN, PATIENTS, inputs={"clean": SIGNALS, "white": SIGNALS}, dataset="synthetic-a"
        ),
        "reconstruction.csv": codec_measures.example(
            {"codec": ways[0], "DCT": ways[1]}, CLEAN[0], decibels=5, kind="muscle", leads=("II", "V2"), seconds=1
        ),
    }
    for name, rows in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(style.csv_text(rows))
    return folder.parent


@pytest.mark.parametrize("name", codec.PLACES)
def test_every_figure_is_drawn_from_its_file_alone(name: str, data: Path, tmp_path: Path) -> None:
    figure, rows = codec.drawn(name, data / codec.PLACES[name])
    assert rows
    assert style.smallest_font(figure) >= 7
    first = style.save(figure, tmp_path / "a", name, rows)
    if name == "denoising":  # the same bytes again; test_style.py tells why all are
        second = style.save(codec.drawn(name, data / codec.PLACES[name])[0], tmp_path / "b", name, rows)
        assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))
    said = "synthetic" in first[0].read_text() or any("synthetic" in text.get_text() for text in _texts(figure))
    assert said == (name not in ("rate_distortion", "readings"))


def _texts(figure: Any) -> list[Any]:
    from matplotlib.text import Text

    return list(figure.findobj(Text))


def test_the_curve_shows_the_rows(data: Path) -> None:
    figure, rows = codec.drawn("denoising", data / codec.PLACES["denoising"])
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    drawn = lines["codec"].get_ydata()
    assert drawn == pytest.approx([float(row["snr_out"]) for row in rows if row["system"] == "codec"])
    assert {"low pass 40 Hz", "low pass 20 Hz", "as it came"} <= lines.keys()


def test_missing_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data"):
        codec.read_rows(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        codec.read_rows(tmp_path / "denoising.csv")


def test_the_commands_refuse_what_has_no_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from heartllm_eval.cli import app
    from heartllm_eval.commands import measure_codec

    runner = CliRunner()
    for name in ("codec", "denoising"):
        assert "Example" in runner.invoke(app, ["measure", name, "--help"]).output
    answer = runner.invoke(app, ["measure", "denoising", "-c", str(tmp_path), "--site", "c", "-o", str(tmp_path)])
    assert isinstance(answer.exception, UsageError)

    class Other:
        kind = "clip"

    monkeypatch.setattr("heartllm.checkpoint.verify", lambda folder: "")
    monkeypatch.setattr("heartllm.checkpoint.load_frontend", lambda folder: (Other(), ""))
    with pytest.raises(UsageError, match="not a codec"):
        measure_codec.load(tmp_path)


def test_noise_is_told_apart_by_recording_not_by_level() -> None:
    recording = Recording(CLEAN[0].signal, SAMPLING_RATE, record_id="7")
    loud, soft = (codec_measures.noisy(recording, "muscle", level) - SIGNALS[0] for level in (0.0, 20.0))
    row = LEADS.index("II")
    assert np.corrcoef(loud[row], soft[row])[0, 1] > 0.999
    assert loud.std() / soft.std() == pytest.approx(10, rel=1e-3)
