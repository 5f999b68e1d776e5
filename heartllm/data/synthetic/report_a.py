"""Report texts of site A: short, lower-case English in PTB-XL's manner, worded differently from recording to
recording."""

from __future__ import annotations

import numpy as np

from heartllm.data.synthetic.cases import INFARCTIONS, INJURY, ISCHEMIA
from heartllm.data.synthetic.simulation import Truth

RHYTHM = {
    "SR": ("sinus rhythm", "regular sinus rhythm", "normal sinus rhythm"),
    "SBRAD": ("sinus bradycardia", "slow sinus rhythm, bradycardia"),
    "STACH": ("sinus tachycardia", "rapid sinus rhythm, tachycardia"),
    "SARRH": ("sinus arrhythmia", "sinus rhythm with respiratory arrhythmia"),
    "AFIB": ("atrial fibrillation", "atrial fibrillation with irregular ventricular response"),
    "AFLT": ("atrial flutter", "atrial flutter with av block"),
    "SVTAC": ("supraventricular tachycardia", "narrow complex supraventricular tachycardia"),
    "PACE": ("pacemaker rhythm", "ventricular pacing, pacemaker functions normally"),
}
AXIS = {
    "MID": ("normal axis", "position type normal", ""),
    "RAD": ("right axis deviation", "axis deviated to the right"),
    "ALAD": ("left axis deviation", "axis deviated to the left"),
    "ARAD": ("extreme axis deviation", "axis deviated extremely"),
}
PHRASES = {
    "CRBBB": ("right bundle branch block", "complete right bundle branch block"),
    "CLBBB": ("left bundle branch block", "complete left bundle branch block"),
    "IRBBB": ("incomplete right bundle branch block", "rsr' in v1, incomplete right bundle branch block"),
    "ILBBB": ("incomplete left bundle branch block", "intraventricular delay of left bundle branch type"),
    "LAFB": ("left anterior fascicular block", "left anterior hemiblock"),
    "LPFB": ("left posterior fascicular block", "left posterior hemiblock"),
    "IVCD": ("non-specific intraventricular block", "intraventricular conduction delay"),
    "1AVB": ("first degree av block", "prolonged av conduction"),
    "LVH": ("left ventricular hypertrophy", "voltages of left ventricular hypertrophy"),
    "RVH": ("right ventricular hypertrophy", "signs of right ventricular strain and hypertrophy"),
    "LAO/LAE": ("left atrial enlargement", "p mitrale, left atrial overload"),
    "RAO/RAE": ("right atrial enlargement", "p pulmonale, right atrial overload"),
    "NDT": ("non-diagnostic t abnormalities", "t waves not diagnostic"),
    "NST_": ("non-specific st changes", "st segments changed non-specifically"),
    "DIG": ("digitalis effect", "scooped st depression, digitalis effect"),
    "LNGQT": ("long qt interval", "qt prolonged"),
    "EL": ("tall peaked t waves, electrolyte disturbance", "consider hyperkalaemia"),
    "LVOLT": ("low qrs voltages", "low voltage in all leads"),
    "VCLVH": ("high voltages, criteria for left ventricular hypertrophy", "voltage criteria for lvh"),
    "HVOLT": ("high qrs voltage",),
    "QWAVE": ("pathological q waves",),
    "STD_": ("st depression", "depressed st segments"),
    "STE_": ("st elevation", "raised st segments"),
    "INVT": ("t wave inversion", "inverted t waves"),
    "LOWT": ("low t waves", "t waves flat"),
    "NT_": ("non-specific t wave changes", "t waves slightly changed"),
    "BIGU": ("bigeminy",),
    "TRIGU": ("trigeminy",),
}
INFARCT_PLACE = {
    "IMI": "inferior", "ASMI": "anteroseptal", "AMI": "anterior", "ALMI": "anterolateral", "ILMI": "inferolateral",
    "LMI": "lateral", "IPMI": "inferoposterior", "IPLMI": "inferoposterolateral", "PMI": "posterior",
}  # fmt: skip
LEADS_PLACE = {
    "AL": "anterolateral", "IN": "inferior", "AS": "anteroseptal", "IL": "inferolateral", "LA": "lateral",
    "AN": "anterior",
}  # fmt: skip
STAGE = {
    "Stadium I": ("acute", "recent"),
    "Stadium II": ("subacute",),
    "Stadium III": ("old", "healed"),
    "unknown": ("age undetermined",),
}


def write_report(truth: Truth, rng: np.random.Generator) -> str:
    """The report of one recording: rhythm, axis, findings, extra beats, closing phrase."""

    def one(choices: tuple[str, ...]) -> str:
        return choices[int(rng.integers(len(choices)))]

    parts = [one(RHYTHM[truth.case.rhythm]), one(AXIS[truth.heart_axis])]
    for code, likelihood in truth.scp.items():
        phrase = ""
        if code in INFARCTIONS:
            phrase = f"{INFARCT_PLACE[code]} infarct, {one(STAGE[truth.case.stage])}"
        elif code in ISCHEMIA or code in INJURY:
            kind = "ischemia" if code in ISCHEMIA else "subendocardial injury"
            place = LEADS_PLACE.get(code[3:], "")
            phrase = (
                f"{place} {kind}".strip()
                if place
                else one(("non-specific ischemic changes", "st-t changes suggest ischemia"))
            )
        elif code in PHRASES:
            phrase = one(PHRASES[code])
        if phrase:
            if 0 < likelihood < 40:
                phrase += one((" cannot be excluded", " not ruled out"))
            elif 0 < likelihood < 80:
                phrase = one(("possible ", "suspected ")) + phrase
            elif 0 < likelihood < 100:
                phrase = "probable " + phrase
            parts.append(phrase)
    if truth.extra_beats is not None:
        kind, count = truth.extra_beats
        name = "ventricular extrasystole" if kind == "VES" else "supraventricular extrasystole"
        parts.append(f"{name}s" if count > 1 else f"isolated {name}")
    if truth.scp.get("NORM") == 100.0:
        parts.append(one(("normal ecg", "no abnormality")))
    elif "NORM" in truth.scp:
        parts.append(one(("otherwise normal ecg", "no other abnormality")))
    elif any(code in truth.scp for code in ("LVH", "CLBBB", "ABQRS")) and rng.random() < 0.4:
        parts.append("abnormal ecg")
    if truth.noise.leads and rng.random() < 0.3:
        parts.append("noisy recording")
    return " ".join(f"{part}." for part in parts if part)
