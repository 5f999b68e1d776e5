"""The stages as folders: each function reads what the one before it wrote, and can be stopped and started again.

runs/tokenizer  ->  runs/tokens/<dataset>/<split>  ->  runs/forecast  ->  runs/checkpoint
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from heartllm.checkpoint import (
    CheckpointConfig,
    load_codec,
    load_frontend,
    load_language,
    load_text_side,
    new_language,
    save_frontend,
    save_language,
    verify,
    write_manifest,
)
from heartllm.codec.report import codec_stage_report
from heartllm.codec.store import TokenStore, fingerprint
from heartllm.config import dumps
from heartllm.data import answers
from heartllm.data.dataset import DATA_VARIABLE, FOLDERS, Dataset, open_dataset
from heartllm.data.dataset_check import BadRecords, read_all
from heartllm.data.questions import QuestionBuilder
from heartllm.data.records import Entry, Question
from heartllm.data.tabular import patient_features
from heartllm.ecg.recording import Recording
from heartllm.errors import UsageError
from heartllm.frontends.base import FrontEnd
from heartllm.frontends.fsq import FSQCodes
from heartllm.frontends.tokenise import write_store
from heartllm.language.model import ECGLanguageModel, choose_trained
from heartllm.language.vocabulary import train_text_tokenizer
from heartllm.recipe import QuestionSettings, Recipe
from heartllm.training.examples import Examples, example_fingerprint, write_examples
from heartllm.training.language import train_language
from heartllm.training.tokenizer import Waveforms, cache_waveforms

Say = Callable[[str], object]


def find_dataset(name: str, roots: Sequence[Path]) -> Dataset:
    """Opens `name` in the first data root that has it.

    HEARTLLM_DATA comes last; it may name several folders, with the system's path separator.
    """
    places = [*roots, *(Path(part) for part in os.environ.get(DATA_VARIABLE, "").split(os.pathsep) if part)]
    if not places:
        remedy = f"Pass --data_root FOLDER or set {DATA_VARIABLE}."
        raise UsageError("no data root is given", where="--data_root", remedy=remedy)
    folder = FOLDERS.get(name, name)
    return open_dataset(name, next((root for root in places if (root / folder).is_dir()), places[0]).absolute())


def tokenizer_stage(
    recipe: Recipe,
    datasets: Sequence[Dataset],
    out: Path,
    *,
    text: Path | None = None,
    device: str | None = None,
    say: Say = print,
    max_bad_share: float = 0.01,
) -> None:
    """Trains the recipe's front-end on the train splits and writes it to `out`, all frozen.

    Validation uses the first dataset's valid split.

    Args:
        text: checkpoint whose language model is the text side of front-ends that are trained against text.
    """
    if (out / "manifest.json").exists():
        verify(out)
        say(f"{out}: the front-end is there already")
        return
    how = recipe.frontend.on(device)
    side = None if text is None else load_text_side(text)
    cache = out / "waveforms"
    cache.mkdir(parents=True, exist_ok=True)
    reports: dict[str, list[str | None]] = {}

    def read(split: str, chosen: Sequence[Dataset]) -> Waveforms:
        entries = [(dataset, dataset.entries(split)) for dataset in chosen]
        count = sum(len(part) for _, part in entries)
        reports[split] = []

        def recordings() -> Iterator[Recording]:
            for dataset, part in entries:
                for entry, recording in read_all(dataset, part, max_bad_share=max_bad_share, nan_policy="interpolate"):
                    reports[split].append(entry.report)
                    yield recording

        waveforms = cache_waveforms(recordings(), count, cache / f"{split}.npy")
        say(f"{split}: {len(waveforms)} recordings, {count - len(waveforms)} left out")
        return waveforms

    train, valid = read("train", datasets), read("valid", datasets[:1])
    front, log = how.train(
        train, valid, out / "run", reports=reports["train"], valid_reports=reports["valid"], text=side
    )
    if log:
        say(f"{front.kind}: " + ", ".join(f"{name} {value:.4g}" for name, value in log[-1].items()))
    save_frontend(front, out)
    (out / "training").mkdir(exist_ok=True)
    lines = "".join(json.dumps(line) + "\n" for line in log)
    (out / "training" / "tokenizer.jsonl").write_text(lines, encoding="utf-8")
    shutil.rmtree(out / "run", ignore_errors=True)
    shutil.rmtree(cache)
    write_manifest(out)


def tokenize_stage(
    recipe: Recipe,
    codec_folder: Path,
    datasets: Sequence[Dataset],
    out: Path,
    *,
    splits: Sequence[str] = ("train", "valid", "test"),
    device: str | None = None,
    say: Say = print,
    max_bad_share: float = 0.01,
) -> None:
    """Writes `out/<dataset>/<split>` token stores; only the train split gets several views."""
    verify(codec_folder)
    front, codec_hash = load_frontend(codec_folder)
    check_kind(recipe, front, codec_folder)
    front.to(device or "cpu")
    for dataset in datasets:
        for split in splits:
            entries = dataset.entries(split)
            if not entries:
                continue
            bad = BadRecords(allowed=1.0)  # the share is judged over the whole split, below, not block by block
            recordings = partial(read_all, dataset, bad=bad, nan_policy="interpolate")
            folder = out / dataset.name / split
            views = recipe.views if split == "train" else 1
            with progress_bar(f"{dataset.name} {split}", len(entries)) as advance:
                store = write_store(
                    folder, front, codec_hash, entries, recordings, dataset=dataset.name, views=views, progress=advance
                )
            BadRecords(max_bad_share, len(entries), bad.records).check(folder)
            left = f"; left out {', '.join(record.record_id for record in bad.records[:5])}" if bad.records else ""
            say(f"{folder}: {len(store)} recordings, {views} views{left}")


def check_kind(recipe: Recipe, front: FrontEnd, folder: Path) -> None:
    """Refuses a front-end of another kind than the recipe names: the result would bear the recipe's name.

    Raises:
        UsageError: naming both.
    """
    if front.kind != recipe.frontend.kind:
        raise UsageError(
            f"holds the front-end {front.kind!r}, but the recipe says {recipe.frontend.kind!r}",
            where=folder,
            remedy="Give the --recipe that it was trained with, or the folder of the recipe's front-end.",
        )


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on the terminal (nothing elsewhere); gives the function that tells how many are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done)


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


def corpus(entries: Iterable[Entry], questions: Mapping[str, Sequence[Question]]) -> Iterator[str]:
    """What a text tokenizer should know: questions, answers, reports, patient features."""
    from heartllm.language.prompts import ANSWER, QUESTION, REPORT, answer_text

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
            mark = example_fingerprint(stores, model.vocabulary, [settings, repeats])
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


def language_stage(
    stage: str,
    recipe: Recipe,
    start: Path,
    tokens: Path,
    datasets: Sequence[Dataset],
    out: Path,
    *,
    blind: bool = False,
    device: str | None = None,
    say: Say = print,
) -> None:
    """Runs "forecasting" or "tuning" from `start` (a front-end, or a model after forecasting) into `out`."""
    if (out / "manifest.json").exists():
        verify(out)
        say(f"{out}: the checkpoint is there already")
        return
    if stage == "forecasting" and not recipe.pretrain:
        raise UsageError(
            "this recipe has no first stage (pretrain = false)",
            where="--recipe",
            remedy="Run `heartllm tune --from` the folder of the front-end.",
        )
    verify(start)
    front, codec_hash = load_frontend(start)
    check_kind(recipe, front, start)
    shop = Workshop(recipe, tokens, datasets, codec_hash)
    settings = (recipe.forecasting if stage == "forecasting" else recipe.tuning).on(device)
    if blind:
        settings = replace(
            settings,
            drawing=replace(settings.drawing, blind=True),
            weights=replace(settings.weights, forecast=0.0, reading=0.0, matching=0.0),
        )
    # A tiny model starts from nothing: forecasting trains it whole, whatever tuning will train.
    how = "all" if stage == "forecasting" and recipe.language.backbone == "tiny" else recipe.language.train
    if (start / "checkpoint.toml").exists():
        model, config = load_language(start)
        if config.language.train == "all" != how:
            model.config = replace(config.language, train=how)
            choose_trained(model)
        config = replace(config, language=model.config)
    else:
        if recipe.language.backbone == "tiny":
            tokenizer = shop.text_tokenizer()
            rows = len(tokenizer)
        else:
            from transformers import AutoConfig, AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(recipe.language.backbone, trust_remote_code=False)
            rows = int(AutoConfig.from_pretrained(recipe.language.backbone, trust_remote_code=False).vocab_size)
        codec = front.config if isinstance(front, FSQCodes) else None
        config = CheckpointConfig(codec, replace(recipe.language, train=how), text_rows=rows, frontend=front.kind)
        model = new_language(config, tokenizer, settings.loop.seed, front)
    config = replace(
        config,
        stage=stage,
        blind=blind,
        layout=settings.drawing.layout,
        features=recipe.questions.features,
        data=shop.data_hashes(),
    )
    train, valid = shop.examples(model, out / "examples")
    counts = f"{len(train)} ECGs, {len(train.pairs)} questions and reports, {len(train.names)} findings"
    say(f"{stage}: {counts}; {sum(p.numel() for p in model.parameters() if p.requires_grad):,} parameters train")
    mark = fingerprint([codec_hash, dumps(config), verify(start)])
    log = train_language(model, settings, train, valid, out / "run", title=stage, mark=mark)
    logs = {path.stem: _read_log(path) for path in sorted((start / "training").glob("*.jsonl"))}
    save_language(out, model, config, {**logs, stage: log})
    save_frontend(front, out)
    if stage == "tuning" and recipe.questions.ask:
        answers.write_answers(out / answers.FILE, shop.answers())
    shutil.rmtree(out / "run")
    shutil.rmtree(out / "examples")
    write_manifest(out)


def gap_stage(
    dataset: Dataset,
    checkpoint: Path,
    tokens: Path,
    *,
    split: str = "test",
    with_waveforms: bool = True,
    steps: int = 3000,
    say: Say = print,
) -> str:
    """Measures the reading gap of a checkpoint on one split and returns it as Markdown."""
    from heartllm.responder import Responder
    from heartllm.training.gap import measure_gap
    from heartllm.training.probe import ProbeSettings

    responder = Responder.load(checkpoint)
    with tempfile.TemporaryDirectory() as scratch:
        splits: dict[str, tuple[TokenStore, Sequence[Entry], Waveforms | None]] = {}
        for name in ("train", "valid", split):
            store = TokenStore.open(tokens / dataset.name / name, responder.codec_hash)
            entries = [entry for entry in dataset.entries(name) if entry.record_id in store.rows]
            waveforms = None
            if with_waveforms:
                recordings = (recording for _, recording in read_all(dataset, entries, nan_policy="interpolate"))
                waveforms = cache_waveforms(recordings, len(entries), Path(scratch) / f"{name}.npy")
            splits[name] = (store, entries, waveforms)
        gap = measure_gap(
            responder.front,
            responder.generator,
            splits,
            split=split,
            features=responder.config.features,
            settings=ProbeSettings(steps=steps),
            say=say,
        )
    return gap.to_markdown(f"{dataset.name} {split}")


def codec_report_stage(
    dataset: Dataset, codec_folder: Path, *, split: str, most: int | None = None, out: Path | None = None
) -> None:
    """Prints what a codec keeps of one split's recordings, and writes it into `out` if asked."""
    codec, codec_hash = load_codec(codec_folder)
    entries = dataset.entries(split)[:most]
    recordings = (recording for _, recording in read_all(dataset, entries, nan_policy="interpolate"))
    about = {"codec": codec_hash[:12], "recordings": f"{dataset.name} {split}"}
    codec_stage_report(codec, recordings, title=f"Codec on {dataset.name}, {split} split", about=about, out=out)


def _read_log(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
