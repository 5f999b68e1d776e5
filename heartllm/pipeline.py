"""The stages as folders: each function reads what the one before it wrote, and can be stopped and started again.

runs/tokenizer  ->  runs/tokens/<dataset>/<split>  ->  runs/forecast  ->  runs/checkpoint
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from heartllm.checkpoint import (
    CheckpointConfig,
    begin_as,
    hash_backbone,
    load_frontend,
    load_language,
    load_text_side,
    new_language,
    save_frontend,
    save_language,
    write_log,
)
from heartllm.codec.store import TokenStore, fingerprint
from heartllm.config import dumps
from heartllm.data import answers
from heartllm.data.dataset import DATA_VARIABLE, FOLDERS, Dataset, open_dataset
from heartllm.data.dataset_check import BadRecord, BadRecords, read_all
from heartllm.ecg.recording import Recording
from heartllm.errors import UsageError
from heartllm.frontends.base import FrontEnd
from heartllm.frontends.fsq import FSQCodes
from heartllm.frontends.shards import Shard
from heartllm.frontends.tokenise import StoreWriter
from heartllm.language.backbones import load_text
from heartllm.language.model import ECGLanguageModel, choose_trained
from heartllm.language.vocabulary import load_text_tokenizer
from heartllm.locks import locked
from heartllm.manifests import clear_work, is_finished, verify, write_manifest
from heartllm.recipe import Recipe
from heartllm.training.language import train_language
from heartllm.training.processes import first, from_first, leads
from heartllm.training.tokenizer import Waveforms, cache_waveforms, open_waveforms
from heartllm.workshop import Workshop

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


@contextmanager
def _making(out: Path, what: str, say: Say) -> Iterator[bool]:
    """Holds a stage's folder for this run (process 0 does); gives whether the stage has still to be run.

    Raises:
        UsageError: if another run holds it.
        CheckpointError: if what is there is finished, and is not what was written.
    """
    finished = is_finished(out)  # before anything is written: it may lie where nothing can be
    if not finished:
        out.mkdir(parents=True, exist_ok=True)
    with locked(out / ".lock", where=out) if leads() and not finished else nullcontext():
        finished = finished or is_finished(out)  # by a run that has ended just now
        if finished:
            if leads():
                clear_work(out)  # which a kill may have left
            say(f"{out}: {what} is there already")
        yield not finished


def tokenizer_stage(
    recipe: Recipe,
    datasets: Sequence[Dataset],
    out: Path,
    *,
    text: Path | None = None,
    device: str | None = None,
    say: Say = print,
    max_bad_share: float = 0.01,
    workers: int = 0,
) -> None:
    """Trains the recipe's front-end on the train splits and writes it to `out`, all frozen.

    Validation uses the first dataset's valid split.

    Args:
        text: checkpoint whose language model is the text side of front-ends that are trained against text.
        workers: processes that read recordings; 0 reads in this one.
    """
    with _making(out, "the front-end", say) as unfinished:
        if not unfinished:
            return
        how = recipe.frontend.on(device)
        side = None if text is None else load_text_side(text)
        cache = out / "waveforms"
        cache.mkdir(parents=True, exist_ok=True)
        reports: dict[str, list[str | None]] = {}

        def read(split: str, chosen: Sequence[Dataset]) -> Waveforms:
            entries = [(dataset, dataset.entries(split)) for dataset in chosen]
            count = sum(len(part) for _, part in entries)
            told: list[str | None] = []

            def recordings() -> Iterator[Recording]:
                for dataset, part in entries:
                    found = read_all(
                        dataset, part, max_bad_share=max_bad_share, workers=workers, nan_policy="interpolate"
                    )
                    for entry, recording in found:
                        told.append(entry.report)
                        yield recording

            path = cache / f"{split}.npy"
            rows, reports[split] = from_first(lambda: (len(cache_waveforms(recordings(), count, path)), told))
            say(f"{split}: {rows} recordings, {count - rows} left out")
            return open_waveforms(path)[:rows]

        train, valid = read("train", datasets), read("valid", datasets[:1])
        front, log = how.train(
            train, valid, out / "run", reports=reports["train"], valid_reports=reports["valid"], text=side
        )
        if log:
            say(f"{front.kind}: " + ", ".join(f"{name} {value:.4g}" for name, value in log[-1].items()))
        if not leads():
            return
        save_frontend(front, out)
        write_log(out, "tokenizer", log)
        write_manifest(out)
        clear_work(out)


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
    shard: Shard | None = None,
    merge: bool = False,
    workers: int = 0,
) -> None:
    """Writes `out/<dataset>/<split>` token stores; only the train split gets several views.

    Args:
        shard: encode only this part of each split, for `merge` to join.
        merge: encode nothing, and join what shards have encoded; all splits are checked before the first is joined.
        workers: processes that read ahead while this one encodes; 0 reads in this one.
    """
    if shard is not None and merge:
        remedy = "Give --shard to encode a part, and --merge once all of them are there."
        raise UsageError("cannot be given together with --merge", where="--shard", remedy=remedy)
    verify(codec_folder)
    front, codec_hash = load_frontend(codec_folder)
    check_kind(recipe, front, codec_folder)
    front.to(device or "cpu")
    parts = [(dataset, split, dataset.entries(split)) for dataset in datasets for split in splits]
    writers = [
        (
            dataset,
            split,
            StoreWriter(
                out / dataset.name / split,
                front,
                codec_hash,
                entries,
                dataset.name,
                recipe.views if split == "train" else 1,
            ),
        )
        for dataset, split, entries in parts
        if entries
    ]
    if merge:
        for _, _, writer in writers:
            if writer.finished() is None:
                writer.shards()
    for dataset, split, writer in writers:
        bad = BadRecords(allowed=1.0)  # the share is judged over the whole split, below, not block by block
        store = writer.finished()
        if store is None and merge:
            store = writer.join(writer.shards())
        elif store is None:
            own = writer.recordings(shard)
            with progress_bar(f"{dataset.name} {split}{f' {shard}' if shard else ''}", own) as advance:
                read = partial(read_all, dataset, bad=bad, workers=workers, nan_policy="interpolate")
                paths = writer.encode(read, shard, advance)
            if shard is not None:
                unread = f", {len(bad.records)} of them unreadable" if bad.records else ""
                say(f"{writer.folder}: shard {shard}, {own} of {len(writer.entries)} recordings{unread}")
                continue
            store = writer.join(paths)
        left_out = _left_out(writer, store, bad)
        BadRecords(max_bad_share, len(writer.entries), left_out).check(writer.folder)
        left = f"; left out {', '.join(record.record_id for record in left_out[:5])}" if left_out else ""
        say(f"{writer.folder}: {len(store)} recordings, {writer.views} views{left}")


def _left_out(writer: StoreWriter, store: TokenStore, bad: BadRecords) -> list[BadRecord]:
    """What is not in a store, with the reasons of this run; of earlier runs and of shards, none is kept."""
    known = {record.record_id: record for record in bad.records}
    return [
        known.get(entry.record_id) or BadRecord(entry.record_id, entry.path, "not readable when it was tokenised")
        for entry in writer.entries
        if entry.record_id not in store.rows
    ]


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


def language_stage(
    stage: str,
    recipe: Recipe,
    start: Path,
    tokens: Path,
    datasets: Sequence[Dataset],
    out: Path,
    *,
    text: Path | None = None,
    blind: bool = False,
    device: str | None = None,
    say: Say = print,
) -> None:
    """Runs "forecasting" or "tuning" from `start` (a front-end, or a model after forecasting) into `out`.

    Args:
        text: a checkpoint whose language model a tiny one begins as, its text tokenizer and all (a blind control).
    """
    with _making(out, "the checkpoint", say) as unfinished:
        if not unfinished:
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
        if (start / "checkpoint.toml").exists():
            if text is not None:
                remedy = "Give --text to the stage that makes the language model: the first one."
                raise UsageError(f"{start} has its language model already", where="--text", remedy=remedy)
            model, config = _continued(start, _trained(stage, recipe))
        else:
            model, config = _begun(recipe, front, shop, text, _trained(stage, recipe), settings.loop.seed)
        config = replace(
            config,
            stage=stage,
            blind=blind,
            layout=settings.drawing.layout,
            features=recipe.questions.features,
            data=shop.data_hashes(),
        )
        with first():
            train, valid = shop.examples(model, out / "examples")
        counts = f"{len(train)} ECGs, {len(train.pairs)} questions and reports, {len(train.names)} findings"
        say(f"{stage}: {counts}; {sum(p.numel() for p in model.parameters() if p.requires_grad):,} parameters train")
        mark = fingerprint([codec_hash, dumps(config), verify(start), *([verify(text)] if text is not None else [])])
        log = train_language(model, settings, train, valid, out / "run", title=stage, mark=mark)
        if not leads():
            return
        logs = {path.stem: _read_log(path) for path in sorted((start / "training").glob("*.jsonl"))}
        save_language(out, model, config, {**logs, stage: log})
        save_frontend(front, out)
        if stage == "tuning" and recipe.questions.ask:
            answers.write_answers(out / answers.FILE, shop.answers())
        write_manifest(out)
        clear_work(out)


def _trained(stage: str, recipe: Recipe) -> Literal["all", "lora", "lora+norms"]:
    """What trains: a tiny model starts from nothing, so its first stage trains it whole, whatever tuning will train."""
    return "all" if stage == "forecasting" and recipe.language.backbone == "tiny" else recipe.language.train


def _continued(start: Path, how: Literal["all", "lora", "lora+norms"]) -> tuple[ECGLanguageModel, CheckpointConfig]:
    """The language model of a checkpoint, wrapped in LoRA where it trained whole and `how` says otherwise."""
    model, config = load_language(start)
    if config.language.train == "all" != how:
        model.config = replace(config.language, train=how)
        choose_trained(model)
    return model, replace(config, language=model.config)


def _begun(
    recipe: Recipe,
    front: FrontEnd,
    shop: Workshop,
    text: Path | None,
    how: Literal["all", "lora", "lora+norms"],
    seed: int,
) -> tuple[ECGLanguageModel, CheckpointConfig]:
    """A language model with new rows for a front-end: a tiny one from nothing or as `text`, or a pretrained one."""
    if recipe.language.backbone == "tiny":
        tokenizer = shop.text_tokenizer() if text is None else load_text_tokenizer(text / "text")
        rows = len(tokenizer)
    else:
        if text is not None:
            remedy = "Name it as language.backbone instead, or leave --text out."
            raise UsageError("a pretrained backbone does not begin as another model", where="--text", remedy=remedy)
        tokenizer, rows = load_text(recipe.language.backbone)
    codec = front.config if isinstance(front, FSQCodes) else None
    digest = hash_backbone(recipe.language.backbone)
    language = replace(recipe.language, train=how)
    config = CheckpointConfig(codec, language, text_rows=rows, frontend=front.kind, backbone_hash=digest)
    model = new_language(config, tokenizer, seed, front)
    if text is not None:
        verify(text)
        begin_as(model, text)
    return model, config


def _read_log(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
