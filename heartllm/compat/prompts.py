"""What the authors' model is asked, the patient text it is shown, and how long it may answer."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from heartllm.compat.codec import MIMIC_FORMAT
from heartllm.config import load
from heartllm.data.records import Entry

MAX_NEW_TOKENS = {"qa": 170, "report": 200}
ECG, QUESTION, BACKGROUND = "{ecg}", "{question}", "{background}"


@dataclass(frozen=True)
class Prompts:
    """The two prompts, with `{ecg}` and `{question}` or `{background}` in them.

    Attributes:
        bos: open the sequence with the backbone's first token.
    """

    qa: str
    report: str
    bos: bool = True

    def __post_init__(self) -> None:
        for name, text, needed in (("qa", self.qa, (ECG, QUESTION)), ("report", self.report, (ECG,))):
            for part in needed:
                if text.count(part) != 1:
                    raise ValueError(f"{name} must hold {part} once")

    def parts(self, question: str | None, background: str) -> tuple[str, str]:
        """The text before and after the ECG; without a question, of the report prompt."""
        before, _, after = (self.report if question is None else self.qa).partition(ECG)
        fill = (QUESTION, question) if question is not None else (BACKGROUND, background)
        return before.replace(*fill), after.replace(*fill)


def load_prompts(path: Path | None = None) -> Prompts:
    """The prompts of a TOML file, or the bundled ones, which say the same as the authors' in our words.

    Raises:
        UsageError: for a file that is absent, or prompts without their places.
    """
    return load(Prompts, path or Path(str(resources.files("heartllm.compat") / "prompts.toml")))


def authors_background(entry: Entry) -> str:
    """The patient text of their report prompt: what stands before "Recording Details", the patient's id included.

    Sex is coded as in PTB-XL (0 male, 1 female), an age above 89 is PTB-XL's 300. Sites in MIMIC's format have none.
    """
    if entry.source in MIMIC_FORMAT:
        return ""

    def number(value: float | None) -> str:
        return "nan" if value is None else f"{value:g}"

    sex = {"male": "0", "female": "1"}.get(entry.sex or "", "nan")
    age = "300" if entry.age_censored else number(entry.age)
    fields = {
        "Patient ID": entry.patient_id,
        "Age": age,
        "Sex": sex,
        "Height": number(entry.height),
        "Weight": number(entry.weight),
    }
    return "Patient Information: " + "; ".join(f"- {name}: {value}" for name, value in fields.items()) + ";"
