"""Where a drawn finding lies: its seconds and its leads, from what the generator drew.

A finding lies in the wave that its definition looks at, in every beat that shows it:

    extra beats     the premature beat itself, P (if any) to the end of T; not the pause behind it
    QRS             blocks, axis, hypertrophy and voltage, infarction, pacing (from the spike on)
    P               atrial enlargement;  PR: first-degree AV block, from the onset of P to QRS
    ST-T            ischaemia, injury, T wave changes, digitalis, long QT; infarction that is not yet a scar also there
    noise           a burst, while it lasts

What lies everywhere (rate, regularity, fibrillation, steady noise) has no place and is not listed.
Leads are those in which the finding is read: a territory's, or those that a noise reaches; empty where all take part.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from heartllm.data.statements import STATEMENTS
from heartllm.data.synthetic import rhythm, site_a, site_b
from heartllm.data.synthetic.anatomy import Array
from heartllm.data.synthetic.artefacts import BURST
from heartllm.data.synthetic.cases import INFARCTIONS, INJURY, ISCHEMIA
from heartllm.data.synthetic.morphology import TERRITORY_OF
from heartllm.data.synthetic.simulation import DURATION, Truth, draw
from heartllm.data.synthetic.writing import BORROWED, VERSION
from heartllm.errors import DataError

KINDS = ("extra beats", "QRS", "P and PR", "ST-T", "noise")
EXTRA, COMPLEX, ATRIAL, LATE, NOISE = KINDS
TERRITORY_LEADS: dict[str, tuple[str, ...]] = {
    "anteroseptal": ("V1", "V2", "V3"), "anterior": ("V2", "V3", "V4"), "lateral": ("I", "aVL", "V5", "V6"),
    "anterolateral": ("I", "aVL", "V3", "V4", "V5", "V6"), "inferior": ("II", "III", "aVF"),
    "inferolateral": ("II", "III", "aVF", "V5", "V6"), "posterior": ("V1", "V2", "V3"), "everywhere": (),
}  # fmt: skip
_IN_QRS = ("CRBBB", "CLBBB", "IRBBB", "ILBBB", "LAFB", "LPFB", "IVCD", "LVH", "RVH", "LVOLT", "HVOLT", "VCLVH", "ABQRS",
           "QWAVE", "PACE")  # fmt: skip
_IN_ST_T = ("NDT", "NST_", "DIG", "LNGQT", "STD_", "STE_", "LOWT", "NT_", "INVT", "TAB_", "EL", *ISCHEMIA, *INJURY)
_EXTRA_BEATS = {"PVC": "ventricular extrasystoles", "PAC": "supraventricular extrasystoles"}
T_END = 0.30  # seconds from the end of an extra ventricular beat's QRS to the end of its T wave
SPIKE = 0.012  # seconds from a pacing spike to QRS


@dataclass(frozen=True)
class Located:
    """One finding's place.

    Attributes:
        kind: one of `KINDS`.
        spans: (K, 2) first and last second of each appearance, within the recording.
        leads: the leads in which it is read, empty for all.
    """

    kind: str
    spans: Array
    leads: tuple[str, ...] = ()


def redraw(folder: Path, record_id: str) -> Truth:
    """The truth of a recording of a written site, drawn again from the seed that the site's folder names.

    Raises:
        DataError: if the folder is no finished synthetic site, was written by another version, or lacks the recording.
    """
    file = folder / "complete.json"
    try:
        plan = json.loads(file.read_text(encoding="utf-8"))
        site, seed, count, version = (plan[key] for key in ("site", "seed", "recordings", "version"))
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            "is no finished synthetic site", where=file, remedy="Write it with `heartllm data synth`."
        ) from None
    if version != VERSION:
        raise DataError(
            f"was written by version {version} of the generator, not {VERSION}", where=file, remedy="Write it again."
        )
    first = site_a.FIRST_ID if site == "a" else site_b.FIRST_STUDY
    index = int(record_id) - first if record_id.isdigit() else -1
    if not 0 <= index < count:
        raise DataError(f"has no recording {record_id!r}", where=folder, remedy="Name one of its tables.")
    return draw(seed, index, site, **{name: plan[name] for name in BORROWED if name in plan})


def locate(truth: Truth) -> dict[str, Located]:
    """ECG-QA's name of each finding that has a place in this recording -> its place."""
    found: dict[str, Located] = {}
    qrs, late = _waves(truth, COMPLEX), _waves(truth, LATE)
    for code in truth.scp:
        name = STATEMENTS[code].name
        if code in INFARCTIONS:
            spans = qrs if truth.case.stage == "Stadium III" else np.concatenate([qrs, late])
            found[name] = Located(COMPLEX, spans, _leads(code))
        elif code in _IN_QRS:
            found[name] = Located(COMPLEX, qrs)
        elif code in _IN_ST_T:
            found[name] = Located(LATE, late, _leads(code))
        elif code in ("LAO/LAE", "RAO/RAE"):
            found[name] = Located(ATRIAL, _waves(truth, ATRIAL))
        elif code in ("1AVB", "LPR"):
            found[name] = Located(ATRIAL, _waves(truth, ATRIAL, whole_pr=True))
    if truth.extra_beats is not None:
        for name in (STATEMENTS[truth.case.ectopy].name, _EXTRA_BEATS[truth.case.ectopy]):
            found[name] = Located(EXTRA, _extra(truth))
        if truth.case.pattern:
            found[STATEMENTS[truth.case.pattern].name] = Located(EXTRA, _extra(truth))
    if truth.burst is not None and BURST in truth.noise.leads:
        found[BURST] = Located(NOISE, np.array([truth.burst]), truth.noise.leads[BURST])
    return {name: place for name, place in found.items() if len(place.spans)}


def window_mask(spans: Array, windows: int, seconds: float = DURATION) -> npt.NDArray[np.bool_]:
    """(K, 2) seconds -> (windows,) bool: windows of equal length of which the spans cover at least a half.

    A span too short to cover half of any window marks the one that holds most of it.
    """
    length = seconds / windows
    edges = np.arange(windows) * length
    mask = np.zeros(windows, dtype=bool)
    covered = np.zeros(windows)
    for first, last in spans:
        shared = np.clip(np.minimum(edges + length, last) - np.maximum(edges, first), 0.0, None)
        covered += shared
        if shared.max() > 0 and shared.max() < length / 2:
            mask[int(shared.argmax())] = True
    return mask | (covered >= length / 2 - 1e-9)


def _waves(truth: Truth, kind: str, *, whole_pr: bool = False) -> Array:
    """(K, 2) seconds of one wave in the beats that the atria or the pacemaker lead; the drawn jitter of P (3 ms) and
    of QT (the 0.22th power of the relative RR interval) is left out: it is below a window."""
    onsets = truth.onsets[truth.kinds != rhythm.VENTRICULAR]
    times = truth.intervals
    if kind == ATRIAL:
        if times.p is None or times.pr is None:
            return np.zeros((0, 2))
        return _clip(onsets, -times.pr / 1000, 0.0 if whole_pr else (times.p - times.pr) / 1000)
    if kind == COMPLEX:
        return _clip(onsets, -SPIKE if truth.case.rhythm == "PACE" else 0.0, times.qrs / 1000)
    return _clip(onsets, times.qrs / 1000, times.qt / 1000)


def _extra(truth: Truth) -> Array:
    times = truth.intervals
    if truth.case.ectopy == "PVC":  # its QRS lasts 138 to 172 ms
        return _clip(truth.onsets[truth.kinds == rhythm.VENTRICULAR], 0.0, 0.155 + T_END)
    before = (times.pr or 0.0) / 1000
    return _clip(truth.onsets[truth.kinds == rhythm.ATRIAL], -before, times.qt / 1000)


def _clip(onsets: Array, first: float, last: float) -> Array:
    """Spans around onsets, cut at the ends of the recording; those outside are left out."""
    spans: Array = np.clip(np.stack([onsets + first, onsets + last], axis=1), 0.0, DURATION)
    return spans[spans[:, 1] > spans[:, 0]]


def _leads(code: str) -> tuple[str, ...]:
    named = [lead for territory in TERRITORY_OF.get(code, ()) for lead in TERRITORY_LEADS[territory]]
    return tuple(dict.fromkeys(named))
