"""What the electrodes, the mains and the machine add: noise by electrode, bandwidth, resolution.

Noise arises at the nine electrodes, so a bad right-arm electrode disturbs I, II and aVR fully, aVL and aVF by half, the
precordial leads by a third (through Wilson's terminal) and III not at all. A lead is said to carry a noise kind where
the noise reaches that kind's threshold in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from heartllm.data.records import NOISE_KINDS
from heartllm.data.synthetic.anatomy import EIGHT_FROM_ELECTRODES, TWELVE_FROM_EIGHT, Array
from heartllm.ecg.recording import LEADS

DRIFT, STATIC, BURST, ELECTRODES = NOISE_KINDS
THRESHOLD = {DRIFT: 0.10, STATIC: 0.030, BURST: 0.11, ELECTRODES: 0.20}  # mV RMS in a lead (burst: while it lasts)
LEADS_FROM_ELECTRODES: Array = TWELVE_FROM_EIGHT @ EIGHT_FROM_ELECTRODES  # (12, 9)
SHARES = {
    "a": {DRIFT: 0.09, STATIC: 0.12, BURST: 0.05, ELECTRODES: 0.04},
    "b": {DRIFT: 0.13, STATIC: 0.10, BURST: 0.08, ELECTRODES: 0.05},
}


@dataclass(frozen=True)
class Device:
    """An electrocardiograph: `high` is its low-pass corner (Hz), `mains` the power line (Hz), `step` its resolution (mV)."""

    name: str
    high: float
    mains: float
    step: float
    hum: float


DEVICES = {
    "a": (
        Device("SYN-100", 150.0, 50.0, 0.001, 0.0015),
        Device("SYN-100 rev. 2", 110.0, 50.0, 0.001, 0.0006),
        Device("SYN-7 portable", 75.0, 50.0, 0.005, 0.004),
    ),
    "b": (
        Device("Northfield M1", 150.0, 60.0, 0.005, 0.001),
        Device("Northfield M3", 100.0, 60.0, 0.005, 0.003),
        Device("Northfield Cart", 45.0, 60.0, 0.005, 0.0),
    ),
}


@dataclass(frozen=True)
class Noise:
    """The noise of one recording: RMS in mV per kind and electrode (9,), and the leads that carry each kind."""

    amplitude: dict[str, Array] = field(default_factory=dict)
    leads: dict[str, tuple[str, ...]] = field(default_factory=dict)


def draw_noise(site: str, rng: np.random.Generator) -> Noise:
    """Draws which kinds of noise disturb which electrodes, clearly above or clearly below the thresholds."""
    amplitude: dict[str, Array] = {}
    leads: dict[str, tuple[str, ...]] = {}
    for kind, share in SHARES[site].items():
        if rng.random() >= share:
            continue
        size = np.zeros(9)
        place = rng.random()
        if kind == ELECTRODES:
            size[3 + rng.integers(6)] = rng.uniform(1.3, 3.0)
        elif place < 0.40:
            start = int(rng.integers(6))
            size[3 + start : 3 + start + int(rng.integers(1, 3))] = rng.uniform(1.4, 2.6)
        elif place < 0.58:
            size[rng.integers(3)] = rng.uniform(1.3, 1.8)
        elif place < 0.80:
            size[:3] = rng.uniform(1.1, 1.5)
        else:
            size[:] = rng.uniform(1.1, 1.8)
        size *= THRESHOLD[kind]
        reached = np.sqrt((LEADS_FROM_ELECTRODES**2) @ size**2) >= THRESHOLD[kind]
        amplitude[kind] = size
        leads[kind] = tuple(name for name, hit in zip(LEADS, reached, strict=True) if hit)
    return Noise(amplitude, leads)


def _coloured(shape: Array, count: int, samples: int, rng: np.random.Generator) -> Array:
    """(count, T) Gaussian noise of unit variance whose amplitude spectrum is `shape` (T // 2 + 1,)."""
    spectrum = np.empty((count, len(shape)), dtype=np.complex64)
    spectrum.real = rng.standard_normal((count, len(shape)), dtype=np.float32)
    spectrum.imag = rng.standard_normal((count, len(shape)), dtype=np.float32)
    noise = np.fft.irfft(spectrum * shape, samples)
    return noise * (samples / (2 * np.sqrt((shape**2).sum())))


def _wander(count: int, samples: int, rate: float, rng: np.random.Generator) -> Array:
    """(count, T) slow drift of about unit RMS: breathing and moving electrodes, 0.08 to 0.6 Hz."""
    time = np.arange(samples) / rate
    frequency = rng.uniform(0.08, 0.6, (count, 3, 1))
    waves = np.sin(2 * np.pi * frequency * time + rng.uniform(0, 2 * np.pi, (count, 3, 1)))
    weight = rng.uniform(0.5, 1.0, (count, 3, 1))
    drift = (weight * waves).sum(1)
    drift -= drift.mean(1, keepdims=True)
    return drift / drift.std(1, keepdims=True)


def add_noise(
    signal: Array, noise: Noise, device: Device, rate: float, rng: np.random.Generator
) -> tuple[Array, float]:
    """The eight leads (8, T) as the machine records them, and the signal-to-noise ratio in dB (median over 12 leads)."""
    samples = signal.shape[1]
    frequency = np.fft.rfftfreq(samples, 1 / rate)
    muscle = np.clip(frequency / 15.0, 0.15, 1.0) / np.sqrt(1 + (frequency / 90.0) ** 4)
    low_pass = 1 / np.sqrt(1 + (frequency / device.high) ** 6)
    background = rng.uniform(0.0035, 0.008, 9)
    if STATIC in noise.amplitude:
        background = np.hypot(background, noise.amplitude[STATIC])
    electrodes = background[:, None] * _coloured(muscle, 9, samples, rng)
    if BURST in noise.amplitude:
        length = rng.uniform(0.5, 2.2)
        start = rng.uniform(0.3, samples / rate - length - 0.3)
        time = np.arange(samples) / rate
        window = np.clip(np.minimum(time - start, start + length - time) / 0.08, 0.0, 1.0)
        electrodes += noise.amplitude[BURST][:, None] * window * _coloured(muscle, 9, samples, rng)
    slow = rng.uniform(0.004, 0.024, (9, 1)) * _wander(9, samples, rate, rng)
    if DRIFT in noise.amplitude:
        slow += noise.amplitude[DRIFT][:, None] * _wander(9, samples, rate, rng)
    if ELECTRODES in noise.amplitude:
        slow += noise.amplitude[ELECTRODES][:, None] * _loose(samples, rate, rng)
    hum = np.sin(2 * np.pi * device.mains * np.arange(samples) / rate + rng.uniform(0, 2 * np.pi))
    slow += (device.hum * rng.uniform(0.3, 1.5, (9, 1))) * hum
    fast = EIGHT_FROM_ELECTRODES @ electrodes
    recorded = np.fft.irfft(np.fft.rfft(signal + fast) * low_pass, samples) + EIGHT_FROM_ELECTRODES @ slow
    error = TWELVE_FROM_EIGHT @ (recorded - signal)
    clean = TWELVE_FROM_EIGHT @ signal
    ratio = clean.std(1) / np.maximum(error.std(1), 1e-9)
    return recorded, float(20 * np.log10(max(float(np.median(ratio)), 1e-6)))


def _loose(samples: int, rate: float, rng: np.random.Generator) -> Array:
    """(T,) a loose electrode: sudden steps that decay, and scratches between them; unit RMS."""
    out = np.zeros(samples)
    for place in rng.integers(0, samples - 200, int(rng.integers(4, 9))):
        tail = np.arange(samples - place) / rate
        out[place:] += rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.0) * np.exp(-tail / rng.uniform(0.15, 0.7))
    return out / max(float(out.std()), 1e-6)


def digitise(eight: Array, device: Device, unit: float) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    """(12, T) int16 in steps of `unit` mV. I and II are rounded to the machine's resolution, the other limb leads follow
    from these rounded values, as in a real machine: III = II - I holds exactly."""
    step = max(device.step, unit)
    coarse = np.rint(np.clip(eight, -30.0, 30.0) / step)
    whole = np.clip(coarse * (step / unit), -32000, 32000)
    return np.rint(TWELVE_FROM_EIGHT @ whole).astype(np.int16)
