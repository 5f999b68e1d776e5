"""PTB-XL as published on PhysioNet: `ptbxl_database.csv`, `scp_statements.csv`, `records500/`.

Columns become labels under ECG-QA's names (see `heartllm.data.records.Labels`). Two of these mappings are readings of
ours, since ECG-QA prints the classes but not the rule:

- axis: see `AXES`; codes that are ambiguous in degrees, or no class of ECG-QA, stay unlabelled.
- infarction stage: I is early, III is old, and what lies between (I-II, II, II-III) is middle.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from heartllm.data.dataset import FileDataset
from heartllm.data.dataset_tables import below, number, read_rows, whole
from heartllm.data.records import SPLITS, Entry, Labels
from heartllm.data.reports import reports_by_id
from heartllm.data.splits import MANIFEST_NAME, read_manifest
from heartllm.data.statements import STATEMENTS
from heartllm.ecg.recording import LEADS
from heartllm.errors import DataError
from heartllm.texts import read_text

DATABASE, STATEMENT_TABLE, INTERVAL_TABLE = "ptbxl_database.csv", "scp_statements.csv", "intervals.csv"
COLUMNS = (
    *("ecg_id", "patient_id", "age", "sex", "height", "weight", "site", "device", "report", "scp_codes", "heart_axis"),
    *("infarction_stadium1", "infarction_stadium2", "baseline_drift", "static_noise", "burst_noise"),
    *("electrodes_problems", "extra_beats", "strat_fold", "filename_hr"),
)
NOISE_COLUMNS = {
    "baseline drift": "baseline_drift",
    "static noise": "static_noise",
    "burst noise": "burst_noise",
    "electrodes problems": "electrodes_problems",
}
# PTB-XL's codes name German axis types, ECG-QA's answers measured degrees (normal -30 to 90). By its recordings
# (net QRS in I and aVF): MID lies at 6 to 73 degrees, ALAD at -75 to -41, RAD at 98 to 147. LAD ("Linkstyp") lies at
# -53 to -5, on both sides of the border, and is not labelled; nor are AXL, AXR and SAG, which no class fits.
AXES = {
    "MID": "normal heart axis",
    "ALAD": "left axis deviation",
    "RAD": "right axis deviation",
    "ARAD": "extreme axis deviation",
}
STAGES = {
    "unknown": "unknown stage of myocardial infarction",
    "Stadium I": "early stage of myocardial infarction",
    "Stadium I-II": "middle stage of myocardial infarction",
    "Stadium II": "middle stage of myocardial infarction",
    "Stadium II-III": "middle stage of myocardial infarction",
    "Stadium III": "old stage of myocardial infarction",
}
EXTRA_SYSTOLES = {
    "SVES": "supraventricular extrasystoles",
    "VES": "ventricular extrasystoles",
    "ES": "extrasystoles",
}
INTERVALS = ("p duration", "pr interval", "qrs duration", "qt interval", "qt corrected", "rr interval")
OLDEST, CENSORED_AT = 89, 90  # PTB-XL writes 300 for everyone older than 89; some releases write some of those ages

_LEAD_NUMBER = {lead.upper(): index for index, lead in enumerate(LEADS)}
# Words in the noise columns that say how strong or what, not where (leicht, mittel, stark: slight, medium, strong).
_NO_LEADS = frozenset({"LEICHT", "MITTEL", "STARK", "DRIFT", "NOISY", "RECORDING"})


def parse_leads(text: str) -> frozenset[str] | None:
    """The leads that a noise cell names: lists, ranges in canonical order, short forms, "alles" (German: all).

    " , I-AVF,V5 ", "v1,6", "V1-6", "I --AVL", "alles" and the like all occur. An empty cell names no lead.

    Returns:
        Canonical lead names; None where the cell speaks of noise but of no lead ("stark"), or cannot be read.
    """
    found: set[str] = set()
    chest = False  # "V1,6" means V1 and V6: a bare number belongs to the chest lead before it
    cell = re.sub(r"\s*-+\s*", "-", text.upper().replace("ALLES", f"{LEADS[0]}-{LEADS[-1]}"))
    tokens = [token.strip("!?.") for token in re.split(r"[,;\s]+", cell)]
    for token in tokens:
        if not token or token in _NO_LEADS:
            continue
        numbers = []
        for name in token.split("-"):
            name = f"V{name}" if name.isdigit() and chest else name
            if name not in _LEAD_NUMBER:
                return None
            numbers.append(_LEAD_NUMBER[name])
            chest = name.startswith("V")
        if len(numbers) > 2 or numbers[0] > numbers[-1]:
            return None
        found.update(LEADS[numbers[0] : numbers[-1] + 1])
    if not found and any(tokens):
        return None
    return frozenset(found)


def parse_noise(row: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """Noise kind -> leads. A kind whose leads are not stated is left out: it is present, but nobody knows where."""
    parsed = {kind: parse_leads(row[column]) for kind, column in NOISE_COLUMNS.items()}
    return {kind: leads for kind, leads in parsed.items() if leads is not None}


def parse_extra_beats(text: str) -> frozenset[str]:
    """ECG-QA's extra systole names from "1ES", "VES,SVES", "4ES(2Typen)"; a mere count is some extrasystole."""
    if not text.strip():
        return frozenset()
    kinds = re.findall(r"SVES|VES|(?<![A-Z])ES", text.upper())
    return frozenset(EXTRA_SYSTOLES[kind] for kind in kinds or ["ES"])


def parse_codes(text: str, where: str) -> dict[str, float]:
    """`scp_codes` ("{'NORM': 100.0, 'SR': 0.0}") as ECG-QA statement name -> likelihood in per cent (0: not stated)."""
    try:
        codes = ast.literal_eval(text)
        likelihoods = {str(code): float(value) for code, value in codes.items()}
    except (ValueError, SyntaxError, AttributeError, TypeError, MemoryError, RecursionError, OverflowError):
        raise DataError(
            f"column 'scp_codes' holds {text[:60]!r}, which is no dictionary of codes and likelihoods",
            remedy="Write it as {'NORM': 100.0, 'SR': 0.0}.",
            where=where,
        ) from None
    for code, value in likelihoods.items():
        if code not in STATEMENTS:
            raise DataError(
                f"column 'scp_codes' holds the unknown code {code!r}",
                remedy=f"The codes are those of {STATEMENT_TABLE}.",
                where=where,
            )
        if not (math.isfinite(value) and 0 <= value <= 100):
            raise DataError(
                f"column 'scp_codes' gives {code!r} the likelihood {value}",
                remedy="It is 0 to 100 per cent.",
                where=where,
            )
    return {STATEMENTS[code].name: value for code, value in likelihoods.items()}


def labels_of(row: Mapping[str, str], where: str, intervals: Mapping[str, float] | None = None) -> Labels:
    """The labels of one row of `ptbxl_database.csv`."""
    stages = (row[column].strip() for column in ("infarction_stadium1", "infarction_stadium2"))
    return Labels(
        statements=parse_codes(row["scp_codes"], where),
        noise=parse_noise(row),
        infarction_stages=frozenset(STAGES.get(stage, STAGES["unknown"]) for stage in stages if stage),
        extra_systoles=parse_extra_beats(row["extra_beats"]),
        heart_axis=AXES.get(row["heart_axis"].strip()),
        intervals=intervals,
    )


def entry_of(row: Mapping[str, str], root: Path, source: str, labels: Labels, split: str | None, where: str) -> Entry:
    """One row of `ptbxl_database.csv` as an entry. Sex is coded 0 male, 1 female."""
    age = number(row, "age", where)
    censored = age is not None and age > OLDEST
    sex = number(row, "sex", where)
    return Entry(
        record_id=whole(row["ecg_id"]),
        patient_id=whole(row["patient_id"]),
        source=source,
        path=below(root, row, "filename_hr", where),
        labels=labels,
        split=split,
        report=row["report"].strip() or None,
        age=float(CENSORED_AT) if censored else age,
        age_censored=censored,
        sex={0.0: "male", 1.0: "female"}.get(sex) if sex is not None else None,
        height=number(row, "height", where),
        weight=number(row, "weight", where),
        device=" ".join(row["device"].split()) or None,
        site=whole(row["site"]) or None,
    )


def read_intervals(path: Path) -> dict[str, dict[str, float]]:
    """`intervals.csv`, an addition of ours to the layout: `ecg_id` and one column of ms for each of `INTERVALS`."""
    table: dict[str, dict[str, float]] = {}
    for line, row in read_rows(path, ["ecg_id"]):
        values = ((name, number(row, name, f"{path}:{line}")) for name in INTERVALS if name in row)
        table[whole(row["ecg_id"])] = {name: value for name, value in values if value is not None}
    return table


def read_split_lists(folder: Path) -> dict[str, str]:
    """ECG-QA's `{train,valid,test}_ecgs.tsv` (index and ecg_id, no header) as ecg_id -> split; empty where absent."""
    found: dict[str, str] = {}
    for split in SPLITS:
        path = folder / f"{split}_ecgs.tsv"
        if not path.is_file():
            continue
        try:
            lines = read_text(path).splitlines()
        except (OSError, ValueError) as error:
            raise DataError(f"cannot be read ({error})", remedy="Each line is: index, tab, id.", where=path) from None
        for line, text in enumerate(lines, start=1):
            if not text.strip():
                continue
            record_id = whole(text.split("\t")[-1])
            if not record_id.isdigit():
                if line == 1:  # a header
                    continue
                raise DataError(
                    f"{record_id!r} is no ECG id", remedy="Each line is: index, tab, id.", where=f"{path}:{line}"
                )
            if found.setdefault(record_id, split) != split:
                raise DataError(
                    f"ECG {record_id} is in the splits {found[record_id]} and {split}",
                    remedy="Leave it in one of the lists.",
                    where=f"{path}:{line}",
                )
    return found


def fold_split(fold: str) -> str | None:
    """PTB-XL's recommended use of `strat_fold`: 1-8 train, 9 valid, 10 test."""
    fold = whole(fold)
    if not fold.isdigit():
        return None
    return {9: "valid", 10: "test"}.get(int(fold), "train")


def unlisted_splits(rows: Iterable[Mapping[str, str]], lists: Mapping[str, str]) -> dict[str, str]:
    """Patient -> split for recordings on none of ECG-QA's lists: that of the patient's listed recordings."""
    return {whole(row["patient_id"]): lists[whole(row["ecg_id"])] for row in rows if whole(row["ecg_id"]) in lists}


def open_ptbxl(name: str, root: Path, data_root: Path | None = None) -> FileDataset:
    """Opens a folder in PTB-XL's layout.

    The split is that of `split_manifest.json` in the folder where there is one; else, for PTB-XL, that of ECG-QA's own
    lists below `data_root`, where a recording on none of them follows its patient, or goes to train; else that
    of `strat_fold`. With English reports below `data_root` a PTB-XL entry has that report or none, so that the original
    German never mixes in; without them it has the report of the database.
    """

    def load() -> Iterator[Entry]:
        path = root / DATABASE
        manifest, lists = None, dict[str, str]()
        if (root / MANIFEST_NAME).is_file():
            manifest = read_manifest(root / MANIFEST_NAME).split_of
        elif data_root is not None and name == "ptbxl":
            lists = read_split_lists(data_root / "ecgqa" / "ptbxl")
        reports: Mapping[str, str] | None = None
        if data_root is not None and name == "ptbxl" and (data_root / "reports" / "ptbxl").is_dir():
            reports = reports_by_id(data_root / "reports" / "ptbxl")
        intervals = read_intervals(root / INTERVAL_TABLE) if (root / INTERVAL_TABLE).is_file() else {}
        rows = list(read_rows(path, COLUMNS))
        by_patient = unlisted_splits((row for _, row in rows), lists)
        for line, row in rows:
            where, record_id = f"{path}:{line}", whole(row["ecg_id"])
            if manifest is not None:
                split = manifest.get(record_id)
            elif lists:
                split = lists.get(record_id) or by_patient.get(whole(row["patient_id"]), "train")
            else:
                split = fold_split(row["strat_fold"])
            if reports is not None:
                row["report"] = reports.get(record_id, "")
            yield entry_of(row, root, name, labels_of(row, where, intervals.get(record_id)), split, where)

    return FileDataset(name, root, load)
