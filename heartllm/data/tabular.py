"""TAB, the structured patient features of a prompt: age, sex, height, weight and device as a line of text.

No ids and no dates, nothing for what is missing. The paper's ablation "w/o TAB" leaves this text away.
"""

from __future__ import annotations

import re

from heartllm.data.records import Entry

_MISSING = frozenset({"", "nan", "none", "null", "unknown", "n/a"})
_FIELD = re.compile(r"-\s*([A-Za-z ]+?)\s*:\s*([^;]*)")


def features_text(
    *,
    age: float | None = None,
    age_censored: bool = False,
    sex: str | None = None,
    height: float | None = None,
    weight: float | None = None,
    device: str | None = None,
) -> str:
    """ "Age: 54 years. Sex: female. Weight: 59 kg. Device: CS-12."; an empty text where nothing is known.

    Args:
        age: years. age_censored: the age is a lower bound ("90 years or older").
        height: centimetres. weight: kilograms.
    """
    parts = []
    if age is not None:
        parts.append(f"Age: {age:.0f} years or older." if age_censored else f"Age: {age:.0f} years.")
    if sex:
        parts.append(f"Sex: {sex}.")
    if height is not None:
        parts.append(f"Height: {height:.0f} cm.")
    if weight is not None:
        parts.append(f"Weight: {weight:.0f} kg.")
    if device:
        parts.append(f"Device: {' '.join(device.split()).rstrip('.')}.")
    return " ".join(parts)


def patient_features(entry: Entry) -> str:
    """The TAB text of an entry."""
    return features_text(
        age=entry.age,
        age_censored=entry.age_censored,
        sex=entry.sex,
        height=entry.height,
        weight=entry.weight,
        device=entry.device,
    )


def features_from_background(background: str) -> str:
    """The same text from the authors' `background` field.

    That field reads "Patient Information: - Patient ID: 9496; - Age: 54; - Sex: 1; - Height: nan; - Weight: 59;
    Recording Details: - Recording Date: ...; - Nurse ID: 2; - Site ID: 0; - Device ID: CS-12   E.". Sex is coded as
    in PTB-XL (0 male, 1 female), an age of 300 means 90 or older. Ids and dates are dropped; the device is kept.
    """
    fields = {name.lower(): value.strip().rstrip(".") for name, value in _FIELD.findall(background)}

    def value(name: str) -> float | None:
        text = fields.get(name, "").lower()
        if text in _MISSING or not re.fullmatch(r"\d+(\.\d+)?", text):
            return None
        return float(text)

    oldest = (value("age") or 0) > 89
    age, device = value("age"), fields.get("device id", "")
    codes = {"0": "male", "0.0": "male", "1": "female", "1.0": "female", "m": "male", "f": "female"}
    sex = fields.get("sex", "").lower()
    return features_text(
        age=90.0 if oldest else age,
        age_censored=oldest,
        sex=sex if sex in ("male", "female") else codes.get(sex),
        height=value("height"),
        weight=value("weight"),
        device=None if device.lower() in _MISSING else device,
    )
