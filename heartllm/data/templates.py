"""ECG-QA's 42 one-ECG templates: what each asks about, how it is worded, and which answers it allows.

The sentences live in `question_templates.toml` (source and licence there). A template becomes one or more `Asked`, one
for each thing it can ask: "Does this ECG show symptoms of {a}?" is asked of 63 attributes, "Which noise ... in {lead},
{a} or {b}?" of 12 leads and 6 pairs. This module knows nothing of recordings; `question_views` looks at those.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from itertools import combinations
from pathlib import Path

from heartllm.config import read_toml
from heartllm.data.records import NOISE_KINDS, Question
from heartllm.data.statements import STATEMENTS, SUPERCLASSES, Statement
from heartllm.ecg.recording import LEADS
from heartllm.errors import DataError

AXES = ("left axis deviation", "right axis deviation", "extreme axis deviation", "normal heart axis")
STAGES = tuple(f"{age} stage of myocardial infarction" for age in ("early", "middle", "old"))
NO_STAGE, UNKNOWN_STAGE = "none of myocardial infarction", "unknown stage of myocardial infarction"
EXTRA_SYSTOLES = ("extrasystoles", "ventricular extrasystoles", "supraventricular extrasystoles")
FEATURES = ("rr interval", "p duration", "pr interval", "qrs duration", "qt interval", "qt corrected")
RANGES = ("below the normal range", "within the normal range", "above the normal range")
NEVER_BELOW = "p duration"  # ECG-QA knows no P wave that is too short
LEAD_NAMES = tuple(f"lead {lead}" for lead in LEADS)
LEAD_GROUPS = {"limb leads": LEADS[:6], "chest leads": LEADS[6:]}
YES, NO, NOT_SURE, NONE = "yes", "no", "not sure", "none"

# Statements that no ECG-QA question on PTB-XL asks about: too rare there (the classes of templates 4 to 11).
_TOO_RARE = ("RVH", "ANEUR", "EL", "WPW", "SEHYP", "3AVB", "2AVB", "PRC(S)", "SVARR", "PSVT", "TRIGU")
# Form statements that reports locate in leads, and those that concern all limb or all chest leads at once.
_LOCATED = ("NDT", "NST_", "DIG", "STD_", "VCLVH", "QWAVE", "LOWT", "NT_", "INVT", "LVOLT", "HVOLT", "TAB_", "STE_")
_GROUPED = frozenset(("VCLVH", "LVOLT", "HVOLT"))


def _pool(kind: str) -> tuple[str, ...]:
    def belongs(statement: Statement) -> bool:
        return bool(getattr(statement, kind)) and statement.code not in _TOO_RARE and statement.code != "NORM"

    return tuple(statement.name for statement in STATEMENTS.values() if belongs(statement))


NORMAL = STATEMENTS["NORM"].name
DIAGNOSTIC, FORM, RHYTHM = _pool("diagnostic"), _pool("form"), _pool("rhythm")
LOCATED_FORM = tuple(STATEMENTS[code].name for code in _LOCATED)
GROUPED_FORM = frozenset(STATEMENTS[code].name for code in _GROUPED)
# ECG-QA's order: the statements, then the superclasses.
SUPERCLASS_ORDER = ("st/t change", "myocardial infarction", "hypertrophy", "conduction disturbance")
STATEMENT_NAMES = (*dict.fromkeys((*DIAGNOSTIC, *FORM, *RHYTHM)), *SUPERCLASS_ORDER)
assert set(SUPERCLASS_ORDER) == set(SUPERCLASSES)

# What each view offers as attributes. Views "in lead" are asked once a lead, "range" once a numeric feature.
POOLS: dict[str, tuple[str, ...]] = {
    "statement": STATEMENT_NAMES,
    "normal": (NORMAL,),
    "superclass": SUPERCLASS_ORDER,
    "diagnostic including uncertain": DIAGNOSTIC,
    "diagnostic excluding uncertain": DIAGNOSTIC,
    "form": FORM,
    "rhythm": RHYTHM,
    "any abnormal": ("any kind of abnormal symptoms",),
    "any diagnostic including uncertain": ("any diagnostic symptoms",),
    "any diagnostic excluding uncertain": ("any diagnostic symptoms",),
    "any form": ("any form-related symptoms",),
    "any rhythm": ("any rhythm-related symptoms",),
    "form in lead": LOCATED_FORM,
    "leads of form": LEAD_NAMES,
    "axis": AXES,
    "stage": STAGES,
    "stage or none": (NO_STAGE, UNKNOWN_STAGE, *STAGES),
    "noise": NOISE_KINDS,
    "noise in lead": NOISE_KINDS,
    "any noise": ("any kind of noises",),
    "any noise in lead": ("any kind of noises",),
    "leads of noise": LEAD_NAMES,
    "extra systole": EXTRA_SYSTOLES,
    "any extra systole": ("any kind of extra systoles",),
    "range": RANGES,
    "features in range": FEATURES,
}


@dataclass(frozen=True)
class Template:
    """One ECG-QA template: its number, its types, its wording and ours."""

    id: int
    type: str
    attribute_type: str
    view: str
    first_question_id: int
    text: str
    paraphrases: tuple[str, ...]

    @property
    def form(self) -> str:
        """ "verify", "choose" or "query"."""
        return self.type.removeprefix("single-")


@dataclass(frozen=True)
class Asked:
    """One thing that a template asks, of any recording.

    Attributes:
        question_id: ECG-QA's number for it (leads of one attribute share a number there).
        attribute: ECG-QA's `attribute` field.
        candidates: the answers that "choose" and "query" select from, beside "none".
        view: what to look at, with `about`: the lead, numeric feature, range or attribute that narrows the view.
        slots: what fills the wording.
    """

    template: Template
    question_id: int
    attribute: tuple[str, ...]
    candidates: tuple[str, ...]
    about: str = ""
    slots: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def text(self) -> str:
        """ECG-QA's wording."""
        return self.template.text.format(**self.slots)

    def paraphrase(self, number: int) -> str:
        """Our wording; any `number` selects one."""
        wordings = self.template.paraphrases
        text = wordings[number % len(wordings)].format(**self.slots)
        return text[0].upper() + text[1:]

    def swapped(self) -> Asked:
        """The same choice with its two candidates named in the other order."""
        slots = {**self.slots, "a": self.slots["b"], "b": self.slots["a"]}
        return replace(self, attribute=self.attribute[::-1], candidates=self.candidates[::-1], slots=slots)


def ranges_of(feature: str) -> tuple[str, ...]:
    """The ranges that a numeric feature can fall in."""
    return RANGES[1:] if feature == NEVER_BELOW else RANGES


@cache
def templates() -> dict[int, Template]:
    """The templates by number."""
    with resources.as_file(resources.files("heartllm.data").joinpath("question_templates.toml")) as path:
        rows = read_toml(Path(path))["template"]
    return {row["id"]: Template(**{**row, "paraphrases": tuple(row["paraphrases"])}) for row in rows}


def _leads_for(template: Template, attribute: str) -> tuple[str, ...]:
    return tuple(LEAD_GROUPS) if template.view == "form in lead" and attribute in GROUPED_FORM else LEAD_NAMES


def _verify(template: Template) -> Iterator[Asked]:
    number = template.first_question_id
    if template.view == "range":
        for feature in FEATURES:
            for name in ranges_of(feature):
                slots = {"feature": feature, "range": name}
                yield Asked(template, number, (f"{name} of {feature}",), (name,), feature, slots)
                number += 1
        return
    for attribute in POOLS[template.view]:
        if "{lead}" not in template.text:
            yield Asked(template, number, (attribute,), (attribute,), "", {"a": attribute})
            number += 1
            continue
        leads = _leads_for(template, attribute)
        for lead in leads:
            yield Asked(template, number, (attribute,), (attribute,), lead, {"a": attribute, "lead": lead})
        number += len(leads)


def _choose(template: Template) -> Iterator[Asked]:
    number = template.first_question_id
    if template.view == "range":
        for feature in FEATURES:
            for pair in combinations(RANGES, 2):
                slots = {"feature": feature, "a": pair[0], "b": pair[1]}
                if set(pair) <= set(ranges_of(feature)):
                    yield Asked(template, number, tuple(f"{name} of {feature}" for name in pair), pair, feature, slots)
                number += 1  # also where a pair is left out: ECG-QA counts it
        return
    places = LEAD_NAMES if "{lead}" in template.text else ("",)
    for pair in combinations(POOLS[template.view], 2):
        for lead in places:
            yield Asked(template, number, pair, pair, lead, {"a": pair[0], "b": pair[1], "lead": lead})
        number += len(places)


def _query(template: Template) -> Iterator[Asked]:
    number, pool = template.first_question_id, POOLS[template.view]
    if template.view in ("leads of form", "leads of noise"):
        for offset, name in enumerate(LOCATED_FORM if template.view == "leads of form" else NOISE_KINDS):
            yield Asked(template, number + offset, (name,), pool, name, {"a": name})
    elif template.view == "range":
        for offset, feature in enumerate(FEATURES):
            attribute = tuple(f"{name} of {feature}" for name in pool)
            yield Asked(template, number + offset, attribute, pool, feature, {"feature": feature})
    elif template.view == "features in range":
        for offset, name in enumerate(RANGES):
            attribute = tuple(f"{name} of {feature}" for feature in pool if name in ranges_of(feature))
            yield Asked(template, number + offset, attribute, pool, name, {"range": name})
    elif "{lead}" in template.text:
        for lead in LEAD_NAMES:
            yield Asked(template, number, pool, pool, lead, {"lead": lead})
    else:
        yield Asked(template, number, pool, pool)


@cache
def all_asked() -> tuple[Asked, ...]:
    """Everything that the templates ask, in order of template and attribute."""
    makers = {"verify": _verify, "choose": _choose, "query": _query}
    return tuple(asked for template in templates().values() for asked in makers[template.form](template))


def may_be_none(template: Template) -> bool:
    """Whether "none" is an answer. One axis, one range and one stage always hold where they are queried."""
    return template.form == "choose" or (template.form == "query" and template.id not in (22, 25, 41))


def in_order(answers: set[str] | frozenset[str]) -> tuple[str, ...]:
    """Several answers in our fixed order: leads as on paper (I to V6), all else alphabetically."""
    return tuple(sorted(answers, key=lambda name: (LEAD_NAMES.index(name) if name in LEAD_NAMES else -1, name)))


def options(question: Question) -> tuple[str, ...]:
    """The answers that a one-ECG question allows, in a fixed order; "choose" allows its two candidates and "none".

    Raises:
        DataError: the template is not one of the 42 (comparisons of two ECGs are not built).
    """
    template = templates().get(question.template_id)
    if template is None:
        raise DataError(
            f"template {question.template_id} is not one of ECG-QA's one-ECG templates",
            remedy="Its templates 43 to 70 compare two ECGs; leave them out.",
        )
    if template.form == "verify":
        return (NO, NOT_SURE, YES) if template.id == 1 else (NO, YES)
    if template.form == "choose":
        return (*(name.split(" of ")[0] if template.view == "range" else name for name in question.attribute), NONE)
    return (*in_order(frozenset(POOLS[template.view])), *((NONE,) if may_be_none(template) else ()))
