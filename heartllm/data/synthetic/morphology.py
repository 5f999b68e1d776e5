"""The heart vector of each wave, for a healthy heart and for each finding.

Vectors are in the patient's frame (x left, y feet, z front) and in millivolts. The QRS complex is a short sequence of
vectors (septum, left ventricle, base), each over a share of the QRS duration; a block lengthens the sequence and
changes its end, an infarct takes its territory out of the first 40-50 ms, hypertrophy enlarges one ventricle's vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heartllm.data.synthetic.anatomy import TWELVE_FROM_EIGHT, Array, Patient
from heartllm.data.synthetic.cases import INFARCTIONS, INJURY, ISCHEMIA, Case
from heartllm.data.synthetic.waves import P_WAVE, QRS, ST, T_WAVE, Beat, BeatBuilder

# Direction (roughly a unit vector) from the heart's centre to each territory, and what the nearest chest electrodes
# (V1..V6) see of it beyond the dipole.
TERRITORIES: dict[str, tuple[tuple[float, float, float], tuple[float, ...]]] = {
    "anteroseptal": ((-0.20, 0.00, 0.85), (0.15, 0.35, 0.25, 0.0, 0.0, 0.0)),
    "anterior": ((0.20, 0.00, 0.75), (0.0, 0.25, 0.35, 0.30, 0.0, 0.0)),
    "anterolateral": ((0.70, -0.20, 0.45), (0.0, 0.0, 0.15, 0.25, 0.25, 0.20)),
    "lateral": ((0.95, -0.40, -0.15), (0.0, 0.0, -0.10, 0.0, 0.15, 0.20)),
    "inferior": ((-0.20, 0.95, -0.05), (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
    "inferolateral": ((0.60, 0.75, -0.15), (0.0, 0.0, 0.0, 0.05, 0.20, 0.25)),
    "posterior": ((0.05, 0.10, -0.90), (-0.15, -0.20, -0.15, 0.0, 0.0, 0.0)),
    "everywhere": ((0.75, 0.45, 0.15), (0.0, 0.0, 0.05, 0.10, 0.10, 0.10)),
}
TERRITORY_OF: dict[str, tuple[str, ...]] = {
    "IMI": ("inferior",), "ASMI": ("anteroseptal",), "AMI": ("anterior",), "ALMI": ("anterolateral",),
    "ILMI": ("inferolateral",), "LMI": ("lateral",), "PMI": ("posterior",), "IPMI": ("inferior", "posterior"),
    "IPLMI": ("inferolateral", "posterior"),
    "ISC_": ("everywhere",), "ISCAL": ("anterolateral",), "ISCIN": ("inferior",), "ISCAS": ("anteroseptal",),
    "ISCIL": ("inferolateral",), "ISCLA": ("lateral",), "ISCAN": ("anterior",),
    "INJAS": ("anteroseptal",), "INJAL": ("anterolateral",), "INJIN": ("inferior",), "INJLA": ("lateral",),
    "INJIL": ("inferolateral",),
}  # fmt: skip

Part = tuple[float, float, tuple[float, float, float]]  # begin and end as shares of the QRS duration, vector
LOOPS: dict[str, tuple[Part, ...]] = {
    "normal": (
        (0.00, 0.42, (-0.11, 0.00, 0.15)),
        (0.12, 0.64, (0.85, 0.72, 0.22)),
        (0.33, 0.82, (0.52, 0.22, -0.80)),
        (0.60, 1.00, (-0.20, -0.20, -0.30)),
    ),
    "CRBBB": (
        (0.00, 0.30, (-0.11, 0.00, 0.20)),
        (0.08, 0.46, (0.80, 0.62, 0.10)),
        (0.22, 0.58, (0.40, 0.20, -0.70)),
        (0.42, 1.00, (-0.62, -0.08, 0.62)),
    ),
    "IRBBB": (
        (0.00, 0.34, (-0.11, 0.00, 0.18)),
        (0.10, 0.52, (0.85, 0.70, 0.12)),
        (0.26, 0.68, (0.45, 0.22, -0.75)),
        (0.60, 1.00, (-0.34, -0.12, 0.36)),
    ),
    "CLBBB": (
        (0.00, 0.42, (0.20, 0.15, -0.20)),
        (0.06, 0.64, (0.80, 0.32, -0.42)),
        (0.36, 0.94, (0.80, 0.12, -0.78)),
        (0.74, 1.00, (0.12, -0.10, -0.20)),
    ),
    "ILBBB": (
        (0.00, 0.40, (0.22, 0.14, -0.12)),
        (0.10, 0.62, (0.85, 0.48, -0.10)),
        (0.36, 0.92, (0.70, 0.16, -0.80)),
        (0.70, 1.00, (-0.02, -0.12, -0.25)),
    ),
    "LAFB": (
        (0.00, 0.40, (-0.16, 0.34, 0.12)),
        (0.14, 0.70, (0.85, 0.10, 0.15)),
        (0.34, 0.92, (0.42, -0.62, -0.72)),
        (0.66, 1.00, (-0.10, -0.38, -0.25)),
    ),
    "LPFB": (
        (0.00, 0.40, (0.24, -0.26, 0.14)),
        (0.14, 0.66, (0.34, 0.66, 0.10)),
        (0.36, 0.90, (0.12, 0.80, -0.75)),
        (0.64, 1.00, (-0.34, 0.22, -0.25)),
    ),
    "IVCD": (
        (0.00, 0.36, (-0.09, 0.05, 0.15)),
        (0.08, 0.52, (0.72, 0.60, 0.12)),
        (0.38, 0.82, (0.62, 0.20, -0.78)),
        (0.70, 1.00, (0.14, 0.10, -0.42)),
    ),
    "RVH": (
        (0.00, 0.36, (-0.04, 0.02, 0.14)),
        (0.10, 0.60, (0.30, 0.42, 0.60)),
        (0.32, 0.84, (-0.10, 0.34, 0.34)),
        (0.58, 1.00, (-0.50, 0.02, -0.16)),
    ),
    "paced": (
        (0.00, 0.46, (0.12, -0.22, -0.16)),
        (0.06, 0.70, (0.48, -0.70, -0.55)),
        (0.36, 0.98, (0.42, -0.82, -0.72)),
    ),
    "PVC left": ((0.00, 0.66, (-0.50, 0.10, 0.95)), (0.32, 1.00, (-0.60, 0.60, 0.80))),
    "PVC right": ((0.00, 0.66, (0.50, 0.75, -0.70)), (0.32, 1.00, (0.55, 0.85, -0.95))),
    "PVC apex": ((0.00, 0.66, (-0.30, -0.75, 0.45)), (0.32, 1.00, (-0.55, -0.90, 0.35))),
}  # fmt: skip
RIGHT_DELAY = frozenset({"CRBBB", "IRBBB"})  # the last vector is the right ventricle's, whatever the axis of the left
QRS_RANGE = {  # milliseconds
    "normal": (78, 104), "CRBBB": (124, 158), "IRBBB": (102, 117), "CLBBB": (128, 168), "ILBBB": (106, 118),
    "LAFB": (86, 110), "LPFB": (86, 108), "IVCD": (112, 130), "RVH": (84, 108), "paced": (140, 178),
}  # fmt: skip
AXIS_RANGE = {  # degrees, drawn for the QRS loop before an infarct bends it
    "CLBBB": (-40, 40), "LAFB": (-78, -46), "LPFB": (98, 132), "RVH": (98, 150),
    "paced": (-95, -45), "ILBBB": (-28, 45),
}  # fmt: skip


@dataclass(frozen=True)
class Intervals:
    """Milliseconds; `p` and `pr` are None where no P wave leads the beat."""

    p: float | None
    pr: float | None
    qrs: float
    qt: float


def conduction_of(case: Case) -> str:
    """The QRS loop that the case's findings call for."""
    if case.rhythm == "PACE":
        return "paced"
    for name in ("CRBBB", "CLBBB", "IRBBB", "ILBBB", "LPFB", "LAFB", "IVCD", "RVH"):
        if name in case.findings:
            return name
    return "normal"


def net_axis(vectors: Array, widths: Array, field: Array) -> float:
    """Frontal QRS axis in degrees from the net area in I and aVF (aVF scaled by 2 / sqrt 3 to I's length)."""
    net = field[:2] @ (widths[:, None] * vectors).sum(0)
    return float(np.degrees(np.arctan2((net[1] - net[0] / 2) * 2 / np.sqrt(3), net[0])))


def turn_to_axis(vectors: Array, widths: Array, field: Array, target: float) -> Array:
    """Rotates a QRS loop in the frontal plane until its net area has the wanted axis."""
    for _ in range(6):
        miss = (target - net_axis(vectors, widths, field) + 180) % 360 - 180
        cos, sin = np.cos(np.radians(miss)), np.sin(np.radians(miss))
        vectors = np.column_stack(
            [cos * vectors[:, 0] - sin * vectors[:, 1], sin * vectors[:, 0] + cos * vectors[:, 1], vectors[:, 2]]
        )
        if abs(miss) < 0.05:
            break
    return vectors


def _territory(name: str) -> tuple[Array, Array]:
    direction, chest = TERRITORIES[name]
    return np.array(direction), np.array((0.0, 0.0, *chest))


def _qrs_scale(case: Case) -> Array:
    """Factor on x, y and z of the QRS loop for hypertrophy and low voltage."""
    if "LVH" in case.findings:
        return np.array([1.55, 1.15, 1.75]) * (1.0 + 0.5 * case.findings["LVH"])
    if "RVH" in case.findings:
        return np.array([1.1, 1.0, 1.1]) * (1.0 + 0.7 * case.findings["RVH"])
    if "LVOLT" in case.findings:
        return np.full(3, 0.44 - 0.16 * case.findings["LVOLT"])
    return np.ones(3)


def conducted_beat(case: Case, patient: Patient, times: Intervals, rng: np.random.Generator) -> Beat:
    """The beat that the case's own rhythm conducts: P (if any), QRS, ST and T."""
    builder = BeatBuilder(patient.field)
    conduction = conduction_of(case)
    if times.p is not None and times.pr is not None:
        _add_p(builder, case, times.p / 1000, times.pr / 1000, rng)
    qrs_end = times.qrs / 1000
    _add_qrs(builder, case, conduction, qrs_end, patient, rng)
    _add_repolarisation(builder, case, conduction, qrs_end, times.qt / 1000, rng)
    return builder.build()


def _add_p(builder: BeatBuilder, case: Case, duration: float, pr: float, rng: np.random.Generator) -> None:
    right = np.array([0.055, 0.105, 0.050]) * rng.uniform(0.75, 1.25)
    left = np.array([0.085, 0.050, -0.060]) * rng.uniform(0.75, 1.2)
    if "RAO/RAE" in case.findings:
        right = np.array([0.04, 0.25, 0.11]) * (1.0 + 0.35 * case.findings["RAO/RAE"])
    split = 0.36
    if "LAO/LAE" in case.findings:
        left = np.array([0.12, 0.075, -0.15]) * (1.0 + 0.4 * case.findings["LAO/LAE"])
        split = 0.44
    begin = -pr - 0.04 * duration
    whole = 1.08 * duration
    builder.add(P_WAVE, "p", begin, begin + 0.66 * whole, right)
    builder.add(P_WAVE, "p", begin + split * whole, begin + whole, left)


def _add_qrs(
    builder: BeatBuilder, case: Case, conduction: str, duration: float, patient: Patient, rng: np.random.Generator
) -> None:
    parts = LOOPS[conduction]
    scale = _qrs_scale(case)
    vectors = np.array([vector for _, _, vector in parts]) * scale * np.exp(0.08 * rng.normal(size=(len(parts), 1)))
    widths = np.array([end - begin for begin, end, _ in parts])
    fascicle = "LAFB" if "LAFB" in case.findings else conduction
    if fascicle in AXIS_RANGE:
        axis = float(rng.uniform(*AXIS_RANGE[fascicle]))
    else:
        axis = 45 + patient.axis_offset
        axis = float(np.clip(axis - 15, -50, 60)) if "LVH" in case.findings else axis
    if fascicle == "LAFB" != conduction:  # the left ventricle starts downwards, as in the fascicular block alone
        vectors[0] = LOOPS["LAFB"][0][2]
    turned = len(parts) - (conduction in RIGHT_DELAY)
    vectors[:turned] = turn_to_axis(vectors[:turned], widths[:turned], patient.field, axis)
    for (begin, end, _), vector in zip(parts, vectors, strict=True):
        builder.add(QRS, "qrs", (begin - 0.03) * duration, (end + 0.03 * (end > 0.99)) * duration, vector)
    for code in INFARCTIONS:
        if code not in case.findings:
            continue
        severity = case.findings[code]
        for name in TERRITORY_OF[code]:
            direction, local = _territory(name)
            depth = (0.42 + 0.65 * severity) * (1.15 if name == "inferior" else 1.0)
            if name in {"anteroseptal", "anterior"}:
                depth *= 1.15
            late = 0.030 if name in {"anteroseptal", "anterior"} else 0.012
            builder.add(
                QRS, "qrs", -0.03 * duration, 0.048 + late + 0.014 * severity, -depth * direction, -0.6 * depth * local
            )


def _add_repolarisation(
    builder: BeatBuilder, case: Case, conduction: str, qrs_end: float, qt: float, rng: np.random.Generator
) -> None:
    t_vector = np.array([0.27, 0.16, 0.24]) * rng.uniform(0.75, 1.35) + 0.03 * rng.normal(size=3)
    t_local = np.zeros(8)
    st_vector, st_local = np.array([0.012, 0.010, 0.035]) * rng.uniform(0.2, 1.2), np.zeros(8)
    shape, t_begin = "t", qrs_end + 0.30 * (qt - qrs_end)
    strength = _secondary(case, conduction)
    if strength is not None:
        st_vector, t_vector = st_vector + strength[0], 0.35 * t_vector + strength[1]
    for code, severity in case.findings.items():
        if code in INFARCTIONS:
            for name in TERRITORY_OF[code]:
                direction, local = _territory(name)
                st, t = _infarct_stage(case.stage, severity)
                st_vector, st_local = st_vector + st * direction, st_local + st * local
                t_vector, t_local = t_vector + t * direction, t_local + t * local
        elif code in ISCHEMIA:
            direction, local = _territory(TERRITORY_OF[code][0])
            t_vector = 0.6 * t_vector - (0.36 + 0.34 * severity) * direction
            t_local = t_local - (0.36 + 0.34 * severity) * local
            st_vector = st_vector - 0.04 * direction
        elif code in INJURY:
            direction, local = _territory(TERRITORY_OF[code][0])
            depth = 0.15 + 0.22 * severity
            st_vector, st_local = st_vector - depth * direction, st_local - depth * local
    if "NDT" in case.findings:
        t_vector = t_vector * 0.25 + np.array([-0.08 - 0.05 * case.findings["NDT"], 0.01, 0.06])
    if "NT_" in case.findings:
        t_vector = t_vector * np.array([0.75, 0.1, 0.9]) - np.array([0.0, 0.12 + 0.08 * case.findings["NT_"], 0.0])
    if "LOWT" in case.findings:
        t_vector = t_vector * (0.14 + 0.08 * (1 - case.findings["LOWT"]))
        st_vector = st_vector * 0.3
    if "NST_" in case.findings:
        st_vector = st_vector - (0.07 + 0.05 * case.findings["NST_"]) * np.array([0.75, 0.45, 0.1])
    if "EL" in case.findings:  # hyperkalaemia: tall, narrow, symmetric T
        t_vector, shape = t_vector * (2.1 + 1.1 * case.findings["EL"]), "peak"
        t_begin = qrs_end + 0.40 * (qt - qrs_end)
    if "DIG" in case.findings:  # scooped ST depression that runs into an upright, small T
        dip = -(0.16 + 0.14 * case.findings["DIG"]) * np.array([0.8, 0.5, 0.1])
        builder.add(ST, "p", qrs_end - 0.01, qt - 0.02, dip)
        t_vector = 0.7 * t_vector
        t_begin = qrs_end + 0.45 * (qt - qrs_end)
    t_end = qt + 0.07 * (qt - t_begin)
    builder.add(ST, "st", qrs_end - 0.024, qrs_end + 0.88 * (qt - qrs_end), st_vector, st_local)
    builder.add(T_WAVE, shape, t_begin, t_end, t_vector, t_local)


def _infarct_stage(stage: str, severity: float) -> tuple[float, float]:
    """ST offset and T change towards the infarct, in millivolts: acute injury, then T inversion, then a scar."""
    if stage == "Stadium I":
        return 0.20 + 0.25 * severity, 0.10
    if stage == "Stadium II":
        return 0.06, -0.38 - 0.25 * severity
    if stage == "unknown":
        return 0.0, -0.12
    return 0.0, 0.0


def _secondary(case: Case, conduction: str) -> tuple[Array, Array] | None:
    """ST and T vectors that follow from an abnormal QRS: opposite to its last forces."""
    if conduction == "CLBBB":
        return np.array([-0.10, -0.02, 0.12]), np.array([-0.38, -0.06, 0.42])
    if conduction == "paced":
        return np.array([-0.06, 0.10, 0.10]), np.array([-0.30, 0.42, 0.36])
    if conduction == "CRBBB":
        return np.array([0.02, 0.02, -0.05]), np.array([0.20, 0.10, -0.24])
    if conduction == "IRBBB":
        return np.array([0.01, 0.01, 0.0]), np.array([0.17, 0.10, 0.02])
    if "RVH" in case.findings and case.findings["RVH"] > 0.3:
        return np.array([0.05, -0.04, -0.06]), np.array([0.18, -0.06, -0.26])
    if "LVH" in case.findings and case.findings["LVH"] > 0.45:  # strain
        return np.array([-0.09, -0.03, 0.08]), np.array([-0.38, -0.10, 0.22])
    return None


def ventricular_beat(patient: Patient, origin: str, rng: np.random.Generator) -> Beat:
    """A premature ventricular beat: broad, no P, T opposite to its QRS. `origin` is "left", "right" or "apex"."""
    builder = BeatBuilder(patient.field)
    parts = LOOPS[f"PVC {origin}"]
    duration = rng.uniform(0.138, 0.172)
    size = rng.uniform(0.9, 1.3)
    vectors = size * np.array([vector for _, _, vector in parts]) + 0.08 * rng.normal(size=(len(parts), 3))
    for (begin, end, _), vector in zip(parts, vectors, strict=True):
        builder.add(QRS, "qrs", begin * duration, end * duration, vector)
    mean = vectors.mean(0)
    builder.add(ST, "st", duration - 0.024, 0.40, -0.14 * mean)
    builder.add(T_WAVE, "t", duration + 0.04, duration + 0.30, -0.48 * mean)
    return builder.build()


def atrial_premature_p(beat: Beat, rng: np.random.Generator) -> Beat:
    """The conducted beat with another P wave: an ectopic atrial focus (often low, so that P is flat or inverted in
    II)."""
    potential = beat.potential.copy()
    chosen = beat.wave == P_WAVE
    potential[chosen] *= rng.choice([-0.8, 0.6, 1.4], size=1)
    return Beat(beat.begin, beat.end, beat.shape, beat.wave, potential)


def twelve(potential: Array) -> Array:
    """(..., 8) -> (..., 12) millivolts."""
    return potential @ TWELVE_FROM_EIGHT.T
