"""The codec report: figures against plain formulas, signals whose errors are known, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from heartllm.codec.codec import Codec, CodecConfig
from heartllm.codec.measures import GAINS, NOISES, SHIFTS, disturbed, wave_agreements
from heartllm.codec.report import CodecReport, codec_report, codec_stage_report
from heartllm.data.synthetic import simulate
from heartllm.ecg.recording import LEADS, Recording
from heartllm.ecg.waves import averaged_beat, beat_windows, delineate
from heartllm.errors import DataError


def make(config: CodecConfig) -> Codec:
    torch.manual_seed(0)
    codec = Codec(config).eval()
    last = codec.encoder.to_latent if config.network == "plain" else codec.encoder.to_code
    with torch.no_grad():
        last.weight.mul_(30)
    return codec


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [simulate(1, index)[0] for index in range(10)]


@pytest.fixture(scope="module")
def codec() -> Codec:
    return make(CodecConfig(decoder_width=8))


@pytest.fixture(scope="module")
def report(codec: Codec, recordings: list[Recording]) -> CodecReport:
    return codec_report(codec, iter(recordings), about={"codec": "untrained"})


def test_figures_agree_with_plain_formulas(codec: Codec, recordings: list[Recording], report: CodecReport) -> None:
    signal = torch.from_numpy(np.stack([recording.signal for recording in recordings]))
    index = codec.encode(signal)
    decoded = codec.decode(index, 5000).numpy()
    assert report.recordings == 10
    assert report.seconds == 100
    for i, lead in enumerate(LEADS):
        rmse = np.sqrt(((decoded[:, i] - signal[:, i].numpy()) ** 2).mean(-1))
        assert report.rmse_mv[lead] == pytest.approx(float(rmse.mean()), rel=1e-4)
        pairs = zip(decoded[:, i], signal[:, i].numpy(), strict=True)
        correlation = np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs])
        assert report.correlation[lead] == pytest.approx(float(correlation), abs=1e-3)
    counts = np.bincount(index.flatten(), minlength=1296)
    assert report.codes_used == (counts > 0).sum()
    assert report.commonest_share == pytest.approx(counts.max() / counts.sum())
    assert report.perplexity == pytest.approx(math.exp(entropy(counts)))
    for i, perplexity in enumerate(report.digit_perplexity):
        digit = np.bincount((index.flatten() // 6**i) % 6)
        assert perplexity == pytest.approx(math.exp(entropy(digit)))
    assert report.bits_per_second == pytest.approx(31.3 * math.log2(1296))
    assert report.entropy_bits_per_second == pytest.approx(31.3 * entropy(counts, base=2))


def test_stability(report: CodecReport) -> None:
    assert set(report.equal_codes) == {*NOISES, *GAINS, *SHIFTS}
    assert report.equal_codes["shift 32 ms (one code)"] == 1
    assert report.equal_codes["noise, SNR 20 dB"] > report.equal_codes["noise, SNR 10 dB"]
    assert report.equal_codes["shift 2 ms"] > report.equal_codes["shift 16 ms (half a code)"]
    for name, share in report.equal_codes.items():
        assert 0 <= share <= report.equal_digits[name] <= 1


def test_noise_has_the_stated_ratio(recordings: list[Recording]) -> None:
    class Listening:
        """Keeps what it is asked to encode."""

        def __init__(self) -> None:
            self.heard: list[torch.Tensor] = []

        def encode(self, signal: torch.Tensor) -> torch.Tensor:
            self.heard.append(signal)
            return torch.zeros(len(signal), math.ceil(signal.shape[-1] / 16), dtype=torch.int64)

    codec, signal = Listening(), torch.from_numpy(recordings[0].signal)[None]
    list(disturbed(codec, signal, np.random.default_rng(0)))  # type: ignore[arg-type]
    for heard, decibel in zip(codec.heard[1:], NOISES.values(), strict=False):
        ratio = signal.var(-1) / (heard - signal).var(-1)
        assert (10 * ratio.log10()).numpy() == pytest.approx(decibel, abs=0.3)


def test_zscore_gain_changes_nothing_and_amplitude_is_restored(recordings: list[Recording]) -> None:
    codec = make(CodecConfig(network="paper", scale="zscore", fsq="sigmoid", decoder_width=8))
    report = codec_report(codec, recordings[:2])
    assert report.moments_given
    assert "the codes do not hold it" in report.to_markdown()
    assert report.equal_codes["gain 0.5"] == report.equal_codes["gain 2"] == 1
    deviation = np.mean([recording.signal.std(-1) for recording in recordings[:2]], axis=0)
    assert all(report.rmse_mv[lead] < 3 * deviation[i] for i, lead in enumerate(LEADS))  # in mV, not in deviations


def test_known_changes_give_known_errors(recordings: list[Recording]) -> None:
    """A copy at 0.8 of the amplitude, and one 6 ms later, measured on the original's beats."""
    originals, smaller, later = [], [], []
    for recording in recordings:
        signal = recording.signal.astype(np.float64)
        windows = beat_windows(signal)
        if len(windows) >= 3:
            moved = np.concatenate([signal[:, :1].repeat(3, 1), signal[:, :-3]], axis=1)
            for found, copy in ((originals, signal), (smaller, 0.8 * signal), (later, moved)):
                found.append(delineate(averaged_beat(copy, windows), 400.0))
    assert len(originals) >= 8

    for agreement in wave_agreements(list(zip(originals, originals, strict=True))).values():
        assert agreement.bias == agreement.p90_error == 0
        assert agreement.correlation == pytest.approx(1)

    shrunk = wave_agreements(list(zip(originals, smaller, strict=True)))
    for name in ("R amplitude, all leads", "QRS peak to peak, all leads", "Sokolow-Lyon", "ST level in V5, J + 60 ms"):
        assert shrunk[name].bias == pytest.approx(-0.2 * shrunk[name].original)
        assert shrunk[name].correlation == pytest.approx(1)
    assert shrunk["frontal axis"].p90_error == pytest.approx(0, abs=1e-9)
    assert shrunk["QRS duration"].p90_error == 0

    moved_by = wave_agreements(list(zip(originals, later, strict=True)))
    time = next(agreement for name, agreement in moved_by.items() if name.startswith("R time"))
    assert (time.bias, time.median_error) == (pytest.approx(6, abs=0.5), 6)


def test_axis_errors_take_the_short_way_round(recordings: list[Recording]) -> None:
    signal = recordings[0].signal.astype(np.float64)
    wave = delineate(averaged_beat(signal, beat_windows(signal)), 400.0)
    east, west = (type(wave)(**{**vars(wave), "axis": axis}) for axis in (175.0, -178.0))
    assert wave_agreements([(east, west)])["frontal axis"].bias == pytest.approx(7)
    assert math.isnan(wave_agreements([(east, west)])["frontal axis"].correlation)


def test_written_forms(tmp_path: Path, codec: Codec, recordings: list[Recording]) -> None:
    said: list[str] = []
    report = codec_stage_report(
        codec, recordings[:2], title="Untrained", about={"codec": "none"}, out=tmp_path / "new", say=said.append
    )
    text = (tmp_path / "new" / "codec.md").read_text(encoding="utf-8")
    assert said == [text] == [report.to_markdown("Untrained")]
    assert text.startswith("# Untrained\n\n- codec: none\n- 2 recordings, 20 s")
    assert all(f"| {lead} | {report.rmse_mv[lead]:.4f} |" in text for lead in LEADS)
    facts = json.loads((tmp_path / "new" / "codec.json").read_text(encoding="utf-8"))
    assert facts["rmse_mv"] == report.rmse_mv
    assert facts["waves"]["Sokolow-Lyon"]["count"] == 2
    assert facts["equal_codes"] == report.equal_codes


def test_recordings_without_beats_still_count(codec: Codec) -> None:
    flat = Recording(np.zeros((12, 5000), np.float32), 500.0, "flat")
    report = codec_report(codec, [flat])
    assert (report.recordings, report.delineated) == (1, 0)
    facts = json.loads(report.to_json())
    assert facts["axis_within_15"] is None
    assert facts["correlation"]["II"] is None
    assert facts["waves"]["QRS duration"]["count"] == 0
    assert "| QRS duration, ms | 0 | nan" in report.to_markdown()


def test_recordings_of_several_lengths(codec: Codec, recordings: list[Recording]) -> None:
    short = Recording(recordings[0].signal[:, :2500], 500.0, "short")
    assert codec_report(codec, [short, recordings[1], short]).seconds == 20


def test_refuses_what_it_cannot_measure(codec: Codec) -> None:
    with pytest.raises(DataError, match="no recordings"):
        codec_report(codec, [])
    with pytest.raises(DataError, match="slow: is sampled at 100 Hz"):
        codec_report(codec, [Recording(np.zeros((12, 1000), np.float32), 100.0, "slow")])
    with pytest.raises(DataError, match="NaN"):
        codec_report(codec, [Recording(np.full((12, 5000), np.nan, np.float32), 500.0)])
