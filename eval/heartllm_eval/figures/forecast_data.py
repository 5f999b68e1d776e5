"""The measurement behind the figure of forecasts: ECGs encoded, continued, decoded and read, written to a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heartllm.ecg.recording import SAMPLING_RATE, Recording
from heartllm.errors import DataError, UsageError
from heartllm.writing import write_whole
from heartllm_eval.figures.forecast_measures import (
    GREEDY,
    NATS,
    OTHER,
    READ_ALONG,
    REPEAT,
    SAMPLED,
    CodeFrequencies,
    Floats,
    Integers,
    forecast_errors,
    known_part,
    repeat_last_beat,
)

if TYPE_CHECKING:
    from heartllm.responder import Responder

SCHEMA = 1
LEAST_SECONDS = 2.0  # on either side: with less there is no interval to repeat, or none to compare
REMEDY = "Run `heartllm-eval measure forecast` again."
Say = Callable[[str], object]


@dataclass(frozen=True)
class Shown:
    """A recording whose second half is forecast."""

    record: str
    patient: str
    recording: Recording


def check(responder: Responder, seconds: float) -> int:
    """How many codes are known of each ECG, where this checkpoint can forecast at all.

    Raises:
        CheckpointError: where its front-end is not the codec: soft tokens cannot be continued, and the tokens of
            ECG-Byte stand lead after lead.
        UsageError: for a blind checkpoint, or where too few codes are known or left.
    """
    from heartllm.codec.networks import STRIDE

    count = responder.codec.positions
    if responder.blind:
        raise UsageError(
            "the checkpoint was trained without ECGs and has learnt to forecast nothing",
            where="--model_args",
            remedy="Name the checkpoint itself, not its blind control.",
        )
    known, least = round(seconds * SAMPLING_RATE / STRIDE), int(LEAST_SECONDS * SAMPLING_RATE / STRIDE)
    if known < least or count - known < least:
        raise UsageError(
            f"{known} codes known and {count - known} to come of {count} are too few",
            where="--seconds",
            remedy=f"Leave at least {LEAST_SECONDS:g} s ({least} codes) on either side, such as --seconds 5.",
        )
    return known


def partners(patients: Sequence[str]) -> list[int]:
    """For each recording the next one in the list (round to its beginning) that is of another patient.

    Raises:
        DataError: where all are of one.
    """
    if len(set(patients)) < 2:
        raise DataError(
            "all recordings are of one patient, and another's is needed as a control", remedy="Measure more: -n 100."
        )
    count = len(patients)
    return [
        next(other for step in range(1, count) if patients[other := (own + step) % count] != patients[own])
        for own in range(count)
    ]


def measure(
    responder: Responder,
    shown: Sequence[Shown],
    learn: Callable[[], Integers],
    parts: Path,
    *,
    known: int,
    seed: int = 0,
    batch: int = 16,
    say: Say = lambda text: None,
) -> list[dict[str, Any]]:
    """Patient and errors of each recording, see `forecast_measures.summarise`.

    Args:
        learn: gives codes (R, N) that the frequencies of codes are learnt on; asked only where something is open.
        parts: a folder for what is done; an interrupted measurement goes on from there.
        known: codes of each ECG that are given.
    """
    paths = [parts / f"{one.record}.json" for one in shown]
    places = [place for place, path in enumerate(paths) if not path.exists()]
    others = partners([one.patient for one in shown])
    if places:
        frequencies = CodeFrequencies(learn(), responder.codec.codes)
        for first in range(0, len(places), batch):
            group = places[first : first + batch]
            for place, done in zip(
                group, _measure_batch(responder, shown, others, group, frequencies, known, seed), strict=True
            ):
                _write(paths[place], json.dumps(done))
            say(f"{len(shown) - len(places) + first + len(group)}/{len(shown)} recordings")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _measure_batch(
    responder: Responder,
    shown: Sequence[Shown],
    others: Sequence[int],
    group: Sequence[int],
    frequencies: CodeFrequencies,
    known: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    from heartllm.language.forecasting import code_losses, continue_codes

    codes = np.stack([responder.encode(shown[place].recording) for place in group]).astype(np.int64)
    steps = codes.shape[1] - known
    draws = np.stack([_draws(shown[place].record, seed, steps) for place in group])
    greedy = continue_codes(responder.generator, codes[:, :known], steps)
    sampled = continue_codes(responder.generator, codes[:, :known], steps, draws)
    losses = code_losses(responder.generator, codes, known).mean(1)
    for row, place in enumerate(group):
        one, own = shown[place], codes[row]
        truth = decoded(responder, own, one.recording)
        start = decoded_known(responder, own[:known], one.recording)
        first = start.shape[1]
        stranger = shown[others[place]].recording
        forecasts: dict[str, Floats | None] = {
            name: decoded(responder, np.concatenate([own[:known], more[row]]), one.recording)
            for name, more in ((GREEDY, greedy), (SAMPLED, sampled))
        }
        forecasts[REPEAT] = repeat_last_beat(start, truth.shape[1] - first)
        forecasts[OTHER] = decoded(responder, responder.encode(stranger), stranger)[:, first:]
        errors = {name: dict(values) for name, values in forecast_errors(truth, forecasts, start).items()}
        for name, nats in {READ_ALONG: float(losses[row]), **frequencies.nats(own, known)}.items():
            errors[name] = {NATS: nats}
        yield {"record": one.record, "patient": one.patient, "errors": errors}


def decoded(responder: Responder, codes: Integers, recording: Recording) -> Floats:
    """(N,) codes -> (12, T) mV, T that of the recording at most; a z-scored codec is told its mean and deviation."""
    import torch

    from heartllm.codec.measures import reconstruct

    signal = torch.from_numpy(recording.signal)[None]
    copy: Floats = reconstruct(responder.codec, signal, torch.from_numpy(codes)[None])[0].double().numpy()
    return copy


def decoded_known(responder: Responder, codes: Integers, recording: Recording) -> Floats:
    """(K,) codes -> (12, 16 K) mV of them alone, see `known_part`."""
    return known_part(lambda some: decoded(responder, some, recording), codes)


def _draws(record: str, seed: int, steps: int) -> Floats:
    """(steps,) in [0, 1), of this recording and seed whatever else is measured."""
    return np.random.default_rng([seed, *record.encode()]).random(steps)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def write(path: Path, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> Path:
    """Writes rows of `summarise`, and what they were measured on, to a JSON file."""
    short = [{name: float(f"{x:.6g}") if isinstance(x, float) else x for name, x in row.items()} for row in rows]
    _write(path, json.dumps({"schema": SCHEMA, **about, "rows": short}, indent=1) + "\n")
    return path


def read(folder: Path) -> list[dict[str, Any]]:
    """The rows of all files in a folder, each with its dataset, one file after another.

    Raises:
        DataError: where there is none, or one cannot be read.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise DataError("holds no data", where=folder, remedy="Run heartllm-eval measure forecast.")
    rows: list[dict[str, Any]] = []
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["schema"] != SCHEMA:
                raise DataError(f"has schema {content['schema']}, not {SCHEMA}", where=path, remedy=REMEDY)
            rows += [{"dataset": str(content["dataset"]), **row} for row in content["rows"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"cannot be read ({error})", where=path, remedy=REMEDY) from None
    return rows
