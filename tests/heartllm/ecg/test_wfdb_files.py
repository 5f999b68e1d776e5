"""WFDB records: pinned to the `wfdb` package, and every damaged record an error of one line that names the file."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import example, given
from hypothesis import strategies as st

from heartllm.ecg import LEADS, read_raw, read_recording, wfdb_files
from heartllm.ecg.wfdb_header import SignalLine, read_header
from heartllm.errors import DataError, HeartLLMError

Write = Callable[..., Path]


def assert_reads_as_wfdb(stem: Path) -> None:
    expected, fields = wfdb.rdsamp(str(stem))
    raw = read_raw(stem)
    np.testing.assert_array_equal(raw.signal.astype(np.float32), expected.T.astype(np.float32))
    assert list(raw.names) == fields["sig_name"]
    assert list(raw.units) == fields["units"]
    assert raw.sampling_rate == fields["fs"]


@pytest.mark.parametrize("fmt", ["16", "212", "80", "24", "32", "508", "516", "524"])
@pytest.mark.parametrize("gain", [1000.0, 50.0])
def test_formats_read_as_wfdb_reads_them(beats: np.ndarray, write_wfdb: Write, fmt: str, gain: float) -> None:
    if fmt in ("508", "516", "524"):
        pytest.importorskip("soundfile")
    signal = beats * (0.05 if fmt in ("80", "508", "212") and gain > 100 else 1.0)
    stem = write_wfdb(signal, fmt=fmt, gain=gain)
    assert_reads_as_wfdb(stem)
    recording = read_recording(stem)
    np.testing.assert_allclose(recording.signal, signal, atol=0.51 / gain + 1e-6)
    assert recording.notes == ()


@pytest.mark.parametrize("fmt", ["16", "212", "24"])
def test_missing_samples_are_those_of_wfdb(beats: np.ndarray, write_wfdb: Write, fmt: str) -> None:
    signal = beats.copy()
    signal[4, 100:120] = np.nan
    signal[7, 0] = np.nan
    assert_reads_as_wfdb(write_wfdb(signal, fmt=fmt, gain=200.0))


def test_baselines_and_gains_by_signal(beats: np.ndarray, tmp_path: Path) -> None:
    gains, baselines = [100.0 + 37.7 * i for i in range(12)], [-300 + 50 * i for i in range(12)]
    wfdb.wrsamp(
        "rec", fs=500, units=["mV"] * 12, sig_name=list(LEADS), p_signal=np.ascontiguousarray(beats.T), fmt=["16"] * 12,
        adc_gain=gains, baseline=baselines, write_dir=str(tmp_path),
    )  # fmt: skip
    assert_reads_as_wfdb(tmp_path / "rec")


@given(
    gain=st.one_of(st.integers(1, 2**24).map(float), st.floats(0.01, 1e6)),
    baseline=st.one_of(st.integers(-(2**15), 2**15), st.integers(-(2**30), 2**30)),
    seed=st.integers(0, 1000),
)
@example(gain=1000.0, baseline=0, seed=0)
@example(gain=3.0, baseline=2**24 - 2**15 - 1, seed=0)
@example(gain=0.1, baseline=7, seed=0)
def test_samples_are_those_of_a_division_in_double_precision(gain: float, baseline: int, seed: int) -> None:
    digital = np.random.default_rng(seed).integers(-(2**15), 2**15, (2, 500)).astype(np.int16)
    line = SignalLine("x.dat", "16", 1, 0, 0, gain, baseline, "mV", None, None, "I")
    other = dataclasses.replace(line, gain=-gain, baseline=0)
    wanted = [(digital[0] - float(baseline)) / gain, digital[1] / -gain]
    found = wfdb_files._physical(digital, (line, other))
    np.testing.assert_array_equal(found, np.stack(wanted).astype(np.float32))
    assert found.dtype == np.float32


@pytest.mark.parametrize("suffix", ["", ".hea", ".dat"])
def test_the_extension_may_be_left_out(beats: np.ndarray, write_wfdb: Write, suffix: str) -> None:
    stem = write_wfdb(beats, name="00001_hr")
    assert read_recording(f"{stem}{suffix}").record_id == "00001_hr"


def test_lead_order_of_mimic(beats: np.ndarray, write_wfdb: Write) -> None:
    order = [0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11]  # I II III aVR aVF aVL V1-6
    stem = write_wfdb(beats[order], names=[LEADS[i] for i in order])
    np.testing.assert_allclose(read_recording(stem).signal, beats, atol=0.00051)


def test_microvolts_are_converted_and_noted(beats: np.ndarray, write_wfdb: Write) -> None:
    recording = read_recording(write_wfdb(beats * 1000, units="uV", gain=1.0))
    np.testing.assert_allclose(recording.signal, beats, atol=0.00051)
    assert recording.notes == ("converted from uV to mV",)


def test_a_challenge_mat_file(beats: np.ndarray, tmp_path: Path) -> None:
    """The layout of the CinC challenges: a MATLAB v4 matrix `val`, so a 24-byte head and interleaved 16-bit samples."""
    scipy_io = pytest.importorskip("scipy.io")
    digital = np.round(beats * 1000).astype(np.int16)
    scipy_io.savemat(tmp_path / "A1.mat", {"val": digital}, format="4")
    lines = [
        f"A1.mat 16+24 1000/mV 16 0 {row[0]} {int(row.sum(dtype=np.int16))} 0 {lead}"
        for lead, row in zip(LEADS, digital, strict=True)
    ]
    (tmp_path / "A1.hea").write_text("\n".join(["A1 12 500 5000", *lines, "#Dx: 426783006"]) + "\n")
    np.testing.assert_array_equal(read_recording(tmp_path / "A1.mat").signal, (digital / 1000).astype(np.float32))
    assert_reads_as_wfdb(tmp_path / "A1")


def test_several_signal_files(beats: np.ndarray, tmp_path: Path) -> None:
    digital = np.round(beats * 1000).astype(np.int16)
    for number, part in enumerate((digital[:6], digital[6:])):
        (tmp_path / f"rec_{number}.dat").write_bytes(part.T.astype("<i2").tobytes())
    lines = [f"rec_{i // 6}.dat 16 1000/mV 16 0 {row[0]} {int(row.sum(dtype=np.int16))} 0 {lead}"
             for i, (lead, row) in enumerate(zip(LEADS, digital, strict=True))]  # fmt: skip
    (tmp_path / "rec.hea").write_text("\n".join(["rec 12 500 5000", *lines]) + "\n")
    assert_reads_as_wfdb(tmp_path / "rec")


def test_several_segments(beats: np.ndarray, write_wfdb: Write, tmp_path: Path) -> None:
    write_wfdb(beats[:, :2000], name="part1")
    write_wfdb(beats[:, 2000:], name="part2")
    (tmp_path / "whole.hea").write_text("whole/2 12 500 5000\npart1 2000\npart2 3000\n")
    recording = read_recording(tmp_path / "whole")
    np.testing.assert_allclose(recording.signal, beats, atol=0.00051)
    assert "checksums not compared" in recording.notes[0]
    (tmp_path / "part2.dat").unlink()
    with pytest.raises(DataError, match=r"whole\.hea: cannot be decoded"):
        read_recording(tmp_path / "whole")


def test_channels_of_other_rates_are_left_out(beats: np.ndarray, tmp_path: Path) -> None:
    wfdb.wrsamp(
        "rec", fs=250, units=["mV"] * 12 + ["NU"], sig_name=[*LEADS, "RESP"], fmt=["16"] * 13, adc_gain=[1000.0] * 13,
        baseline=[0] * 13, e_p_signal=[*beats, np.zeros(2500)], samps_per_frame=[2] * 12 + [1], write_dir=str(tmp_path),
    )  # fmt: skip
    recording = read_recording(tmp_path / "rec")
    assert recording.signal.shape == (12, 5000)
    assert "channel 'RESP' ignored: not one of the twelve leads" in recording.notes
    np.testing.assert_allclose(recording.signal, beats, atol=0.00051)  # at the leads' own 500 Hz, not the frames' 250


def test_leads_of_different_rates_are_refused(beats: np.ndarray, tmp_path: Path) -> None:
    wfdb.wrsamp(
        "rec", fs=250, units=["mV"] * 12, sig_name=list(LEADS), fmt=["16"] * 12, adc_gain=[1000.0] * 12,
        baseline=[0] * 12, e_p_signal=[*beats[:11], beats[11, ::2]], samps_per_frame=[2] * 11 + [1],
        write_dir=str(tmp_path),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"rec\.hea: the leads have different sampling rates"):
        read_recording(tmp_path / "rec")


# --- damaged records -------------------------------------------------------------------------------------------------


def signal_file(stem: Path) -> Path:
    return stem.with_name(stem.with_suffix(".hea").read_text().splitlines()[1].split()[0])


def damage_missing_dat(stem: Path) -> None:
    signal_file(stem).unlink()


def damage_empty_dat(stem: Path) -> None:
    signal_file(stem).write_bytes(b"")


def damage_short_dat(stem: Path) -> None:
    data = signal_file(stem).read_bytes()
    signal_file(stem).write_bytes(data[: len(data) // 2 - 5])


def damage_a_sample(stem: Path) -> None:
    data = bytearray(signal_file(stem).read_bytes())
    data[2000] ^= 0x04
    signal_file(stem).write_bytes(bytes(data))


def damage_empty_header(stem: Path) -> None:
    stem.with_suffix(".hea").write_bytes(b"")


def damage_binary_header(stem: Path) -> None:
    stem.with_suffix(".hea").write_bytes(bytes(range(128, 256)) * 4)


def damage_header_text(stem: Path) -> None:
    stem.with_suffix(".hea").write_text("this is not a header\nat all\n")


def damage_truncated_header(stem: Path) -> None:
    lines = stem.with_suffix(".hea").read_text().splitlines()
    stem.with_suffix(".hea").write_text("\n".join(lines[:7]) + "\n")


def damage_signal_line(stem: Path) -> None:
    text = stem.with_suffix(".hea").read_text()
    stem.with_suffix(".hea").write_text(text.replace("/mV", "/mV x", 1))


def damage_unit(stem: Path) -> None:
    text = stem.with_suffix(".hea").read_text()
    stem.with_suffix(".hea").write_text(text.replace("/mV", "/mmHg"))


def damage_gain(stem: Path) -> None:
    text = stem.with_suffix(".hea").read_text()
    stem.with_suffix(".hea").write_text(text.replace("1000.0(0)/mV", "0"))


def damage_rate(stem: Path) -> None:
    text = stem.with_suffix(".hea").read_text()
    stem.with_suffix(".hea").write_text(text.replace(" 500 ", " 0 ", 1))


def damage_escape(stem: Path) -> None:
    text = stem.with_suffix(".hea").read_text()
    stem.with_suffix(".hea").write_text(text.replace("\nrec", "\n../rec"))


def damage_lead_name(stem: Path) -> None:
    text = stem.with_suffix(".hea").read_text()
    stem.with_suffix(".hea").write_text(text.replace(" V6", " W6"))


def damage_missing_header(stem: Path) -> None:
    stem.with_suffix(".hea").unlink()


@pytest.mark.parametrize("fmt", ["16", "212", "516"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_missing_dat, "missing"),
        (damage_empty_dat, "short|empty"),
        (damage_short_dat, "short|cannot be decoded|checksum"),
        (damage_a_sample, "checksum mismatch|cannot be decoded"),
        (damage_empty_header, "header is empty"),
        (damage_binary_header, "not text"),
        (damage_header_text, "not valid"),
        (damage_truncated_header, "promises 12 signals and describes 6"),
        (damage_signal_line, "not valid"),
        (damage_unit, "unknown unit 'mmHg'"),
        (damage_gain, "uncalibrated"),
        (damage_rate, "sampling rate"),
        (damage_escape, "another folder"),
        (damage_lead_name, "unknown lead name 'W6'"),
    ],
)
def test_damaged_records_are_errors_of_one_line(
    beats: np.ndarray, write_wfdb: Write, fmt: str, damage: Callable[[Path], None], message: str
) -> None:
    if fmt == "516":
        pytest.importorskip("soundfile")
    stem = write_wfdb(beats, fmt=fmt)
    damage(stem)
    with pytest.raises(DataError, match=message) as caught:
        read_recording(stem)
    assert "rec" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_a_missing_header_names_the_file(beats: np.ndarray, write_wfdb: Write) -> None:
    stem = write_wfdb(beats)
    damage_missing_header(stem)
    with pytest.raises(DataError, match=r"rec\.hea: no such header file"):
        read_recording(stem.with_suffix(".dat"))


def test_a_longer_file_than_the_header_promises(beats: np.ndarray, write_wfdb: Write) -> None:
    stem = write_wfdb(beats)
    with stem.with_suffix(".dat").open("ab") as file:
        file.write(bytes(240))
    with pytest.raises(DataError, match=r"rec\.dat: the header promises 5000 samples .* holds 5010"):
        read_recording(stem)
    np.testing.assert_allclose(read_recording(stem, verify=False).signal, beats, atol=0.00051)


@pytest.mark.parametrize("fmt", ["16", "212"])
def test_verify_false_reads_in_spite_of_the_checksum(beats: np.ndarray, write_wfdb: Write, fmt: str) -> None:
    stem = write_wfdb(beats, fmt=fmt)
    damage_a_sample(stem)
    assert read_recording(stem, verify=False).signal.shape == (12, 5000)


def test_amplitudes_that_no_ecg_has_are_refused(beats: np.ndarray, write_wfdb: Write) -> None:
    """Microvolts labelled as millivolts, and volts labelled as millivolts."""
    stem = write_wfdb(beats * 1000, gain=1.0)
    with pytest.raises(DataError, match=r"rec: typical peak-to-peak amplitude .* unit in the file is probably wrong"):
        read_recording(stem)
    recording = read_recording(stem, units="uV")
    np.testing.assert_allclose(recording.signal, beats, atol=0.00051)
    assert "units taken as uV instead of mV" in recording.notes
    with pytest.raises(DataError, match="unit in the file"):
        read_recording(write_wfdb(beats / 1000, name="small", gain=1e6))


def test_header_without_length_or_checksum(beats: np.ndarray, tmp_path: Path) -> None:
    digital = np.round(beats * 1000).astype("<i2")
    (tmp_path / "rec.dat").write_bytes(digital.T.tobytes())
    (tmp_path / "rec.hea").write_text("\n".join(["rec 12 500", *(f"rec.dat 16 1000 16 0 0 0 0 {n}" for n in LEADS)]))
    header = read_header(tmp_path / "rec.hea")
    assert header.samples is None
    assert header.signals[0].units == "mV"
    with pytest.raises(DataError, match="checksum"):  # a checksum of 0 is a checksum
        read_recording(tmp_path / "rec")
    (tmp_path / "rec.hea").write_text("\n".join(["rec 12 500", *["rec.dat 16 1000 16 0 0"] * 12]))
    recording = read_recording(tmp_path / "rec", lead_names=LEADS)
    np.testing.assert_allclose(recording.signal, beats, atol=0.00051)


# --- real recordings -------------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_ptbxl_reads_as_wfdb_reads_it(data_root: Path) -> None:
    headers = sorted((data_root / "ptbxl" / "records500").glob("*/*.hea"))
    assert headers
    for path in headers[:: max(1, len(headers) // 20)]:
        assert_reads_as_wfdb(path.with_suffix(""))
        recording = read_recording(path)
        assert recording.signal.shape == (12, 5000)
        assert recording.notes == ()


@pytest.mark.real_data
def test_every_recording_of_the_other_sites_is_read(data_root: Path) -> None:
    headers = sorted((data_root / "other_sites").glob("*/*.hea"))
    assert len(headers) >= 25
    for path in headers:
        assert_reads_as_wfdb(path.with_suffix(""))
        recording = read_recording(path)
        assert recording.signal.shape == (12, 5000)
        whole = read_recording(path, length="keep")
        assert (whole.duration == 10) == (recording.notes == ())
        residual = whole.lead("III") - (whole.lead("II") - whole.lead("I"))
        assert np.abs(residual).mean() < 0.02


@pytest.mark.real_data
def test_reading_is_fast_enough_to_read_thousands(data_root: Path) -> None:
    headers = sorted((data_root / "ptbxl" / "records500").glob("*/*.hea"))[:100]
    for path in headers:
        read_recording(path)
    start = time.process_time()
    for path in headers:
        read_recording(path)
    assert (time.process_time() - start) / len(headers) < 0.005  # about 0.001 s where nothing else runs


# --- headers that went wrong in any way ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound_record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutated")
    (folder / "rec.dat").write_bytes(np.zeros((60, 12), dtype="<i2").tobytes())
    lines = [f"rec.dat 16 1000.0(0)/mV 16 0 0 0 0 {lead}" for lead in LEADS]
    (folder / "rec.hea").write_text("\n".join(["rec 12 500 60", *lines]) + "\n")
    return folder / "rec"


@given(
    st.lists(st.tuples(st.integers(0, 500), st.sampled_from(["", *" /()+x:.-09aV\n#~\0é"])), min_size=1, max_size=4),
    st.booleans(),
)
@example([(19, "2")], True)
def test_mutated_headers_are_read_or_refused(sound_record: Path, edits: list[tuple[int, str]], verify: bool) -> None:
    text = sound_record.with_suffix(".hea").read_text()
    for place, new in edits:
        text = text[:place] + new + text[place + 1 :]
    mutated = sound_record.with_name("mutated.hea")
    mutated.write_text(text)
    try:
        recording = read_recording(mutated, verify=verify)
    except HeartLLMError as error:
        message = str(error)
    else:
        message = "rec"
        assert recording.signal.shape == (12, 5000)
        assert recording.signal.dtype == np.float32
    assert re.search(r"mutated|rec", message)
