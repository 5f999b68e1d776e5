"""How cost and memory grow: each point in a process of its own, a line through their logarithms.

    python -m heartllm.performance.growth --out growth.json

    recordings   writing a token store of drawn signals (reading them is `recordings, read`, from WFDB files)
    questions    a tuning step of one ECG with so many questions packed behind it; answers to so many
    length       a forecasting step of so many codes
    batch        a forecasting step of so many ECGs

A point is processor seconds of the work itself and the peak memory of its process above what importing took. The
exponent is the slope of log seconds over log size by least squares, with its standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heartllm.errors import DataError, UsageError, run_command_line

SIZES: dict[str, tuple[int, ...]] = {
    "recordings, read": (100, 316, 1000),
    "recordings, tokenised": (100, 316, 1000, 3162, 10_000),
    "questions of an ECG, tuning step": (2, 4, 8, 16, 32),
    "questions of an ECG, answered": (2, 4, 8, 16, 32),
    "codes of a sequence, forecasting step": (64, 128, 256, 512, 1024),
    "ECGs of a batch, forecasting step": (1, 2, 4, 8, 16),
}
QUICK = 2  # sizes of a curve with --quick


def fit(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float]:
    """The exponent of cost ~ size ** exponent by least squares on logarithms, and its standard error.

    The error is NaN for fewer than three points.
    """
    x, y = np.log(sizes), np.log(costs)
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    if len(sizes) < 3:
        return slope, math.nan
    rest = y - y.mean() - slope * centred
    return slope, float(math.sqrt(rest @ rest / (len(sizes) - 2) / (centred @ centred)))


def peak_bytes() -> int:
    """The largest resident size of this process so far."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def tokenised(size: int, folder: Path) -> Callable[[], object]:
    """Writes a store of so many recordings of noise, encoded by the codec of the reference recipe."""
    from heartllm.codec.codec import CodecConfig
    from heartllm.data.records import Entry, Labels
    from heartllm.ecg.recording import Recording
    from heartllm.frontends.fsq import FSQCodes
    from heartllm.frontends.tokenise import write_store

    codec = FSQCodes(CodecConfig()).eval()
    signal = np.random.default_rng(0).normal(size=(12, 5000)).cumsum(1).astype(np.float32) / 50
    entries = [Entry(str(index), str(index), "drawn", Path(str(index)), Labels()) for index in range(size)]

    def read(part: Sequence[Entry]) -> Iterator[tuple[Entry, Recording]]:
        for entry in part:
            yield entry, Recording(np.roll(signal, int(entry.record_id), 1), 500.0, entry.record_id)

    return lambda: write_store(folder / "store", codec, "growth", entries, read, dataset="drawn")


def recordings_read(size: int, folder: Path) -> Callable[[], object]:
    """Reads so many WFDB records, which are a few files under many names."""
    from heartllm.data.dataset import open_dataset
    from heartllm.data.synthetic import write_site
    from heartllm.ecg import read_recording

    write_site("a", folder, recordings=20, seed=1, workers=1)
    paths = [entry.path for entry in open_dataset("synthetic-a", folder).entries()]
    return lambda: [None for index in range(size) if read_recording(paths[index % len(paths)]) is None]


def _step(batch: Callable[[Any], Any], weights: Any) -> Callable[[], object]:
    from heartllm.performance.rates import Stepper, tiny_model

    model = tiny_model("tiny")
    return Stepper(model, batch(model.vocabulary), weights, "cpu", "fp32")


def tuned(size: int, folder: Path) -> Callable[[], object]:
    from heartllm.performance.rates import tuning_batch
    from heartllm.training.objective import Weights

    return _step(lambda vocabulary: tuning_batch(vocabulary, 1, size), Weights(1.0))


def answered(size: int, folder: Path) -> Callable[[], object]:
    from heartllm.language.generation import Generator
    from heartllm.performance.rates import drawn_codes, items, tiny_model

    model = tiny_model("tiny")
    generator, asked = Generator(model), items(drawn_codes(1, model.vocabulary.codes), size)
    return lambda: list(generator.answer(asked, max_new_tokens=8, batch_size=size))


def lengthened(size: int, folder: Path) -> Callable[[], object]:
    from heartllm.performance.rates import forecasting_batch
    from heartllm.training.objective import Weights

    return _step(lambda vocabulary: forecasting_batch(vocabulary, 1, size), Weights(0.0, 1.0))


def batched(size: int, folder: Path) -> Callable[[], object]:
    from heartllm.performance.rates import forecasting_batch
    from heartllm.training.objective import Weights

    return _step(lambda vocabulary: forecasting_batch(vocabulary, size), Weights(0.0, 1.0))


WORK: dict[str, Callable[[int, Path], Callable[[], object]]] = dict(
    zip(SIZES, (recordings_read, tokenised, tuned, answered, lengthened, batched), strict=True)
)
ONCE = ("recordings, tokenised",)  # its result lies in the way of another run


def point(curve: str, size: int) -> dict[str, float]:
    """Measures one point in this process: the quickest of three runs, or the only one."""
    with tempfile.TemporaryDirectory() as scratch:
        run = WORK[curve](size, Path(scratch))
        if curve not in ONCE:
            run()
        before, seconds = peak_bytes(), math.inf
        for _ in range(1 if curve in ONCE else 3):
            start = time.process_time()
            run()
            seconds = min(seconds, time.process_time() - start)
        return {"size": size, "seconds": seconds, "peak_bytes": peak_bytes(), "before_bytes": before}


def measured(curve: str, sizes: Sequence[int]) -> dict[str, Any]:
    """A curve, each point in a process of its own, with its exponent.

    Raises:
        DataError: if a process fails.
    """
    points = []
    for size in sizes:
        command = [sys.executable, "-m", "heartllm.performance.growth", "--point", curve, "--size", str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise DataError(
                f"the point {size} failed ({reason[0][:160]})", where=curve, remedy="Run it by itself with --point."
            )
        points.append(json.loads(done.stdout.splitlines()[-1]))
    exponent, error = fit([p["size"] for p in points], [p["seconds"] for p in points])
    memory, _ = fit([p["size"] for p in points], [p["peak_bytes"] for p in points])
    return {
        "curve": curve,
        "points": points,
        "exponent": exponent,
        "standard_error": None if math.isnan(error) else error,
        "memory_exponent": memory,
    }


def growth(*, quick: bool = False, most: int | None = None) -> list[dict[str, Any]]:
    """All curves; with `quick` their smallest sizes only, with `most` no size above it."""
    found = []
    for curve, sizes in SIZES.items():
        chosen = [size for size in sizes if most is None or size <= most]
        found.append(measured(curve, chosen[:QUICK] if quick or len(chosen) < QUICK else chosen))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m heartllm.performance.growth", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--point", choices=tuple(SIZES), help="measure one point in this process")
    parser.add_argument("--size", type=int, help="of that point")
    parser.add_argument("--quick", action="store_true", help="the two smallest sizes of each curve")
    parser.add_argument("--out", type=Path, help="JSON file for the curves")
    given = parser.parse_args(arguments)
    if given.point is not None:
        if given.size is None or given.size < 1:
            raise UsageError("a point needs a size of 1 or more", where="--size", remedy="Give --size 100.")
        print(json.dumps(point(given.point, given.size)))
        return
    text = json.dumps(growth(quick=given.quick), indent=1)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command_line(main)
