"""The agreement of the lexicon with a dataset's codes, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from heartllm.data.dataset import FOLDERS, open_dataset
from heartllm.data.dataset_tables import read_rows, whole
from heartllm.data.ptbxl import DATABASE
from heartllm.data.records import Entry
from heartllm.data.statements import BY_NAME
from heartllm.errors import DataError
from heartllm_eval.metrics.clinical.agreement import Agreement, Reading, compare, repeatable
from heartllm_eval.metrics.clinical.lexicon import Lexicon, bundled
from heartllm_eval.metrics.clinical.text import fold
from heartllm_eval.tables import Table

TITLE = "The clinical lexicon against the codes of"
PREFACE = """The clinical score reads findings in a report's text with a lexicon
(`eval/heartllm_eval/metrics/clinical/lexicon.toml`). These tables compare what it reads with the codes that the dataset
gives the same recording.

- The lexicon was written by looking at reports of PTB-XL's recordings in ECG-QA's train and valid splits and at both
  synthetic sites, never at reports of PTB-XL's test split.
- It says what the text says. Where cardiologists revised PTB-XL's codes at the recording and left the report as it
  was, a right reading is a disagreement here; nothing was tuned to hide that.
- Readers' notes in PTB-XL's reports ("Edit: NORM 100, ...") name codes; they are cut off before reading.
- Datasets in MIMIC-IV-ECG's layout have no codes of their own: theirs were read from the same statements, so that the
  figures compare two readers of one text."""
COMMONEST = 25  # kinds of disagreement that are listed
ORIGINAL, ENGLISH = "reports as in PTB-XL", "reports in English"
# A few frequent words tell the languages of PTB-XL's reports apart; whatever has none of them is English.
_LANGUAGES = {
    "Swedish": {
        "sinusrytm", "sinusbradykardi", "sinustachykardi", "foermaksflimmer", "vaenster", "hoeger", "arytmi", "normalt",
        "rytm", "skaenkelblock", "extrasystoli", "avvikande",
    },
    "German": {
        "lagetyp", "linkstyp", "rechtstyp", "steiltyp", "linkslagetyp", "sinusrhythmus", "sinusbradykardie", "ekg",
        "llt", "sinustachykardie", "sinusarrhythmie", "arrhythmie", "mlt", "vorhofflimmern", "schrittmacher",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """The readings of one dataset's reports: name of the text's kind -> split -> readings."""

    dataset: str
    texts: Mapping[str, Mapping[str, list[Reading]]]


def language(text: str) -> str:
    """ "German", "Swedish" or "English", by frequent words."""
    words = frozenset(fold(text).replace("-", " ").replace("/", " ").replace(".", " ").split())
    votes = {name: len(words & known) for name, known in _LANGUAGES.items()}
    best = max(votes, key=lambda name: votes[name])
    return best if votes[best] else "English"


def read_source(dataset: str, data_root: Path) -> Source:
    """The labelled reports of a dataset; of PTB-XL both those of its own table and, where they are, the English ones.

    Raises:
        DataError: the dataset is not there, or has no recording with both a report and statements.
    """
    entries = open_dataset(dataset, data_root).entries()
    texts = {"reports": _by_split(entries, {entry.record_id: entry.report for entry in entries})}
    if dataset == "ptbxl":
        path = data_root / FOLDERS[dataset] / DATABASE
        originals = {whole(row["ecg_id"]): row["report"] for _, row in read_rows(path, ["ecg_id", "report"])}
        texts = {ORIGINAL: _by_split(entries, originals)}
        if (data_root / "reports" / "ptbxl").is_dir():
            texts[ENGLISH] = _by_split(entries, {entry.record_id: entry.report for entry in entries})
    if not any(readings for by_split in texts.values() for readings in by_split.values()):
        raise DataError(
            "no recording has both a report and coded statements",
            remedy="Choose another dataset for --check.",
            where=data_root / FOLDERS[dataset],
        )
    return Source(dataset, texts)


def _by_split(entries: Iterable[Entry], texts: Mapping[str, str | None]) -> dict[str, list[Reading]]:
    found: dict[str, list[Reading]] = {}
    for entry in entries:
        text = texts.get(entry.record_id)
        if text and entry.labels.statements is not None:
            codes = {BY_NAME[name].code: value for name, value in entry.labels.statements.items() if name in BY_NAME}
            found.setdefault(entry.split or "no split", []).append(Reading(text, codes))
    return found


def build_tables(source: Source, split: str, lexicon: Lexicon | None = None) -> list[Table]:
    """Overall figures of every split and kind of text, then of `split` each finding and the disagreements.

    Raises:
        DataError: the dataset has no report in this split.
    """
    lexicon = lexicon or bundled()
    first = next(iter(source.texts))
    chosen = source.texts[first].get(split)
    if not chosen:
        known = ", ".join(sorted(source.texts[first]))
        raise DataError(f"no labelled report is in the split {split!r}", remedy=f"Choose one of: {known}.")
    tables = [_overall(source, lexicon)]
    for kind, by_split in source.texts.items():
        if readings := by_split.get(split):
            tables += _details(f"{source.dataset}, {split}, {kind}", compare(readings, lexicon), lexicon)
    return tables


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.1f}"


def _overall(source: Source, lexicon: Lexicon) -> Table:
    rows = []
    for kind, by_split in source.texts.items():
        for split in sorted(by_split, key=("train", "valid", "test", "no split").index):
            readings = by_split[split]
            rows.append(_row(f"{split}, {kind}", readings, lexicon))
            if kind == ORIGINAL:
                for name in ("English", "German", "Swedish"):
                    some = [reading for reading in readings if language(reading.text) == name]
                    if some:
                        rows.append(_row(f"{split}, {kind}: {name}", some, lexicon))
    columns = ("reports of", "reports", "precision", "recall", "F1", "macro F1", "F1, doubt half", "F1, groups")
    everything = [reading for readings in next(iter(source.texts.values())).values() for reading in readings]
    count, ours, best = repeatable(everything, lexicon)
    notes = [
        "A finding counts as read if the report states it or calls it possible, and as coded whatever its likelihood. "
        "Macro: mean over the findings that are coded. Doubt half: the metric's weights, one half for what is said "
        "with doubt and for likelihoods from 1 to 99. Groups: the same after near synonyms and territories are merged."
    ]
    if count:
        notes.append(
            f"Where a text occurs more than once ({count:,} reports of all splits), the lexicon has F1 {ours:.1f}, and "
            f"no fixed reading of each text, not even one that knows the codes, has more than {best:.1f}."
        )
    notes.append(f"Lexicon {lexicon.version}-{lexicon.digest}.")
    return Table(f"The lexicon against the codes of {source.dataset}, %", columns, tuple(rows), tuple(notes))


def _row(name: str, readings: list[Reading], lexicon: Lexicon) -> tuple[str, ...]:
    found = compare(readings, lexicon)
    figures = (*found.micro.figures, found.macro_f1, found.weighed.figures[2], found.merged.figures[2])
    return (name, f"{len(readings):,}", *map(_number, figures))


def _details(title: str, found: Agreement, lexicon: Lexicon) -> list[Table]:
    by_size = sorted(found.by_code.items(), key=lambda item: (-(item[1].both + item[1].codes_only), item[0]))
    rows = [
        (
            f"{code}: {lexicon.names[code]}",
            *(f"{value:.0f}" for value in (counts.both, counts.report_only, counts.codes_only)),
            *map(_number, counts.figures),
        )
        for code, counts in by_size
    ]
    columns = ("finding", "in both", "report only", "codes only", "precision", "recall", "F1")
    added = ", ".join(f"{lexicon.names[code]} {count}" for code, count in found.added.most_common())
    each = Table(
        f"Each finding: {title}, %", columns, tuple(rows), (f"Read, but no code of PTB-XL: {added}.",) if added else ()
    )
    likelihoods = Table(
        f"Codes found in the report, by their likelihood: {title}",
        ("likelihood of the code, %", "coded", "found", "recall, %"),
        tuple(
            (name, str(of), str(hits), _number(100.0 * hits / of if of else float("nan")))
            for name, (hits, of) in found.by_likelihood.items()
        ),
    )
    return [each, likelihoods, _disagreements(title, found, lexicon)]


def _disagreements(title: str, found: Agreement, lexicon: Lexicon) -> Table:
    rows = []
    for (kind, read, coded), count in sorted(found.disagreements.items(), key=lambda item: (-item[1], item[0])):
        phrases = found.phrases[read].most_common(2) if read and not coded else []
        said = ", ".join(f'"{phrase}"' for phrase, _ in phrases)
        names = " for ".join(f"{code} ({lexicon.names[code]})" for code in (read, coded) if code)
        rows.append((kind, names, str(count), said))
    total: dict[str, int] = {}
    for (kind, _, _), count in found.disagreements.items():
        total[kind] = total.get(kind, 0) + count
    summary = "; ".join(f"{kind}: {sums:,}" for kind, sums in sorted(total.items(), key=lambda item: -item[1]))
    return Table(
        f"The commonest disagreements: {title}",
        ("kind", "finding", "how often", "as worded in reports"),
        tuple(rows[:COMMONEST]),
        (f"All {sum(total.values()):,} disagreements by kind: {summary}.",),
    )
