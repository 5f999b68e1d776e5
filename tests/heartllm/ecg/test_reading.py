"""CSV, npy, missing samples, rates and units: nothing is guessed, and what is done is noted."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.ecg import LEADS, RawSignal, make_recording, read_recording
from heartllm.ecg.gaps import fill_gaps, runs
from heartllm.errors import DataError, HeartLLMError, UsageError


def write_csv(path: Path, signal: np.ndarray, header: str, before: str = "", delimiter: str = ",") -> Path:
    rows = "\n".join(delimiter.join(f"{value:.6f}" for value in row) for row in signal.T)
    path.write_text(f"{before}{header}\n{rows}\n")
    return path


# --- CSV -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_with_rate_and_units_in_comments(beats: np.ndarray, tmp_path: Path, delimiter: str) -> None:
    before = "# made by a recorder\n# sampling_rate: 500 Hz\n# units: mV\n"
    path = write_csv(tmp_path / "a.csv", beats, delimiter.join(LEADS), before, delimiter)
    recording = read_recording(path)
    np.testing.assert_allclose(recording.signal, beats, atol=1e-6)
    assert (recording.record_id, recording.notes) == ("a", ())


def test_csv_with_units_in_the_header_row(beats: np.ndarray, tmp_path: Path) -> None:
    scales = {"mV": 1.0, "uV": 1e3, "V": 1e-3, "µV": 1e3}
    units = [list(scales)[i % 4] for i in range(12)]
    header = ",".join(f"{n} {'[('[i % 2]}{u}{'])'[i % 2]}" for i, (n, u) in enumerate(zip(LEADS, units, strict=True)))
    signal = beats * np.array([scales[unit] for unit in units])[:, None]
    recording = read_recording(write_csv(tmp_path / "a.csv", signal, header), sampling_rate=500)
    np.testing.assert_allclose(recording.signal, beats, atol=0.0011)
    assert recording.notes == ("converted from uV to mV", "converted from V to mV", "converted from µV to mV")


@pytest.mark.parametrize(("column", "scale"), [("time (s)", 1.0), ("time_ms", 1e3), ("t [s]", 1.0)])
def test_csv_with_a_time_column(beats: np.ndarray, tmp_path: Path, column: str, scale: float) -> None:
    table = np.vstack([np.arange(5000) / 500 * scale, beats])
    recording = read_recording(write_csv(tmp_path / "a.csv", table, ",".join([column, *LEADS])), units="mV")
    np.testing.assert_allclose(recording.signal, beats, atol=1e-6)
    assert f"sampling rate 500 Hz taken from the column '{column}'" in recording.notes


def test_csv_without_a_header_row_needs_names(beats: np.ndarray, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", beats, ",".join("0" * 12))
    with pytest.raises(DataError, match=r"a\.csv: the first row holds numbers"):
        read_recording(path, sampling_rate=500, units="mV")
    recording = read_recording(path, sampling_rate=500, units="mV", lead_names=LEADS, length="keep")
    assert recording.signal.shape == (12, 5001)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# fs: 500\n", "the file is empty"),
        ("I,II\n", "no samples"),
        ("I,II\n1,2\n3\n", "line 3 has 1 columns, the header 2"),
        ("I,II\n1,x\n", "line 2: 'x' is not a number"),
        ("# c\nI,II\n1,2\n1,1.5mV\n", "line 4: '1.5mV' is not a number"),
        ("# fs: fast\nI,II\n1,2\n", "'fast' is not a number of Hz"),
        ("time (s),I\n0,1\n0.002,1\n0.1,1\n", "not evenly spaced"),
        ("I,II\n1,2\n", "sampling rate is not known"),
        ("# fs: 500\nI,II\n1,2\n", "unit of lead 'I' is not known"),
        ("# fs: 500\n# units: mmHg\nI,II\n1,2\n", "unknown unit 'mmHg'"),
        ("# fs: 500\n# units: mV\nI,II\n1,2\n", "missing leads III, aVR, aVL, aVF, V1, V2, V3"),
        ("# fs: 500\n# units: mV\nI,pressure\n1,2\n", "unknown lead name 'pressure'"),
    ],
)
def test_wrong_csv_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_recording(path)
    assert "bad.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_binary_csv(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match=r"bad\.csv: the file is not UTF-8 text"):
        read_recording(tmp_path / "bad.csv")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_file_content_gives_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    for suffix in (".csv", ".npy", ".hea"):
        path = folder / f"fuzz{suffix}"
        path.write_bytes(content)
        with pytest.raises(HeartLLMError, match="fuzz"):
            read_recording(path, sampling_rate=500, units="mV", lead_names=LEADS)
        path.unlink()


# --- npy -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transposed", [False, True])
def test_npy_with_arguments(beats: np.ndarray, tmp_path: Path, transposed: bool) -> None:
    np.save(tmp_path / "a.npy", beats.T if transposed else beats)
    recording = read_recording(tmp_path / "a.npy", sampling_rate=500, units="mV", lead_names=LEADS)
    np.testing.assert_array_equal(recording.signal, beats.astype(np.float32))


def test_npy_with_a_sidecar(beats: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.round(beats[::-1] * 1000).astype(np.int16))
    (tmp_path / "a.json").write_text(json.dumps({"sampling_rate": 500, "leads": LEADS[::-1], "units": "uV"}))
    np.testing.assert_allclose(read_recording(tmp_path / "a").signal, beats, atol=0.00051)


@pytest.mark.parametrize(
    ("array", "sidecar", "message"),
    [
        (np.zeros((12, 100)), None, "lead names are not known"),
        (np.zeros((12, 100)), {"leads": LEADS, "units": "mV"}, "sampling rate is not known"),
        (np.zeros((12, 100)), {"leads": LEADS, "sampling_rate": 500}, "unit of lead 'I' is not known"),
        (np.zeros((12, 100)), {"leads": LEADS, "sampling_rate": "fast"}, "'fast' is not a number"),
        (np.zeros((12, 100)), {"lead": LEADS}, "unknown key 'lead'"),
        (np.zeros((12, 12)), {"leads": LEADS}, "does not tell which axis"),
        (np.zeros((11, 100)), {"leads": LEADS}, "does not tell which axis"),
        (np.zeros(100), {"leads": LEADS}, "expected a numeric array"),
        (np.zeros((12, 9), dtype=complex), {"leads": LEADS}, "expected a numeric array"),
        (np.array([[{}]], dtype=object), {"leads": LEADS}, "not a plain numpy array"),
        (np.zeros((12, 0)), {"leads": LEADS, "sampling_rate": 500, "units": "mV"}, "holds no samples"),
    ],
)
def test_wrong_npy_files(tmp_path: Path, array: np.ndarray, sidecar: object, message: str) -> None:
    np.save(tmp_path / "bad.npy", array, allow_pickle=True)
    if sidecar is not None:
        (tmp_path / "bad.json").write_text(json.dumps(sidecar))
    with pytest.raises(DataError, match=message) as caught:
        read_recording(tmp_path / "bad.npy")
    assert "bad." in str(caught.value)


# --- paths and arguments ---------------------------------------------------------------------------------------------


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    for name in ("gone", "gone.csv", "gone.npy", "gone.hea", "gone.mat"):
        with pytest.raises(DataError, match="gone"):
            read_recording(tmp_path / name)
    (tmp_path / "scan.pdf").write_text("x")
    with pytest.raises(UsageError, match=r"scan\.pdf: unknown kind of file"):
        read_recording(tmp_path / "scan.pdf")


def raw(signal: np.ndarray, rate: float | None = 500.0) -> RawSignal:
    return RawSignal(signal, LEADS, ("mV",) * 12, rate, "x", Path("x.csv"))


def test_unknown_policies(beats: np.ndarray) -> None:
    with pytest.raises(UsageError, match="unknown NaN policy"):
        make_recording(raw(beats), nan_policy="ignore")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"call windows\(\)"):
        make_recording(raw(beats), length="windows")  # type: ignore[arg-type]


def test_wrong_counts_of_lead_names(beats: np.ndarray, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", beats, ",".join(LEADS))
    with pytest.raises(UsageError, match=r"a\.csv: 3 lead names for 12 channels"):
        read_recording(path, sampling_rate=500, units="mV", lead_names=["I", "II", "III"])


def test_another_rate_is_taken_and_noted(beats: np.ndarray, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", beats[:, ::2], ",".join(LEADS), "# fs: 500\n# units: mV\n")
    recording = read_recording(path, sampling_rate=250)
    assert recording.notes == ("sampling rate taken as 250 Hz instead of the file's 500 Hz", "resampled 250 -> 500 Hz")


# --- missing samples -------------------------------------------------------------------------------------------------


def test_missing_samples_are_refused_by_default(beats: np.ndarray) -> None:
    signal = beats.copy()
    signal[7, 1000:1010] = np.nan
    signal[7, 2000] = np.inf
    with pytest.raises(DataError, match=r"x\.csv: 11 missing samples \(NaN\) in lead V2, the longest gap 20 ms"):
        make_recording(raw(signal))


def test_short_gaps_are_interpolated_and_noted(beats: np.ndarray) -> None:
    signal = beats.copy()
    signal[7, 1000:1010] = np.nan
    recording = make_recording(raw(signal), nan_policy="interpolate")
    line = np.interp(np.arange(1000, 1010), [999, 1010], beats[7, [999, 1010]])
    np.testing.assert_allclose(recording.signal[7, 1000:1010], line, atol=1e-6)
    assert recording.notes == ("10 missing samples in lead V2 interpolated (longest gap 20 ms)",)


@pytest.mark.parametrize(("length", "accepted"), [(50, True), (51, False)])
def test_long_gaps_are_refused(beats: np.ndarray, length: int, accepted: bool) -> None:
    signal = beats.copy()
    signal[0, 700 : 700 + length] = np.nan
    if accepted:
        assert np.isfinite(make_recording(raw(signal), nan_policy="interpolate").signal).all()
        return
    with pytest.raises(DataError, match="lead I, the longest gap 102 ms, more than the 100 ms"):
        make_recording(raw(signal), nan_policy="interpolate")
    make_recording(raw(signal), nan_policy="interpolate", max_gap=0.2)


def test_kept_gaps_stay_where_they_were_when_resampled(beats: np.ndarray) -> None:
    signal = beats.copy()
    signal[2, 1000:1100] = np.nan
    kept = make_recording(raw(signal, 1000.0), nan_policy="keep", length="keep").signal
    assert runs(np.isnan(kept[2])) == [(500, 50)]
    assert np.isfinite(np.delete(kept, 2, axis=0)).all()


@given(st.lists(st.booleans(), max_size=40))
def test_runs_rebuild_the_mask(mask: list[bool]) -> None:
    rebuilt = np.zeros(len(mask), dtype=bool)
    found = runs(np.array(mask, dtype=bool))
    for start, length in found:
        rebuilt[start : start + length] = True
    assert rebuilt.tolist() == mask
    assert all(b[0] > a[0] + a[1] for a, b in pairwise(found))


@given(st.lists(st.floats(-5, 5) | st.just(np.nan), min_size=1, max_size=30))
def test_filling_keeps_what_is_there_and_stays_in_range(row: list[float]) -> None:
    values = np.array([row])
    filled = fill_gaps(values)
    there = np.isfinite(values)
    np.testing.assert_array_equal(filled[there], values[there])
    assert np.isfinite(filled).all()
    if there.any():
        assert values[there].min() - 1e-9 <= filled.min()
        assert filled.max() <= values[there].max() + 1e-9


# --- weight ----------------------------------------------------------------------------------------------------------


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, heartllm.ecg as ecg; ecg.read_recording; "
        "print([name for name in ('torch', 'wfdb', 'scipy', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_exported_name_exists() -> None:
    import heartllm.ecg

    assert sorted(heartllm.ecg.__all__) == sorted(heartllm.ecg._HOMES)
    assert all(getattr(heartllm.ecg, name) is not None for name in heartllm.ecg.__all__)
    assert callable(heartllm.ecg.quality)
