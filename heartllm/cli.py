"""The command `heartllm`: from recordings to a checkpoint that answers.

heartllm data synth ...          two synthetic hospitals
heartllm tokenizer ...           train the codec, or another front-end
heartllm tokenize ...            recordings -> codes
heartllm pretrain ... | tune ... the language model
heartllm import ...              the files of HeartLLM's authors
heartllm ask ... | codes ...     one answer | one ECG as text
heartllm gap ...                 how well it reads
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heartllm.data.commands import data_app
from heartllm.errors import UsageError, run_command_line
from heartllm.plain import plain
from heartllm.version import Version

app = typer.Typer(
    help="HeartLLM: ECG recordings as tokens that a language model reads. Not for clinical use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def program(version: Version = False) -> None:
    """Nothing of its own: `--version` ends before it."""


app.add_typer(data_app, name="data", help="Datasets: list, check, synthesise, build questions, splits, leakage.")

DataRoot = Annotated[
    list[Path] | None,
    typer.Option(
        "--data_root",
        "--data-root",
        help="Folder with ptbxl/, synthetic-a/, ...; may be repeated. Also: HEARTLLM_DATA.",
    ),
]
Datasets = Annotated[
    list[str], typer.Option("--dataset", "-d", help="ptbxl, mimic, synthetic-a, synthetic-b, ...; may be repeated.")
]
RecipeName = Annotated[str, typer.Option("--recipe", "-r", help="Bundled recipe, or a TOML file.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Output folder. The same command continues an unfinished one.")]
BadShare = Annotated[
    float, typer.Option("--max_bad_share", "--max-bad-share", help="Share of unusable recordings to go on with.")
]
Workers = Annotated[
    int, typer.Option("--workers", "-j", min=0, help="Processes that read recordings ahead; 0: read in this one.")
]

Device = Annotated[str, typer.Option("--device", help="Where to compute: cpu, cuda, cuda:1, ...")]


def _device(name: str) -> str | None:
    """A device that is there; None for the CPU, which every stage uses unless it is told otherwise."""
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        remedy = "Write cpu, or the name of a device that this PyTorch can use."
        raise UsageError(f"{name!r} cannot be used here ({reason})", where="--device", remedy=remedy) from None
    return None if name == "cpu" else name


BeginAs = Annotated[
    Path | None,
    typer.Option("--text", help="Begin as the language model of this checkpoint (a blind control), not from nothing."),
]


def _threads(threads: int | None) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)


@app.command()
def tokenizer(
    dataset: Datasets,
    out: Out,
    data_root: DataRoot = None,
    recipe: RecipeName = "tiny",
    text: Annotated[
        Path | None,
        typer.Option("--text", help="Checkpoint that reads text, for front-ends aligned with it: a blind control."),
    ] = None,
    device: Device = "cpu",
    max_bad_share: BadShare = 0.01,
    workers: Workers = 0,
) -> None:
    """Train the codec on the train splits, or whichever front-end the recipe names.

    Example: heartllm tokenizer -d ptbxl -d synthetic-a --data_root data -o runs/tokenizer
    """
    from heartllm.pipeline import find_dataset, tokenizer_stage
    from heartllm.recipe import load_recipe
    from heartllm.training.processes import joined, say

    opened = [find_dataset(name, data_root or []) for name in dataset]
    how = load_recipe(recipe)
    with joined(device) as own:
        where = _device(own)
        tokenizer_stage(
            how, opened, out, text=text, device=where, say=say, max_bad_share=max_bad_share, workers=workers
        )


@app.command()
def tokenize(
    dataset: Datasets,
    codec: Annotated[
        Path,
        typer.Option("--codec", "--frontend", "-c", help="A folder that holds the codec or front-end: any checkpoint."),
    ],
    out: Out,
    data_root: DataRoot = None,
    recipe: RecipeName = "tiny",
    device: Device = "cpu",
    max_bad_share: BadShare = 0.01,
    workers: Workers = 0,
    shard: Annotated[
        str | None, typer.Option("--shard", help="Encode only this part, as 2/8, for --merge; one machine a part.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Join the parts, once all of them are in --out.")] = False,
) -> None:
    """Turn recordings into codes, once. Resumable.

    Example: heartllm tokenize -d ptbxl --codec runs/tokenizer --data_root data -o runs/tokens
    """
    from heartllm.frontends.shards import Shard
    from heartllm.pipeline import find_dataset, tokenize_stage
    from heartllm.recipe import load_recipe

    part = None if shard is None else Shard.parse(shard)
    _threads(1)
    opened = [find_dataset(name, data_root or []) for name in dataset]
    where = _device(device)
    how = load_recipe(recipe)
    tokenize_stage(
        how, codec, opened, out, device=where, max_bad_share=max_bad_share, shard=part, merge=merge, workers=workers
    )


@app.command()
def pretrain(
    dataset: Datasets,
    tokens: Annotated[Path, typer.Option("--tokens", "-t", help="Folder that `heartllm tokenize` wrote.")],
    codec: Annotated[
        Path, typer.Option("--codec", "--frontend", "-c", help="The codec or front-end that made the tokens.")
    ],
    out: Out,
    data_root: DataRoot = None,
    recipe: RecipeName = "tiny",
    text: BeginAs = None,
    device: Device = "cpu",
) -> None:
    """Teach the language model to forecast ECG codes. Soft tokens are not forecast, only read.

    Example: heartllm pretrain -d ptbxl --tokens runs/tokens --codec runs/tokenizer --data_root data -o runs/forecast
    """
    from heartllm.pipeline import find_dataset, language_stage
    from heartllm.recipe import load_recipe
    from heartllm.training.processes import joined, say

    opened = [find_dataset(name, data_root or []) for name in dataset]
    how = load_recipe(recipe)
    with joined(device) as own:
        where = _device(own)
        language_stage("forecasting", how, codec, tokens, opened, out, text=text, device=where, say=say)


@app.command()
def tune(
    dataset: Datasets,
    tokens: Annotated[Path, typer.Option("--tokens", "-t", help="Folder that `heartllm tokenize` wrote.")],
    start: Annotated[
        Path, typer.Option("--from", "-f", help="Checkpoint of `heartllm pretrain`; a codec alone skips forecasting.")
    ],
    out: Out,
    data_root: DataRoot = None,
    recipe: RecipeName = "tiny",
    text: BeginAs = None,
    blind: Annotated[bool, typer.Option("--blind", help="Train without ECGs: the control every result needs.")] = False,
    device: Device = "cpu",
) -> None:
    """Tune on questions and reports. Opens token stores and metadata, never a waveform.

    Example: heartllm tune -d ptbxl --tokens runs/tokens --from runs/forecast --data_root data -o runs/checkpoint
    """
    from heartllm.pipeline import find_dataset, language_stage
    from heartllm.recipe import load_recipe
    from heartllm.training.processes import joined, say

    opened = [find_dataset(name, data_root or []) for name in dataset]
    how = load_recipe(recipe)
    with joined(device) as own:
        where = _device(own)
        language_stage("tuning", how, start, tokens, opened, out, text=text, blind=blind, device=where, say=say)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help='The question; "report" asks for a report.')],
    checkpoint: Annotated[Path, typer.Option("--checkpoint", "-c", help="Checkpoint folder.")],
    record: Annotated[Path, typer.Option("--record", help="WFDB record, CinC .mat, CSV or npy.")],
    features: Annotated[str, typer.Option(help='What is known about the patient, as "Age: 54 years. Sex: male."')] = "",
    plot: Annotated[Path | None, typer.Option(help="Also draw the ECG to this file (png, pdf, svg).")] = None,
    device: Device = "cpu",
) -> None:
    """Ask one question about one recording.

    Example: heartllm ask -c runs/checkpoint --record 00001_hr "Does this ECG show symptoms of sinus bradycardia?"
    """
    from heartllm.ecg import read_recording
    from heartllm.language.generation import ResponderItem
    from heartllm.responder import Responder

    if not question.strip():
        raise UsageError("the question is empty", remedy='Ask something, or "report".')
    recording = read_recording(record, length="crop")
    responder = Responder.load(checkpoint, device=_device(device) or "cpu")
    text = None if question.strip().lower() == "report" else question
    item = ResponderItem(recording.record_id, responder.encode(recording), text, features)
    for note in recording.notes:
        typer.echo(f"note: {plain(note)}", err=True)
    typer.echo(plain(next(iter(responder.answer([item], max_new_tokens=96)))))
    if plot is not None:
        from heartllm.ecg.plot import plot_ecg, save

        save(plot_ecg(recording, title=recording.record_id), plot)
        typer.echo(f"drawn to {plot}", err=True)


@app.command()
def codes(
    record: Annotated[Path, typer.Argument(help="WFDB record, CinC .mat, CSV or npy.")],
    codec: Annotated[
        Path,
        typer.Option("--codec", "--checkpoint", "-c", help="A checkpoint; without --prompt also a codec alone."),
    ],
    ids: Annotated[bool, typer.Option("--ids", help="Print the codes as integers.")] = False,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help='Print the whole prompt of this question; "report" asks for one.')
    ] = None,
    features: Annotated[str, typer.Option(help='With --prompt: "Age: 54 years. Sex: male."')] = "",
) -> None:
    """Print one ECG as a model that `heartllm export` wrote reads it: <|start_ecg|><ecg_0017>...<|end_ecg|>.

    Example: heartllm codes 00001_hr --checkpoint runs/checkpoint --prompt "Does this ECG show sinus rhythm?"
    """
    from heartllm.ecg import read_recording
    from heartllm.spelling import Speller

    if prompt is None and features:
        raise UsageError("goes into a prompt only", where="--features", remedy="Add --prompt QUESTION.")
    if prompt is not None and (ids or not prompt.strip()):
        what = "cannot be given together with --ids" if ids else "the question is empty"
        raise UsageError(what, where="--prompt", remedy='Give --ids alone, or --prompt with a question or "report".')
    speller = Speller.load(codec)
    recording = read_recording(record, length="crop")
    found = speller.encode(recording)
    config = speller.config
    for note in recording.notes:
        typer.echo(f"note: {plain(note)}", err=True)
    if config is not None and config.blind:
        typer.echo("note: the checkpoint was trained without ECGs; its prompts hold none", err=True)
    if config is not None and features and not config.features:
        typer.echo("note: the checkpoint was trained without patient features; its prompts hold none", err=True)
    if ids:
        typer.echo(" ".join(str(code) for code in found if code >= 0))
    elif prompt is None:
        typer.echo(speller.spell(found))
    else:
        question = None if prompt.strip().lower() == "report" else prompt
        typer.echo(plain(speller.prompt(features, found, question)))


@app.command()
def gap(
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="ptbxl, synthetic-a, ...")],
    checkpoint: Annotated[Path, typer.Option("--checkpoint", "-c", help="Checkpoint folder.")],
    tokens: Annotated[
        Path, typer.Option("--tokens", "-t", help="Folder that `heartllm tokenize` wrote with this codec.")
    ],
    data_root: DataRoot = None,
    split: Annotated[str, typer.Option(help="Split to score on: valid while choosing, test once.")] = "test",
    waveforms: Annotated[bool, typer.Option(help="Also train the probe on waveforms, reader (a).")] = True,
    steps: Annotated[int, typer.Option(help="Training steps of a probe.")] = 3000,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the table to this Markdown file.")] = None,
) -> None:
    """Measure the reading gap: probe on waveform, probe on codes, language model.

    Example: heartllm gap -d ptbxl -c runs/checkpoint --tokens runs/tokens --data_root data
    """
    from heartllm.measuring import gap_stage
    from heartllm.pipeline import find_dataset

    _threads(threads)
    opened = find_dataset(dataset, data_root or [])
    table = gap_stage(opened, checkpoint, tokens, split=split, with_waveforms=waveforms, steps=steps)
    typer.echo(table)
    if out is not None:
        from heartllm.writing import write_whole

        write_whole(out, table)


@app.command()
def codec_report(
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="ptbxl, synthetic-a, ...")],
    codec: Annotated[Path, typer.Option("--codec", "-c", help="A folder that holds a codec: any checkpoint.")],
    data_root: DataRoot = None,
    split: Annotated[str, typer.Option(help="Split to report on.")] = "test",
    recordings: Annotated[int | None, typer.Option("--recordings", "-n", help="At most so many.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write codec.md and codec.json there.")] = None,
) -> None:
    """Report what the codec keeps: errors by lead and wave, use of the codes, their stability.

    Example: heartllm codec-report -d ptbxl --codec runs/tokenizer --data_root data
    """
    from heartllm.measuring import codec_report_stage
    from heartllm.pipeline import find_dataset

    _threads(1)
    codec_report_stage(find_dataset(dataset, data_root or []), codec, split=split, most=recordings, out=out)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Option("--checkpoint", "-c", help="Checkpoint folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for a plain Hugging Face model.")],
) -> None:
    """Write a plain Hugging Face model: LoRA merged, ECG codes as added tokens. No code of ours is needed to run it.

    Example: heartllm export --checkpoint runs/checkpoint --out runs/hf
    """
    from heartllm.export import export as write

    write(checkpoint, out)
    typer.echo(f"{out}: load it with AutoModelForCausalLM and AutoTokenizer")


@app.command("import")
def import_(
    authors_codec: Annotated[Path, typer.Option("--authors-codec", help="Their tokenizer, best.pt.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder.")],
    authors_llm: Annotated[
        Path | None, typer.Option("--authors-llm", help="Their language model, checkpoint_epoch0.pth.")
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option("--backbone", help="Local folder of the model it was tuned from (Llama-3.2-3B).")
    ] = None,
    leads: Annotated[
        str, typer.Option("--leads", help="Order of the leads in its training: mimic (as published), or ptbxl.")
    ] = "mimic",
    base: Annotated[
        str, typer.Option("--base", help="Base weights from the file, or from the backbone: file, backbone.")
    ] = "file",
) -> None:
    """Read the files of HeartLLM's authors: a codec of ours, and their language model as a plain Hugging Face one.

    Example: heartllm import --authors-codec best.pt -o runs/authors
    """
    from heartllm.compat.importing import import_authors

    for name, value, known in (("--leads", leads, ("mimic", "ptbxl")), ("--base", base, ("file", "backbone"))):
        if value not in known:
            raise UsageError(f"unknown value {value!r}", where=name, remedy=f"Choose one of: {', '.join(known)}.")
    record = import_authors(
        authors_codec,
        out,
        language=authors_llm,
        backbone=backbone,
        leads=leads,  # type: ignore[arg-type]
        base=base,  # type: ignore[arg-type]
    )
    for note in record.notes:
        typer.echo(f"note: {plain(note)}", err=True)
    typer.echo(f"{out}: {record.codec_file} of step {record.step:,}" + (f", {out / 'llm'}" if authors_llm else ""))


def main() -> None:
    """Entry point of the command `heartllm`."""
    run_command_line(app)


if __name__ == "__main__":
    main()
