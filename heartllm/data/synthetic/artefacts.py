"""What the electrodes, the mains and the machine add: noise by electrode, bandwidth, resolution.

Noise arises at the nine electrodes, so a bad right-arm electrode disturbs I, II and aVR fully, aVL and aVF by half, the
precordial leads by a third (through Wilson's terminal) and III not at all. A lead is said to carry a noise kind where
the noise reaches that kind's threshold in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

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
    """An electrocardiograph: `high` is its low-pass corner (Hz), `mains` the power line (Hz), `step` its resolution
    (mV)."""

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


@lru_cache(maxsize=16)
def _responses(samples: int, rate: float, high: float) -> tuple[Array, Array]:
    """(T // 2 + 1,) amplitude spectrum of muscle noise, scaled to unit variance in time, and the machine's low pass."""
    frequency = np.fft.rfftfreq(samples, 1 / rate)
    muscle = np.clip(frequency / 15.0, 0.15, 1.0) / np.sqrt(1 + (frequency / 90.0) ** 4)
    muscle *= samples / (2 * np.sqrt((muscle**2).sum()))
    return muscle, 1 / np.sqrt(1 + (frequency / high) ** 6)


def _spectrum(shape: Array, count: int, rng: np.random.Generator) -> npt.NDArray[np.complex64]:
    """(count, T // 2 + 1) random spectra of real Gaussian noise with the amplitude spectrum `shape`."""
    spectrum = np.empty((count, len(shape)), dtype=np.complex64)
    spectrum.real = rng.standard_normal((count, len(shape)), dtype=np.float32)
    spectrum.imag = rng.standard_normal((count, len(shape)), dtype=np.float32)
    spectrum *= shape.astype(np.float32)
    return spectrum


def _sinusoids(frequency: Array, samples: int, rate: float) -> Array:
    """(2 * frequencies, T) cosines and sines, by the product of a coarse and a fine rotation (T is a multiple of
    100)."""
    omega = 2j * np.pi * frequency[:, None] / rate
    coarse, fine = np.exp(omega * np.arange(0, samples, 100)), np.exp(omega * np.arange(100))
    wave = (coarse[:, :, None] * fine[:, None, :]).reshape(len(frequency), samples)
    return np.concatenate([wave.real, wave.imag])


def _wander(samples: int, rate: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Slow drift of breathing and moving electrodes, 0.08 to 0.6 Hz: waves (12, T) without mean, and the weights (9,
    12) by which each electrode's drift is made of them, for unit RMS."""
    waves = _sinusoids(rng.uniform(0.08, 0.6, 6), samples, rate)
    waves -= waves.mean(1, keepdims=True)
    weights = rng.normal(size=(9, 12))
    power = np.einsum("ei,ij,ej->e", weights, waves @ waves.T / samples, weights)
    return waves, weights / np.sqrt(power)[:, None]


def add_noise(
    signal: Array, noise: Noise, device: Device, rate: float, rng: np.random.Generator
) -> tuple[Array, float, tuple[float, float] | None]:
    """The eight leads (8, T) as the machine records them, the signal-to-noise ratio in dB (median over the leads), and
    the first and last second of the burst, if there is one."""
    lasts: tuple[float, float] | None = None
    samples = signal.shape[1]
    muscle, low_pass = _responses(samples, rate, device.high)
    background = rng.uniform(0.0035, 0.008, 9)
    if STATIC in noise.amplitude:
        background = np.hypot(background, noise.amplitude[STATIC])
    mixed = (EIGHT_FROM_ELECTRODES * background).astype(np.float32) @ _spectrum(muscle, 9, rng)
    if BURST in noise.amplitude:
        length = rng.uniform(0.5, 2.2)
        start = rng.uniform(0.3, samples / rate - length - 0.3)
        lasts = (float(start), float(start + length))
        time = np.arange(samples) / rate
        window = np.clip(np.minimum(time - start, start + length - time) / 0.08, 0.0, 1.0)
        burst = np.fft.irfft(_spectrum(muscle, 9, rng), samples)
        signal_in = signal + EIGHT_FROM_ELECTRODES @ (noise.amplitude[BURST][:, None] * window * burst)
    else:
        signal_in = signal
    recorded = np.fft.irfft((np.fft.rfft(signal_in) + mixed) * low_pass, samples)
    waves, weights = _wander(samples, rate, rng)
    drift = np.hypot(rng.uniform(0.004, 0.024, 9), noise.amplitude.get(DRIFT, 0.0))
    slow, by_electrode = [waves], [weights * drift[:, None]]
    slow.append(_sinusoids(np.array([device.mains]), samples, rate))
    by_electrode.append(
        device.hum * rng.uniform(0.3, 1.5, (9, 1)) * np.array([np.cos(p := rng.uniform(0, 6.28)), np.sin(p)])
    )
    if ELECTRODES in noise.amplitude:
        slow.append(_loose(samples, rate, rng)[None])
        by_electrode.append(noise.amplitude[ELECTRODES][:, None])
    recorded += (EIGHT_FROM_ELECTRODES @ np.concatenate(by_electrode, axis=1)) @ np.concatenate(slow)
    ratio = _power(signal) / np.maximum(_power(recorded - signal), 1e-12)
    return recorded, float(10 * np.log10(max(float(np.median(ratio)), 1e-6))), lasts


def _power(signal: Array) -> Array:
    """(leads,) variance over time."""
    return np.einsum("lt,lt->l", signal, signal) / signal.shape[1] - signal.mean(1) ** 2


def _loose(samples: int, rate: float, rng: np.random.Generator) -> Array:
    """(T,) a loose electrode: sudden steps that decay, and scratches between them; unit RMS."""
    out = np.zeros(samples)
    for place in rng.integers(0, samples - 200, int(rng.integers(4, 9))):
        tail = np.arange(samples - place) / rate
        out[place:] += rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.0) * np.exp(-tail / rng.uniform(0.15, 0.7))
    return out / max(float(out.std()), 1e-6)


def digitise(eight: Array, device: Device, unit: float) -> npt.NDArray[np.int16]:
    """(12, T) int16 in steps of `unit` mV. I and II are rounded to the machine's resolution, the other limb leads
    follow from these rounded values, as in a real machine: III = II - I holds exactly."""
    step = max(device.step, unit)
    whole = np.rint(np.clip(eight, -30.0, 30.0) / step) * round(step / unit)
    np.clip(whole, -16000, 16000, out=whole)  # so that no derived lead leaves the range of 16 bits
    first, second = whole[0], whole[1]
    limb = (first, second, second - first, -(first + second) / 2, first - second / 2, second - first / 2)
    digital = np.empty((12, eight.shape[1]), dtype=np.int16)
    for lead, samples in enumerate(limb):
        digital[lead] = np.rint(samples)
    digital[6:] = whole[2:]
    return digital
