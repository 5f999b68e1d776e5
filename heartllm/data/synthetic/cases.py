"""What a synthetic patient has: findings with a severity, drawn for a site's case mix.

Findings carry PTB-XL's SCP codes as names. The patient's lasting findings (conduction, hypertrophy, old infarction) are
drawn from the patient's own random stream, so two recordings of one patient share them; rhythm, rate, acute changes,
extra beats and noise are drawn for each recording.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

CONDUCTION = ("CRBBB", "CLBBB", "IRBBB", "ILBBB", "LAFB", "LPFB", "IVCD")
INFARCTIONS = ("IMI", "ASMI", "AMI", "ALMI", "ILMI", "LMI", "IPMI", "IPLMI", "PMI")
ISCHEMIA = ("ISC_", "ISCAL", "ISCIN", "ISCAS", "ISCIL", "ISCLA", "ISCAN")
INJURY = ("INJAS", "INJAL", "INJIN", "INJLA", "INJIL")
REPOLARISATION = ("NDT", "NST_", "LOWT", "NT_", "DIG", "EL", "LNGQT")
ST_T = frozenset(REPOLARISATION) - {"LNGQT"}
SINUS = ("SR", "SBRAD", "STACH", "SARRH")

# Weights with which a lasting or acute finding is drawn for a patient who is not healthy.
FINDINGS_A = {
    "CRBBB": 9, "CLBBB": 13, "IRBBB": 6, "ILBBB": 8, "LAFB": 5, "LPFB": 5, "IVCD": 4,
    "LVH": 12, "RVH": 6, "LAO/LAE": 6, "RAO/RAE": 5, "1AVB": 8, "LVOLT": 5,
    "IMI": 10, "ASMI": 7, "AMI": 6, "ALMI": 5, "ILMI": 5, "LMI": 5, "IPMI": 2, "IPLMI": 2, "PMI": 2,
    "ISC_": 5, "ISCAL": 5, "ISCIN": 4, "ISCAS": 3, "ISCIL": 3, "ISCLA": 3, "ISCAN": 3,
    "INJAS": 3, "INJAL": 3, "INJIN": 2, "INJLA": 2, "INJIL": 2,
    "NDT": 7, "NST_": 6, "LOWT": 6, "NT_": 6, "DIG": 5, "EL": 4, "LNGQT": 5,
}  # fmt: skip
FINDINGS_B = FINDINGS_A | {"CRBBB": 12, "LVH": 16, "LNGQT": 9, "LVOLT": 9, "EL": 5, "1AVB": 10, "IMI": 13, "ISC_": 9}
RHYTHMS_A = {"SR": 50, "SBRAD": 9, "STACH": 9, "SARRH": 7, "AFIB": 11, "AFLT": 6, "PACE": 6, "SVTAC": 7}
RHYTHMS_B = {"SR": 46, "SBRAD": 10, "STACH": 13, "SARRH": 5, "AFIB": 13, "AFLT": 4, "PACE": 7, "SVTAC": 2}
HEALTHY_RHYTHMS = {"SR": 74, "SBRAD": 9, "STACH": 7, "SARRH": 10}
HEALTHY_SHARE = {"a": 0.38, "b": 0.26}  # of patients; noise of the case mix brings normal tracings to about 35 and 22 %

# Only one of each group, since one chest cannot show two of them apart.
GROUPS: tuple[frozenset[str], ...] = (
    frozenset({"CRBBB", "CLBBB", "IRBBB", "ILBBB", "IVCD", "LPFB"}),
    frozenset({"LAFB", "LPFB", "CLBBB", "ILBBB", "RVH"}),
    frozenset({"LVH", "RVH", "LVOLT"}),
    frozenset({*INFARCTIONS, *ISCHEMIA, *INJURY, *ST_T, "CLBBB", "LVH", "CRBBB", "ILBBB"}),
    frozenset({"CLBBB", "IRBBB", "CRBBB", "ILBBB", "RVH", "IPMI", "IPLMI", "PMI", "ASMI"}),
    frozenset({"RVH", "LMI", "ALMI", "ILMI"}),
    frozenset({"LNGQT", "DIG"}),
    frozenset({"LVOLT", "LAO/LAE", "RAO/RAE"}),
    frozenset({"LPFB", "LMI", "ALMI"}),
    frozenset({"LAFB", "IMI", "ILMI", "IPMI", "IPLMI"}),
)  # fmt: skip
LASTING = frozenset({*CONDUCTION, *INFARCTIONS, "LVH", "RVH", "LAO/LAE", "RAO/RAE", "1AVB", "LVOLT"})


@dataclass(frozen=True)
class Case:
    """What one recording shows.

    Attributes:
        findings: SCP code -> severity from 0 (hardly there) to 1 (gross).
        rhythm: one of `RHYTHMS_A`.
        ectopy: "" or "PVC" or "PAC"; pattern: "", "BIGU", "TRIGU"; ectopics: number of isolated extra beats wanted.
        stage: "" or "Stadium I", "Stadium II", "Stadium III", "unknown".
        healthy: nothing but (sinus) rhythm was drawn.
    """

    rhythm: str
    findings: dict[str, float] = field(default_factory=dict)
    ectopy: str = ""
    pattern: str = ""
    ectopics: int = 0
    stage: str = ""
    healthy: bool = False


def _weighted(rng: np.random.Generator, table: dict[str, int]) -> str:
    weights = np.cumsum(list(table.values()))
    return list(table)[int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))]


def _compatible(found: dict[str, float], code: str) -> bool:
    return code not in found and not any(code in group and group & found.keys() for group in GROUPS)


def draw_findings(rng: np.random.Generator, site: str) -> tuple[bool, dict[str, float]]:
    """The patient's findings: none for a healthy one, else one to three that can be seen side by side."""
    if rng.random() < HEALTHY_SHARE[site]:
        return True, {}
    table = FINDINGS_A if site == "a" else FINDINGS_B
    found: dict[str, float] = {}
    for _ in range(2 + int(rng.random() < 0.5) + int(rng.random() < 0.4)):
        code = _weighted(rng, table)
        if _compatible(found, code):
            found[code] = round(float(rng.random()), 3)
    return False, found


def draw_case(patient: np.random.Generator, recording: np.random.Generator, site: str) -> Case:
    """Draws what a recording shows, from the patient's stream (lasting findings) and the recording's own."""
    healthy, findings = draw_findings(patient, site)
    if healthy:
        rhythm = _weighted(recording, HEALTHY_RHYTHMS)
        sick_now = recording.random() < 0.12
    else:
        rhythm = _weighted(recording, RHYTHMS_A if site == "a" else RHYTHMS_B)
        sick_now = recording.random() < 0.24
    if rhythm not in SINUS:
        healthy = False
        findings = {code: severity for code, severity in findings.items() if code not in {"1AVB", "LAO/LAE", "RAO/RAE"}}
    if rhythm == "PACE":
        findings = {}
    if rhythm in {"SVTAC", "AFLT"}:
        drop = {*ISCHEMIA, *INJURY, "NDT", "NST_", "LOWT", "NT_", "EL", "LNGQT", "LVOLT"}
        findings = {code: severity for code, severity in findings.items() if code not in drop}
    if rhythm == "STACH":
        findings.pop("1AVB", None)
    ectopy = pattern = ""
    ectopics = 0
    if sick_now and rhythm not in {"PACE", "SVTAC", "AFLT"}:
        ectopy = "PAC" if recording.random() < 0.45 and rhythm != "AFIB" else "PVC"
        kind = recording.random()
        if rhythm in {"SR", "SBRAD"} and kind < 0.24:
            pattern = "BIGU"
        elif rhythm in {"SR", "SBRAD", "STACH"} and kind < 0.50:
            pattern = "TRIGU"
        ectopics = int(recording.integers(1, 4))
        healthy = False
    stage = ""
    if any(code in INFARCTIONS for code in findings):
        stage = ("Stadium I", "Stadium II", "Stadium III", "unknown")[
            int(np.searchsorted((0.25, 0.5, 0.78), recording.random(), side="right"))
        ]
    return Case(rhythm, findings, ectopy, pattern, ectopics, stage, healthy)
