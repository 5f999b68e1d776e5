"""Figure 2: the framework, drawn from a checkpoint's own shapes and counts (`heartllm_eval.figures.anatomy`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from heartllm_eval.figures.anatomy import Anatomy, Stage
from heartllm_eval.figures.style import (
    BLUE,
    FONT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PAGE,
    in_style,
    mark_synthetic,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 3.3  # inches; so are all coordinates below
TOP, ROW = 2.19, 1.05  # the row from ECG to answer: its lower edge and height
GAP = 0.16  # of an arrow
LINE = 0.125  # between two lines of text
CODE, TEXT = GREEN, BLUE  # what belongs to ECG tokens and to text
NAMES = {"tokenizer": "ECG tokenizer", "forecasting": "ECG-token pretraining", "tuning": "QA and report tuning"}


def rows(anatomy: Anatomy) -> list[dict[str, Any]]:
    """The numbers in the figure, for the CSV beside it."""
    found: list[dict[str, Any]] = []
    for name, value in vars(anatomy).items():
        if name in ("traces", "example"):
            continue
        if name == "stages":
            found += [
                {"part": f"{stage.name}.{key}", "value": number}
                for stage in anatomy.stages
                for key, number in {"steps": stage.steps, **stage.last}.items()
                if key != "step"
            ]
        elif name == "parts":
            found += [{"part": f"prompt.{part}", "value": count} for part, count in anatomy.parts]
        else:
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            found.append({"part": name, "value": shown})
    return found


@in_style
def draw_framework(anatomy: Anatomy) -> Figure:
    """From leads to answer, the prompt that the language model reads, and the stages of training."""
    figure = new_figure(PAGE, HEIGHT)
    figure.set_layout_engine("none")  # every place is given in inches
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, PAGE), ylim=(0, HEIGHT))
    axes.axis("off")
    _flow(axes, anatomy)
    _prompt(axes, anatomy)
    _stages(axes, anatomy)
    mark_synthetic(figure, "ECG: synthetic")
    return figure


def _flow(axes: Axes, a: Anatomy) -> None:
    """The upper row: ECG, encoder, quantiser or projector, codes, vocabulary, language model."""
    x = 0.06
    width = 1.12
    _traces(axes, a, x, width)
    _caption(axes, x + width / 2, f"{a.leads} leads, {a.samples / a.rate:g} s at {a.rate:g} Hz")
    x = _arrow(axes, x + width)
    network = {"plain": "convolutions", "paper": "inception blocks"}.get(a.network, a.frontend)
    each = ["one for each lead"] if a.lead_weights == "separate" else []
    size = f"{short(a.frontend_parameters)} parameters"
    lines = [network, *each, size, f"{a.positions} × {a.latent} numbers"]
    x = _box(axes, x, TOP, 1.16, ROW, "Encoder", lines, GREEN)
    x = _arrow(axes, x)
    if a.codes is None:
        lines = ["trained with the LLM", f"{a.latent} → {a.hidden}", f"{a.bits:,.0f} bit/s"]
        x = _box(axes, x, TOP, 1.2, ROW, "Soft input", lines, BLUE)
    else:
        title = "FSQ" if a.levels else "Code table"
        levels = [f"levels {' · '.join(map(str, a.levels))}"] if a.levels else []
        lines = [*levels, f"{a.codes:,} codes", f"{a.positions} codes, {a.bits:,.0f} bit/s"]
        x = _box(axes, x, TOP, 1.2, ROW, title, lines, GREEN)
    x = _arrow(axes, x)
    x = _vocabulary(axes, a, x)
    x = _arrow(axes, x)
    family = {"llama": "Llama", "gpt2": "GPT-2", "qwen2": "Qwen2", "mistral": "Mistral"}.get(a.family, a.family)
    lines = [
        f"{family}, from nothing" if a.backbone == "tiny" else f"{family}, pretrained",
        f"{a.layers} layers of {a.hidden}",
        f"{short(a.language_parameters)} parameters",
        "all trained" if a.train == "all" else f"{short(a.trained_parameters)} trained ({a.train})",
    ]
    _box(axes, x, TOP, PAGE - 0.06 - x, ROW, "Language model", lines, BLUE)


def _traces(axes: Axes, a: Anatomy, x: float, width: float) -> None:
    """The ECG: a few leads, one below the other, on one scale of millivolts."""
    scale = 0.9 * ROW / max(1e-9, sum(max(values) - min(values) for values in a.traces.values()))
    top = TOP + ROW
    for lead, values in a.traces.items():
        base = top - max(values) * scale
        top -= (max(values) - min(values)) * scale + 0.1 * ROW / len(a.traces)
        step = (width - 0.18) / max(1, len(values) - 1)
        line = [base + value * scale for value in values]
        axes.plot([x + 0.18 + i * step for i in range(len(values))], line, color=INK, linewidth=0.5, gid="trace")
        _say(axes, x, base, lead, ha="left", va="center")


def _vocabulary(axes: Axes, a: Anatomy, x: float) -> float:
    """The embedding table as a bar whose parts are as tall as their rows are many."""
    from matplotlib.patches import Rectangle

    width, bar = 1.42, 0.2
    total = a.text_rows + a.special_rows + a.code_rows
    _frame(axes, x, TOP, width, ROW, INK)
    _say(axes, x + width / 2, TOP + ROW - 0.13, "Vocabulary", weight="bold")
    tall = ROW - 0.36
    parts = [("text tokens", a.text_rows, TEXT), ("marks", a.special_rows, GREY), ("ECG codes", a.code_rows, CODE)]
    base = TOP + 0.09
    for name, count, colour in parts:
        if not count:
            continue
        height = tall * count / total
        patch = Rectangle((x + 0.1, base), bar, height, facecolor=colour, edgecolor="white", linewidth=0.4, gid=name)
        axes.add_patch(patch)
        if name != "marks":
            made = {"digits": "\n(sums of digits)", "opaque": "\n(a row each)"}.get(a.rows, "")
            told = f"{count:,} {name}{made if colour == CODE else ''}"
            middle = min(max(base + height / 2, TOP + 0.2), TOP + ROW - 0.38)  # also where a part is but a line
            _say(axes, x + 0.38, middle, told, ha="left")
        base += height
    return x + width


def _prompt(axes: Axes, a: Anatomy) -> None:
    """The sequence that the language model reads, part by part, with the number of tokens of each."""
    y, height = 1.45, 0.3
    words = {"start": "<bos>", "features": "patient features", "question": "question", "answer mark": "Answer:"}
    weight = {"ECG": 3.0, "features": 1.25, "question": 1.05, "start": 0.5, "answer mark": 0.7}
    parts = [*a.parts, ("answer", 0)]
    room = PAGE - 0.12 - 0.05 * (len(parts) - 1)
    scale = room / sum(weight.get(name, 1.0) for name, _ in parts)
    x = 0.06
    for name, count in parts:
        width = weight.get(name, 1.0) * scale
        colour = {"ECG": CODE, "answer": ORANGE}.get(name, TEXT)
        _frame(axes, x, y, width, height, colour, fill=0.18, gid=f"part {name}")
        if name == "ECG":
            _codes(axes, a, x, y, width, height)
        else:
            _say(axes, x + width / 2, y + height / 2, words.get(name, name))
        told = "generated" if name == "answer" else f"{count} token{'s' if count != 1 else ''}"
        if name == "ECG":
            told = f"{count} {'codes' if a.codes is not None else 'soft tokens'}"
            told += f", {1000 * a.samples / a.rate / count:.0f} ms each" if a.codes is None or a.levels else ""
        _say(axes, x + width / 2, y - 0.09, told, color="#444444")
        x += width + 0.05
    order = "the ECG once, then each of its questions" if a.layout == "ecg-first" else "the question, then the ECG"
    _say(axes, 0.06, y + height + 0.15, f"What the language model reads: {order}", ha="left", weight="bold")


def _codes(axes: Axes, a: Anatomy, x: float, y: float, width: float, height: float) -> None:
    """The first codes as squares, coloured by their first two digits, between the marks that open and close an ECG."""
    import matplotlib
    from matplotlib.patches import Rectangle

    side, count = 0.125, max(1, int((width - 1.2) / 0.125))
    left = x + 0.47
    colours = matplotlib.colormaps["viridis"]
    most = max(1, (a.codes or 1) - 1)
    shown = list(a.example[:count]) or [0] * count
    for number, code in enumerate(shown):
        place = (left + number * side, y + (height - side) / 2)
        colour = colours(code / most) if a.example else CODE
        axes.add_patch(Rectangle(place, side, side, facecolor=colour, edgecolor="white", linewidth=0.5, gid="code"))
    middle = y + height / 2
    _say(axes, x + 0.05, middle, "<start>", ha="left")
    _say(axes, left + len(shown) * side + 0.05, middle, "…", ha="left")
    _say(axes, x + width - 0.05, middle, "<end>", ha="right")


def _stages(axes: Axes, a: Anatomy) -> None:
    """What is trained when, with steps and the last figures of the log."""
    stages = list(a.stages)
    if not stages:
        return
    width = (PAGE - 0.12 - GAP * (len(stages) - 1)) / len(stages)
    x, y, height = 0.06, 0.2, 0.9
    for number, stage in enumerate(stages, start=1):
        title = f"{number}  {NAMES.get(stage.name, stage.name)}"
        colour = GREEN if stage.name == "tokenizer" else BLUE
        _box(axes, x, y, width, height, title, _told(stage, a), colour)
        if number < len(stages):
            _arrow(axes, x + width, y + height / 2)
        x += width + GAP


def _told(stage: Stage, a: Anatomy) -> list[str]:
    """The lines in a stage's box."""
    trained = "the whole language model" if a.train == "all" else f"ECG rows, LoRA of rank {a.lora_rank}"
    seconds = stage.last.get("seconds")
    steps = f"{stage.steps:,} steps" + (f", {seconds / 60:,.0f} min" if seconds is not None else "")
    if stage.name == "tokenizer":
        decoder = f"a decoder ({short(a.decoder_parameters)})" if a.decoder_parameters else "its own targets"
        rmse, used = stage.last.get("valid_rmse_mv"), stage.last.get("valid_codes_used")
        left = [f"error {rmse:.3f} mV RMS"] if rmse is not None else []
        left += [f"{used:,.0f} codes in use"] if used is not None else []
        lines = ["goal: rebuild the waveform", f"trains: encoder, {decoder}", steps, ", ".join(left)]
    elif stage.name == "forecasting":
        goals = ["next ECG code"] if stage.last.get("forecast") else []
        goals += ["findings"] if stage.last.get("reading") else []
        lines = [f"goal: {', '.join(goals)}", f"trains: {trained}", steps]
    else:
        lines = ["goal: answers and reports", f"trains: {trained}", steps]
    return [line for line in lines if line]


def _frame(
    axes: Axes, x: float, y: float, width: float, height: float, colour: str, fill: float = 0.08, gid: str = "box"
) -> None:
    from matplotlib.colors import to_rgba
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            (x + 0.03, y + 0.03),
            width - 0.06,
            height - 0.06,
            boxstyle="round,pad=0.03,rounding_size=0.04",
            facecolor=to_rgba(colour, fill),
            edgecolor=colour,
            linewidth=0.8,
            gid=gid,
        )
    )


def _box(
    axes: Axes, x: float, y: float, width: float, height: float, title: str, lines: Sequence[str], colour: str
) -> float:
    """A frame with a bold title and lines below it; returns its right edge."""
    _frame(axes, x, y, width, height, colour)
    top = y + height - 0.13
    _say(axes, x + width / 2, top, title, weight="bold")
    room = height - 0.26
    space = min(LINE + 0.04, room / max(1, len(lines)))
    first = y + 0.05 + room / 2 + space * (len(lines) - 1) / 2
    for number, line in enumerate(lines):
        _say(axes, x + width / 2, first - number * space, line)
    return x + width


def _arrow(axes: Axes, x: float, y: float = TOP + ROW / 2) -> float:
    """An arrow from the edge at `x` to the next box; returns where that begins."""
    style = {"arrowstyle": "-|>", "mutation_scale": 7, "linewidth": 0.9, "color": INK, "shrinkA": 1, "shrinkB": 1}
    axes.annotate("", xy=(x + GAP, y), xytext=(x, y), arrowprops=style)
    return x + GAP


def _caption(axes: Axes, x: float, text: str) -> None:
    _say(axes, x, TOP - 0.1, text)


def _say(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    axes.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": FONT, **options})


def short(count: float) -> str:
    """1_234_567 -> "1.2 M"."""
    for limit, sign in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.1f} {sign}" if count < 100 * limit else f"{count / limit:.0f} {sign}"
    return f"{count:.0f}"
