"""Lead names: any spelling and any order in, the canonical twelve rows out.

Limb leads obey Einthoven's law (III = II - I) and Goldberger's equations (aVR = -(I + II)/2, aVL = I - II/2,
aVF = II - I/2), so that any two of the six determine the other four exactly. Chest leads cannot be derived.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from heartllm.ecg.recording import LEADS
from heartllm.errors import DataError

LIMB_LEADS = LEADS[:6]

# Each limb lead as a combination of I and II (rows in the order of LIMB_LEADS).
LIMB_FROM_I_II = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0], [-0.5, -0.5], [1.0, -0.5], [-0.5, 1.0]])

_IGNORED = re.compile(
    r"""ignore|time.*|t|seconds?|ms|samples?|index|sampleindex|resp.*|pleth.*|ppg.*|spo2.*|abp.*|art|bp|cvp|pap|co2|etco2
    |temp.*|marker.*|trig.*|event.*|annot.*|status|acc[xyz]?|eeg.*|emg.*|eog.*
    |vx|vy|vz|frank[xyz]|v[789]|v[3-9]r|c[789]|c[3-9]r""",
    re.VERBOSE,
)
_PREFIX = re.compile(r"^(mdcecgleads?|mdcecg|ecgleads?|ekgleads?|ecg|ekg|leads?|derivation|ableitung|channel|ch)(?=.)")
_REMEDY = (
    f"Name it as one of {' '.join(LEADS)}, or give all names with lead_names=[...] "
    "(the word 'ignore' for a channel that is no ECG lead)."
)


def _spellings() -> dict[str, str]:
    table = {lead.lower(): lead for lead in LEADS}
    for number, lead in enumerate(("I", "II", "III"), start=1):
        table |= {f"d{lead.lower()}": lead, f"d{number}": lead, f"l{number}": lead, f"l{lead.lower()}": lead}
        table[f"lead{number}"] = lead
    table |= {f"c{number}": f"V{number}" for number in range(1, 7)}  # IEC 60601 electrode names
    return table


_SPELLINGS = _spellings()


_LONGEST = 200  # characters of a name that are looked at: patterns take time quadratic in them


def _key(name: str) -> str:
    """The name in lower case, without separators, bracketed remarks ("(Einthoven)", "[mV]")."""
    plain = unicodedata.normalize("NFKC", name[:_LONGEST])
    plain = re.sub(r"[(\[{].*?[)\]}]", "", plain).strip().lower()
    return re.sub(r"[\s_\-./:,'\"]+", "", plain)


@lru_cache(maxsize=1024)  # a dataset's files name their leads alike
def _find(name: str) -> str | None:
    key = _key(name)
    if key in _SPELLINGS:
        return _SPELLINGS[key]
    return _SPELLINGS.get(_PREFIX.sub("", key))


@lru_cache(maxsize=1024)
def is_ignored(name: str) -> bool:
    """Whether `name` is a channel that may stand beside the twelve leads (respiration, Frank leads, V7, time)."""
    key = _key(name)
    return _find(name) is None and any(_IGNORED.fullmatch(form) for form in (key, _PREFIX.sub("", key)))


def is_inverted(name: str) -> bool:
    """Whether `name` means an inverted lead: "-aVR", as Cabrera's order prints it."""
    return name.strip().startswith(("-", "−"))


def canonical(name: str, *, where: str | Path | None = None) -> str:
    """The canonical spelling of a lead name ("MDC_ECG_LEAD_AVR", "avr", "Lead aVR" -> "aVR").

    A leading minus sign is not part of the name; `arrange` heeds it (see `is_inverted`).

    Raises:
        DataError: for a name that is none of the twelve leads; names `where`, the name and the remedy.
    """
    found = _find(name)
    if found is None:
        raise DataError(f"unknown lead name {name!r}", where=where, remedy=_REMEDY)
    return found


def arrange(
    signal: npt.NDArray[np.floating], names: Sequence[str], *, where: str | Path | None = None
) -> tuple[npt.NDArray[np.floating], tuple[str, ...]]:
    """Orders channels by name and derives missing limb leads.

    Args:
        signal: (C, T), one row a channel, all leads in one unit.
        names: C names in any spelling. Non-ECG channels are left out.
        where: the file, for messages.

    Returns:
        (12, T) in the order of `LEADS`, in the dtype of `signal`, and notes on what was left out, inverted or derived.

    Raises:
        DataError: for unknown, repeated or missing leads, and for a count of names that differs from the rows.
    """
    if signal.ndim != 2 or signal.shape[0] != len(names):
        raise DataError(
            f"{len(names)} lead names for a signal of shape {signal.shape}",
            where=where,
            remedy="Give one name for each channel.",
        )
    notes: list[str] = []
    rows: dict[str, npt.NDArray[np.floating]] = {}
    for row, name in zip(signal, names, strict=True):
        if is_ignored(name):
            notes.append(f"channel {name!r} ignored: not one of the twelve leads")
            continue
        lead = canonical(name, where=where)
        if lead in rows:
            raise DataError(
                f"lead {lead} occurs twice (the second time as {name!r})",
                where=where,
                remedy="Keep one channel for each lead, or pass lead_names with 'ignore' for the other.",
            )
        if is_inverted(name):
            notes.append(f"lead {lead} inverted back: the file stores {name!r}")
        rows[lead] = -row if is_inverted(name) else row
    notes += _derive(rows, where)
    if tuple(rows) == LEADS and len(names) == len(LEADS) and not notes:
        return signal, ()  # already in order: no copy
    return np.stack([rows[lead] for lead in LEADS]), tuple(notes)


def _derive(rows: dict[str, npt.NDArray[np.floating]], where: str | Path | None) -> list[str]:
    """Adds the missing limb leads to `rows`, from the first two that are present."""
    missing = [lead for lead in LEADS if lead not in rows]
    limb = [lead for lead in LIMB_LEADS if lead in rows]
    chest = [lead for lead in missing if lead not in LIMB_LEADS]
    if chest or (missing and len(limb) < 2):
        why = "chest leads cannot be derived" if chest else "two limb leads are needed to derive the others"
        raise DataError(
            f"missing lead{'s' if len(missing) > 1 else ''} {', '.join(missing)}; {why}",
            where=where,
            remedy="Use a recording with V1 to V6 and at least two limb leads.",
        )
    if not missing:
        return []
    first, second = limb[0], limb[1]
    basis = LIMB_FROM_I_II[[LIMB_LEADS.index(first), LIMB_LEADS.index(second)]]
    notes = []
    for lead in missing:
        # w @ [first, second] = lead for all hearts  <=>  w @ basis = the lead's own combination of I and II
        weights = np.linalg.solve(basis.T, LIMB_FROM_I_II[LIMB_LEADS.index(lead)])
        rows[lead] = (weights[0] * rows[first] + weights[1] * rows[second]).astype(rows[first].dtype)
        notes.append(f"lead {lead} derived from {first} and {second}")
    return notes
