"""One synthetic recording: draw the patient and the case, build the beat, place the beats, add noise, digitise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from heartllm.data.synthetic import artefacts, rhythm
from heartllm.data.synthetic.anatomy import Array, Patient, draw_patient
from heartllm.data.synthetic.artefacts import Device, Noise
from heartllm.data.synthetic.cases import Case, draw_case
from heartllm.data.synthetic.labels import Shape, axis_name, measure, scp_codes
from heartllm.data.synthetic.morphology import (
    QRS_RANGE,
    Intervals,
    atrial_premature_p,
    conducted_beat,
    conduction_of,
    ventricular_beat,
)
from heartllm.data.synthetic.waves import P_WAVE, QRS, T_WAVE, Beat, render
from heartllm.ecg.recording import SAMPLING_RATE, Recording

DURATION = 10.0
SITES = ("a", "b")
UNIT = {"a": 0.001, "b": 0.005}  # mV per integer step in the files


@dataclass(frozen=True)
class Truth:
    """Everything that was drawn for one recording.

    Attributes:
        index: the recording's number within the site, from 0.
        rate: beats a minute over the recording; rr_ms the mean RR interval.
        intervals: drawn P, PR, QRS and QT in ms; qtc_ms by Bazett from the mean RR interval.
        axis_deg: frontal QRS axis from the net QRS area; p_axis_deg (None without P), t_axis_deg likewise.
        scp: SCP code -> likelihood. heart_axis: PTB-XL's axis code. extra_beats: ("VES" or "SVES", count) or None.
        burst: first and last second of the noise burst, or None.
        onsets: (B,) seconds of QRS onset within the recording; kinds: (B,) of `rhythm.CONDUCTED`...
        digital: (12, T) int16 samples in units of `UNIT[site]` mV.
    """

    index: int
    site: str
    patient: Patient
    case: Case
    conduction: str
    rate: float
    rr_ms: float
    intervals: Intervals
    qtc_ms: float
    axis_deg: float
    p_axis_deg: float | None
    t_axis_deg: float
    shape: Shape
    scp: dict[str, float]
    heart_axis: str
    extra_beats: tuple[str, int] | None
    noise: Noise
    device: Device
    snr_db: float
    burst: tuple[float, float] | None
    onsets: Array
    kinds: npt.NDArray[np.int64]
    digital: npt.NDArray[np.int16]


def patient_number(index: int) -> int:
    """Five recordings come from four patients: the first of each five has two recordings."""
    return index // 5 * 4 + max(index % 5 - 1, 0)


def _streams(seed: int, index: int, site: str) -> tuple[np.random.Generator, np.random.Generator]:
    """The patient's and the recording's random stream; they depend on nothing else."""
    base = [seed, SITES.index(site)]
    return np.random.default_rng([*base, 1, patient_number(index)]), np.random.default_rng([*base, 2, index])


def _draw_intervals(case: Case, conduction: str, rr: float, rng: np.random.Generator) -> tuple[Intervals, float]:
    """P, PR, QRS, QT in whole milliseconds and the QTc (Bazett) that QT was drawn from."""
    qrs = float(np.round(rng.uniform(*QRS_RANGE[conduction])))
    if "LVH" in case.findings and conduction == "normal":
        qrs += 6
    qtc = float(rng.uniform(378, 442))
    if "LNGQT" in case.findings:
        qtc = 472 + 80 * case.findings["LNGQT"]
    elif "DIG" in case.findings:
        qtc = float(rng.uniform(345, 385))
    elif conduction in {"CLBBB", "CRBBB"}:
        qtc = min(qtc + 18, 456)
    elif conduction == "paced":
        qtc += 30
    qt = float(np.round(qtc * np.sqrt(rr)))
    if case.rhythm not in {"SR", "SBRAD", "STACH", "SARRH"}:
        return Intervals(None, None, qrs, qt), qtc
    pr = float(np.round(rng.uniform(128, 192)))
    if "1AVB" in case.findings:
        pr = float(np.round(206 + 100 * case.findings["1AVB"]))
    elif case.rhythm == "STACH":
        pr = min(pr, 165.0)
    p = float(np.round(rng.uniform(84, 112)))
    if "LAO/LAE" in case.findings:
        p = float(np.round(122 + 18 * case.findings["LAO/LAE"]))
        pr = max(pr, p + 28)
    return Intervals(min(p, pr - 24), pr, qrs, qt), qtc


def _frontal_axis(beat: Beat, wave: int) -> float:
    chosen = beat.wave == wave
    net = ((beat.end - beat.begin)[chosen, None] * beat.potential[chosen, :2]).sum(0)
    return float(np.degrees(np.arctan2((net[1] - net[0] / 2) * 2 / np.sqrt(3), net[0])))


def _meet_voltage(beat: Beat, times: Intervals, case: Case) -> tuple[Beat, Shape]:
    """Scales the QRS complex where the drawn finding is a voltage that this chest would not show, or show by chance."""
    shape = measure(beat, times)
    factor = 1.0
    if "LVH" in case.findings:
        wanted = 3.6 + 1.5 * case.findings["LVH"]
        factor = float(np.clip(wanted / max(shape.sokolow, 0.5), 0.7, 2.5))
    elif "LVOLT" in case.findings:
        span = shape.r - shape.s
        factor = min(1.0, 0.46 / float(span[:6].max()), 0.93 / float(span[6:].max()))
    elif case.healthy and shape.sokolow > 3.3:
        factor = 3.3 / shape.sokolow
    if factor == 1.0:
        return beat, shape
    potential = np.where((beat.wave == QRS)[:, None], beat.potential * factor, beat.potential)
    beat = replace(beat, potential=potential)
    return beat, measure(beat, times)


def patient_and_case(seed: int, index: int, site: str) -> tuple[Patient, Case, np.random.Generator]:
    """Who recording `index` is of and what it shows, without rendering it, and the stream that renders it."""
    of_patient, rng = _streams(seed, index, site)
    patient = draw_patient(patient_number(index), of_patient)
    return patient, draw_case(of_patient, rng, site), rng


def draw(
    seed: int,
    index: int,
    site: str,
    *,
    noiseless: bool = False,
    noise_of: str | None = None,
    machine_of: str | None = None,
) -> Truth:
    """Draws and renders recording `index` of a site. The same arguments give the same bits.

    With `noiseless` the samples are those of the heart alone: what noise was drawn is told, but not added, and no
    machine's low pass rounds the waves. With `noise_of` or `machine_of` the same hearts beat under the noise, or into
    the machines, of the other site: what a model then wins or loses is due to that alone.
    """
    patient, case, rng = patient_and_case(seed, index, site)
    conduction = conduction_of(case)
    wanted_rate, flutter, ratio = rhythm.draw_rate(case, rng)
    schedule = rhythm.draw_schedule(case, wanted_rate, flutter, ratio, DURATION, rng)
    inside = (schedule.onsets >= 0) & (schedule.onsets < DURATION)
    rr = float(np.diff(schedule.onsets[inside]).mean())
    times, _ = _draw_intervals(case, conduction, rr, rng)
    beat = conducted_beat(case, patient, times, rng)
    beat, shape = _meet_voltage(beat, times, case)
    eight = _render(case, patient, beat, schedule, times, rng)
    devices = artefacts.DEVICES[machine_of or site]
    device = devices[int(rng.integers(len(devices)))]
    noise = artefacts.draw_noise(noise_of or site, rng)
    recorded, snr, burst = artefacts.add_noise(eight, noise, device, SAMPLING_RATE, rng)
    qtc = times.qt / np.sqrt(rr)
    axis = _frontal_axis(beat, QRS)
    count = int((schedule.kinds[inside] != rhythm.CONDUCTED).sum())
    if case.ectopy and not count:
        case = replace(case, ectopy="", pattern="", ectopics=0)
    return Truth(
        index=index,
        site=site,
        patient=patient,
        case=case,
        conduction=conduction,
        rate=60.0 / rr,
        rr_ms=1000.0 * rr,
        intervals=times,
        qtc_ms=float(qtc),
        axis_deg=axis,
        p_axis_deg=_frontal_axis(beat, P_WAVE) if times.p is not None else None,
        t_axis_deg=_frontal_axis(beat, T_WAVE),
        shape=shape,
        scp=scp_codes(case, conduction, times, float(qtc), axis, shape),
        heart_axis=axis_name(axis),
        extra_beats=("VES" if case.ectopy == "PVC" else "SVES", count) if case.ectopy else None,
        noise=noise,
        device=device,
        snr_db=snr,
        burst=burst,
        onsets=schedule.onsets[inside],
        kinds=schedule.kinds[inside],
        digital=artefacts.digitise(eight if noiseless else recorded, device, UNIT[site]),
    )


def _render(
    case: Case, patient: Patient, beat: Beat, schedule: rhythm.Schedule, times: Intervals, rng: np.random.Generator
) -> Array:
    """(8, T) millivolts without noise."""
    samples = int(DURATION * SAMPLING_RATE)
    out = np.zeros((8, samples), dtype=np.float32)
    onsets, count = schedule.onsets, len(schedule.onsets)
    rr = float(np.median(schedule.preceding))
    stretch = np.clip(schedule.preceding / rr, 0.5, 1.5) ** 0.22
    sway = np.sin(2 * np.pi * rng.uniform(0.2, 0.3) * onsets + rng.uniform(0, 2 * np.pi))
    gain = 1 + 0.018 * rng.normal(size=(count, 1)) + sway[:, None] * rng.uniform(-0.05, 0.06, size=(1, 8))
    pr_shift = 0.003 * rng.normal(size=count)
    kinds = schedule.kinds
    p_present = np.full(count, times.p is not None)
    beats = {rhythm.CONDUCTED: beat}
    if case.ectopy == "PVC":
        beats[rhythm.VENTRICULAR] = ventricular_beat(patient, str(rng.choice(["left", "right", "apex"])), rng)
    if case.ectopy == "PAC":
        beats[rhythm.ATRIAL] = atrial_premature_p(beat, rng)
    for kind, shape in beats.items():
        chosen = kinds == kind
        render(
            shape,
            onsets[chosen],
            stretch=stretch[chosen] if kind != rhythm.VENTRICULAR else np.ones(int(chosen.sum())),
            pr_shift=pr_shift[chosen],
            gain=gain[chosen],
            p_present=p_present[chosen],
            out=out,
            sampling_rate=SAMPLING_RATE,
        )
    eight = out.astype(np.float64)
    if case.rhythm in {"AFIB", "AFLT"}:
        eight += rhythm.atrial_activity(case, schedule, patient.field, samples, SAMPLING_RATE, rng)
    if case.rhythm == "PACE":
        spike = patient.field @ (np.array([0.5, -1.0, -0.5]) * rng.uniform(0.8, 1.9))
        places = np.rint((onsets - 0.008) * SAMPLING_RATE).astype(int)
        eight[:, places[(places >= 0) & (places < samples)]] += spike[:, None]
    return eight


def simulate(seed: int, index: int, site: str = "a", *, noiseless: bool = False) -> tuple[Recording, Truth]:
    """One recording in memory: what `write_site` would write at place `index`, and its ground truth; see `draw`."""
    truth = draw(seed, index, site, noiseless=noiseless)
    signal = (truth.digital * np.float32(UNIT[site])).astype(np.float32)
    return Recording(signal, SAMPLING_RATE, record_id=str(index), source=f"synthetic-{site}"), truth
