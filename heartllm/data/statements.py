"""The SCP-ECG statements of PTB-XL under the names that ECG-QA gives them.

`statements.csv` beside this file holds one row a statement, made from two published tables: PTB-XL's
`scp_statements.csv` (which codes exist, of which kind, class and subclass) and ECG-QA's `answers.csv` (how each is
spelled). A statement that is no ECG-QA answer (too rare there) is spelled by the same rules: PTB-XL's description in
lower case.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

STATEMENT_KINDS = ("diagnostic", "form", "rhythm")
SUPERCLASSES = ("conduction disturbance", "hypertrophy", "myocardial infarction", "st/t change")


@dataclass(frozen=True)
class Statement:
    """One SCP-ECG statement.

    Attributes:
        code: PTB-XL's code ("IMI").
        name: ECG-QA's name ("myocardial infarction in inferior leads").
        diagnostic, form, rhythm: its kinds; some statements are both diagnostic and form.
        superclass: one of `SUPERCLASSES`, for diagnostic statements; None for "normal ecg", which is in no group.
        subclass: PTB-XL's diagnostic subclass ("IMI", "AMI", "NORM", ...), for diagnostic statements.
    """

    code: str
    name: str
    diagnostic: bool
    form: bool
    rhythm: bool
    superclass: str | None
    subclass: str | None


def read_table(name: str) -> list[dict[str, str]]:
    """The rows of a CSV table that is packaged beside this module; lines that start with # are comments."""
    text = resources.files("heartllm.data").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


@cache
def _load() -> dict[str, Statement]:
    return {
        row["code"]: Statement(
            code=row["code"],
            name=row["name"],
            diagnostic=bool(row["diagnostic"]),
            form=bool(row["form"]),
            rhythm=bool(row["rhythm"]),
            superclass=row["superclass"] or None,
            subclass=row["subclass"] or None,
        )
        for row in read_table("statements.csv")
    }


STATEMENTS: dict[str, Statement] = _load()
BY_NAME: dict[str, Statement] = {statement.name: statement for statement in STATEMENTS.values()}


def superclasses(names: Iterable[str]) -> set[str]:
    """The diagnostic superclasses of these statement names; names without one add nothing."""
    found = (BY_NAME[name].superclass for name in names if name in BY_NAME)
    return {superclass for superclass in found if superclass}
