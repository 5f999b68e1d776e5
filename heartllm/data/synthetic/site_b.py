"""Site B: files and tables in MIMIC-IV-ECG's layout (Gow et al., PhysioNet 2023), lead order I II III aVR aVF aVL
V1..V6.

There is no noise, stage or extra-beat column there; what the recordings really carry stands in `truth.csv`. The split
is the hash of the subject id, as for MIMIC-IV-ECG itself.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np

from heartllm.data.synthetic import site_a
from heartllm.data.synthetic.machine_b import machine_statements
from heartllm.data.synthetic.simulation import Truth, patient_number
from heartllm.data.synthetic.wfdb_files import write_record
from heartllm.ecg.recording import LEADS

FIRST_SUBJECT = FIRST_STUDY = 90_000_001  # MIMIC's own numbers start with 1 (subjects) and 4 (studies)
LEADS_WRITTEN = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
ORDER = [LEADS.index(name) for name in LEADS_WRITTEN]
NOT_MEASURED = "29999"
REPORTS = 18
RECORDS = ("subject_id", "study_id", "file_name", "ecg_time", "path")
MEASUREMENTS = (
    "subject_id", "study_id", "cart_id", "ecg_time", *(f"report_{number}" for number in range(REPORTS)), "bandwidth",
    "filtering", "rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis", "t_axis",
)  # fmt: skip
PATIENTS = ("subject_id", "gender", "anchor_age", "anchor_year")
TRUTH = ("study_id", *site_a.TRUTH[1:], "scp_codes", "noise")
TABLES: dict[str, tuple[str, ...]] = {
    "record_list.csv": RECORDS,
    "machine_measurements.csv": MEASUREMENTS,
    "patients.csv": PATIENTS,
    "truth.csv": TRUTH,
}
STATIC_TABLES: dict[str, tuple[tuple[str, ...], list[list[str]]]] = {}


def folders(root: Path, indices: range) -> list[Path]:
    return [(root / _path(index, patient_number(index))).parent for index in indices]


def _path(index: int, patient: int) -> str:
    subject, study = FIRST_SUBJECT + patient, FIRST_STUDY + index
    return f"files/p{subject // 10000:04d}/p{subject}/s{study}/{study}"


def write(root: Path, truth: Truth, wording: np.random.Generator) -> dict[str, list[str]]:
    """Writes the waveform and returns the recording's row in each table (the subject's row at its first recording)."""
    patient, times = truth.patient, truth.intervals
    path = _path(truth.index, patient.number)
    time = datetime.datetime(2150, 3, 1, 6, 0) + datetime.timedelta(minutes=(truth.index * 37) % (60 * 24 * 250))
    stamp = time.strftime(" %H:%M:%S %d/%m/%Y")
    write_record(root / path, truth.digital[ORDER], LEADS_WRITTEN, gain="200.0(0)/mV", first_line_extra=stamp)
    subject, study = str(FIRST_SUBJECT + patient.number), str(FIRST_STUDY + truth.index)
    when = time.strftime("%Y-%m-%d %H:%M:%S")
    statements = machine_statements(truth, wording)[:REPORTS]
    p_onset = 40.0
    onset = p_onset + times.pr if times.pr is not None else 200.0
    atrial = [NOT_MEASURED, NOT_MEASURED]
    if times.p is not None:
        atrial = [site_a.number(p_onset, 0), site_a.number(p_onset + times.p, 0)]
    ventricular = [site_a.number(value, 0) for value in (onset, onset + times.qrs, onset + times.qt)]
    axes = [
        NOT_MEASURED if value is None else site_a.number(value, 0)
        for value in (truth.p_axis_deg, truth.axis_deg, truth.t_axis_deg)
    ]
    bandwidth = f"0.005-{truth.device.high:g} Hz"
    row = [
        subject, study, "900" + str(1 + truth.index % 7), when, *statements, *[""] * (REPORTS - len(statements)),
        bandwidth, f"{truth.device.mains:g} Hz notch", site_a.number(truth.rr_ms, 0), *atrial, *ventricular, *axes,
    ]  # fmt: skip
    noise = ";".join(f"{kind}:{','.join(leads)}" for kind, leads in truth.noise.leads.items())
    rows = {
        "record_list.csv": [subject, study, study, when, path],
        "machine_measurements.csv": row,
        "truth.csv": [study, *site_a.truth_row(truth), repr(truth.scp), noise],
    }
    if truth.index % 5 != 1:  # the second recording of the same patient
        age = 91 if patient.age > 89 else patient.age
        rows["patients.csv"] = [subject, "M" if patient.sex == "male" else "F", str(age), "2150"]
    return rows
