"""The SCP-ECG statements of site A: PTB-XL's codes and table columns, with our own wording for reports.

The statement names are those that ECG-QA's attribute names were made from.
"""

from __future__ import annotations

COLUMNS = (
    "", "description", "diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass", "Statement Category",
    "SCP-ECG Statement Description", "AHA code", "aECG REFID", "CDISC Code", "DICOM Code",
)  # fmt: skip

# code -> (statement, groups d/f/r, class, subclass, category)
STATEMENTS: dict[str, tuple[str, str, str, str, str]] = {
    "NORM": ("normal ECG", "d", "NORM", "NORM", "overall"),
    "CLBBB": ("(complete) left bundle branch block", "d", "CD", "CLBBB", "ventricles"),
    "CRBBB": ("(complete) right bundle branch block", "d", "CD", "CRBBB", "ventricles"),
    "ILBBB": ("incomplete left bundle branch block", "d", "CD", "ILBBB", "ventricles"),
    "IRBBB": ("incomplete right bundle branch block", "d", "CD", "IRBBB", "ventricles"),
    "LAFB": ("left anterior fascicular block", "d", "CD", "LAFB/LPFB", "ventricles"),
    "LPFB": ("left posterior fascicular block", "d", "CD", "LAFB/LPFB", "ventricles"),
    "IVCD": ("non-specific intraventricular conduction disturbance (block)", "d", "CD", "IVCD", "ventricles"),
    "1AVB": ("first degree AV block", "d", "CD", "_AVB", "atrioventricular conduction"),
    "LVH": ("left ventricular hypertrophy", "d", "HYP", "LVH", "hypertrophy"),
    "RVH": ("right ventricular hypertrophy", "d", "HYP", "RVH", "hypertrophy"),
    "LAO/LAE": ("left atrial overload/enlargement", "d", "HYP", "LAO/LAE", "atria"),
    "RAO/RAE": ("right atrial overload/enlargement", "d", "HYP", "RAO/RAE", "atria"),
    "IMI": ("inferior myocardial infarction", "d", "MI", "IMI", "infarction"),
    "ASMI": ("anteroseptal myocardial infarction", "d", "MI", "AMI", "infarction"),
    "AMI": ("anterior myocardial infarction", "d", "MI", "AMI", "infarction"),
    "ALMI": ("anterolateral myocardial infarction", "d", "MI", "AMI", "infarction"),
    "ILMI": ("inferolateral myocardial infarction", "d", "MI", "IMI", "infarction"),
    "LMI": ("lateral myocardial infarction", "d", "MI", "LMI", "infarction"),
    "IPMI": ("inferoposterior myocardial infarction", "d", "MI", "IMI", "infarction"),
    "IPLMI": ("inferoposterolateral myocardial infarction", "d", "MI", "IMI", "infarction"),
    "PMI": ("posterior myocardial infarction", "d", "MI", "PMI", "infarction"),
    "INJAS": ("in anteroseptal leads", "d", "MI", "AMI", "subendocardial injury"),
    "INJAL": ("in anterolateral leads", "d", "MI", "AMI", "subendocardial injury"),
    "INJIN": ("in inferior leads", "d", "MI", "IMI", "subendocardial injury"),
    "INJLA": ("in lateral leads", "d", "MI", "AMI", "subendocardial injury"),
    "INJIL": ("in inferolateral leads", "d", "MI", "IMI", "subendocardial injury"),
    "ISC_": ("non-specific ischemic", "d", "STTC", "ISC_", "ischemia"),
    "ISCAL": ("in anterolateral leads", "d", "STTC", "ISCA", "ischemia"),
    "ISCIN": ("in inferior leads", "d", "STTC", "ISCI", "ischemia"),
    "ISCAS": ("in anteroseptal leads", "d", "STTC", "ISCA", "ischemia"),
    "ISCIL": ("in inferolateral leads", "d", "STTC", "ISCI", "ischemia"),
    "ISCLA": ("in lateral leads", "d", "STTC", "ISCA", "ischemia"),
    "ISCAN": ("in anterior leads", "d", "STTC", "ISCA", "ischemia"),
    "NDT": ("non-diagnostic T abnormalities", "df", "STTC", "STTC", "repolarisation"),
    "NST_": ("non-specific ST changes", "df", "STTC", "NST_", "repolarisation"),
    "DIG": ("digitalis-effect", "df", "STTC", "STTC", "repolarisation"),
    "LNGQT": ("long QT-interval", "df", "STTC", "STTC", "repolarisation"),
    "EL": ("electrolytic disturbance or drug (former EDIS)", "d", "STTC", "STTC", "repolarisation"),
    "ABQRS": ("abnormal QRS", "f", "", "", "QRS form"),
    "QWAVE": ("Q waves present", "f", "", "", "QRS form"),
    "VCLVH": ("voltage criteria (QRS) for left ventricular hypertrophy", "f", "", "", "QRS form"),
    "HVOLT": ("high QRS voltage", "f", "", "", "QRS form"),
    "LVOLT": ("low QRS voltages in the frontal and horizontal leads", "f", "", "", "QRS form"),
    "LPR": ("prolonged PR interval", "f", "", "", "atrioventricular conduction"),
    "STD_": ("non-specific ST depression", "f", "", "", "ST and T form"),
    "STE_": ("non-specific ST elevation", "f", "", "", "ST and T form"),
    "INVT": ("inverted T-waves", "f", "", "", "ST and T form"),
    "LOWT": ("low amplitude T-waves", "f", "", "", "ST and T form"),
    "NT_": ("non-specific T-wave changes", "f", "", "", "ST and T form"),
    "TAB_": ("T-wave abnormality", "f", "", "", "ST and T form"),
    "PVC": ("ventricular premature complex", "f", "", "", "ectopy"),
    "PAC": ("atrial premature complex", "f", "", "", "ectopy"),
    "SR": ("sinus rhythm", "r", "", "", "rhythm"),
    "SBRAD": ("sinus bradycardia", "r", "", "", "rhythm"),
    "STACH": ("sinus tachycardia", "r", "", "", "rhythm"),
    "SARRH": ("sinus arrhythmia", "r", "", "", "rhythm"),
    "AFIB": ("atrial fibrillation", "r", "", "", "rhythm"),
    "AFLT": ("atrial flutter", "r", "", "", "rhythm"),
    "SVTAC": ("supraventricular tachycardia", "r", "", "", "rhythm"),
    "PACE": ("normal functioning artificial pacemaker", "r", "", "", "rhythm"),
    "BIGU": ("bigeminal pattern (unknown origin, SV or Ventricular)", "r", "", "", "rhythm"),
    "TRIGU": ("trigeminal pattern (unknown origin, SV or Ventricular)", "r", "", "", "rhythm"),
}  # fmt: skip


def table_rows() -> list[list[str]]:
    """The rows of `scp_statements.csv` under `COLUMNS`."""
    rows = []
    for code, (statement, groups, super_class, sub_class, category) in STATEMENTS.items():
        flags = ["1.0" if group in groups else "" for group in "dfr"]
        rows.append([code, statement, *flags, super_class, sub_class, category, statement, "", "", "", ""])
    return rows
