"""Suites: what is asked, on which split, with which metrics. Versioned TOML, bundled or from `--include_path`."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

from heartllm import config
from heartllm.errors import UsageError
from heartllm_eval.metrics import DEFAULT_METRICS, check_metric

SLICES = ("question_type", "attribute_type", "template_id", "answer_seen", "sex", "age", "device", "quality")


@dataclass(frozen=True)
class Questions:
    """Where the questions come from.

    Attributes:
        source: "derived" (drawn from labels as ECG-QA draws) or "genuine" (ECG-QA's own files).
        per_cell: rows drawn for each template x attribute x answer (derived).
        seed: of the draw (derived).
        templates: ECG-QA's numbers of the templates asked (derived); all of 1 to 42 where empty.
        min_positives: recordings that an attribute needs to be asked about (derived).
        paraphrase: ECG-QA's paraphrased wording instead of its template wording.
        ecgs: 1 for questions about one ECG, 2 for those that compare two (genuine).
        files: folder of the split's JSON files below the data root; "{wording}" and "{split}" are filled in (genuine).
    """

    source: Literal["derived", "genuine"] = "derived"
    per_cell: int = 10
    seed: int = 0
    templates: tuple[int, ...] = ()
    min_positives: int = 2
    paraphrase: bool = False
    ecgs: int = 1
    files: str = "ecgqa/ptbxl/{wording}/{split}"

    def __post_init__(self) -> None:
        if self.ecgs not in (1, 2):
            raise ValueError(f"questions.ecgs is {self.ecgs}; ECG-QA asks about 1 or compares 2")
        if self.ecgs == 2 and self.source == "derived":
            raise ValueError("questions.ecgs = 2 needs source = 'genuine': comparisons are not derived from labels")


@dataclass(frozen=True)
class Reader:
    """How recordings are read (`heartllm.ecg.read_recording`); at 500 Hz and with leads by name, always.

    Attributes:
        length: what is done with recordings of another length than ten seconds: "crop" refuses shorter ones, "pad"
            longer ones, "fit" neither.
        nan_policy: what is done with missing samples.
    """

    length: Literal["fit", "crop", "pad"] = "fit"
    nan_policy: Literal["refuse", "interpolate"] = "refuse"


@dataclass(frozen=True)
class Prompt:
    """What every model is told beside the ECG and the question; how it is worded further is the model's.

    Attributes:
        features: the structured patient features as text (TAB).
        options: the allowed answers, listed behind the question.
    """

    features: bool = True
    options: bool = False


@dataclass(frozen=True)
class Generation:
    """How a model answers. Greedy, always.

    Attributes:
        max_new_tokens: where an answer is cut off.
    """

    max_new_tokens: int = 64


@dataclass(frozen=True)
class Suite:
    """One task.

    Attributes:
        version: of the suite's definition; numbers of different versions are not comparable.
        name, title: for the command line and for tables.
        kind: "qa" or "report".
        dataset: a name that `heartllm.data.open_dataset` knows.
        split: which split is asked about. train_split: what the majority control may learn from.
        zero_shot_from: the datasets that a model may have been trained on; controls learn from their training splits
            instead of this dataset's own. Empty: the suite's own dataset.
        synthetic: the recordings are simulated; every table says so.
        metrics: names; the kind's defaults where empty. primary: the one that differences are taken of.
        slices: what results are broken down by.
        cluster: what the bootstrap draws: "patient" (of a comparison, the first ECG's), or "sample".
        tags: further names that `--tasks` accepts.
    """

    version: int
    name: str
    title: str
    kind: Literal["qa", "report"]
    dataset: str
    split: str = "test"
    train_split: str = "train"
    zero_shot_from: tuple[str, ...] = ()
    synthetic: bool = False
    reader: Reader = field(default_factory=Reader)
    questions: Questions = field(default_factory=Questions)
    prompt: Prompt = field(default_factory=Prompt)
    generation: Generation = field(default_factory=Generation)
    metrics: tuple[str, ...] = ()
    primary: str = ""
    slices: tuple[str, ...] = ()
    cluster: Literal["patient", "sample"] = "patient"
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (*self.metrics, *((self.primary,) if self.primary else ())):
            check_metric(name, where=f"suite {self.name}: metrics")
        if self.zero_shot_from and self.kind == "qa" and self.questions.source == "genuine":
            raise ValueError("zero_shot_from needs derived questions: genuine ones lie in files of one dataset")
        if self.dataset in self.zero_shot_from:
            raise ValueError(f"zero_shot_from names the suite's own dataset {self.dataset!r}")
        for name in self.slices:
            if name not in SLICES:
                near = difflib.get_close_matches(name, SLICES, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known slices: {', '.join(SLICES)}"
                raise ValueError(f"unknown slice {name!r}; {hint}")
        if self.primary_metric not in self.metric_names:
            raise ValueError(f"the primary metric {self.primary!r} is not among the metrics")

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics, or the defaults of this kind."""
        return self.metrics or DEFAULT_METRICS[self.kind]

    @property
    def primary_metric(self) -> str:
        """The metric that differences between systems are taken of."""
        return self.primary or self.metric_names[0]

    @property
    def caption(self) -> str:
        """The title with the two things a reader must not miss: synthetic recordings, derived questions."""
        marks = []
        if self.synthetic:
            marks.append("synthetic recordings")
        if self.kind == "qa":
            marks.append("derived questions" if self.questions.source == "derived" else "genuine ECG-QA questions")
        return f"{self.title} ({', '.join(marks)})" if marks else self.title

    @property
    def hash(self) -> str:
        """Of everything that decides the samples and scores."""
        return hashlib.sha256(json.dumps(config.to_dict(self), sort_keys=True).encode()).hexdigest()[:16]


def suite_files(include: Sequence[Path] = ()) -> dict[str, Path]:
    """Name -> file of every suite, bundled ones first; a file of the same name in `include` takes its place.

    Raises:
        UsageError: if a folder in `include` does not exist.
    """
    found: dict[str, Path] = {}
    for folder in (Path(str(resources.files("heartllm_eval") / "suites")), *include):
        if folder.is_file():
            found[folder.stem] = folder
        elif folder.is_dir():
            found.update((path.stem, path) for path in sorted(folder.glob("*.toml")))
        else:
            raise UsageError("no such file or folder", where=f"--include_path {folder}", remedy="Check the path.")
    return found


def read_suite(path: Path) -> Suite:
    """Reads and checks one suite.

    Raises:
        UsageError: for unknown keys, metrics or slices, with the nearest right name.
    """
    suite = config.load(Suite, path)
    if suite.name != path.stem:
        raise UsageError(f"its name is {suite.name!r}", where=path, remedy="Name the file and the suite alike.")
    return suite


def select(tasks: Sequence[str], include: Sequence[Path] = ()) -> list[Suite]:
    """The suites that `tasks` (names or tags) stand for, without doubles, in the order asked.

    Raises:
        UsageError: for a name that is neither.
    """
    suites = {name: read_suite(path) for name, path in suite_files(include).items()}
    tags = sorted({tag for suite in suites.values() for tag in suite.tags})
    chosen: dict[str, Suite] = {}
    for task in tasks:
        matching = [suites[task]] if task in suites else [suite for suite in suites.values() if task in suite.tags]
        if not matching:
            near = difflib.get_close_matches(task, [*suites, *tags], n=1)
            hint = (
                f"Did you mean {near[0]!r}?" if near else f"Known tasks: {', '.join(suites)}; tags: {', '.join(tags)}."
            )
            raise UsageError(f"unknown task {task!r}", where="--tasks", remedy=hint)
        chosen.update((suite.name, suite) for suite in matching)
    return list(chosen.values())
