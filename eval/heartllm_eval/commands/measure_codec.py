"""`heartllm-eval measure codec` and `measure denoising`: what the codec keeps of an ECG, beside classical ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heartllm.errors import DataError, UsageError
from heartllm.writing import write_whole
from heartllm_eval.commands.measure import DataOut
from heartllm_eval.options import DataRoot

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from heartllm.codec.codec import Codec
    from heartllm.data.records import Entry
    from heartllm.ecg.recording import Recording

Checkpoint = Annotated[
    Path, typer.Option("--checkpoint", "-c", exists=True, help="Folder with a codec: a checkpoint, or runs/tokenizer.")
]
Seed = Annotated[int, typer.Option("--seed", help="Of noise, synthetic ECGs, probe and intervals.")]
FIT = 300  # training recordings that transforms are fitted on

CODEC_EPILOG = """**Examples**

`heartllm-eval measure codec -c reports/reference/checkpoint -d ptbxl --data_root DATA -o reports/figures/data`

`heartllm-eval measure codec -c runs/tokenizer -d synthetic-a --probe_steps 0 -o data` (without the probe: a few minutes
less)"""
NOISE_EPILOG = """**Example**

`heartllm-eval measure denoising -c reports/reference/checkpoint -o reports/figures/data` (synthetic ECGs whose clean
signal is known; needs no data)"""


def codec(
    checkpoint: Checkpoint,
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="ptbxl, synthetic-a, ...")],
    output_path: DataOut,
    split: Annotated[str, typer.Option("--split", help="Recordings of this split.")] = "test",
    recordings: Annotated[int, typer.Option("--recordings", "-n", min=4, help="At most so many, spread evenly.")] = 225,
    probe_steps: Annotated[
        int, typer.Option("--probe_steps", min=0, help="Steps of the probe that reads the copies; 0 for none.")
    ] = 2000,
    seed: Seed = 0,
    data_root: DataRoot = None,
) -> None:
    """Rate against distortion (codec, DCT, PCA, ECG-Byte), and how often each code is used."""
    import numpy as np

    from heartllm_eval.figures import codec_copies as copies
    from heartllm_eval.figures import codec_measures as measures
    from heartllm_eval.figures.style import csv_text
    from heartllm_eval.requests import Workspace

    loaded = load(checkpoint)
    space = Workspace(tuple(data_root or ()))
    everyone = space.entries(dataset, "train")
    _, train = _read(space, dataset, everyone, FIT)
    entries, originals = _read(space, dataset, space.entries(dataset, split), recordings)
    signals = [recording.signal.astype(np.float64) for recording in originals]
    fitted = [recording.signal.astype(np.float64) for recording in train]
    patients = [entry.patient_id for entry in entries]
    _say(f"{len(signals)} recordings of {dataset} {split}; transforms fitted on {len(fitted)}")
    ways = [
        copies.codec_copier(loaded),
        *copies.floors(loaded, fitted, sorted({*copies.RATES, copies.codec_rate(loaded)})),
        *copies.byte_copiers(fitted),
    ]
    folder = output_path / "codec"
    kept: list[list[npt.NDArray[np.float32]]] = []
    rows = measures.rate_distortion(ways, signals, patients, kept=kept, say=_say)
    place = folder / "rate_distortion" / f"{dataset}.csv"
    _write(place, csv_text([{"dataset": dataset, **row} for row in rows]))
    _write(folder / "code_usage" / f"{dataset}.csv", csv_text(measures.code_usage(loaded, signals, dataset)))
    beside = [way for way in ways if way.system in ("codec", "linear twin") or _same_rate(way, loaded)]
    whole = {"as recorded": signals}
    table = measures.reading_errors(beside, originals, patients, inputs=whole, dataset=dataset, say=_say)
    _write(folder / "readings" / f"{dataset}.csv", csv_text(table))
    if probe_steps:
        probe, truth = _probe(space, dataset, everyone, entries, probe_steps, seed)
        rows = measures.read_by(probe, truth, patients, rows, kept)
        _write(place, csv_text([{"dataset": dataset, **row} for row in rows]))


def denoising(
    checkpoint: Checkpoint,
    output_path: DataOut,
    recordings: Annotated[int, typer.Option("--recordings", "-n", min=4, help="Synthetic ECGs.")] = 24,
    site: Annotated[str, typer.Option("--site", help="Synthetic hospital, a or b.")] = "a",
    seed: Seed = 977,
) -> None:
    """SNR in against SNR out on synthetic ECGs: does a codec drop noise, and what is left to read off its copy?"""
    import numpy as np

    from heartllm.data.synthetic.simulation import simulate
    from heartllm_eval.figures import codec_copies as copies
    from heartllm_eval.figures import codec_measures as measures
    from heartllm_eval.figures.style import csv_text

    if site not in ("a", "b"):
        raise UsageError(f"no site {site!r}", where="--site", remedy="Choose a or b.")
    loaded = load(checkpoint)
    # Every fifth recording is of a new patient; those that transforms are fitted on are others than those measured.
    drawn = [simulate(seed, 5 * i, site, noiseless=True) for i in range(recordings)]
    clean = [recording for recording, _ in drawn]
    fitted = [simulate(seed, 5 * (recordings + i), site)[0].signal.astype(np.float64) for i in range(FIT)]
    rate = copies.codec_rate(loaded)
    through = [copies.codec_copier(loaded), *copies.floors(loaded, fitted, [rate])]
    filters = [copies.low_pass_copier(hertz) for hertz in (40.0, 20.0)]
    folder = output_path / "codec"
    rows = measures.denoising([*through, *filters], clean, say=_say)
    _write(folder / "denoising.csv", csv_text(rows))
    names = [recording.record_id for recording in clean]
    inputs: dict[str, Sequence[Any]] = {"clean": [recording.signal.astype(np.float64) for recording in clean]}
    for level in (10.0, 0.0):
        inputs[f"muscle noise, {level:g} dB"] = [measures.noisy(one, "muscle", level) for one in clean]
    same = copies.Copier("no codec", "", lambda signal: (signal, None))
    table = measures.reading_errors(
        [same, *through, *filters], clean, names, inputs=inputs, dataset=f"synthetic-{site}", say=_say
    )
    _write(folder / "readings_noise.csv", csv_text(table))
    shown = {way.system: way for way in through if way.system in ("codec", "DCT")}
    plain = next((one for one, truth in drawn if truth.case.healthy and truth.case.rhythm == "SR"), clean[0])
    track = measures.example(shown, plain, decibels=5.0, kind="muscle", leads=("II", "V2"), seconds=2.5)
    _write(folder / "reconstruction.csv", csv_text(track))


def load(folder: Path) -> Codec:
    """The codec of a folder, its files verified.

    Raises:
        UsageError: where the checkpoint is fed by something else.
    """
    from heartllm.checkpoint import load_frontend, verify
    from heartllm.codec.codec import Codec

    verify(folder)
    front, _ = load_frontend(folder)
    if not isinstance(front, Codec):
        raise UsageError(
            f"its front-end is {front.kind!r}, not a codec", where=folder, remedy="Name a checkpoint with codes."
        )
    return front


def _read(space: Any, dataset: str, entries: Sequence[Entry], most: int) -> tuple[list[Entry], list[Recording]]:
    """An even choice of at most `most` entries, and their recordings; unusable ones are left out with a warning."""
    step = max(1, len(entries) // most)
    kept, read = [], []
    for entry in list(entries)[::step][:most]:
        try:
            recording = space.read(dataset, entry.record_id)
        except DataError as error:
            _say(f"warning: left out: {error}")
            continue
        kept.append(entry)
        read.append(recording)
    if not read:
        raise DataError("no recording could be read", where=dataset, remedy="Check the data folder.")
    return kept, read


def _probe(
    space: Any,
    dataset: str,
    train: Sequence[Entry],
    entries: Sequence[Entry],
    steps: int,
    seed: int,
) -> tuple[Callable[[Sequence[Any]], Any], npt.NDArray[np.bool_]]:
    """A probe trained on original waveforms, and the findings it reads in the measured recordings."""
    import numpy as np
    import torch

    from heartllm.training.gap import choose_findings, statement_table
    from heartllm.training.probe import ProbeSettings, WaveformStem, predict, train_probe

    names = choose_findings(train, entries, minimum_test=3)
    if not names:
        raise DataError(
            "no finding is frequent enough for a probe", where=dataset, remedy="Measure more, or --probe_steps 0."
        )
    learnt, recordings = _read(space, dataset, train, 1200)
    valid, others = _read(space, dataset, space.entries(dataset, "valid"), 100)

    def stack(signals: Sequence[Any]) -> torch.Tensor:
        return torch.from_numpy(np.stack([np.asarray(signal, np.float32) for signal in signals]))

    known = stack([recording.signal for recording in recordings])

    def batch(rows: npt.NDArray[np.int64], rng: np.random.Generator) -> torch.Tensor:
        gain = torch.from_numpy(rng.uniform(0.9, 1.1, (len(rows), 1, 1)).astype(np.float32))
        return gain * torch.roll(known[rows], int(rng.integers(-16, 17)), -1)

    settings = ProbeSettings(steps=steps, seed=seed, evaluate_every=min(250, steps))
    _say(f"probe of {len(names)} findings: {steps} steps on {len(learnt)} recordings")
    truths = [statement_table([entry.labels for entry in part], names) for part in (learnt, valid, entries)]
    probe = train_probe(
        WaveformStem(settings.width),
        batch,
        truths[0],
        stack([recording.signal for recording in others]),
        truths[1],
        settings,
        progress=lambda step: _say(f"probe: step {step}") if step % 250 == 0 else None,
    )
    return lambda signals: predict(probe, stack(signals)), truths[2]


def _same_rate(way: Any, codec: Codec) -> bool:
    from heartllm_eval.figures.codec_copies import codec_rate

    return bool(way.setting == f"{codec_rate(codec):.0f} bit/s")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
    _say(f"written to {path}")


def register(app: typer.Typer) -> None:
    """Adds the commands to the group."""
    app.command(epilog=CODEC_EPILOG)(codec)
    app.command(epilog=NOISE_EPILOG)(denoising)
