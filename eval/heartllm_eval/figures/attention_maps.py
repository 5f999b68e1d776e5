"""The maps of figure 4 a-b for one ECG: attention, occlusion, and their controls, one score a position and question.

Replacements are the beats of other recordings, laid at this ECG's beat times and encoded anew ("beats": the least
artificial we know, see `heartllm.ecg.transplant`), or simply what other recordings have at the same place ("place").
They are put in place of a window of time, or of the same part of every beat at once: a finding that every beat shows is
still there when one beat loses it, and a beat unlike the others is itself something to report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from heartllm.ecg.recording import LEADS
from heartllm.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from heartllm.ecg.recording import Recording
    from heartllm.language.looking import Scene
    from heartllm.responder import Responder

Floats = npt.NDArray[np.float64]

ATTENTION, ROLLOUT = "attention", "attention rollout"
BEATS, PLACE = "occlusion", "occlusion, other codes at the same place"
CYCLE = "occlusion, in every beat"
SHUFFLED, SHUFFLED_ROLLOUT = "attention, shuffled ECG", "attention rollout, shuffled ECG"
LEAD_GROUPS: dict[str, tuple[str, ...]] = {
    "I, aVR, aVL": ("I", "aVR", "aVL"),
    "II, III, aVF": ("II", "III", "aVF"),
    "V1-V3": ("V1", "V2", "V3"),
    "V4-V6": ("V4", "V5", "V6"),
}
FEWEST_BEATS = 4  # of a recording that lends its beats: two of them are inner ones


@dataclass(frozen=True)
class Settings:
    """How occlusion is done.

    Attributes:
        draws: recordings that lend their beats to each ECG.
        place: whether to test the second choice of replacement as well, which doubles the time.
        width, stride: of the windows, in positions of the front-end (32 ms each).
        part: positions of a part of the beat that is replaced in every beat at once.
        batch: replacements read side by side.
        seed: of what is drawn.
    """

    draws: int = 2
    width: int = 5
    stride: int = 4
    part: int = 2
    place: bool = False
    batch: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.draws, self.width, self.stride, self.part, self.batch) < 1:
            raise UsageError("draws, width, stride, part and batch are at least 1", remedy="Correct the numbers.")


@dataclass(frozen=True)
class Maps:
    """What was measured on one ECG with Q questions.

    Attributes:
        scores: method -> (Q, N).
        heads: (Q, layers, heads, N) attention.
        share: (Q,) of the attention that falls on the ECG, mean over layers and heads.
        whole: (Q,) loss of log likelihood in nats when the whole ECG is replaced.
        groups: (Q, groups) the same when one of `LEAD_GROUPS` is replaced over the whole time.
    """

    scores: dict[str, Floats]
    heads: Floats
    share: Floats
    whole: Floats
    groups: Floats


class Lenders:
    """Recordings of other patients, to lend beats from."""

    def __init__(self, recordings: Sequence[tuple[str, Recording]]) -> None:
        from heartllm.ecg.waves import find_beats

        self.kept = []
        for patient, recording in recordings:
            beats = find_beats(recording.signal.astype(np.float64))
            if len(beats) >= FEWEST_BEATS:
                self.kept.append((patient, recording, beats))

    def draw(
        self, patient: str, recording: Recording, count: int, rng: np.random.Generator
    ) -> tuple[list[Recording], npt.NDArray[np.float32]]:
        """`count` recordings of other patients, and (count, 12, T) mV their beats at this recording's beat times.

        Raises:
            DataError: if there are too few.
        """
        from heartllm.ecg.transplant import transplant
        from heartllm.ecg.waves import find_beats

        others = [item for item in self.kept if item[0] != patient]
        if len(others) < count:
            raise DataError(
                f"only {len(others)} recordings of other patients have beats to lend, {count} are needed",
                remedy="Take more recordings, or fewer draws.",
            )
        beats = find_beats(recording.signal.astype(np.float64))
        chosen = [others[index] for index in rng.choice(len(others), count, replace=False)]
        moved = [transplant(beats, other.signal, theirs, rng) for _, other, theirs in chosen]
        return [other for _, other, _ in chosen], np.stack(moved)


def vectors_of(responder: Responder, signals: Sequence[npt.NDArray[np.float32]]) -> Tensor:
    """(12, T) mV each -> (E, N, hidden) as the language model reads them."""
    from heartllm.ecg.recording import SAMPLING_RATE, Recording
    from heartllm.language.looking import ecg_vectors

    return ecg_vectors(responder.generator, [responder.encode(Recording(signal, SAMPLING_RATE)) for signal in signals])


def look(
    responder: Responder,
    recording: Recording,
    patient: str,
    features: str,
    asked: Sequence[tuple[str | None, str]],
    lenders: Lenders,
    settings: Settings,
    rng: np.random.Generator,
) -> Maps:
    """Measures all maps of one ECG for (question or None for a report, answer) pairs.

    Raises:
        UsageError: for a checkpoint that sees no ECG, or whose attention cannot be had.
    """
    import torch

    from heartllm.ecg.transplant import blend
    from heartllm.language.looking import attention, by_position, occlusion, scenes, sliding_windows

    if responder.blind:
        raise UsageError(
            "a blind checkpoint looks at no ECG", where="checkpoint", remedy="Name one that was trained with ECGs."
        )
    others, moved = lenders.draw(patient, recording, settings.draws, rng)
    samples = recording.signal.shape[1]
    chosen = np.array([[lead in leads for lead in LEADS] for leads in LEAD_GROUPS.values()])
    mixed = [blend(recording.signal, other, leads, 0, samples) for leads in chosen for other in moved]
    own = vectors_of(responder, [recording.signal])[0]
    place = vectors_of(responder, [other.signal for other in others])
    lent = vectors_of(responder, list(moved))
    lead_vectors = vectors_of(responder, mixed)
    positions = len(own)
    windows = sliding_windows(positions, settings.width, settings.stride)
    count = len(asked)
    names = (ATTENTION, ROLLOUT, BEATS, CYCLE, SHUFFLED, SHUFFLED_ROLLOUT, *([PLACE] if settings.place else []))
    found: dict[str, list[Floats]] = {name: [np.empty(0)] * count for name in names}
    phases = phase_of(recording, positions, settings.part)
    heads, share = [np.empty(0)] * count, np.zeros(count)
    whole, groups = np.zeros(count), np.zeros((count, len(LEAD_GROUPS)))
    generator, draws = responder.generator, settings.draws
    for scene, indices in scenes(generator, own, features if responder.config.features else "", asked):
        looked = attention(generator, scene)
        shuffled = attention(generator, scene.with_ecg(place[0]))
        replaced = torch.cat([lent, place]) if settings.place else lent
        drops = occlusion(generator, scene, replaced, windows, batch=settings.batch)
        by_beats = by_position(drops[:, :draws].mean(1), windows, positions)
        by_phase = whole_drops(responder, scene, in_every_beat(own, lent, phases), settings.batch)
        by_phase = by_phase.reshape(-1, draws, len(indices)).mean(1)
        gone = whole_drops(responder, scene, torch.cat([lent, lead_vectors]), settings.batch)
        for number, index in enumerate(indices):
            found[ATTENTION][index], found[ROLLOUT][index] = looked[number].mean, looked[number].rollout
            found[SHUFFLED][index], found[SHUFFLED_ROLLOUT][index] = shuffled[number].mean, shuffled[number].rollout
            found[BEATS][index], found[CYCLE][index] = by_beats[:, number], by_phase[phases, number]
            if settings.place:
                by_place = by_position(drops[:, draws:].mean(1), windows, positions)
                found[PLACE][index] = by_place[:, number]
            heads[index], share[index] = looked[number].heads, looked[number].share.mean()
            whole[index] = gone[:draws, number].mean()
            groups[index] = gone[draws:, number].reshape(len(LEAD_GROUPS), draws).mean(1)
    return Maps({name: np.stack(rows) for name, rows in found.items()}, np.stack(heads), share, whole, groups)


def phase_of(recording: Recording, positions: int, part: int) -> npt.NDArray[np.int64]:
    """(N,) the part of the beat that each position belongs to, from 0, counted from the QRS in steps of `part`."""
    from heartllm.ecg.transplant import rooms
    from heartllm.ecg.waves import find_beats

    samples = recording.signal.shape[1]
    beats = find_beats(recording.signal.astype(np.float64))
    middles = (np.arange(positions) + 0.5) * samples / positions
    if not len(beats):
        return np.zeros(positions, np.int64)
    owner = np.searchsorted(rooms(beats, samples)[:, 1], middles, side="right").clip(max=len(beats) - 1)
    parts = np.floor((middles - beats[owner]) * positions / samples / part + 0.5).astype(np.int64)
    return np.unique(parts, return_inverse=True)[1].reshape(positions).astype(np.int64)


def in_every_beat(own: Tensor, lent: Tensor, phases: npt.NDArray[np.int64]) -> Tensor:
    """own (N, hidden), lent (D, N, hidden) -> (parts x D, N, hidden): one part of every beat replaced, draw by draw."""
    import torch

    found = [
        torch.where(torch.from_numpy(phases == part).to(own.device)[:, None], other, own)
        for part in range(int(phases.max()) + 1)
        for other in lent
    ]
    return torch.stack(found)


def whole_drops(responder: Responder, scene: Scene, others: Tensor, batch: int) -> Floats:
    """(D, Q) loss of log likelihood in nats when the whole ECG is replaced by each of `others` (D, N, hidden)."""
    from heartllm.language.looking import occlusion

    everything = [(0, others.shape[1])]
    parts = others.split(batch)
    return np.concatenate([occlusion(responder.generator, scene, part, everything)[0] for part in parts])


def lead_windows(
    responder: Responder,
    recording: Recording,
    patient: str,
    features: str,
    asked: tuple[str, str],
    lenders: Lenders,
    settings: Settings,
    rng: np.random.Generator,
) -> Floats:
    """(groups, N): loss of log likelihood in nats when one lead group is replaced in one window of the signal.

    One code holds all leads, so the leads can only be told apart in the waveform: it is changed there and encoded anew.
    Windows are twice as wide as those of `look`, without overlap.
    """
    from heartllm.ecg.transplant import blend
    from heartllm.language.looking import by_position, scenes, sliding_windows

    _, moved = lenders.draw(patient, recording, settings.draws, rng)
    own = vectors_of(responder, [recording.signal])[0]
    wide = min(2 * settings.width, len(own))
    windows = sliding_windows(len(own), wide, wide)
    each = recording.signal.shape[1] / len(own)  # samples a position
    (scene, _), *_ = scenes(responder.generator, own, features if responder.config.features else "", [asked])
    found = np.zeros((len(LEAD_GROUPS), len(own)))
    for row, leads in enumerate(LEAD_GROUPS.values()):
        chosen = np.array([lead in leads for lead in LEADS])
        mixed = [
            blend(recording.signal, other, chosen, round(left * each), round(right * each))
            for left, right in windows
            for other in moved
        ]
        # What the change does to the codes around the window belongs to it: a code is computed from its neighbours.
        drops = whole_drops(responder, scene, vectors_of(responder, mixed), settings.batch)[:, 0]
        drops = drops.reshape(len(windows), len(moved))
        found[row] = by_position(drops.mean(1), windows, len(own))
    return found
