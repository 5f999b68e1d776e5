"""What a language model is trained on, gathered: token stores, drawn questions, text, example files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from heartllm.codec.store import TokenStore
from heartllm.data import answers
from heartllm.data.dataset import Dataset
from heartllm.data.questions import QuestionBuilder
from heartllm.data.records import Entry, Question
from heartllm.data.tabular import patient_features
from heartllm.language.model import ECGLanguageModel
from heartllm.language.prompts import ANSWER, QUESTION, REPORT, answer_text
from heartllm.language.vocabulary import train_text_tokenizer
from heartllm.recipe import QuestionSettings, Recipe
from heartllm.training.examples import Examples, example_fingerprint, write_examples


def questions_of(entries: Sequence[Entry], settings: QuestionSettings, split: str) -> dict[str, list[Question]]:
    """Drawn questions by record id: several draws for training, one in template wording for validation."""
    builder = partial(QuestionBuilder, min_positives=settings.min_positives, no_per_yes=settings.no_per_yes)
    everything, verify = builder(), builder(templates=[1])
    draws = [everything] if split != "train" else [everything] * settings.draws + [verify] * settings.verify_draws
    found: dict[str, list[Question]] = {}
    for number, source in enumerate(draws):
        paraphrase = number % 2 == 1
        for question in source.draw(entries, per_cell=settings.per_cell, seed=1000 + number, paraphrase=paraphrase):
            found.setdefault(question.ecg_id[0], []).append(question)
    return found


def some_patients(entries: Sequence[Entry], most: int) -> list[Entry]:
    """At most `most` recordings, of whole patients, in the given order; a larger choice holds every smaller one."""
    order = sorted({entry.patient_id for entry in entries}, key=lambda patient: sha256(patient.encode()).digest())
    counts = Counter(entry.patient_id for entry in entries)
    chosen, used = set[str](), 0
    for patient in order:
        if used + counts[patient] > most:
            break
        chosen.add(patient)
        used += counts[patient]
    return [entry for entry in entries if entry.patient_id in chosen]


def corpus(entries: Iterable[Entry], questions: Mapping[str, Sequence[Question]]) -> Iterator[str]:
    """What a text tokenizer should know: questions, answers, reports, patient features."""
    for entry in entries:
        yield patient_features(entry) + "\n"
        if entry.report:
            yield f"{REPORT} {entry.report}"
        for question in questions.get(entry.record_id, ()):
            yield f"{QUESTION}{question.question}{ANSWER} {answer_text(question.answer)}"


class Workshop:
    """Token stores, questions and examples of the datasets a language model is trained on."""

    def __init__(self, recipe: Recipe, tokens: Path, datasets: Sequence[Dataset], codec_hash: str) -> None:
        self.recipe, self.datasets = recipe, list(datasets)
        self.stores: dict[str, list[TokenStore]] = {
            split: [TokenStore.open(tokens / dataset.name / split, codec_hash) for dataset in datasets]
            for split in ("train", "valid")
        }
        self.entries = {split: [dataset.entries(split) for dataset in datasets] for split in self.stores}
        if recipe.recordings:
            self.entries["train"] = [some_patients(part, recipe.recordings) for part in self.entries["train"]]
        self.questions = {
            split: [questions_of(entries, recipe.questions, split) for entries in self.entries[split]]
            for split in self.stores
        }

    def data_hashes(self) -> tuple[str, ...]:
        return tuple(f"{store.manifest['dataset']}:{store.manifest['data']}" for store in self.stores["train"])

    def answers(self) -> Mapping[str, int]:
        """How often each answer is given in training: what an evaluation takes as seen."""
        return answers.count_answers(one for part in self.questions["train"] for some in part.values() for one in some)

    def text_tokenizer(self) -> Any:
        """A BPE tokenizer of the training texts."""
        pairs = zip(self.entries["train"], self.questions["train"], strict=True)
        return train_text_tokenizer(
            (text for entries, questions in pairs for text in corpus(entries, questions)),
            self.recipe.language.tiny.vocabulary,
        )

    def examples(self, model: ECGLanguageModel, out: Path) -> tuple[Examples, Examples]:
        """The example files of both splits, written if they are not there yet."""
        settings, opened = self.recipe.questions, list[Examples]()
        repeats = [self.recipe.repeats().get(dataset.name, 1) for dataset in self.datasets]
        names: list[str] | None = None
        for split, stores in self.stores.items():
            folder = out / split
            mark = example_fingerprint(stores, model.vocabulary, [settings, repeats, self.recipe.recordings])
            if not (folder / "manifest.json").exists():
                write_examples(
                    folder,
                    [
                        (i, s, e, q)
                        for i, (s, e, q) in enumerate(
                            zip(stores, self.entries[split], self.questions[split], strict=True)
                        )
                    ],
                    model.vocabulary,
                    mark=mark,
                    minimum=settings.min_findings,
                    features=settings.features,
                    ask=settings.ask,
                    reports=(settings.report_copies if split == "train" else 1) if settings.reports else 0,
                    names=names,
                    repeat=dict(enumerate(repeats)) if split == "train" else None,
                )
            opened.append(Examples(folder, stores, model.vocabulary, mark))
            names = opened[0].names
        return opened[0], opened[1]
