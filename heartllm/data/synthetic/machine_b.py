"""Statements of site B's machine: capitalised, terse, with hedges, as MIMIC-IV-ECG's carts print them.

Site A's likelihoods become the machine's hedges: below 100 a statement starts with "Possible", "Probable" or
"Consider". Some statements exist here only (poor R wave progression, low T waves by lead group, electrode remarks).
"""

from __future__ import annotations

import numpy as np

from heartllm.data.synthetic.cases import INFARCTIONS, INJURY, ISCHEMIA
from heartllm.data.synthetic.report_a import INFARCT_PLACE, LEADS_PLACE
from heartllm.data.synthetic.simulation import Truth

RHYTHM = {
    "SR": ("Sinus rhythm", "Normal sinus rhythm"),
    "SBRAD": ("Sinus bradycardia", "Marked sinus bradycardia"),
    "STACH": ("Sinus tachycardia",),
    "SARRH": ("Sinus arrhythmia", "Marked sinus arrhythmia"),
    "AFIB": ("Atrial fibrillation", "Atrial fibrillation with uncontrolled ventricular response"),
    "AFLT": ("Atrial flutter", "Atrial flutter with variable A-V block"),
    "SVTAC": ("Supraventricular tachycardia", "Narrow complex supraventricular tachycardia"),
    "PACE": ("Ventricular pacing", "Electronic ventricular pacemaker", "Ventricular-paced rhythm"),
}
STATEMENTS: dict[str, tuple[str, ...]] = {
    "CRBBB": ("Right bundle branch block", "RBBB"),
    "CLBBB": ("Left bundle branch block", "LBBB"),
    "IRBBB": ("Incomplete right bundle branch block", "Incomplete RBBB"),
    "ILBBB": ("Incomplete left bundle branch block", "Incomplete LBBB"),
    "LAFB": ("Left anterior fascicular block",),
    "LPFB": ("Left posterior fascicular block",),
    "IVCD": ("IV conduction defect", "Intraventricular conduction delay"),
    "1AVB": ("1st degree A-V block", "First degree A-V block"),
    "LPR": ("Prolonged PR interval",),
    "LVH": ("Left ventricular hypertrophy", "LVH with secondary repolarization abnormality"),
    "RVH": ("Right ventricular hypertrophy", "RVH with secondary repolarization abnormality"),
    "VCLVH": ("Voltage criteria for left ventricular hypertrophy",),
    "HVOLT": ("High QRS voltages",),
    "LVOLT": ("Generalized low QRS voltages", "Low QRS voltages in limb and precordial leads"),
    "LAO/LAE": ("Left atrial abnormality", "Left atrial enlargement"),
    "RAO/RAE": ("Right atrial abnormality", "Right atrial enlargement"),
    "NST_": ("Nonspecific ST changes", "ST changes are nonspecific"),
    "NT_": ("Nonspecific T wave changes", "T wave changes are nonspecific"),
    "NDT": ("T wave abnormalities", "Lateral T wave abnormalities"),
    "DIG": ("Digitalis effect on ST segments", "ST changes of digitalis effect"),
    "EL": ("Tall T waves - metabolic or hyperkalemic pattern",),
    "LNGQT": ("Prolonged QT interval", "Long QTc interval"),
    "QWAVE": ("Pathologic Q waves",),
    "STD_": ("ST depression", "ST junctional depression"),
    "STE_": ("ST elevation",),
    "INVT": ("T wave inversion",),
    "LOWT": ("Diffuse T wave flattening", "Low T waves"),
    "PVC": ("PVC(s)", "Ventricular premature complex"),
    "PAC": ("PAC(s)", "Atrial premature complex"),
    "BIGU": ("Bigeminy",),
    "TRIGU": ("Trigeminy",),
}
AGE_OF_INFARCT = {
    "Stadium I": "probably acute",
    "Stadium II": "recent",
    "Stadium III": "old",
    "unknown": "age undetermined",
}


def _axis(degrees: float) -> str:
    if -30 <= degrees <= 90:
        return ""
    if degrees > 90:
        return "Right axis deviation"
    return "Left axis deviation" if degrees >= -90 else "Extreme axis deviation"


def infarct_statement(code: str, stage: str) -> str:
    """ "Inferior infarct - age undetermined"; a double territory reads "Inferior and posterior infarct" there."""
    if code == "IPLMI":  # no machine statement of its own: both territories are named
        return f"Inferior/lateral infarct with posterior infarct - {AGE_OF_INFARCT[stage]}"
    return f"{INFARCT_PLACE[code].capitalize()} infarct - {AGE_OF_INFARCT[stage]}"


def machine_statements(truth: Truth, rng: np.random.Generator) -> list[str]:
    """The statements in the machine's order: rhythm, axis, findings, its own remarks, verdict."""

    def one(choices: tuple[str, ...]) -> str:
        return choices[int(rng.integers(len(choices)))]

    lines = [one(RHYTHM[truth.case.rhythm])]
    if _axis(truth.axis_deg):
        lines.append(_axis(truth.axis_deg))
    for code, likelihood in truth.scp.items():
        text = ""
        if code in INFARCTIONS:
            text = infarct_statement(code, truth.case.stage)
        elif code in ISCHEMIA and code != "ISC_":
            text = f"{LEADS_PLACE[code[3:]].capitalize()} ST-T changes indicate myocardial ischemia"
        elif code == "ISC_":
            text = "ST-T changes indicate myocardial ischemia"
        elif code in INJURY:
            text = f"{LEADS_PLACE[code[3:]].capitalize()} ST depression, subendocardial injury"
        elif code in STATEMENTS:
            text = one(STATEMENTS[code])
        if not text:
            continue
        if 0 < likelihood < 100:
            hedge = one(("Possible", "Consider")) if likelihood < 80 else "Probable"
            text = f"{hedge} {text if text.split()[0].isupper() else text[0].lower() + text[1:]}"
        lines.append(text)
    lines += _own_remarks(truth)
    lines.append(_verdict(truth))
    return lines


def _own_remarks(truth: Truth) -> list[str]:
    """Statements that only this machine makes."""
    remarks = []
    if truth.shape.of("r", "V3") < 0.3 and truth.conduction in {"normal", "LAFB"} and "LVOLT" not in truth.scp:
        remarks.append("Poor R wave progression")
    if truth.shape.of("r", "V2") > -truth.shape.of("s", "V2") and truth.conduction == "normal":
        remarks.append("Early precordial transition")
    if truth.noise.leads:
        remarks.append(
            "Artifact in lead(s) " + ", ".join(sorted({lead for leads in truth.noise.leads.values() for lead in leads}))
        )
    return remarks


def _verdict(truth: Truth) -> str:
    if "NORM" in truth.scp:
        return "Normal ECG" if truth.scp["NORM"] == 100 else "Otherwise normal ECG"
    return "Abnormal ECG"
