"""The measurement behind figure 4 a-b: recordings chosen, maps made, numbers and examples written to files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from heartllm.errors import DataError
from heartllm.writing import write_whole
from heartllm_eval.figures import style
from heartllm_eval.figures.attention_maps import ATTENTION, BEATS, Lenders, Settings, lead_windows, look
from heartllm_eval.figures.attention_measures import (
    YES,
    Target,
    choose,
    head_table,
    sample_rows,
    says_yes,
    site_folder,
    summarise,
    targets_of,
)
from heartllm_eval.schema import cluster_id

if TYPE_CHECKING:
    from heartllm.data.records import Entry
    from heartllm.ecg.recording import Recording
    from heartllm.responder import Responder
    from heartllm_eval.requests import Workspace

SCHEMA = 1
SHOWN_RATE = 250  # Hz of the example signals: what a printed figure can show
LENT = 60  # recordings that lend beats
EXAMPLE_KIND = "extra beats"
EXAMPLE_STATEMENT = "ventricular premature complex"  # asked of real recordings, whose beats are not marked
CREDITS = {"ptbxl": "PTB-XL record {record} (Wagner et al. 2020, CC BY 4.0)"}


@dataclass(frozen=True)
class Example:
    """One ECG of the figure.

    Attributes:
        title: the question and the answer.
        source: where the ECG is from, with its licence where it has one; synthetic: it is no person's.
        signal: (12, T) microvolts at `SHOWN_RATE`.
        maps: method -> (N,) scores.
        lead_groups: (groups, N) occlusion by lead group and window.
        spans: (K, 2) seconds of the finding where it is known, else empty.
    """

    title: str
    source: str
    synthetic: bool
    signal: list[list[int]]
    maps: dict[str, list[float]]
    lead_groups: list[list[float]]
    spans: list[list[float]]


def measure(
    responder: Responder,
    workspace: Workspace,
    datasets: Sequence[str],
    parts: Path,
    *,
    split: str,
    per_kind: int,
    settings: Settings,
    kinds: Sequence[str] = (),
    say: Callable[[str], object] = lambda text: None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[Example]]:
    """Coverage rows and rows of single heads over synthetic data sets, and one example of the first of them.

    The example is the ECG with extra beats, affirmed by the model, whose coverage by occlusion is the median one.

    Args:
        parts: a folder for what is done; an interrupted measurement goes on from there.
        kinds: of findings, all by default.
    """
    from heartllm.data.synthetic.located import KINDS, locate, redraw

    rows: list[dict[str, Any]] = []
    heads: list[dict[str, Any]] = []
    for dataset in datasets:
        folder = site_folder(workspace.data_roots, dataset)
        entries = {entry.record_id: entry for entry in workspace.entries(dataset, split)}

        def targets(record: str, folder: Path = folder, entries: Mapping[str, Entry] = entries) -> list[Target]:
            return targets_of(entries[record], locate(redraw(folder, record)))

        chosen = choose(list(entries), targets, per_kind, settings.seed, kinds or KINDS)
        lenders: Lenders | None = None
        for number, (record, asked) in enumerate(chosen.items()):
            part = parts / f"{dataset}-{record}.json"
            if not part.exists():
                if lenders is None:
                    lenders = _lenders(workspace, dataset, list(entries.values()), settings.seed)
                done = _measure_one(responder, workspace, dataset, entries[record], asked, lenders, settings)
                _write(part, json.dumps(done))
            done = json.loads(part.read_text(encoding="utf-8"))
            rows += done["rows"]
            heads += done["heads"]
            say(f"{dataset} {number + 1}/{len(chosen)}")
    middle = _median_example(rows, datasets[0])
    if middle is None:
        return rows, heads, []
    dataset, (record, finding) = datasets[0], middle
    entry = workspace.entry(dataset, record)
    (target,) = [
        target
        for target in targets_of(entry, locate(redraw(site_folder(workspace.data_roots, dataset), record)))
        if target.name == finding
    ]
    lenders = _lenders(workspace, dataset, workspace.entries(dataset, split), settings.seed)
    recording, rng = workspace.read(dataset, record), np.random.default_rng([settings.seed, 1])
    pair = (target.question, YES)
    by_group = lead_windows(responder, recording, entry.patient_id, _features(entry), pair, lenders, settings, rng)
    scores = json.loads((parts / f"{dataset}-{record}.json").read_text(encoding="utf-8"))["scores"][finding]
    source = f"synthetic recording {record} of {dataset}"
    spans = target.place.spans.tolist()
    return rows, heads, [_example(target.question, source, recording, scores, by_group, spans)]


def _measure_one(
    responder: Responder,
    workspace: Workspace,
    dataset: str,
    entry: Entry,
    targets: Sequence[Target],
    lenders: Lenders,
    settings: Settings,
) -> dict[str, Any]:
    """Coverage rows, rows of heads, and finding -> method -> scores of one ECG."""
    recording, features = workspace.read(dataset, entry.record_id), _features(entry)
    rng = np.random.default_rng([settings.seed, int(entry.record_id)])
    questions = [target.question for target in targets]
    pairs = [(question, YES) for question in questions]
    maps = look(responder, recording, entry.patient_id, features, pairs, lenders, settings, rng)
    margins = says_yes(responder, responder.encode(recording), features, questions)
    about = {"dataset": dataset, "recording": entry.record_id, "patient": cluster_id(dataset, entry.patient_id)}
    rows, heads = sample_rows(targets, maps, margins, about)
    scores = {
        target.name: {name: values[index].tolist() for name, values in maps.scores.items()}
        for index, target in enumerate(targets)
    }
    return {"rows": rows, "heads": heads, "scores": scores}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def real_example(
    responder: Responder, workspace: Workspace, dataset: str, *, split: str, settings: Settings
) -> Example | None:
    """The first recording (in the order of a hash) of a real data set that shows extra beats and is told to do so."""
    from heartllm.data.question_views import found_in
    from heartllm.data.templates import all_asked

    (question,) = [
        asked.text for asked in all_asked() if asked.template.id == 1 and asked.attribute == (EXAMPLE_STATEMENT,)
    ]
    entries = workspace.entries(dataset, split)
    rng = np.random.default_rng([settings.seed, 2])
    for index in rng.permutation(len(entries)):
        entry = entries[index]
        if EXAMPLE_STATEMENT not in (found_in(entry.labels, "statement", "") or set()):
            continue
        recording = workspace.read(dataset, entry.record_id)
        if says_yes(responder, responder.encode(recording), _features(entry), [question])[0] <= 0:
            continue
        lenders = _lenders(workspace, dataset, entries, settings.seed)
        about = (responder, recording, entry.patient_id, _features(entry))
        maps = look(*about, [(question, YES)], lenders, settings, rng)
        by_group = lead_windows(*about, (question, YES), lenders, settings, rng)
        source = CREDITS.get(dataset, dataset + " record {record}").format(record=entry.record_id)
        scores = {name: values[0].tolist() for name, values in maps.scores.items()}
        return _example(question, source, recording, scores, by_group, [], synthetic=False)
    return None


def _features(entry: Entry) -> str:
    from heartllm.data.tabular import patient_features

    return patient_features(entry)


def _lenders(workspace: Workspace, dataset: str, entries: Sequence[Entry], seed: int) -> Lenders:
    chosen = np.random.default_rng([seed, 3]).permutation(len(entries))[:LENT]
    return Lenders([(entries[i].patient_id, workspace.read(dataset, entries[i].record_id)) for i in chosen])


def _median_example(rows: Sequence[Mapping[str, Any]], dataset: str) -> tuple[str, str] | None:
    some = [
        row
        for row in rows
        if (row["dataset"], row["kind"], row["method"], row["answered"]) == (dataset, EXAMPLE_KIND, BEATS, True)
    ]
    some.sort(key=lambda row: (row["covered"], row["recording"]))
    return (some[len(some) // 2]["recording"], some[len(some) // 2]["finding"]) if some else None


def _example(
    question: str,
    source: str,
    recording: Recording,
    scores: Mapping[str, Sequence[float]],
    by_group: npt.NDArray[np.float64],
    spans: list[list[float]],
    *,
    synthetic: bool = True,
) -> Example:
    from scipy.signal import resample_poly

    shown = resample_poly(recording.signal, SHOWN_RATE, round(recording.sampling_rate), axis=1) * 1000
    return Example(
        title=f"{question} – {YES}",
        source=source,
        synthetic=synthetic,
        signal=np.round(shown).astype(int).tolist(),
        maps={name: [float(f"{value:.5g}") for value in values] for name, values in scores.items()},
        lead_groups=[[float(f"{value:.5g}") for value in row] for row in by_group],
        spans=[[round(float(edge), 4) for edge in span] for span in spans],
    )


def write(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    heads: Sequence[Mapping[str, Any]],
    examples: Sequence[Example],
    about: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Writes `samples.csv`, `summary.csv`, `heads.csv` and `examples.json` to `folder`; returns the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(rows)
    for name, table in (("samples", rows), ("summary", summary), ("heads", head_table(heads))):
        write_whole(folder / f"{name}.csv", style.csv_text(table, where=name))
    content = {"schema": SCHEMA, **about, "examples": [asdict(example) for example in examples]}
    write_whole(folder / "examples.json", json.dumps(content) + "\n")
    return summary


def read_examples(path: Path) -> tuple[list[Example], dict[str, Any]]:
    """The examples that `write` wrote, and what was written about the measurement.

    Raises:
        DataError: where they cannot be read.
    """
    remedy = "Run `heartllm-eval measure attention` again."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise DataError(f"has schema {content['schema']}, not {SCHEMA}", where=path, remedy=remedy)
        examples = [Example(**example) for example in content.pop("examples")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot be read ({error})", where=path, remedy=remedy) from None
    for example in examples:
        if not {ATTENTION, BEATS} <= example.maps.keys() or len(example.signal) != 12:
            raise DataError("lacks a map or a lead", where=path, remedy=remedy)
    return examples, content
