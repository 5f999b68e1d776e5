"""The examples of language-model training, written once and read by memory map.

    manifest.json   schema, fingerprint, finding names, counts
    tokens.npy      (K,) int32    all text ids, end to end
    pairs.npy       (P, 3) int64  first prompt token, first answer token, last-plus-one, of each question or report
    ecgs.npy        (E, 6) int64  token store number, row in it, first and last-plus-one feature token,
                                  first and last-plus-one pair
    findings.npy    (E, F) int8   reading targets: 1, 0, or -1 for "not labelled"

Training draws from these files and from token stores; it holds no example in memory and never opens a waveform.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from heartllm.codec.store import Codes, TokenStore, Values, ecg_of, fingerprint
from heartllm.data.records import Entry, Question
from heartllm.data.tabular import patient_features
from heartllm.errors import CheckpointError, DataError
from heartllm.language.packing import Ids, Packed, pack
from heartllm.language.prompts import ANSWER, Layout, answer_ids, answer_text, prefix_ids, prompt_ids, soft_values
from heartllm.language.vocabulary import Vocabulary
from heartllm.manifests import seal
from heartllm.texts import read_json
from heartllm.training.reading import finding_names, target_row
from heartllm.untrusted import read_array
from heartllm.writing import write_array, write_whole

SCHEMA = 2
FILES = ("tokens", "pairs", "ecgs", "findings")


@dataclass(frozen=True)
class ECGRow:
    """One recording's examples: its codes (views, N) or values (views, N, width), feature ids, and (prompt, answer) id
    pairs."""

    codes: Codes | Values
    features: Ids
    pairs: list[tuple[Ids, Ids]]
    findings: npt.NDArray[np.int8]


def example_fingerprint(stores: Sequence[TokenStore], vocabulary: Vocabulary, settings: object) -> str:
    """What the example files depend on."""
    data = [store.manifest["data"] for store in stores]
    return fingerprint(
        [SCHEMA, data, vocabulary.base, vocabulary.text("vocabulary check: 0123 sinus rhythm"), settings]
    )


def write_examples(
    folder: Path,
    sources: Sequence[tuple[int, TokenStore, Sequence[Entry], Mapping[str, Sequence[Question]]]],
    vocabulary: Vocabulary,
    *,
    mark: str,
    minimum: int = 10,
    features: bool = True,
    ask: bool = True,
    reports: int = 1,
    names: Sequence[str] | None = None,
    repeat: Mapping[int, int] | None = None,
) -> None:
    """Writes the example files of some token stores, entry by entry.

    Args:
        sources: (store number, store, entries, questions by record id).
        mark: fingerprint to keep beside the files.
        minimum: recordings that a finding needs, to be a reading target.
        features: write the patient features (TAB) before the ECG.
        ask: use the questions.
        reports: how many pairs ask for the report of an entry that has one.
        names: the findings to use; those with `minimum` recordings where None.
        repeat: store number -> how often its recordings appear in one pass.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if names is None:
        names = finding_names((entry.labels for _, _, entries, _ in sources for entry in entries), minimum)
    tokens: list[npt.NDArray[np.int32]] = []
    pairs: list[tuple[int, int, int]] = []
    ecgs: list[tuple[int, ...]] = []
    targets: list[npt.NDArray[np.int8]] = []
    used = 0

    def put(ids: Iterable[int]) -> tuple[int, int]:
        nonlocal used
        values = np.fromiter(ids, np.int32)
        tokens.append(values)
        used += len(values)
        return used - len(values), used

    cached: dict[str, Ids] = {}
    for number, store, entries, questions in sources:
        for entry in entries:
            if entry.record_id not in store.rows:
                continue  # left out, and listed, when the store was written
            first_feature, last_feature = put(vocabulary.text(patient_features(entry) + "\n") if features else [])
            first_pair = len(pairs)
            asked: list[tuple[str | None, str]] = [
                (q.question, answer_text(q.answer)) for q in (questions.get(entry.record_id, []) if ask else [])
            ]
            if entry.report:
                asked += [(None, entry.report)] * reports
            for question, answer in asked:
                key = question or ""
                if key not in cached:
                    cached[key] = prompt_ids(vocabulary, question)
                start, middle = put(cached[key])
                _, end = put(answer_ids(vocabulary, answer))
                pairs.append((start, middle, end))
            row = (number, store.rows[entry.record_id], first_feature, last_feature, first_pair, len(pairs))
            for _ in range((repeat or {}).get(number, 1)):
                ecgs.append(row)
                targets.append(target_row(entry.labels, list(names)))
    if not ecgs:
        raise DataError(
            "no recording of the token stores has a label, question or report", where=folder, remedy="Check the split."
        )
    arrays: dict[str, npt.NDArray[Any]] = {
        "tokens": np.concatenate(tokens) if tokens else np.zeros(0, np.int32),
        "pairs": np.array(pairs, np.int64).reshape(-1, 3),
        "ecgs": np.array(ecgs, np.int64),
        "findings": np.stack(targets),
    }
    for name, values in arrays.items():
        write_array(folder / f"{name}.npy", values)
    manifest = {
        "schema": SCHEMA,
        "mark": mark,
        "findings": list(names),
        "ecgs": len(ecgs),
        "pairs": len(pairs),
        "tokens": used,
    }
    manifest["sha256"] = seal(manifest, [folder / f"{name}.npy" for name in FILES])
    write_whole(folder / "manifest.json", json.dumps(manifest, indent=1))


class Examples:
    """Opened example files. Reading one recording's examples touches just its own pages."""

    def __init__(
        self, folder: Path, stores: Sequence[TokenStore], vocabulary: Vocabulary, mark: str | None = None
    ) -> None:
        try:
            manifest = read_json(folder / "manifest.json")
            self.tokens, self.pairs, self.ecgs, self.findings = (
                read_array(folder / f"{name}.npy", mmap="r") for name in FILES
            )
            if not isinstance(manifest, dict) or manifest.get("sha256") not in (
                None,  # of older versions
                seal(manifest, [folder / f"{name}.npy" for name in FILES]),
            ):
                raise ValueError("the hash in manifest.json is another one")
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"the examples cannot be read ({error})", where=folder, remedy="Delete it and start again."
            ) from None
        if manifest.get("schema") != SCHEMA or (mark is not None and manifest["mark"] != mark):
            raise CheckpointError(
                "holds examples of other data or settings", where=folder, remedy="Give another --out."
            )
        self.names: list[str] = manifest["findings"]
        self.stores, self.vocabulary = list(stores), vocabulary

    def __len__(self) -> int:
        return len(self.ecgs)

    def row(self, index: int) -> ECGRow:
        """The examples of one recording."""
        store, row, first_feature, last_feature, first_pair, last_pair = (int(v) for v in self.ecgs[index])
        tokens = self.tokens
        pairs = [
            (tokens[a:b].astype(np.int64), tokens[b:c].astype(np.int64))
            for a, b, c in self.pairs[first_pair:last_pair].tolist()
        ]
        features = tokens[first_feature:last_feature].astype(np.int64)
        return ECGRow(self.stores[store].codes[row], features, pairs, self.findings[index])


@dataclass(frozen=True)
class Drawing:
    """How a training sequence is drawn from a recording's examples.

    Attributes:
        questions: at most so many questions a sequence, drawn without replacement.
        crop: at most so many codes are left out at the front (a later start of the same ECG).
        flip: share of FSQ digits that move one level, as if the ECG were a little noisier. Where codes have no digits
            nothing of the kind is done.
        blind: leave the ECG out altogether (the control that is trained without one).
        features: share of the sequences that show the patient features.
        views: draw among the recording's tokenisations; else the first, that of the recording as it is.
        layout: "ecg-first" packs all drawn questions behind one ECG; "question-first" is the paper's order, one
            question before the ECG, and so one question a sequence.
    """

    questions: int = 16
    crop: int = 60
    flip: float = 0.03
    blind: bool = False
    features: float = 0.8
    views: bool = True
    layout: Layout = "ecg-first"


EXACT = Drawing(questions=10_000, crop=0, flip=0.0, features=1.0, views=False)  # for validation


def draw_sequence(
    row: ECGRow, vocabulary: Vocabulary, levels: tuple[int, ...], how: Drawing, rng: np.random.Generator
) -> Packed:
    """One packed sequence of a recording: features, ECG, and some of its questions."""
    codes = ecg_of(row.codes[int(rng.integers(len(row.codes))) if how.views else 0])
    if how.crop:
        codes = codes[int(rng.integers(how.crop + 1)) :]
    if how.flip and levels:
        codes = move_digits(codes, levels, how.flip, rng)
    shown = row.features if rng.random() < how.features else row.features[:0]
    pairs, most = row.pairs, min(how.questions, 1) if how.layout == "question-first" else how.questions
    if len(pairs) > most:
        pairs = [pairs[i] for i in rng.choice(len(pairs), most, replace=False)]
    if how.layout == "question-first" and pairs:
        front, prompt = split_prompt(pairs[0][0], vocabulary)
        shown, pairs = np.concatenate([shown, front]), [(prompt, pairs[0][1])]
    body, ecg = prefix_ids(vocabulary, "", None if how.blind else codes)
    head = len(vocabulary.bos)
    prefix = np.concatenate([body[:head], shown, body[head:]])
    span = None if how.blind else (ecg[0] + len(shown), ecg[1] + len(shown))
    return pack(prefix, pairs, span, None if how.blind else soft_values(codes))


def split_prompt(prompt: Ids, vocabulary: Vocabulary) -> tuple[Ids, Ids]:
    """A prompt's ids -> what stands before the ECG in the paper's order, and what stands after it ("Answer:")."""
    marker = np.array(vocabulary.text(ANSWER), np.int64)
    if len(prompt) > len(marker) and np.array_equal(prompt[-len(marker) :], marker):
        return prompt[: -len(marker)], marker
    return prompt[:0], prompt  # the request for a report, which follows the ECG in both orders


def move_digits(codes: Ids, levels: tuple[int, ...], share: float, rng: np.random.Generator) -> Ids:
    """Moves each FSQ digit of each code one level up or down with probability `share`, within its range."""
    result, radix = np.zeros_like(codes), 1
    for level in levels:
        digit = codes // radix % level
        step = rng.choice((-1, 1), len(codes)) * (rng.random(len(codes)) < share)
        result += np.clip(digit + step, 0, level - 1) * radix
        radix *= level
    return result


def order(count: int, seed: int) -> Iterator[int]:
    """Endless passes over `range(count)`: all of it once a pass, each pass in another order, in constant memory."""
    position = 0
    while True:
        yield at(position, count, seed)
        position += 1


def at(position: int, count: int, seed: int) -> int:
    """The element at `position` of `order`, without what comes before it.

    A Feistel network (Luby and Rackoff, SIAM J. Comput. 1988) permutes the next larger square number of values; results
    outside `range(count)` are permuted again until one lies inside (cycle walking), which keeps it one-to-one.
    """
    turn, value = divmod(position, count)
    bits = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << bits) - 1
    keys = np.random.default_rng((seed, turn)).integers(1 << 32, size=6).tolist()
    while True:
        left, right = value >> bits, value & mask
        for key in keys:
            left, right = right, left ^ (((right ^ key) * 0x9E3779B1 & 0xFFFFFFFF) >> 13 & mask)
        value = left << bits | right
        if value < count:
            return value
