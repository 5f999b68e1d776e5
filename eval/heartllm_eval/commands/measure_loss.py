"""`heartllm-eval measure loss`: what a model loses from one hospital to another, by cause."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from heartllm.errors import UsageError
from heartllm.writing import write_whole
from heartllm_eval.commands.measure import DataOut
from heartllm_eval.commands.shared import check_format
from heartllm_eval.options import Confidence, Format, Resamples, console

if TYPE_CHECKING:
    from heartllm_eval.comparison.sides import Side
    from heartllm_eval.loss import Loss
    from heartllm_eval.rendering import Table

EPILOG = """**Examples**

`heartllm-eval measure loss runs/a:synthetic_a_qa runs/b:synthetic_b_qa_from_a -o data` (the drop, split by cause)

`heartllm-eval measure loss runs/a runs/b --variant noise=runs/b-quiet -o data`
(site B drawn again with `heartllm data synth b --noise_of a`, and run: the same hearts under home's noise)

`heartllm-eval measure loss runs/a runs/b --variant "leads by position=runs/b-positions" -o data`
(a run with `--perturb channels=aVL-aVF`: what reading leads by position would cost)

`heartllm-eval measure loss runs/a-reports runs/b-reports -o data`
(of reports: the loss of every metric; words fall with style and content, clinical F1 with content)"""

NOTES = (
    "Parts add up to the drop (Kitagawa's decomposition); a cell is template, attribute and right answer.",
    "Within: the same question with the same answer, so waveform, noise, machine, labelling and wording together.",
    "Intervals resample the patients of both hospitals; where cells are small they are rough.",
)


def loss(
    home: Annotated[str, typer.Argument(help="Run on the hospital that the model knows: RUN or RUN:TASK.")],
    away: Annotated[str, typer.Argument(help="Run of the same model on the other: RUN or RUN:TASK.")],
    output_path: DataOut,
    variant: Annotated[
        list[str] | None,
        typer.Option("--variant", metavar="CAUSE=RUN", help="Away, with one cause set to home's; repeatable."),
    ] = None,
    metric: Annotated[str, typer.Option("--metric", help="Of questions: a mean over samples.")] = "exact_match.strict",
    confidence_n: Resamples = 2_000,
    confidence: Confidence = 0.95,
    format: Format = "text",
) -> None:
    """Splits the drop between two runs of one model into unseen answers, case mix and the rest; adds variants."""
    from heartllm_eval.loss import measure
    from heartllm_eval.rendering import show_all
    from heartllm_eval.schema import dumps
    from heartllm_eval.scoring import Options, load_metrics

    check_format(format)
    sides, tasks = zip(*(_side(text) for text in (home, away)), strict=True)
    others = {}
    for text in variant or []:
        name, equals, place = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{text!r} is not CAUSE=RUN", where="--variant", remedy='Write "home\'s noise=runs/x".')
        others[name.strip()] = _side(place, tasks[1])[0]
    about = sides[1].tasks[tasks[1]]
    names = list(about["metrics"]) if about.get("kind") == "report" else [metric]
    found = measure(
        sides[0],
        sides[1],
        (tasks[0], tasks[1]),
        load_metrics(names),
        Options(confidence_n, confidence),
        variants=others,
    )
    folder = output_path / "loss"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{tasks[0]}-to-{tasks[1]}.json"
    write_whole(path, json.dumps(json.loads(dumps(found)), indent=1, ensure_ascii=False) + "\n")
    shown = tables(found)
    if format == "text":
        show_all(shown, console())
    else:
        print(_rendered(shown, format), end="")
    print(f"written to {path}", file=sys.stderr)


def _side(text: str, task: str | None = None) -> tuple[Side, str]:
    """A run's model and the task that is meant: the one named, or the only one."""
    from pathlib import Path

    from heartllm_eval.comparison.sides import Reader, Spec

    folder, named = Path(text), task
    if not folder.is_dir() and ":" in text:
        place, _, named = text.rpartition(":")
        folder = Path(place)
    if not folder.is_dir():
        raise UsageError("no such folder", where=text, remedy="Name the folder of a run, or RUN:TASK.")
    side = Reader([named] if named else []).read(Spec(text, folder))
    if len(side.tasks) > 1:
        raise UsageError(f"it has several tasks ({', '.join(side.tasks)})", where=text, remedy="Write RUN:TASK.")
    return side, next(iter(side.tasks))


def tables(found: Loss) -> list[Table]:
    """The parts and the variants, for reading."""
    from heartllm_eval.rendering import Table

    synthetic = " (synthetic recordings)" if found.home["synthetic"] and found.away["synthetic"] else ""
    title = f"From {found.home['dataset']} to {found.away['dataset']}{synthetic}"
    counts = "; ".join(
        f"{name}: {side['n']:,} requests of {side['patients']:,} patients, {side['unseen']:,} with unseen answers"
        for name, side in (("home", found.home), ("away", found.away))
    )
    trained = found.away.get("trained_on")
    notes = [counts + ".", f"Trained on {', '.join(part.partition(':')[0] for part in trained)}." if trained else ""]
    if found.common is not None:
        notes.append(f"In cells of both: {found.common[0]:.0%} of home's requests, {found.common[1]:.0%} of away's.")
        notes += NOTES
    rows = [(part.name, _number(part.home), _number(part.away), *_between(part)) for part in found.parts]
    what = f"loss in {found.metric}, points" if found.metric else "loss by metric, points"
    columns = ("part", "home", "away", "loss", "interval")
    made = [Table(f"{title}: {what}", columns, tuple(rows), tuple(filter(None, notes)))]
    if found.variants:
        cells = [
            (part.name, f"{part.n:,}", _number(part.away), _number(part.home), *_between(part, "+"))
            for part in found.variants
        ]
        heads = ("set to home's", "n", "away", "variant", "won back", "interval")
        told = ("Paired by sample, resampled by patient; variants are not parts of the sum above.",)
        made.append(Table(f"{title}: single causes, points", heads, tuple(cells), told))
    return made


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _between(part: object, sign: str = "+") -> tuple[str, str]:
    value, low, high = (getattr(part, name) for name in ("value", "low", "high"))
    return f"{value:{sign}.1f}", "–" if low is None or high is None else f"[{low:{sign}.1f}, {high:{sign}.1f}]"


def _rendered(shown: list[Table], format: str) -> str:
    from heartllm_eval.rendering import csv_text, latex_document

    if format == "markdown":
        return "\n".join(table.markdown() for table in shown)
    if format == "latex":
        return latex_document([("loss", table) for table in shown])
    rows = [
        {"table": table.title, **dict(zip(table.columns, row, strict=True))} for table in shown for row in table.rows
    ]
    if format == "json":
        return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    return csv_text(list(dict.fromkeys(name for row in rows for name in row)), rows)


def register(app: typer.Typer) -> None:
    """Adds the command to the group."""
    app.command(epilog=EPILOG)(loss)
