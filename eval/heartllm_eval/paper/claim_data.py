"""Findings from the data files of figures: embeddings (C6), attention (C7), denoising (C8), forecasts (C4)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartllm.errors import DataError
from heartllm_eval.figures.style import read_csv

if TYPE_CHECKING:
    from heartllm_eval.paper.claims import Finding

EMBEDDINGS, ATTENTION, DENOISING = "embeddings", "attention/summary.csv", "codec/denoising.csv"
FORECASTS = "forecast"
RIVALS = ("TEST", "Time-LLM")  # of which the paper says that they keep the modalities apart
# Measure, the value beyond which the modalities are apart, that beyond which they are mixed, and its sign (1: more is
# mixed). The probe is at 1 wherever some direction separates the two, so it does not stand alone.
_MIXED = (("probe AUC", 0.99, 0.9, -1), ("kNN mixing", 0.2, 0.5, 1))
_AGAIN = "Measure it again: heartllm-eval measure --help."


def _finding(state: str, text: str, where: str) -> Finding:
    from heartllm_eval.paper.claims import Finding

    return Finding(state, text, where)  # type: ignore[arg-type]


def _missing(what: str, command: str) -> tuple[Finding, ...]:
    return (_finding("missing", f"{what}: not run yet ({command})", ""),)


def mixing(folder: Path) -> tuple[Finding, ...]:
    """C6: how ECG and text lie to each other, in what enters the language model and in what it makes of it."""
    panels = {}
    for path in sorted((folder / EMBEDDINGS).glob("*.json")):
        try:
            panel = json.loads(path.read_text(encoding="utf-8"))
            panels[str(panel["system"])] = {(row["level"], row["measure"]): row for row in panel["numbers"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"is not a file of embeddings ({error})", where=path, remedy=_AGAIN) from None
    command = "heartllm-eval measure embeddings"
    if "HeartLLM" not in panels:
        return _missing("the embeddings of HeartLLM", command)
    found: list[Finding] = []
    where = "figures/figure1_embeddings.csv"
    for level, spoken in (("input", "what enters the LLM"), ("state", "what the LLM makes of it")):
        for measure, apart, mixed, sign in _MIXED:
            ours = panels["HeartLLM"].get((level, measure))
            if ours is None or _low(ours) is None or _high(ours) is None:
                continue
            low, high = sorted(sign * float(ours[end]) for end in ("low", "high"))
            state = "against" if high < sign * apart else "for" if low > sign * mixed else "open"
            found.append(_finding(state, f"{measure} of HeartLLM, {spoken}: {_value(ours, 3)}", where))
            for other in (*RIVALS, "CLIP", "untrained"):
                theirs = panels.get(other, {}).get((level, measure))
                if theirs is None:
                    found += _missing(f"{measure} of {other}, {spoken}", command)
                    continue
                if _low(theirs) is None or _high(theirs) is None:
                    continue
                least, most = sorted(sign * float(theirs[end]) for end in ("low", "high"))
                state = "for" if low > most else "against" if high < least else "open"
                place = {"for": "more mixed", "against": "further apart", "open": "not to be told from it"}[state]
                found.append(
                    _finding(state, f"{measure} of {other}, {spoken}: {_value(theirs, 3)}; HeartLLM is {place}", where)
                )
        read, guessed = (panels["HeartLLM"].get((level, name)) for name in ("mapped@10", "commonest@10"))
        if read is not None and guessed is not None:
            text = f"an ECG's own report among the first ten, by a linear map, {spoken}: {_value(read, 3)}"
            found.append(_finding("note", f"{text}; by naming the commonest reports: {_value(guessed, 3)}", where))
    return tuple(found)


def coverage(folder: Path) -> tuple[Finding, ...]:
    """C7: how much of the known finding the top 20 % of windows cover."""
    rows = _rows(folder / ATTENTION)
    if rows is None:
        return _missing("attention and occlusion on synthetic ECGs", "heartllm-eval measure attention")
    from heartllm_eval.figures.attention_maps import ATTENTION as LOOK
    from heartllm_eval.figures.attention_maps import BEATS, CYCLE, SHUFFLED
    from heartllm_eval.figures.attention_measures import EVERY, OTHER_LOOK, READ

    def one(method: str, measure: str, findings: str = EVERY) -> Mapping[str, str] | None:
        wanted = ("all", findings, method, measure)
        return next((r for r in rows if (r["kind"], r["findings"], r["method"], r["measure"]) == wanted), None)

    where = "figures/data/attention/summary.csv"
    found: list[Finding] = []
    for method in (LOOK, BEATS, CYCLE):
        row = one(method, "covered")
        if row is None:
            found += _missing(f"coverage by {method}", "heartllm-eval measure attention")
            continue
        # That the answer depends on the finding says nothing of attention; it is what attention is held against.
        state = _against_level(row, float(row["chance"])) if method == LOOK else "note"
        chance = f"chance {float(row['chance']):.3f}"
        text = f"the top 20 % of windows by {method} cover {_value(row, 3)} of the finding; {chance}"
        read = one(method, "covered", READ)
        if read is not None:
            chosen = f"{read['samples']} findings that are affirmed and {READ} (a choice made after a first look)"
            text += f"; of the {chosen}, {_value(read, 3)}"
        found.append(_finding(state, text, where))
    ours = one(LOOK, "covered")
    for control in (SHUFFLED, OTHER_LOOK):
        theirs = one(control, "covered")
        if theirs is None:
            found += _missing(f"coverage by {control}", "heartllm-eval measure attention")
        elif ours is not None and _low(ours) is not None and _high(theirs) is not None:
            above, below = float(ours["low"]) > float(theirs["high"]), float(ours["high"]) < float(theirs["low"])
            state = "for" if above else "against" if below else "open"
            found.append(_finding(state, f"{control} covers {_value(theirs, 3)}", where))
    row = one(LOOK, "agreement")
    if row is not None:
        text = f"rank agreement of {LOOK} with occlusion: {_value(row, 3)}"
        found.append(_finding(_against_level(row, 0.0), text, where))
    return tuple(found)


def denoising(folder: Path) -> tuple[Finding, ...]:
    """C8: SNR out of the codec against SNR in, and against a low-pass filter and a DCT at the same bit rate."""
    rows = _rows(folder / DENOISING)
    if rows is None:
        return _missing("denoising by the codec", "heartllm-eval measure denoising")
    where, found = "figures/data/codec/denoising.csv", list[Any]()
    ours = {(row["noise"], row["snr_in"]): row for row in rows if row["system"] == "codec"}
    gains = [(float(row["snr_out_low"]) - float(level), key) for key, row in ours.items() for level in (key[1],)]
    losses = [(float(row["snr_out_high"]) - float(level), key) for key, row in ours.items() for level in (key[1],)]
    better, worse = [key for gain, key in gains if gain > 0], [key for loss, key in losses if loss < 0]
    text = (
        f"of {len(ours)} kinds and levels of noise, the copy is nearer to the clean ECG than the noisy one in "
        f"{len(better)} "
        f"({_named(better)}) and farther in {len(worse)} ({_named(worse)})"
    )
    found.append(_finding("for" if not worse else "open" if better else "against", text, where))
    for system in sorted({row["system"] for row in rows} - {"codec"}):
        for setting in sorted({row["setting"] for row in rows if row["system"] == system}):
            theirs = {
                (row["noise"], row["snr_in"]): row
                for row in rows
                if (row["system"], row["setting"]) == (system, setting)
            }
            both = [key for key in ours if key in theirs]
            above = [k for k in both if float(ours[k]["snr_out_low"]) > float(theirs[k]["snr_out_high"])]
            below = [k for k in both if float(ours[k]["snr_out_high"]) < float(theirs[k]["snr_out_low"])]
            text = f"against {system} {setting}: higher SNR in {len(above)} of {len(both)}, lower in {len(below)}"
            found.append(_finding("against" if below else "for" if len(above) == len(both) else "open", text, where))
    return tuple(found)


def forecasts(folder: Path) -> tuple[Finding, ...]:
    """C4: forecasts of rhythm and intervals against repeating the last beat, a finding a dataset and measure."""
    from heartllm_eval.figures.forecast_data import read
    from heartllm_eval.figures.forecast_measures import (
        DECISIVE,
        GREEDY,
        MEASURES,
        NATS,
        READ_ALONG,
        SAME_AGAIN,
        SAMPLED,
    )

    place = folder / FORECASTS
    if not place.is_dir() or not any(place.glob("*.json")):
        what = "forecasts of rhythm and intervals against repeating the last beat"
        return _missing(what, "heartllm-eval measure forecast")
    where, found = "figures/forecast.csv", list[Any]()
    rows = {(row["dataset"], row["measure"], row["system"]): row for row in read(place)}
    for dataset in dict.fromkeys(key[0] for key in rows):
        for measure in DECISIVE:
            ways = {name: rows.get((dataset, measure, name)) for name in (GREEDY, SAMPLED)}
            told = {name: row for name, row in ways.items() if row is not None and row["gain"] is not None}
            # A way whose forecasts are hardly ever to be read has no interval, and no say.
            states = {_against_level(_gain(row), 0.0) for row in told.values() if row["gain_low"] is not None}
            state = states.pop() if len(states) == 1 else "open"
            said = [f"{name} {_value(_gain(row), 2)} ({row['pairs']} ECGs)" for name, row in told.items()]
            said += [f"{name} never to be read beside it" for name in ways if name not in told]
            what = f"{dataset}, {measure}, {MEASURES[measure]}"
            text = f"{what}: error of the repeated beat less that of the {'; of the '.join(said)}"
            found.append(_finding(state, text, where))
        row = rows.get((dataset, NATS, READ_ALONG))
        if row is not None and row["gain"] is not None:
            text = f"{dataset}, nats that the model saves a true code against its frequency: {_value(_gain(row), 2)}"
            before = rows.get((dataset, NATS, SAME_AGAIN))
            if before is not None and before["value"] is not None and row["value"] is not None:
                text += f"; against the code before it: {before['value'] - row['value']:.2f}"
            found.append(_finding("note", text, where))
    return tuple(found)


def _gain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": row["gain"], "low": row["gain_low"], "high": row["gain_high"]}


def _rows(path: Path) -> Sequence[Mapping[str, str]] | None:
    return read_csv(path) if path.is_file() else None


def _against_level(row: Mapping[str, Any], level: float) -> str:
    low, high = _low(row), _high(row)
    if low is None or high is None:
        return "open"
    return "for" if low > level else "against" if high < level else "open"


def _low(row: Mapping[str, Any]) -> float | None:
    return None if row["low"] in (None, "") else float(row["low"])


def _high(row: Mapping[str, Any]) -> float | None:
    return None if row["high"] in (None, "") else float(row["high"])


def _value(row: Mapping[str, Any], digits: int) -> str:
    low, high = _low(row), _high(row)
    between = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{float(row['value']):.{digits}f}{between}"


def _named(keys: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{noise} {float(level):g} dB" for noise, level in keys) or "none"
