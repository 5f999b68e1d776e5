"""Do attention and occlusion fall on the finding? Measured on synthetic ECGs, where it is known where that lies.

Asked is ECG-QA's question after each finding, of recordings that show it for certain, with the true answer "yes". The
mask is the finding's own time (`heartllm.data.synthetic.located`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from heartllm.data.synthetic.located import KINDS
from heartllm.errors import DataError
from heartllm_eval.coverage import SHARE, auc, coverage
from heartllm_eval.figures.attention_maps import (
    ATTENTION,
    BEATS,
    CYCLE,
    LEAD_GROUPS,
    PLACE,
    ROLLOUT,
    SHUFFLED,
    SHUFFLED_ROLLOUT,
    Maps,
)
from heartllm_eval.statistics import bootstrap

if TYPE_CHECKING:
    from heartllm.data.records import Entry
    from heartllm.data.synthetic.located import Located
    from heartllm.responder import Responder

Row = dict[str, Any]
Floats = npt.NDArray[np.float64]

OTHER, OTHER_CYCLE, OTHER_LOOK = (f"{name}, another question's" for name in (BEATS, CYCLE, ATTENTION))
METHODS = (BEATS, CYCLE, PLACE, ATTENTION, ROLLOUT, OTHER, OTHER_CYCLE, OTHER_LOOK, SHUFFLED, SHUFFLED_ROLLOUT)
MEASURES = ("covered", "precision", "auc", "shift_rank")
EVERY, AFFIRMED, READ = "all", "answered yes", "read off the ECG"  # which findings a mean is over
READ_DROP = 1.0  # nats that the right answer loses without the ECG's own beats, for a finding to count as read off it
YES, NO = "yes", "no"


@dataclass(frozen=True)
class Target:
    """A finding that a question asks for and whose place is known."""

    name: str
    question: str
    place: Located


def targets_of(entry: Entry, places: Mapping[str, Located]) -> list[Target]:
    """The located findings of a recording that its labels affirm for certain, as questions."""
    from heartllm.data.question_views import found_in
    from heartllm.data.templates import all_asked

    found = []
    for view, template in (("statement", 1), ("noise", 27)):
        sure = found_in(entry.labels, view, "") or set()
        texts = {asked.attribute[0]: asked.text for asked in all_asked() if asked.template.id == template}
        found += [Target(name, texts[name], places[name]) for name in sorted(sure & places.keys() & texts.keys())]
    return found


def choose(
    records: Sequence[str],
    targets: Callable[[str], Sequence[Target]],
    per_kind: int,
    seed: int,
    kinds: Sequence[str] = KINDS,
) -> dict[str, list[Target]]:
    """Recording -> its targets, at most one a kind, until every kind has `per_kind` (or there are no more).

    Recordings come in the order of the hash of seed and id; of several findings of a kind the one chosen least so far
    is taken, so that common ones do not crowd out rare ones.

    Args:
        targets: gives the targets of a recording, see `targets_of`.
        kinds: only findings of these.
    """
    counts = dict.fromkeys(kinds, 0)
    names: dict[str, int] = {}
    chosen: dict[str, list[Target]] = {}
    for record in sorted(records, key=lambda name: hashlib.sha256(f"{seed}\x1f{name}".encode()).digest()):
        wanted = {kind for kind, count in counts.items() if count < per_kind}
        if not wanted:
            break
        offered = [target for target in targets(record) if target.place.kind in wanted]
        for kind in sorted({target.place.kind for target in offered}):
            some = [target for target in offered if target.place.kind == kind]
            best = min(some, key=lambda target: (names.get(target.name, 0), target.name))
            names[best.name] = names.get(best.name, 0) + 1
            counts[kind] += 1
            chosen.setdefault(record, []).append(best)
    return chosen


def says_yes(responder: Responder, codes: npt.NDArray[Any], features: str, questions: Sequence[str]) -> Floats:
    """(Q,) log p(yes) - log p(no) in nats of the whole answers."""
    from heartllm.language.generation import ResponderItem

    shown = features if responder.config.features else ""
    scores = responder.option_scores(ResponderItem("", codes, None, shown), questions, [YES, NO])
    found: Floats = scores[:, 0] - scores[:, 1]
    return found


def sample_rows(
    targets: Sequence[Target], maps: Maps, margins: Floats, about: Mapping[str, str]
) -> tuple[list[Row], list[Row]]:
    """The coverage rows of one ECG, one a finding and method, and its rows of single heads (AUC only).

    Args:
        margins: (Q,) of `says_yes`.
        about: columns that all rows carry (dataset, recording, patient).
    """
    from heartllm.data.synthetic.located import window_mask

    rows, heads = [], []
    for index, target in enumerate(targets):
        mask = window_mask(target.place.spans, maps.scores[BEATS].shape[1])
        if not 0 < mask.sum() < len(mask):
            continue
        common = {**about, "finding": target.name, "kind": target.place.kind, "answered": bool(margins[index] > 0)}
        scores = {name: values[index] for name, values in maps.scores.items()}
        another = [row for row, other in enumerate(targets) if other.place.kind != target.place.kind]
        if another:
            for name, others in ((BEATS, OTHER), (CYCLE, OTHER_CYCLE), (ATTENTION, OTHER_LOOK)):
                if name in maps.scores:
                    scores[others] = maps.scores[name][another[0]]
        for name, values in scores.items():
            found = coverage(values, mask)
            rows.append(
                {
                    **common,
                    "method": name,
                    **{measure: getattr(found, measure) for measure in (*MEASURES, "marked", "ceiling")},
                    "agreement": _rank_correlation(values, maps.scores[BEATS][index]),
                    "whole_drop": maps.whole[index],
                    "ecg_share": maps.share[index],
                    "lead_group_found": _found_group(maps.groups[index], target.place.leads),
                    "lead_group_chance": _group_chance(target.place.leads),
                }
            )
        for layer, head in np.ndindex(maps.heads.shape[1:3]):
            heads.append({**common, "layer": layer, "head": head, "auc": auc(maps.heads[index, layer, head], mask)})
    return rows, heads


def _true_groups(leads: Sequence[str]) -> list[bool]:
    """Which lead groups lie wholly or by most of their leads in the finding's leads."""
    return [2 * len(set(group) & set(leads)) > len(group) for group in LEAD_GROUPS.values()]


def _found_group(drops: Floats, leads: Sequence[str]) -> float | None:
    """1 if the lead group that costs most is one of the finding's; None where the finding has no lead group."""
    true = _true_groups(leads)
    return float(true[int(np.argmax(drops))]) if 0 < sum(true) < len(true) else None


def _group_chance(leads: Sequence[str]) -> float | None:
    true = _true_groups(leads)
    return sum(true) / len(true) if 0 < sum(true) < len(true) else None


def _rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's; 0 where either is flat."""
    if min(float(np.ptp(a)), float(np.ptp(b))) == 0:
        return 0.0
    first, second = (
        np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64) for values in (a, b)
    )
    return float(np.corrcoef(first, second)[0, 1])


def summarise(rows: Sequence[Mapping[str, Any]], *, resamples: int = 2000, seed: int = 0) -> list[Row]:
    """Means by method, kind of finding and answer, with intervals from a bootstrap by patient.

    Rows are kind ("all" over all kinds), which findings are counted, method, measure. Counted are all findings; those
    that the model affirms; and of these the ones whose answer hangs on the ECG: replacing all of it costs `READ_DROP`
    nats. A map cannot point at what an answer was not read off. That choice knows nothing of places, but it favours the
    kinds that the model reads best; and it was made after a first measurement (30 findings of the same site) was seen.

    Raises:
        DataError: without rows.
    """
    if not rows:
        raise DataError("nothing was measured", remedy="Take more recordings, or another split.")
    found: list[Row] = []
    kinds = ("all", *dict.fromkeys(row["kind"] for row in rows))
    methods = [name for name in METHODS if any(row["method"] == name for row in rows)]
    for kind in kinds:
        for whose in (EVERY, AFFIRMED, READ):
            part = [row for row in rows if kind in ("all", row["kind"]) and _counts(row, whose)]
            for method in methods:
                chosen = [row for row in part if row["method"] == method]
                measures = [*MEASURES, "agreement"] + (["lead_group_found"] if method == BEATS else [])
                for measure in measures:
                    scored = [row for row in chosen if row[measure] is not None]
                    if scored:
                        found.append(
                            {"kind": kind, "findings": whose, "method": method, "measure": measure}
                            | _mean(scored, measure, resamples, seed)
                        )
    return found


def _counts(row: Mapping[str, Any], whose: str) -> bool:
    return whose == EVERY or bool(row["answered"] and (whose == AFFIRMED or row["whole_drop"] >= READ_DROP))


def _mean(rows: Sequence[Mapping[str, Any]], measure: str, resamples: int, seed: int) -> Row:
    chances: dict[str, Callable[[Mapping[str, Any]], float]] = {
        "covered": lambda row: SHARE,
        "precision": lambda row: row["marked"],
        "auc": lambda row: 0.5,
        "shift_rank": lambda row: 0.5,
        "agreement": lambda row: 0.0,
        "lead_group_found": lambda row: row["lead_group_chance"],
    }
    statistics = np.array([[row[measure], 1.0] for row in rows], dtype=np.float64)
    patients = [str(row["patient"]) for row in rows]
    (result,) = bootstrap(
        statistics, patients, lambda sums: sums[..., :1] / sums[..., 1:], resamples=resamples, seed=seed
    )
    return {
        "value": result.value,
        "low": result.low,
        "high": result.high,
        "chance": float(np.mean([chances[measure](row) for row in rows])),
        "samples": len(rows),
        "patients": len(set(patients)),
    }


def head_table(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Mean AUC of every layer and head, best first. The best of many heads is chosen after the fact: read it so."""
    grouped: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        grouped.setdefault((int(row["layer"]), int(row["head"])), []).append(float(row["auc"]))
    table = [{"layer": a, "head": b, "auc": float(np.mean(v)), "samples": len(v)} for (a, b), v in grouped.items()]
    return sorted(table, key=lambda row: (-float(row["auc"]), row["layer"], row["head"]))


def site_folder(root: Sequence[Path], dataset: str) -> Path:
    """The folder of a synthetic site below the data roots.

    Raises:
        DataError: if none holds it.
    """
    for folder in root:
        if (folder / dataset / "complete.json").is_file():
            return folder / dataset
    raise DataError(
        f"no finished synthetic site {dataset!r}", where=", ".join(map(str, root)), remedy="Name its data root."
    )
