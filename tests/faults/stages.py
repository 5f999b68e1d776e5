"""The stages that are killed: their commands, what they leave while unfinished, and what must be the same at the end.

Of each stage three things are told about a folder at any moment:

    done       what a start of it has reported done, and what no later start may lose: name -> value. A number may grow;
               anything else stays as it is.
    accepted   what the next stage would take for whole and go on with; None where it would refuse.
    doubled    how many samples are there more than once.

and one thing once it has ended: its `result`, name -> SHA-256. Times, paths and the
process's memory are left out of it, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Facts = dict[str, Any]

SITE, SPLITS = "synthetic-a", ("train", "valid", "test")
RECORDINGS = 48
RECIPE = """
views = 2
[tokenizer]
batch = 2
crop = 320
[tokenizer.codec]
decoder_width = 16
[tokenizer.loop]
steps = 24
evaluate_every = 6
patience = 3
save_seconds = 0.1
[language.tiny]
hidden = 32
layers = 2
heads = 2
feedforward = 48
vocabulary = 400
[questions]
per_cell = 1
draws = 1
verify_draws = 0
min_positives = 1
min_findings = 2
[forecasting]
batch = 2
valid_ecgs = 2
[forecasting.loop]
steps = 16
evaluate_every = 4
save_seconds = 0.1
[tuning]
batch = 2
valid_ecgs = 2
[tuning.drawing]
questions = 4
[tuning.loop]
steps = 16
warmup = 2
learning_rate = 1e-2
evaluate_every = 4
save_seconds = 0.1
"""
PLAN = """
main = "ours"
[[size]]
name = "small"
about = "a model for tests"
[[size.regime]]
name = "joint"
train = ["synthetic-a"]
suites = ["synthetic_a_qa"]
[[row]]
name = "ours"
label = "Ours"
kind = "system"
recipe = "tiny"
tables = ["table1_qa"]
[[table]]
name = "table1_qa"
title = "Table 1"
suites = ["synthetic_a_qa"]
[[table.column]]
name = "all"
metric = "exact_match.strict"
"""


@dataclass(frozen=True)
class Seen:
    """What is found in a folder."""

    done: Facts
    accepted: str | None
    doubled: int = 0


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        command: (folder of the undisturbed stages before it, its own folder) -> the command line.
        look, result: see above; they are given its own folder.
    """

    name: str
    command: Callable[[Path, Path], list[str]]
    look: Callable[[Path], Seen]
    result: Callable[[Path], dict[str, str]]
    title: str


def make_small() -> None:
    """Blocks and chunks of a few recordings, so that there is something between the beginning and the end."""
    from heartllm.data.synthetic import writing
    from heartllm.frontends import tokenise

    writing.CHUNK, tokenise.BLOCK = 6, 6


def write_inputs(base: Path) -> None:
    """The files that the undisturbed stages begin with."""
    base.mkdir(parents=True, exist_ok=True)
    (base / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    (base / "reports").mkdir(exist_ok=True)
    (base / "reports" / "paper.toml").write_text(PLAN, encoding="utf-8")


def sha(content: bytes | str) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def files(folder: Path, *without: str) -> dict[str, str]:
    """Path -> SHA-256 of all files of a folder but hidden ones and those whose path begins with one of `without`.

    Of a comparison's record, what tells of the call is left out: the command with its paths, the time, the commit.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if path.is_file() and not hidden and not name.startswith(without):
            found[name] = sha(path.read_bytes())
        if name == "compare.json":
            with suppress(ValueError):  # a half-written one keeps its hash
                told = json.loads(path.read_text(encoding="utf-8"))
                found[name] = one({key: told[key] for key in told if key not in ("command", "at", "source")})
    return found


def one(found: Any) -> str:
    """One digest of anything."""
    return sha(json.dumps(found, sort_keys=True))


# ---- synthetic generation ------------------------------------------------------------------------------------------


def _site(out: Path) -> Seen:
    from heartllm.data.dataset import open_dataset
    from heartllm.errors import HeartLLMError

    folder, done = out / SITE, Facts()
    whole = (folder / "complete.json").exists()
    if whole:
        done = {f"files/{name}": digest for name, digest in files(folder / "records500").items()}
    for part in sorted((folder / "parts").glob("[0-9]*.json")):
        for row in json.loads(part.read_text(encoding="utf-8"))["rows"]:
            for suffix in (".dat", ".hea"):
                name = _record_of(row) + suffix
                done[f"files/{name.removeprefix('records500/')}"] = sha((folder / name).read_bytes())
    accepted = None
    with suppress(HeartLLMError):
        dataset = open_dataset(SITE, out)
        accepted = one([[entry.record_id, sha(dataset.read(entry).signal.tobytes())] for entry in dataset.entries()])
    return Seen({"recordings": len(done) // 2, **done}, accepted)


def _record_of(row: dict[str, list[str]]) -> str:
    from heartllm.data.synthetic.site_a import DATABASE

    return row["ptbxl_database.csv"][DATABASE.index("filename_hr")]


# ---- tokenising ----------------------------------------------------------------------------------------------------


def _tokens(out: Path) -> Seen:
    import numpy as np

    from heartllm.codec.store import TokenStore
    from heartllm.errors import HeartLLMError

    done, accepted, doubled = Facts(), [], 0
    for split in SPLITS:
        folder = out / SITE / split
        with suppress(HeartLLMError):
            store = TokenStore.open(folder)
            keys = list(store.keys())
            doubled += len(keys) - len(set(keys))
            done |= {f"{split}/{key}": sha(store.codes[row].tobytes()) for row, key in enumerate(keys)}
            accepted.append([split, keys, sha(np.asarray(store.codes).tobytes())])
            continue
        for path in sorted((folder / "unfinished").glob("[0-9]*.json")):
            codes = np.load(path.with_suffix(".npy"))
            keys = json.loads(path.read_text(encoding="utf-8"))["keys"]
            done |= {f"{split}/{key}": sha(row.tobytes()) for key, row in zip(keys, codes, strict=True)}
    return Seen(done, one(accepted) if len(accepted) == len(SPLITS) else None, doubled)


# ---- training ------------------------------------------------------------------------------------------------------


def _training(out: Path) -> Seen:
    import torch

    from heartllm.checkpoint import verify
    from heartllm.errors import HeartLLMError

    accepted, steps = None, 0
    with suppress(HeartLLMError):
        verify(out)
        accepted, steps = one(_checkpoint(out)), 1_000_000
    state = out / "run" / "state.pt"
    if not steps and state.exists():
        steps = int(torch.load(state, weights_only=True)["step"])
    return Seen({"steps": steps}, accepted)


def _checkpoint(out: Path) -> dict[str, str]:
    """All its files; of the logs what is no time, and of the manifest, which hashes those, its names."""
    found = files(out, "training/", "manifest.json", "run/", "examples/", "waveforms/")
    for log in sorted((out / "training").glob("*.jsonl")):
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        found[f"training/{log.name}"] = one([{k: v for k, v in line.items() if k != "seconds"} for line in lines])
    found["manifest.json"] = one(sorted(json.loads((out / "manifest.json").read_text(encoding="utf-8"))["files"]))
    return found


# ---- evaluation ----------------------------------------------------------------------------------------------------


def _samples(out: Path) -> Seen:
    from heartllm_eval.schema import sample_from_json

    done, doubled, status = Facts(), 0, None
    for path in sorted(out.glob("*/*/samples*.jsonl")):
        lines = path.read_bytes().split(b"\n")[:-1]  # without a half-written last one
        samples = [sample_from_json(json.loads(line)) for line in lines]
        ids = [sample.request.id for sample in samples]
        doubled += len(ids) - len(set(ids))
        name = path.parent.relative_to(out).as_posix()
        done |= {f"{name}/{sample.request.id}": sha(sample.prediction.text) for sample in samples}
    with suppress(OSError):
        status = json.loads((out / "run.json").read_text(encoding="utf-8"))["status"]
    return Seen(done, one(_run(out)) if status == "done" else None, doubled)


def _run(out: Path) -> dict[str, str]:
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    parts = ("config", "tasks", "systems", "figures", "differences", "signatures", "data")
    found = files(out, "run.json", "results.md")
    return {**found, **{f"run.json/{part}": one(record[part]) for part in parts}}


# ---- what is made of runs --------------------------------------------------------------------------------------------


def _outputs(finished: Callable[[Path], bool]) -> Callable[[Path], Seen]:
    """Of a command that only writes files: each that is there under its own name is done, and is one of the result."""

    def look(out: Path) -> Seen:
        found = files(out)
        return Seen({f"file/{name}": digest for name, digest in found.items()}, one(found) if finished(out) else None)

    return look


def _frozen(out: Path) -> Seen:
    from heartllm.errors import HeartLLMError
    from heartllm_eval import frozen

    folder = out / "seed-0" / "synthetic_a_qa"
    accepted = None
    with suppress(HeartLLMError):
        frozen.read(folder)
        accepted = one(files(out))
    return Seen({}, accepted)


def _common(base: Path) -> list[str]:
    return ["-d", SITE, "--data_root", str(base / "data"), "--recipe", str(base / "recipe.toml")]


STAGES = (
    Stage(
        "data",
        lambda base, out: f"heartllm data synth a -n {RECORDINGS} --seed 5 --workers 1 --out {out}".split(),
        _site,
        lambda out: files(out),
        "synthetic generation",
    ),
    Stage(
        "tokenizer",
        lambda base, out: ["heartllm", "tokenizer", *_common(base), "-o", str(out)],
        _training,
        _checkpoint,
        "codec training",
    ),
    Stage(
        "tokens",
        lambda base, out: ["heartllm", "tokenize", *_common(base), "--codec", f"{base}/tokenizer", "-o", str(out)],
        _tokens,
        lambda out: files(out),
        "tokenising",
    ),
    Stage(
        "forecast",
        lambda base, out: [
            *("heartllm", "pretrain", *_common(base), "--tokens", f"{base}/tokens"),
            *("--codec", f"{base}/tokenizer", "-o", str(out)),
        ],
        _training,
        _checkpoint,
        "forecasting",
    ),
    Stage(
        "checkpoint",
        lambda base, out: [
            *("heartllm", "tune", *_common(base), "--tokens", f"{base}/tokens"),
            *("--from", f"{base}/forecast", "-o", str(out)),
        ],
        _training,
        _checkpoint,
        "tuning",
    ),
    Stage(
        "run",
        lambda base, out: [
            *("heartllm-eval", "run", "--model", "heartllm", "--model_args", f"checkpoint={base}/checkpoint"),
            *("--tasks", "synthetic_a_qa", "--limit", "40", "--control", "majority,shuffled", "--batch_size", "2"),
            *("--data_root", f"{base}/data", "--confidence_n", "100", "--verbosity", "0", "-o", str(out)),
        ],
        _samples,
        _run,
        "evaluation",
    ),
    Stage(
        "frozen",
        lambda base, out: ["heartllm-eval", "freeze", f"{base}/run", "-o", f"{out}/seed-0"],
        _frozen,
        lambda out: files(out),
        "frozen run",
    ),
    Stage(
        "compared",
        lambda base, out: [
            *("heartllm-eval", "compare", f"{base}/run:model", f"{base}/run:majority", f"{base}/run:shuffled"),
            *("--confidence_n", "2000", "--verbosity", "0", "-o", str(out)),
        ],
        _outputs(lambda out: (out / "flips.jsonl").exists()),
        lambda out: files(out),
        "comparison tables",
    ),
    Stage(
        "reported",
        lambda base, out: ["heartllm-eval", "report", "--plan", f"{base}/reports/paper.toml", "-o", str(out)],
        _outputs(lambda out: False),
        lambda out: files(out),
        "report",
    ),
)
