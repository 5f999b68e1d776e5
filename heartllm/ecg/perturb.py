"""Controlled shifts of a recording: noise, gain, electrodes, channels, lost leads, sampling rate, bandwidth.

A perturbation is written `kind=value` ("noise=10dB", "swap=LA-RA"); `KINDS` says what each does. Whatever is random is
drawn from the seed, the recording and the kind, never from the strength: the same ECG meets the same noise at 20 dB and
at 0 dB, only louder, so that a curve over strengths compares like with like.

Noise and exchanged electrodes act where they arise, at the ten electrodes. With u the potentials,

    I = LA - RA    II = LL - RA    III = LL - LA            (Einthoven)
    aVR = RA - (LA + LL)/2, aVL and aVF alike               (Goldberger)
    Vi = Ci - (RA + LA + LL)/3                              (Wilson's terminal)

so noise on the right arm disturbs I and II fully, aVL and aVF by half, V1 to V6 by a third, and III not at all.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from heartllm.ecg.leads import LIMB_FROM_I_II, LIMB_LEADS
from heartllm.ecg.perturb_kinds import KINDS, NOISES
from heartllm.ecg.recording import LEADS, Recording
from heartllm.ecg.resampling import resample
from heartllm.errors import UsageError

Array = npt.NDArray[np.float64]
Change = Callable[[Array, float, np.random.Generator], Array]

VERSION = 1  # raised when the same text would change a recording otherwise: cached answers are not used then
CHEST = LEADS[6:]
ELECTRODES = ("RA", "LA", "LL", *CHEST)


@dataclass(frozen=True)
class Perturbation:
    """One shift.

    Attributes:
        kind: one of `KINDS`.
        value: its canonical text; "10dB" of noise is "white:10dB".
        source: what is random depends on this beside the seed and the recording: the kind without its strength.
        change: (12, T) mV, Hz, random numbers -> (12, T) mV.
    """

    kind: str
    value: str
    source: str = ""
    change: Change = field(default=lambda signal, rate, rng: signal, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.kind}={self.value}"


def parse(text: str) -> Perturbation:
    """Reads "noise=10dB".

    Raises:
        UsageError: for an unknown kind, or a value that the kind does not take.
    """
    kind, equals, value = (part.strip() for part in text.partition("="))
    if not equals or kind not in _PARSERS:
        raise UsageError(
            f"{text!r} is no perturbation",
            where="--perturb",
            remedy=f"Write KIND=VALUE, such as noise=10dB; kinds: {', '.join(KINDS)}.",
        )
    try:
        return _PARSERS[kind](value)
    except ValueError as error:
        reason = str(error)
        raise UsageError(
            f"{kind}={value}: {reason}", where="--perturb", remedy=f"{kind} is {KINDS[kind].rstrip('.')}."
        ) from None


def perturb(recording: Recording, steps: Sequence[Perturbation], seed: int = 0) -> Recording:
    """The recording after the shifts, in their order; each is noted.

    Args:
        recording: without NaN.
        steps: what is done.
        seed: of all noise. A recording's noise depends on the seed, its source and id, and the kind of noise only.
    """
    signal = recording.signal.astype(np.float64)
    met: dict[str, int] = {}
    for step in steps:
        place = met[step.source] = met.get(step.source, -1) + 1  # the same noise twice is noise of two sources
        key = "\x1f".join((str(seed), recording.source, recording.record_id, step.source, str(place)))
        words = np.frombuffer(hashlib.sha256(key.encode()).digest(), dtype=np.uint32)
        signal = step.change(signal, recording.sampling_rate, np.random.default_rng(words))
    notes = (*recording.notes, *(f"perturbed: {step}" for step in steps))
    return replace(recording, signal=np.ascontiguousarray(signal, dtype=np.float32), notes=notes)


def leads_from_electrodes() -> Array:
    """(12, 9): the leads from the potentials of `ELECTRODES`."""
    table = np.zeros((12, 9))
    table[:6] = LIMB_FROM_I_II @ np.array([[-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]) @ np.eye(3, 9)
    table[6:, :3] = -1 / 3
    table[6:, 3:] = np.eye(6)
    return table


def electrodes_from_leads() -> Array:
    """(9, 12): potentials of `ELECTRODES` against Wilson's terminal, from I, II and V1 to V6.

    The leads fix the potentials but for a common one, which no lead shows; here their mean over RA, LA, LL is 0.
    """
    table = np.zeros((9, 12))
    table[0, :2] = (-1 / 3, -1 / 3)
    table[1, :2] = (2 / 3, -1 / 3)
    table[2, :2] = (-1 / 3, 2 / 3)
    table[3:, 6:] = np.eye(6)
    return table


def noise_of(kind: str, samples: int, rate: float, rng: np.random.Generator) -> Array:
    """(9, T) noise of the electrodes, of about unit variance each.

    - white: Gaussian, all frequencies alike.
    - muscle: Gaussian, with the spectrum of a surface electromyogram, f^2 / ((f^2 + 60^2) (f^2 + 120^2)^2) in power
      (Shwedyk et al., IEEE Trans Biomed Eng 1977;24:417): most between 30 and 120 Hz.
    - wander: six slow waves of 0.05 to 0.6 Hz (breathing, movement), mixed for each electrode on its own.
    - powerline, powerline60: a sine of 50 or 60 Hz, its amplitude and phase drawn for each electrode.
    """
    time = np.arange(samples) / rate
    if kind == "white":
        return rng.standard_normal((9, samples))
    if kind == "muscle":
        frequency = np.fft.rfftfreq(samples, 1 / rate)
        shape = frequency / (np.hypot(frequency, 60.0) * (frequency**2 + 120.0**2))
        noise = np.fft.irfft(np.fft.rfft(rng.standard_normal((9, samples)), axis=1) * shape, samples, axis=1)
        return noise / max(float(noise.std()), 1e-300)
    if kind == "wander":
        phase = 2 * np.pi * (rng.uniform(0.05, 0.6, 6)[:, None] * time + rng.uniform(0, 1, 6)[:, None])
        waves = np.concatenate([np.sin(phase), np.cos(phase)])
        return np.asarray(rng.standard_normal((9, 12)) @ waves / math.sqrt(6))
    mains = 60.0 if kind == "powerline60" else 50.0
    weights = rng.standard_normal((9, 2))
    return np.asarray(weights @ np.stack([np.sin(2 * np.pi * mains * time), np.cos(2 * np.pi * mains * time)]))


def snr_db(signal: Array, noise: Array) -> float:
    """10 log10 of the power of (12, T) signal over that of (12, T) noise, both without their means, over all leads."""
    return float(10 * np.log10(signal.var(axis=1).sum() / noise.var(axis=1).sum()))


def _add_noise(kind: str, *, decibels: float | None = None, millivolts: float | None = None) -> Change:
    """Adds noise to the electrodes, scaled over the twelve leads: to an SNR (`snr_db`) or to a mean square."""

    def change(signal: Array, rate: float, rng: np.random.Generator) -> Array:
        noise = leads_from_electrodes() @ noise_of(kind, signal.shape[1], rate, rng)
        power = float(noise.var(axis=1).mean())
        if decibels is not None:
            wanted = float(signal.var(axis=1).mean()) / 10 ** (decibels / 10)
        else:
            wanted = (millivolts or 0.0) ** 2
        return signal + noise * math.sqrt(wanted / power)

    return change


def _parse_noise(value: str) -> Perturbation:
    kind, colon, size = value.rpartition(":")
    kind = kind if colon else "white"
    if kind not in NOISES:
        raise ValueError(f"unknown noise {kind!r}")
    match = re.fullmatch(r"([-+]?\d*\.?\d+)\s*(dB|mV)", size, re.IGNORECASE)
    if match is None:
        raise ValueError(f"{size!r} is neither dB nor mV")
    number = float(match[1])
    if match[2].lower() == "db":
        return Perturbation(
            "noise", f"{kind}:{number:g}dB", f"noise:{kind}", _add_noise(kind, decibels=_within(number, -60, 120))
        )
    size_mv = _within(number, 0, 100)
    return Perturbation("noise", f"{kind}:{number:g}mV", f"noise:{kind}", _add_noise(kind, millivolts=size_mv))


def _parse_baseline(value: str) -> Perturbation:
    size = _within(float(re.sub(r"\s*mV$", "", value, flags=re.IGNORECASE)), 0, 100)
    return Perturbation("baseline", f"{size:g}mV", "noise:wander", _add_noise("wander", millivolts=size))


def _parse_gain(value: str) -> Perturbation:
    factor = _within(float(value), 1e-3, 1e3)
    return Perturbation("gain", f"{factor:g}", "gain", lambda signal, rate, rng: signal * factor)


def _within(number: float, low: float, high: float) -> float:
    if not low <= number <= high:
        raise ValueError(f"{number:g} is not between {low:g} and {high:g}")
    return number


def swap_matrix(first: str, second: str) -> Array:
    """(12, 12): the leads that are recorded with two electrodes exchanged, from the right ones.

    RL is the ground electrode, in no lead; the legs are taken to have one potential, so that exchanging RA with RL
    makes II a straight line, as it does in practice.
    """
    names = [*ELECTRODES, "RL"]
    order = list(range(10))
    i, j = names.index(first), names.index(second)
    order[i], order[j] = j, i
    potentials = electrodes_from_leads()
    potentials = np.vstack([potentials, potentials[2]])  # (10, 12), RL at LL's
    # What changes is added, so that rounding in the file's own III and aV leads stays as it is.
    return np.eye(12) + leads_from_electrodes() @ (potentials[order] - potentials)[:9]


def _parse_swap(value: str) -> Perturbation:
    names = {name.upper(): name for name in (*ELECTRODES, "RL")}
    pair = [names.get(part.strip().upper(), "") for part in value.split("-")]
    if len(pair) != 2 or not all(pair) or pair[0] == pair[1]:
        raise ValueError(f"not two of {', '.join((*ELECTRODES, 'RL'))}")
    first, second = sorted(pair)
    matrix = swap_matrix(first, second)
    return Perturbation("swap", f"{first}-{second}", "swap", lambda signal, rate, rng: matrix @ signal)


def _leads(text: str, separator: str) -> list[str]:
    known = {name.upper(): name for name in LEADS}
    found = [known.get(part.strip().upper(), part) for part in text.split(separator)]
    if unknown := [part for part in found if part not in LEADS]:
        raise ValueError(f"no lead {unknown[0]!r}")
    return list(dict.fromkeys(found))


def _parse_channels(value: str) -> Perturbation:
    pair = _leads(value, "-")
    if len(pair) != 2:
        raise ValueError("not two leads")
    first, second = sorted(LEADS.index(name) for name in pair)
    order = list(range(12))
    order[first], order[second] = second, first
    text = f"{LEADS[first]}-{LEADS[second]}"
    return Perturbation("channels", text, "channels", lambda signal, rate, rng: signal[order])


def _parse_missing(value: str) -> Perturbation:
    names, _, how = value.partition(":")
    if how not in ("", "interpolate"):
        raise ValueError(f"{how!r} is not 'interpolate'")
    lost = sorted(_leads(names, "+"), key=LEADS.index)
    matrix = fill_matrix(lost) if how else np.diag([float(name not in lost) for name in LEADS])
    text = "+".join(lost) + (":interpolate" if how else "")
    return Perturbation("missing", text, "missing", lambda signal, rate, rng: matrix @ signal)


def fill_matrix(lost: Sequence[str]) -> Array:
    """(12, 12): the lost leads from the others. Limb leads follow exactly from any two that are left; a chest lead lies
    on the line between the nearest that are left, or equals the nearest at either end.

    Raises:
        ValueError: if too few are left.
    """
    matrix = np.eye(12)
    limb = [lead for lead in range(6) if LEADS[lead] not in lost]
    chest = [lead for lead in range(6, 12) if LEADS[lead] not in lost]
    if len(limb) < 2 or not chest:
        raise ValueError("fewer than two limb leads or no chest lead would be left")
    for name in lost:
        row = LEADS.index(name)
        matrix[row] = 0.0
        if name in LIMB_LEADS:
            matrix[row, limb[:2]] = np.linalg.solve(LIMB_FROM_I_II[limb[:2]].T, LIMB_FROM_I_II[row])
            continue
        before, after = [lead for lead in chest if lead < row][-1:], [lead for lead in chest if lead > row][:1]
        if before and after:
            share = (row - before[0]) / (after[0] - before[0])
            matrix[row, before[0]], matrix[row, after[0]] = 1 - share, share
        else:
            matrix[row, (before or after)[0]] = 1.0
    return matrix


def _parse_resample(value: str) -> Perturbation:
    low = _within(float(re.sub(r"\s*Hz$", "", value, flags=re.IGNORECASE)), 10, 10_000)

    def change(signal: Array, rate: float, rng: np.random.Generator) -> Array:
        if low >= rate:
            return signal
        return np.asarray(resample(resample(signal, rate, low), low, rate)[:, : signal.shape[1]], dtype=np.float64)

    return Perturbation("resample", f"{low:g}Hz", "resample", change)


def _parse_lowpass(value: str) -> Perturbation:
    corner = _within(float(re.sub(r"\s*Hz$", "", value, flags=re.IGNORECASE)), 1, 10_000)

    def change(signal: Array, rate: float, rng: np.random.Generator) -> Array:
        if corner >= rate / 2:
            return signal
        from scipy.signal import butter, sosfiltfilt

        # Forwards and backwards: no delay, and -6 dB at the corner.
        return np.asarray(sosfiltfilt(butter(2, corner, fs=rate, output="sos"), signal, axis=1))

    return Perturbation("lowpass", f"{corner:g}Hz", "lowpass", change)


_PARSERS: dict[str, Callable[[str], Perturbation]] = {
    "noise": _parse_noise,
    "baseline": _parse_baseline,
    "gain": _parse_gain,
    "swap": _parse_swap,
    "channels": _parse_channels,
    "missing": _parse_missing,
    "resample": _parse_resample,
    "lowpass": _parse_lowpass,
}
