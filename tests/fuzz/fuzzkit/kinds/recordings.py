"""Recordings: WFDB records, sites in the CinC layout, CSV and npy files."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fuzzkit import nasty
from fuzzkit.files import Files, collect
from fuzzkit.kind import Kind

from heartllm.data.cinc import count_codes
from heartllm.data.dataset import open_dataset
from heartllm.ecg import read_recording
from heartllm.ecg.recording import LEADS

RATE, SAMPLES = 100, 1000
POLICIES = ("refuse", "interpolate", "keep")


def steps(seed: int = 0) -> np.ndarray[Any, np.dtype[np.int16]]:
    """An invented ECG (T, 12) in steps of a microvolt."""
    rng = np.random.default_rng(seed)
    time = np.arange(SAMPLES) / RATE
    beat = np.exp(-((((time * 1.1) % 1 - 0.4) / 0.03) ** 2))
    return np.rint(1000 * np.outer(beat, rng.uniform(0.3, 1.5, 12)) + rng.normal(0, 15, (SAMPLES, 12))).astype(np.int16)


def header(name: str, file: str, form: str, signal: Any, notes: str = "") -> bytes:
    """A header with first values and checksums."""
    lines = [f"{name} 12 {RATE} {len(signal)}"]
    for lead, column in zip(LEADS, signal.T, strict=True):
        total = int(column.sum(dtype=np.int16))
        lines.append(f"{file} {form} 1000(0)/mV 16 0 {column[0]} {total} 0 {lead}")
    return ("\n".join(lines) + "\n" + notes).encode()


def _with_wfdb(form: str) -> Files:
    import wfdb

    scale = 32 if form == "80" else 1  # eight bits
    with tempfile.TemporaryDirectory() as folder:
        wfdb.wrsamp(
            "r", RATE, ["mV"] * 12, list(LEADS), d_signal=steps() // scale, fmt=[form] * 12,
            adc_gain=[1000.0 / scale] * 12, baseline=[0] * 12, write_dir=folder,
        )  # fmt: skip
        return collect(Path(folder))


def wfdb_records() -> list[Files]:
    """Records in the plain format, in others, in segments, and skewed."""
    signal = steps()
    plain: Files = {"r.hea": header("r", "r.dat", "16", signal), "r.dat": signal.tobytes()}
    halves: Files = {"r.hea": f"r/2 12 {RATE} {SAMPLES}\na {SAMPLES // 2}\nb {SAMPLES // 2}\n".encode()}
    for name, part in (("a", signal[: SAMPLES // 2]), ("b", signal[SAMPLES // 2 :])):
        halves[f"{name}.hea"] = header(name, f"{name}.dat", "16", part)
        halves[f"{name}.dat"] = part.tobytes()
    lines = [line.split() for line in header("r", "r.dat", "16", signal).decode().splitlines()]
    skewed = "\n".join([f"r 12 {RATE} {SAMPLES - 3}", *(" ".join([row[0], "16:3", *row[2:]]) for row in lines[1:])])
    return [
        plain,
        *(_with_wfdb(form) for form in ("212", "80", "24", "32")),
        halves,
        {"r.hea": skewed.encode(), "r.dat": signal.tobytes()},
    ]


def promises(rng: Random, files: Files) -> Files:
    """Counts of signals, samples, frames, skews and offsets that no file keeps; names that lead elsewhere."""
    text = files["r.hea"]
    assert isinstance(text, bytes)
    lines = text.decode().split("\n")
    at = 0 if rng.random() < 0.4 else rng.randrange(len(lines))
    fields = lines[at].split(" ")
    form = rng.choice(
        ("16", "212", "80", "24", "32", "61", "160", "310", "311", "516", "508", "524", "8", "0", "99", "²")
    )
    tail = rng.choice(("", "x2", "x1000000000", ":5", ":1000000000", "+24", "+99999999999999", "x0", ":2147483648"))
    if at and len(fields) > 1 and rng.random() < 0.4:
        fields[1] = form + tail
    elif fields:
        where = rng.randrange(len(fields))
        odd = nasty.number(rng) if rng.random() < 0.7 else nasty.text(rng)
        fields[where] = fields[where] + odd if rng.random() < 0.2 else odd
    lines[at] = " ".join(fields)
    if rng.random() < 0.2:  # the same in every signal
        lines[1:] = [lines[at]] * (len(lines) - 1)
    return {**files, "r.hea": "\n".join(lines).encode("utf-8", "replace")}


def read_one(path: Path, rng: Random) -> None:
    """Reads one recording under options drawn at random; a skewed one has no end in some leads."""
    read_recording(path, verify=rng.random() < 0.5, nan_policy=rng.choice(POLICIES[1:]), length="fit")


WFDB = Kind("wfdb", wfdb_records, lambda folder, rng: read_one(folder / "r", rng), ("r.hea",), (promises,), 0.4)


# CinC ---------------------------------------------------------------------------------------------------------------
NOTES = "# Age: {age}\n# Sex: {sex}\n# Dx: {codes}\n# Rx: Unknown\n# Hx: Unknown\n# Sx: Unknown\n"
_HEAD = (30).to_bytes(4, "little") + (12).to_bytes(4, "little") + SAMPLES.to_bytes(4, "little") + bytes(12)


def site() -> list[Files]:
    """A folder of three recordings, with and without a split manifest."""
    from heartllm.data.splits import SplitManifest, write_manifest

    files: Files = {}
    for number, (age, sex, codes) in enumerate(
        (("57", "Female", "426783006"), ("NaN", "M", "39732003,164889003"), ("", "", "55930002"))
    ):
        name, signal = f"E0000{number}", steps(number)
        notes = NOTES.format(age=age, sex=sex, codes=codes)
        files[f"g1/{name}.hea"] = header(name, f"{name}.mat", "16+24", signal, notes)
        files[f"g1/{name}.mat"] = _HEAD + signal.tobytes()
    with tempfile.TemporaryDirectory() as folder:
        manifest = SplitManifest("georgia", {"E00000": "train", "E00001": "test"}, {"train": 1, "test": 1})
        write_manifest(manifest, Path(folder) / "m")
        return [files, {**files, "split_manifest.json": (Path(folder) / "m").read_bytes()}]


def _prefixed(make: Any) -> list[Files]:
    return [{f"other_sites/georgia/{name}": content for name, content in files.items()} for files in make()]


def read_site(folder: Path, rng: Random) -> None:
    """Opens the site below its data root, reads one of its recordings, counts the codes."""
    dataset = open_dataset("georgia", folder)
    entries = dataset.entries()
    count_codes(dataset.root)
    if entries:
        dataset.read(rng.choice(entries), verify=rng.random() < 0.5, nan_policy=rng.choice(POLICIES))


def comments(rng: Random, files: Files) -> Files:
    """Other values in the lines behind #."""
    name = rng.choice([name for name in files if name.endswith(".hea")])
    text = files[name]
    assert isinstance(text, bytes)
    key = rng.choice(("Age", "Sex", "Dx", "Rx", "dx", ""))
    odd = rng.choice((nasty.number, nasty.text))(rng)
    return {**files, name: text + f"# {key}: {odd}\n".encode("utf-8", "replace")}


CINC = Kind("cinc", lambda: _prefixed(site), read_site, ("",), (comments,), 0.15)


# CSV and npy --------------------------------------------------------------------------------------------------------
def tables() -> list[Files]:
    """CSV with comments, with a time column, with semicolons; npy with what it cannot say beside it."""
    signal = steps()[:200] / 1000

    def rows(delimiter: str, first: list[str], values: Any) -> str:
        lines = [delimiter.join(first), *(delimiter.join(f"{cell:.3f}" for cell in row) for row in values)]
        return "\n".join(lines) + "\n"

    time = np.arange(len(signal))[:, None] / RATE
    stream = io.BytesIO()
    np.save(stream, signal.T.astype(np.float32))
    facts = {"sampling_rate": RATE, "leads": list(LEADS), "units": "mV"}
    return [
        {"r.csv": (f"# sampling_rate: {RATE}\n# units: mV\n" + rows(",", list(LEADS), signal)).encode()},
        {"r.csv": rows(";", ["time (s)", *(f"{lead} (mV)" for lead in LEADS)], np.hstack([time, signal])).encode()},
        {
            "r.csv": rows(
                "\t", ["time_ms", *(f"{lead}_uV" for lead in LEADS)], np.hstack([1000 * time, 1000 * signal])
            ).encode()
        },
        {"r.npy": stream.getvalue(), "r.json": json.dumps(facts).encode()},
    ]


def read_table(folder: Path, rng: Random) -> None:
    """Reads it; short ones are padded."""
    path = next((folder / name for name in ("r.csv", "r.npy") if (folder / name).exists()), folder / "r.csv")
    options: dict[str, Any] = {"length": "pad", "verify": rng.random() < 0.5, "nan_policy": rng.choice(POLICIES)}
    if rng.random() < 0.1:
        options |= {"sampling_rate": 500, "verify": False, "units": "mV"}
    read_recording(path, **options)


def columns(rng: Random, files: Files) -> Files:
    """Another name, unit or rate in the first lines of a CSV, or in what lies beside an npy."""
    name = "r.csv" if "r.csv" in files else "r.json"
    text = files[name]
    assert isinstance(text, bytes)
    old = rng.choice((b"mV", b"I", b"time", b"100", b"units", b"sampling_rate", b"V6", b",", b";"))
    odd = rng.choice(("uV", "V", "kV", "s", "ms", "ns", "Hz", nasty.number(rng), nasty.text(rng)))
    return {**files, name: text.replace(old, odd.encode("utf-8", "replace"), rng.choice((1, 2, 1000)))}


CSV = Kind("csv", tables, read_table, ("r.csv", "r.csv", "r.csv", "r.npy"), (columns,), 0.2)

KINDS: Sequence[Kind] = (WFDB, CINC, CSV)
