"""Labels from the drawn case and from what its beat shows: SCP codes with likelihoods, axis, extra beats.

A label is a function of the drawn severity or of the noise-free beat, never of chance, so that it can be learnt.
Findings of small severity carry PTB-XL's small likelihoods (15, 35, 50, 80); rhythm and form statements carry 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heartllm.data.synthetic.anatomy import Array
from heartllm.data.synthetic.cases import CONDUCTION, INFARCTIONS, INJURY, ISCHEMIA, Case
from heartllm.data.synthetic.morphology import Intervals
from heartllm.data.synthetic.waves import Beat, template
from heartllm.ecg.recording import LEADS

LATERAL, INFERIOR, ANTERIOR = ("I", "aVL", "V5", "V6"), ("II", "III", "aVF"), ("V2", "V3", "V4")
MI_LIKELIHOOD = ((0.10, 15.0), (0.20, 35.0), (0.34, 50.0), (0.44, 80.0), (1.01, 100.0))
WIDE = frozenset({"CRBBB", "CLBBB", "ILBBB", "IVCD", "paced"})


@dataclass(frozen=True)
class Shape:
    """The noise-free conducted beat, lead by lead in the order of `LEADS` (12,), millivolts: `q` is the deepest
    negative
    deflection before the R peak, `st` the level 60 ms after the J point, `t` the T wave's signed extreme."""

    p: Array
    q: Array
    r: Array
    s: Array
    st: Array
    t: Array
    q_ms: Array

    def of(self, wave: str, lead: str) -> float:
        return float(getattr(self, wave)[LEADS.index(lead)])

    @property
    def sokolow(self) -> float:
        """Sokolow-Lyon voltage, S in V1 plus the larger R of V5 and V6, in millivolts."""
        return -self.of("s", "V1") + max(self.of("r", "V5"), self.of("r", "V6"))

    @property
    def low_voltage(self) -> bool:
        span = self.r - self.s
        return bool((span[:6] < 0.5).all() and (span[6:] < 1.0).all())


def measure(beat: Beat, times: Intervals) -> Shape:
    """Reads the waves' amplitudes off the beat's own noise-free template."""
    time, leads = template(beat)
    qrs = (time >= -0.004) & (time <= times.qrs / 1000 + 0.004)
    inside = leads[:, qrs]
    r, s = np.maximum(inside.max(1), 0.0), np.minimum(inside.min(1), 0.0)
    peak = inside.argmax(1)
    column = np.arange(inside.shape[1])
    before = np.where(column[None, :] < np.where(r > 0.05, peak, inside.shape[1])[:, None], inside, 0.0)
    q = np.minimum(before.min(1), 0.0)
    q_ms = 2.0 * (before < -0.03).sum(1)
    st = leads[:, np.searchsorted(time, times.qrs / 1000 + 0.06)]
    late = leads[:, (time > (times.qrs + 0.45 * (times.qt - times.qrs)) / 1000) & (time <= times.qt / 1000)]
    t = np.take_along_axis(late, np.abs(late).argmax(1)[:, None], 1)[:, 0]
    early = leads[:, time < -0.02]
    p = np.take_along_axis(early, np.abs(early).argmax(1)[:, None], 1)[:, 0]
    return Shape(p, q, r, s, st, t, q_ms)


def axis_name(degrees: float) -> str:
    """PTB-XL's axis code, at ECG-QA's borders: MID -30..90, ALAD -90..-30, RAD 90..180, ARAD beyond."""
    if -30 <= degrees <= 90:
        return "MID"
    if -90 <= degrees < -30:
        return "ALAD"
    return "RAD" if 90 < degrees <= 180 else "ARAD"


def _likelihood(severity: float, table: tuple[tuple[float, float], ...]) -> float:
    return next(value for limit, value in table if severity < limit)


def _groups_with(shape: Shape, test: dict[str, bool]) -> int:
    return max(sum(test[lead] for lead in group) for group in (LATERAL, INFERIOR, ANTERIOR))


def scp_codes(case: Case, conduction: str, times: Intervals, qtc: float, axis: float, shape: Shape) -> dict[str, float]:
    """SCP code -> likelihood, in PTB-XL's manner; the rhythm comes last."""
    codes: dict[str, float] = {}
    narrow = conduction not in WIDE
    for code, severity in case.findings.items():
        if code in INFARCTIONS:
            codes[code] = 100.0 if case.stage == "Stadium I" else _likelihood(severity, MI_LIKELIHOOD)
        elif code in ISCHEMIA or code in INJURY or code in {"LVH", "RVH", "LAO/LAE", "RAO/RAE", "DIG", "EL"}:
            codes[code] = 50.0 if severity < 0.18 else 100.0
        elif code in CONDUCTION or code in {"NDT", "NST_"}:
            codes[code] = 100.0
        elif code == "NT_":
            codes[code] = 0.0
    if times.pr is not None and times.pr > 200:
        codes["1AVB"] = 100.0 if times.pr >= 215 else 50.0
        codes["LPR"] = 0.0
    if qtc >= 465 and case.rhythm != "PACE":
        codes["LNGQT"] = 100.0
    codes.update(_form(case, narrow, shape))
    if case.ectopy:
        codes[case.ectopy] = 100.0
    if case.pattern:
        codes[case.pattern] = 0.0
    if not codes and case.rhythm in {"SR", "SBRAD", "STACH", "SARRH"}:
        codes["NORM"] = 100.0 if case.rhythm == "SR" and axis_name(axis) == "MID" else 80.0
    codes[case.rhythm] = 100.0 if case.rhythm == "PACE" else 0.0
    return codes


def _form(case: Case, narrow: bool, shape: Shape) -> dict[str, float]:
    """Form statements that are read off the beat."""
    codes: dict[str, float] = {}
    if shape.low_voltage or "LVOLT" in case.findings:
        codes["LVOLT"] = 0.0
    if case.rhythm == "PACE":
        return codes
    infarct = any(code in INFARCTIONS for code in case.findings)
    if (infarct and case.stage != "Stadium I") or "IVCD" in case.findings:
        codes["ABQRS"] = 0.0
    if narrow and "LVH" not in case.findings and shape.sokolow > 3.5:
        codes["VCLVH"] = 0.0
    if float(np.maximum(shape.r, -shape.s).max()) > 3.2:
        codes["HVOLT"] = 0.0
    if not narrow or case.rhythm in {"AFLT", "SVTAC"}:
        return codes
    pathological = {
        lead: shape.of("q_ms", lead) >= 30 and -shape.of("q", lead) >= max(0.1, 0.25 * shape.of("r", lead))
        for lead in LEADS
    }
    if infarct and max(_groups_with(shape, pathological), sum(pathological[f"V{lead}"] for lead in range(1, 5))) >= 2:
        codes["QWAVE"] = 0.0
    if "LVH" not in case.findings and "RVH" not in case.findings:
        down = {lead: shape.of("st", lead) <= -0.08 for lead in LEADS}
        up = {lead: shape.of("st", lead) >= (0.2 if lead in {"V2", "V3"} else 0.1) for lead in LEADS}
        if _groups_with(shape, down) >= 2:
            codes["STD_"] = 0.0
        if _groups_with(shape, up) >= 2:
            codes["STE_"] = 0.0
    inverted = {lead: shape.of("t", lead) <= -0.1 for lead in ("I", "II", "V3", "V4", "V5", "V6")}
    if sum(inverted.values()) >= 2:
        codes["INVT"] = 0.0
    if "EL" in case.findings:
        codes["TAB_"] = 0.0
    if "LOWT" in case.findings:
        codes["LOWT"] = 0.0
    return codes
