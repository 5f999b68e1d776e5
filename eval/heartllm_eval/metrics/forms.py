"""What report metrics do to a text first, if anything: separate periods and lower-case."""

from __future__ import annotations

import re
from dataclasses import dataclass

# A period in a number ("0.12 s") is no end of a sentence.
_PERIOD = re.compile(r"(?<!\d)\.|\.(?!\d)")


@dataclass(frozen=True)
class TextForm:
    """What is done to predictions and references alike before a report metric sees them.

    Attributes:
        lower: lower case.
        periods: periods that do not stand in a number become tokens of their own; white space becomes single spaces.
    """

    lower: bool = False
    periods: bool = False

    @property
    def suffix(self) -> str:
        """What it adds to a metric's name: "", "-lower", "-periods" or "-lower-periods"."""
        return ("-lower" if self.lower else "") + ("-periods" if self.periods else "")

    def __call__(self, text: str) -> str:
        if self.lower:
            text = text.lower()
        return " ".join(_PERIOD.sub(" . ", text).split()) if self.periods else text

    def parts(self, profile: str) -> dict[str, str]:
        """What a signature says of it."""
        return {
            "profile": profile,
            "input": "lower" if self.lower else "as-is",
            "periods": "separate" if self.periods else "as-is",
        }


AS_IS = TextForm()
FORMS = tuple(TextForm(lower, periods) for lower in (False, True) for periods in (False, True))
