"""Forecasts: baselines on signals whose future is known, errors and gains, the file, the figure, the claim."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

pytest.importorskip("matplotlib")
pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")

from heartllm.codec.codec import CodecConfig
from heartllm.data.synthetic.simulation import simulate
from heartllm.ecg.recording import Recording
from heartllm.errors import CheckpointError, DataError, UsageError
from heartllm.frontends.fsq import FSQCodes
from heartllm_eval.figures import forecast, forecast_data, style
from heartllm_eval.figures import forecast_measures as measures
from heartllm_eval.figures.forecast_data import Shown
from heartllm_eval.figures.forecast_measures import Floats

KNOWN, SAMPLES = 2496, 5000


def periodic(interval: int, late: int = 0) -> Floats:
    """(12, SAMPLES) mV: one beat of P, QRS and T again and again, its first QRS `late` samples after the beginning."""
    time = np.arange(interval)
    place = interval // 2

    def bump(centre: float, width: float) -> Floats:
        return np.exp(-(((time - centre) / width) ** 2))

    beat = 0.15 * bump(place - 70, 12) + 1.2 * bump(place, 6) - 0.3 * bump(place + 16, 5) + 0.3 * bump(place + 110, 25)
    row = np.resize(np.roll(beat, late), SAMPLES)
    return np.linspace(0.4, 1.0, 12)[:, None] * row


@settings(max_examples=30)
@given(st.integers(300, 560), st.integers(0, 600))
def test_repeating_the_last_beat_of_a_periodic_ecg_is_exact(interval: int, late: int) -> None:
    signal = periodic(interval, late)
    found = measures.repeat_last_beat(signal[:, :KNOWN], SAMPLES - KNOWN)
    assert found is not None
    assert np.abs(found - signal[:, KNOWN:]).max() < 1e-9


def test_a_drift_is_not_repeated_as_jumps() -> None:
    drift = np.linspace(0, 2.0, SAMPLES)
    signal = periodic(400) + drift
    found = measures.repeat_last_beat(signal[:, :KNOWN], SAMPLES - KNOWN)
    assert found is not None
    steep = np.abs(np.diff(periodic(400), axis=1)).max()
    assert np.abs(np.diff(found, axis=1)).max() < 1.05 * steep
    assert found.mean() == pytest.approx(signal[:, KNOWN - 400 : KNOWN].mean(), abs=0.2)


def test_without_two_beats_nothing_is_repeated() -> None:
    assert measures.repeat_last_beat(np.zeros((12, KNOWN)), 100) is None
    assert measures.repeat_last_beat(np.zeros((12, 10)), 100) is None


def test_a_constant_rate_is_forecast_without_error_and_another_with_its_own() -> None:
    truth, known = periodic(400), periodic(400)[:, :KNOWN]
    forecasts = {
        "same": truth[:, KNOWN:],
        "faster": periodic(320)[:, KNOWN:],
        "flat": np.zeros((12, SAMPLES - KNOWN)),
        "none": None,
    }
    found = measures.forecast_errors(truth, forecasts, known)
    assert all(value in (0.0, None) for name, value in found["same"].items() if name != measures.UNLIKE)
    assert found["same"][measures.RATE] == found["same"][measures.QRS] == found["same"][measures.LOST] == 0
    assert found["same"][measures.UNLIKE] == pytest.approx(0, abs=1e-9)
    assert found["faster"][measures.RATE] == pytest.approx(60 * 500 / 320 - 60 * 500 / 400, abs=0.3)
    assert found["faster"][measures.VARIATION] == pytest.approx(0, abs=1)
    for name in ("flat", "none"):
        assert found[name][measures.LOST] == 100
        assert found[name][measures.RATE] is found[name][measures.QT] is None
    assert found["none"][measures.RMSE] is None
    assert found[measures.SO_FAR][measures.RATE] == pytest.approx(0, abs=0.3)


def test_where_the_truth_has_no_rhythm_none_is_missed() -> None:
    flat = np.zeros((12, SAMPLES))
    found = measures.forecast_errors(flat, {"beats": periodic(400)[:, KNOWN:]}, flat[:, :KNOWN])["beats"]
    assert found[measures.LOST] is found[measures.RATE] is None


def test_the_known_part_is_decoded_from_known_codes_alone() -> None:
    asked: list[int] = []

    def decode(codes: Any) -> Floats:
        asked.append(len(codes))
        return np.repeat(codes[None].astype(float), 16, 1) * np.ones((12, 1))

    codes = np.arange(40)
    found = measures.known_part(decode, codes)
    assert asked == [40, 40 + measures.BESIDE]
    assert np.array_equal(found[0, ::16], codes)


def test_code_frequencies_and_the_chance_of_the_same_code_again() -> None:
    rng = np.random.default_rng(0)
    fresh = rng.integers(0, 4, (50, 400))
    for column in range(1, 400):  # the last code again in 60 %, else any of four
        again = rng.random(50) < 0.6
        fresh[again, column] = fresh[again, column - 1]
    model = measures.CodeFrequencies(fresh, 5)
    assert model.share.sum() == pytest.approx(1)
    assert model.share[4] > 0  # never seen, and yet not impossible
    assert model.again == pytest.approx(0.6, abs=0.02)
    nats = model.nats(np.array([0, 1, 1, 1]), 2)
    share = model.share[1]
    assert nats[measures.FREQUENCY] == pytest.approx(-np.log(share))
    assert nats[measures.SAME_AGAIN] == pytest.approx(-np.log(model.again + (1 - model.again) * share))


def invented(patients: int, gain: float, **others: float | None) -> list[dict[str, Any]]:
    """Recordings whose greedy forecast errs `gain` less than the repeated beat in everything."""
    rng = np.random.default_rng(1)
    found = []
    for number in range(patients):
        error = 20 + rng.random()
        own = dict.fromkeys((*measures.READ, measures.LOST, measures.RMSE, measures.UNLIKE), error - gain)
        repeat = dict.fromkeys(own, error)
        nats = {measures.READ_ALONG: 3.0, measures.FREQUENCY: 5.0, measures.SAME_AGAIN: 4.0}
        errors: dict[str, Any] = {
            measures.GREEDY: own,
            measures.SAMPLED: {**own, **others},
            measures.REPEAT: repeat,
            measures.SO_FAR: {**repeat, measures.RMSE: None, measures.UNLIKE: None},
            measures.OTHER: repeat,
            **{name: {measures.NATS: value + rng.random() / 9} for name, value in nats.items()},
        }
        found.append({"record": str(number), "patient": str(number), "errors": errors})
    return found


def test_gains_are_paired() -> None:
    rows = {
        (row["system"], row["measure"]): row for row in measures.summarise(invented(12, 2.0, **{measures.PR: None}))
    }
    row = rows[measures.GREEDY, measures.RATE]
    assert row["gain"] == pytest.approx(2)
    assert (row["gain_low"], row["gain_high"]) == (pytest.approx(2), pytest.approx(2))
    assert row["low"] < row["value"] < row["high"]
    assert (row["recordings"], row["patients"], row["pairs"]) == (12, 12, 12)
    assert rows[measures.REPEAT, measures.RATE]["gain"] is None
    assert (measures.SAMPLED, measures.PR) not in rows
    assert rows[measures.READ_ALONG, measures.NATS]["against"] == measures.FREQUENCY
    assert rows[measures.READ_ALONG, measures.NATS]["gain"] == pytest.approx(2, abs=0.1)
    few = measures.summarise(invented(9, 2.0))
    assert all(row["low"] is None and row["gain_low"] is None for row in few)


def test_the_figure_is_drawn_from_the_file(tmp_path: Path) -> None:
    for dataset, gain in (("ptbxl", 2.0), ("synthetic-a", 0.0)):
        rows = measures.summarise(invented(12, gain))
        forecast_data.write(tmp_path / f"{dataset}.json", rows, {"dataset": dataset, "checkpoint": "x"})
    read = forecast_data.read(tmp_path)
    figure = forecast.draw_forecast(read)
    assert style.smallest_font(figure) >= style.FONT
    assert len(figure.axes) == len(forecast.PANELS)
    first = [path.read_bytes() for path in style.save(figure, tmp_path / "one", "forecast", read)]
    again = [path.read_bytes() for path in style.save(forecast.draw_forecast(read), tmp_path / "two", "forecast", read)]
    assert first == again
    assert forecast.told_apart(next(row for row in read if row["gain"] is not None))
    few = measures.summarise(invented(3, 1.0))
    figure = forecast.draw_forecast([{"dataset": "synthetic-b", **row} for row in few])
    assert figure.get_supxlabel() == style.SYNTHETIC
    assert not any(forecast.told_apart(row) for row in few)
    with pytest.raises(DataError, match="cannot be drawn"):
        forecast.draw_forecast([])


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data"):
        forecast_data.read(tmp_path)
    for text in ("{", '{"schema": 9}', '{"schema": 1, "dataset": "ptbxl", "rows": 3}'):
        (tmp_path / "ptbxl.json").write_text(text)
        with pytest.raises(DataError):
            forecast_data.read(tmp_path)


@pytest.mark.parametrize(
    ("gain", "sampled", "state"),
    [(2.0, None, "for"), (-2.0, None, "against"), (2.0, 100.0, "open"), (-2.0, 0.0, "open")],
)
def test_the_claim_follows_from_the_gains(tmp_path: Path, gain: float, sampled: float | None, state: str) -> None:
    from heartllm_eval.paper import claim_data

    (missing,) = claim_data.forecasts(tmp_path)
    assert missing.state == "missing"
    assert "measure forecast" in missing.text
    others = {} if sampled is None else dict.fromkeys(measures.DECISIVE, sampled)
    rows = measures.summarise(invented(12, gain, **others))
    forecast_data.write(tmp_path / "forecast" / "ptbxl.json", rows, {"dataset": "ptbxl"})
    found = claim_data.forecasts(tmp_path)
    assert [finding.state for finding in found] == [state] * len(measures.DECISIVE) + ["note"]


def test_a_way_to_go_on_that_cannot_be_read_has_no_say(tmp_path: Path) -> None:
    from heartllm_eval.paper import claim_data

    rows = measures.summarise(invented(12, 2.0, **{measures.RATE: None}))
    forecast_data.write(tmp_path / "forecast" / "ptbxl.json", rows, {"dataset": "ptbxl"})
    rate = next(finding for finding in claim_data.forecasts(tmp_path) if measures.RATE in finding.text)
    assert rate.state == "for"
    assert f"{measures.SAMPLED} never to be read" in rate.text


def shown(count: int = 3) -> list[Shown]:
    return [Shown(f"r{i}", f"p{i // 2}", simulate(8, 5 * i)[0]) for i in range(count)]


def test_partners_are_other_patients() -> None:
    assert forecast_data.partners(["a", "a", "b", "c", "a"]) == [2, 2, 3, 4, 2]
    with pytest.raises(DataError, match="one patient"):
        forecast_data.partners(["a", "a"])


def test_only_a_checkpoint_that_reads_codes_can_forecast(make_responder: Callable[..., Any]) -> None:
    responder = make_responder()
    assert forecast_data.check(responder, 5.0) == 156
    for seconds in (1.0, 9.0):
        with pytest.raises(UsageError, match="too few"):
            forecast_data.check(responder, seconds)
    with pytest.raises(CheckpointError, match="not the codec"):
        forecast_data.check(make_responder("continuous"), 5.0)
    responder.blind = True
    with pytest.raises(UsageError, match="without ECGs"):
        forecast_data.check(responder, 5.0)


def test_a_measurement_goes_on_and_does_not_depend_on_the_batch(
    make_responder: Callable[..., Any], tmp_path: Path
) -> None:
    responder, some = make_responder(), shown()
    codes = np.stack([responder.encode(one.recording) for one in some])
    whole = forecast_data.measure(responder, some, lambda: codes, tmp_path / "a", known=250)
    (tmp_path / "a" / "r1.json").unlink()
    again = forecast_data.measure(responder, some, lambda: codes, tmp_path / "a", known=250, batch=1)
    for one, other in zip(whole, again, strict=True):
        assert one["errors"].keys() == other["errors"].keys() == {*measures.SYSTEMS, *measures.CODE_SYSTEMS}
        assert one["errors"][measures.REPEAT] == other["errors"][measures.REPEAT]
        assert one["errors"][measures.READ_ALONG] == pytest.approx(other["errors"][measures.READ_ALONG], abs=1e-4)

    def fail() -> Any:
        raise AssertionError("everything was measured already")

    assert forecast_data.measure(responder, some, fail, tmp_path / "a", known=250) == again


def test_a_z_scored_codec_is_told_the_records_size() -> None:
    class Told:
        codec = FSQCodes(CodecConfig(levels=(3, 3), decoder_width=16, scale="zscore")).eval()

    recording = shown(1)[0].recording
    loud = Recording(recording.signal * 3, recording.sampling_rate)
    codes = np.zeros(313, np.int64)
    one, other = (forecast_data.decoded(Told(), codes, ecg) for ecg in (recording, loud))  # type: ignore[arg-type]
    assert np.allclose(3 * one, other, atol=1e-3)


def test_the_command(make_responder: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from heartllm.responder import Responder
    from heartllm_eval.cli import app
    from heartllm_eval.commands import measure_forecast

    monkeypatch.setattr(Responder, "load", lambda *about, **how: make_responder())
    monkeypatch.setattr(measure_forecast, "read_shown", lambda *about: shown())
    codes = np.zeros((1, 313), np.int64)
    monkeypatch.setattr(measure_forecast, "known_codes", lambda *about: codes)
    command = ["measure", "forecast", "-a", "checkpoint=x", "-d", "synthetic-a", "-o", str(tmp_path), "--seconds", "8"]
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0, told.output
    assert measures.LOST in told.output
    written = json.loads((tmp_path / "forecast" / "synthetic-a.json").read_text())
    assert (written["checkpoint"], written["recordings"], written["patients"]) == ("fingerprint", 3, 2)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")] == ["forecast/synthetic-a.json"]
    assert len(list(tmp_path.iterdir())) == 1  # nothing is left of what was done on the way
    for wrong in ("", "checkpoint=x,threads=many", "checkpoint=x,more=1"):
        result = CliRunner().invoke(app, [*command[:3], wrong, *command[4:]])
        assert isinstance(result.exception, UsageError)
    assert "Examples" in CliRunner().invoke(app, ["measure", "forecast", "--help"]).output


def test_codes_are_learnt_from_training_or_from_what_is_known(
    make_responder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from heartllm_eval.commands import measure_forecast

    class Workspace:
        def __init__(self, train: list[str]) -> None:
            self.train = train

        def dataset(self, name: str) -> Any:
            return self

        def entries(self, *about: str) -> list[str]:
            return self.train

    monkeypatch.setattr(measure_forecast, "read_shown", lambda *about: shown(2))
    responder, some = make_responder(), shown(3)
    with_split = measure_forecast.known_codes(responder, Workspace(["one"]), "x", some, 100, 0)  # type: ignore[arg-type]
    without = measure_forecast.known_codes(responder, Workspace([]), "x", some, 100, 0)  # type: ignore[arg-type]
    assert with_split.shape == (2, 313)
    assert without.shape == (3, 100)


def test_unusable_recordings_are_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from heartllm_eval.commands import measure_forecast

    one = shown(1)[0].recording

    class Entry:
        def __init__(self, record_id: str) -> None:
            self.record_id, self.patient_id = record_id, record_id

    class Workspace:
        def entries(self, *about: str) -> list[Entry]:
            return [Entry(name) for name in "abcd"]

        def read(self, dataset: str, record: str) -> Recording:
            if record == "b":
                raise DataError("is torn", remedy="Fetch it again.")
            return replace(one, record_id=record)

    found = measure_forecast.read_shown(Workspace(), "ptbxl", "test", 9, 0)  # type: ignore[arg-type]
    assert sorted(item.record for item in found) == ["a", "c", "d"]
    assert "left out" in capsys.readouterr().err
    assert len(measure_forecast.read_shown(Workspace(), "ptbxl", "test", 2, 0)) == 2  # type: ignore[arg-type]
