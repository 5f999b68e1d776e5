"""From a plan to the commands that carry it out: each a job with what it needs, what it makes and what it is made by.

    WORK/data, fresh                              synthetic sites to train on, and to be asked about
    WORK/recipes/<row>-seed-<k>.toml              the row's recipe, flattened, with its seed
    WORK/models/text/<regime>                     the text model that all rows of a regime begin as, if there is one
    WORK/frontends/<row>/<regime>                 a front-end, trained once a regime; WORK/tokens/... its store
    WORK/models/<row>/<regime>/seed-<k>/          forecast, checkpoint, blind
    WORK/eval/<row>/<regime>/seed-<k>             the run folder
    REPORTS/runs/<row>/seed-<k>/<suite>           the frozen run

Seeds are of the language model's training; the front-end of a row is trained once a regime, with seed 0.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heartllm import config
from heartllm.errors import UsageError
from heartllm.writing import write_whole
from heartllm_eval.paper.plan import Plan, Regime, Row, Size, recipe_path

HEARTLLM = (sys.executable, "-m", "heartllm.cli")
HARNESS = (sys.executable, "-m", "heartllm_eval")
BUNDLED = "base"
BATCH = 64  # questions side by side: those of a few ECGs
RESAMPLES = 1000  # of a run's own intervals; tables draw their own from the frozen statistics


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        name: of its log and stamp. command: what is run. needs: names of jobs that must be done before.
        row, regime, seed: the training that it is of; empty where it is shared.
        makes: a folder or file that is there when it is done.
        key: of everything that the command depends on beside its inputs: options and recipe.
        files: path and text of what is written before it starts, beside the row's recipe.
        stage: "data", "front-end", "tokens", "text", "forecasting", "tuning", "blind", "asking", "freezing".
    """

    name: str
    stage: str
    command: tuple[str, ...]
    makes: Path
    needs: tuple[str, ...] = ()
    row: str = ""
    regime: str = ""
    seed: int = 0
    key: str = ""
    files: tuple[tuple[Path, str], ...] = ()


@dataclass(frozen=True)
class Setting:
    """Where and how a plan is carried out."""

    plan: Plan
    size: Size
    work: Path
    frozen: Path
    device: str
    data_roots: tuple[Path, ...] = ()


def jobs(
    setting: Setting,
    only: frozenset[str] = frozenset(),
    *,
    regimes: frozenset[str] = frozenset(),
    seeds: int = 0,
    missing: bool = False,
) -> list[Job]:
    """All jobs in an order that respects what each needs; shared ones come once.

    Args:
        only: names of rows; all where empty. What a row needs of others (a front-end, the blind control) is kept.
        regimes: names of regimes; all where empty.
        seeds: at most so many trainings of a row; all of the plan where 0.
        missing: only trainings of which no run is frozen yet, and what they need.

    Raises:
        UsageError: for a row without recipe, or a recipe that is not one.
    """
    found: dict[str, Job] = {}
    for row, regime, seed in setting.plan.jobs(setting.size):
        wanted = (not only or row.name in only) and (not regimes or regime.name in regimes)
        if wanted and not (seeds and seed >= seeds) and not (missing and is_frozen(setting, row, regime, seed)):
            for job in _training(setting, row, regime, seed):
                found.setdefault(job.name, job)
    return list(found.values())


def is_frozen(setting: Setting, row: Row, regime: Regime, seed: int) -> bool:
    """Whether there is a frozen run of every suite of a training."""
    folder = setting.frozen / row.name / f"seed-{seed}"
    return all((folder / suite / "manifest.json").is_file() for suite in regime.suites)


def recipe_values(setting: Setting, row: Row, seed: int) -> dict[str, Any]:
    """The row's recipe at this size with this seed: a bundled base, and every key on top of it.

    Raises:
        UsageError: if a file is missing or not TOML.
    """
    plan, size = setting.plan, setting.size
    path = recipe_path(plan, row)
    own: dict[str, Any] = {BUNDLED: row.recipe} if path is None else flatten(path)
    if size.base:
        below = flatten(plan.path.parent / size.base)
        own = config.merge(below, {key: value for key, value in own.items() if key != BUNDLED})
    changes = plan.path.parent / size.changes / Path(row.recipe).name if size.changes else None
    if changes is not None and changes.is_file():
        own = config.merge(own, config.read_toml(changes))
    return config.merge(own, {stage: {"loop": {"seed": seed}} for stage in ("forecasting", "tuning")})


def flatten(path: Path) -> dict[str, Any]:
    """A recipe file and all files below it as one: `base` is then a bundled recipe or absent.

    Raises:
        UsageError: if a file is missing, or the files are based on each other.
    """
    values: dict[str, Any] = {}
    seen: list[Path] = []
    while True:
        if path.resolve() in seen:
            raise UsageError("recipes are based on each other", where=path, remedy="Break the loop.")
        seen.append(path.resolve())
        values = config.merge(config.read_toml(path), values)
        base = values.get(BUNDLED)
        if not isinstance(base, str) or not base.endswith(".toml"):
            return values
        path = path.parent / base
        del values[BUNDLED]


def write_recipe(setting: Setting, row: Row, seed: int) -> Path:
    """Writes the recipe that the stages are given; a file that is the same already stays."""
    path = _recipe(setting, row, seed)
    values = recipe_values(setting, row, seed)
    write_file(path, f"# {row.label}, seed {seed}: made from {row.recipe} by the plan.\n{config.dumps(values)}")
    return path


def write_file(path: Path, text: str) -> None:
    """Writes a small file; one that is the same already stays."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)


def checkpoint(setting: Setting, row: str, regime: str, seed: int) -> Path:
    """Where a trained model lies."""
    there = setting.plan.row(row).checkpoint
    return (
        setting.plan.path.parent / there
        if there
        else setting.work / "models" / row / regime / f"seed-{seed}" / "checkpoint"
    )


def _recipe(setting: Setting, row: Row, seed: int) -> Path:
    return setting.work / "recipes" / f"{row.name}-seed-{seed}.toml"


def _training(setting: Setting, row: Row, regime: Regime, seed: int) -> Iterator[Job]:
    """The jobs of one training, in order; those of what it shares with others first."""
    plan, work = setting.plan, setting.work
    main = plan.row(plan.main)
    source = plan.row(row.frontend) if row.frontend else row
    place = f"{row.name}/{regime.name}/seed-{seed}"
    own: dict[str, Any] = {"row": row.name, "regime": regime.name, "seed": seed}
    yield from (job for job in _sites(setting) if not row.checkpoint or job.name.startswith("fresh"))
    if row.checkpoint:
        yield from _asking(setting, row, regime, seed)
        return
    if row.text and main.name != row.name and (side := _text_side(setting, regime)).job is not None:
        yield from (*_frontend(setting, main, regime), side.job)
    front, tokens = _frontend(setting, source, regime)
    yield from (front, tokens)
    data = [part for name in regime.train for part in ("--dataset", name)]
    shared = [*data, *_roots(setting, "data"), "--device", setting.device, "--recipe", str(_recipe(setting, row, seed))]
    values = recipe_values(setting, row, seed)
    key = _key(values, regime.train, *([regime.text] if regime.text else []))
    start = front.makes.parent
    text = _text(setting, row, regime)
    begin: tuple[str, ...] = () if text is None else ("--text", str(text.folder))
    if text is not None and text.job is not None:
        yield from (*_frontend(setting, main, regime), text.job)
    needs = (front.name, tokens.name, *(text.needs if text else ()))
    if row.pretrained:
        other = next(j for j in _training(setting, plan.row(row.pretrained), regime, seed) if j.stage == "forecasting")
        yield from (j for j in _training(setting, plan.row(row.pretrained), regime, seed) if j.name == other.name)
        start, needs, begin = other.makes.parent, (*needs, other.name), ()
    elif values.get("pretrain", True):
        folder = work / "models" / place / "forecast"
        command = (*HEARTLLM, "pretrain", *shared, "--tokens", str(tokens.makes.parent), "--codec", str(start))
        yield Job(
            f"{place}/forecast", "forecasting", (*command, *begin, "--out", str(folder)), folder / "manifest.json",
            needs, key=key, **own,
        )  # fmt: skip
        start, needs, begin = folder, (*needs, f"{place}/forecast"), ()
    folder = checkpoint(setting, row.name, regime.name, seed)
    command = (*HEARTLLM, "tune", *shared, "--tokens", str(tokens.makes.parent), "--from", str(start))
    yield Job(
        f"{place}/tune", "tuning", (*command, *begin, "--out", str(folder)), folder / "manifest.json", needs,
        key=key, **own,
    )  # fmt: skip
    control = _blind(setting, row, regime, seed) if "blind" in row.controls else None
    if control is not None:
        yield control
    yield from _asking(setting, row, regime, seed, f"{place}/tune", control)


def _asking(
    setting: Setting, row: Row, regime: Regime, seed: int, trained: str = "", control: Job | None = None
) -> Iterator[Job]:
    """Asking a checkpoint the regime's suites, and freezing the run.

    Args:
        trained: the job that trains it. control: the one that trains its blind control.
    """
    place = f"{row.name}/{regime.name}/seed-{seed}"
    own: dict[str, Any] = {"row": row.name, "regime": regime.name, "seed": seed}
    fresh = [job.name for job in _sites(setting) if job.name.startswith("fresh")]
    needs = tuple(filter(None, (trained, *fresh, control.name if control else "")))
    folder, out = checkpoint(setting, row.name, regime.name, seed), setting.work / "eval" / place
    command = (
        *HARNESS, "run", "--model", "heartllm", "--model_args", f"checkpoint={folder}", "--tasks",
        ",".join(regime.suites), "--control", ",".join(row.controls) or "none",
        *(("--blind", str(control.makes.parent)) if control else ()), *_roots(setting, "fresh"),
        "--device", setting.device, "--batch_size", str(BATCH), "--confidence_n", str(RESAMPLES),
        "--output_path", str(out),
    )  # fmt: skip
    yield Job(f"{place}/ask", "asking", command, out / "run.json", needs, key=_key(regime.suites, row.controls), **own)
    target = setting.frozen / row.name / f"seed-{seed}"
    yield Job(
        f"{place}/freeze", "freezing", (*HARNESS, "freeze", str(out), "--output_path", str(target)),
        target / regime.suites[0] / "manifest.json", (f"{place}/ask",), **own,
    )  # fmt: skip


def _sites(setting: Setting) -> Iterator[Job]:
    for folder, sites in (("data", setting.size.sites), ("fresh", setting.size.fresh)):
        for site in sites:
            out = setting.work / folder
            options = ("--recordings", str(site.recordings), "--seed", str(site.seed), "--out", str(out))
            yield Job(
                f"{folder}/synthetic-{site.name}",
                "data",
                (*HEARTLLM, "data", "synth", site.name, *options),
                out / f"synthetic-{site.name}",
                key=_key(site.recordings, site.seed),
            )


def _frontend(setting: Setting, row: Row, regime: Regime) -> tuple[Job, Job]:
    """A row's front-end and its token store."""
    work, place = setting.work, f"{row.name}/{regime.name}"
    data = [part for name in regime.train for part in ("--dataset", name)]
    recipe = ("--recipe", str(_recipe(setting, row, 0)))
    device = ("--device", setting.device)
    needs = tuple(job.name for job in _sites(setting) if job.name.startswith("data"))
    text: tuple[str, ...] = ()
    if row.text:
        side = _text_side(setting, regime)
        needs, text = (*needs, *side.needs), ("--text", str(side.folder))
    values = recipe_values(setting, row, 0)
    key = _key({name: values.get(name) for name in (BUNDLED, "tokenizer", "frontend", "views")}, regime.train)
    folder, store = work / "frontends" / place, work / "tokens" / place
    roots = _roots(setting, "data")
    front = Job(
        f"{place}/front-end", "front-end",
        (*HEARTLLM, "tokenizer", *data, *roots, *recipe, *device, *text, "--out", str(folder)),
        folder / "manifest.json", needs, row.name, regime.name, key=key,
    )  # fmt: skip
    tokens = Job(
        f"{place}/tokens", "tokens",
        (*HEARTLLM, "tokenize", *data, *roots, *recipe, *device, "--codec", str(folder), "--out", str(store)),
        store / regime.train[-1], (front.name,), row.name, regime.name, key=key,
    )  # fmt: skip
    return front, tokens


@dataclass(frozen=True)
class _TextModel:
    """A language model that knows texts and no ECG: its folder, and the job that makes it, if it is not given."""

    folder: Path
    job: Job | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.job.name,) if self.job else ()


def _text_side(setting: Setting, regime: Regime) -> _TextModel:
    """What gives the text side of a front-end that is trained against text."""
    main = setting.plan.row(setting.plan.main)
    given = _text(setting, main, regime)
    if given is not None:
        return given
    job = _blind(setting, main, regime, 0)
    return _TextModel(job.makes.parent, job)


def _text(setting: Setting, row: Row, regime: Regime) -> _TextModel | None:
    """The language model that the rows of a regime begin as: tuned on its texts, never shown an ECG; None without."""
    if regime.text and not row.own_text:
        given = setting.plan.path.parent / regime.text
        if not (given / "manifest.json").is_file():
            remedy = "Name the folder of a trained text model beside the plan, or leave `text` out."
            raise UsageError(
                f"regime {regime.name}: {regime.text} is no checkpoint", where=setting.plan.path, remedy=remedy
            )
        return _TextModel(given)
    if not setting.size.text:
        return None
    main = setting.plan.row(setting.plan.main)
    name = f"text-{row.name}" if row.own_text else "text"
    values = flatten(setting.plan.path.parent / setting.size.text)
    if row.own_text:
        values = config.merge(values, {"language": recipe_values(setting, row, 0).get("language", {})})
    recipe = setting.work / "recipes" / f"{name}.toml"
    made = f"# {name}: made from {setting.size.text} by the plan.\n{config.dumps(values)}"
    folder = setting.work / "models" / name / regime.name
    job = _without_ecg(setting, f"{name}/{regime.name}", main, regime, recipe, folder)
    job = replace(job, stage="text", row="", regime="", key=_key(values, regime.train), files=((recipe, made),))
    return _TextModel(folder, job)


def _blind(setting: Setting, row: Row, regime: Regime, seed: int) -> Job:
    """The control: the row's language model tuned on the same questions, never shown an ECG."""
    place = f"{row.name}/{regime.name}/seed-{seed}"
    folder, text = setting.work / "models" / place / "blind", _text(setting, row, regime)
    job = _without_ecg(setting, f"{place}/blind", row, regime, _recipe(setting, row, seed), folder, text)
    return replace(job, seed=seed, key=_key(recipe_values(setting, row, seed), regime.train))


def _without_ecg(
    setting: Setting, name: str, row: Row, regime: Regime, recipe: Path, folder: Path, text: _TextModel | None = None
) -> Job:
    """Tuning a language model on a regime's texts alone, from nothing or from a text model."""
    front, tokens = _frontend(setting, row, regime)
    data = [part for each in regime.train for part in ("--dataset", each)]
    command = (
        *HEARTLLM, "tune", *data, *_roots(setting, "data"), "--device", setting.device, "--recipe", str(recipe),
        "--tokens", str(tokens.makes.parent), "--from", str(front.makes.parent),
        *(("--text", str(text.folder)) if text else ()), "--blind", "--out", str(folder),
    )  # fmt: skip
    needs = (front.name, tokens.name, *(text.needs if text else ()))
    return Job(name, "blind", command, folder / "manifest.json", needs, row.name, regime.name)


def _roots(setting: Setting, first: str) -> list[str]:
    """Where data are looked for: the synthetic sites first, then the user's folders; HEARTLLM_DATA comes last."""
    sites = setting.size.sites if first == "data" else setting.size.fresh
    places = [*([setting.work / first] if sites else []), *setting.data_roots]
    return [part for place in places for part in ("--data_root", str(place))]


def _key(*parts: Any) -> str:
    plain = [
        list(part) if isinstance(part, tuple) else dict(part) if isinstance(part, Mapping) else part for part in parts
    ]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
