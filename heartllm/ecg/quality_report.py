"""Quality report: what is wrong with a recording, in sentences, before anyone trusts a number from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heartllm.ecg.gaps import fill_gaps, runs
from heartllm.ecg.limb_leads import LimbCheck, check_limb_leads
from heartllm.ecg.recording import LEADS, Recording

FLAT_MV = 0.01  # a lead whose central 99 % of samples stay within this band carries no heartbeat
FLAT_RUN_S = 1.0  # a constant stretch this long is a loose electrode or padding
_CLIP_RUN_S, _CLIP_MIN_MV = 0.02, 1.0
_BASELINE_HZ, _BASELINE_LIMIT_MV = 0.5, 0.3
_MAINS_LIMIT_MV = 0.05
_SMALL_MV, _LARGE_MV = 0.1, 15.0


@dataclass(frozen=True)
class Run:
    """A stretch of one lead: `start` and `length` in samples."""

    lead: str
    start: int
    length: int


@dataclass(frozen=True)
class QualityReport:
    """What was found in a recording.

    Attributes:
        sampling_rate: Hz, to turn runs into seconds.
        nan_runs: stretches of missing samples.
        flat_leads: leads without any heartbeat.
        flat_runs: constant stretches of at least a second in leads that are otherwise alive.
        clipped: leads that rest on their largest or smallest value -> share of samples at the rails.
        limb: whether the limb leads obey Einthoven and Goldberger, and which swap would explain it.
        amplitude: typical (median over leads) QRS-sized span in mV: the 0.5 to 99.5 percentile range.
        baseline_wander: lead -> rms below 0.5 Hz, mV.
        mains_noise: lead -> rms within 1 Hz around the mains frequency, mV.
        mains_frequency: 50 or 60 Hz, whichever is stronger.
    """

    sampling_rate: float
    nan_runs: tuple[Run, ...]
    flat_leads: tuple[str, ...]
    flat_runs: tuple[Run, ...]
    clipped: dict[str, float]
    limb: LimbCheck
    amplitude: float
    baseline_wander: dict[str, float]
    mains_noise: dict[str, float]
    mains_frequency: float

    @property
    def problems(self) -> list[str]:
        """One sentence for each problem; empty for a clean recording."""
        found = []
        for lead in LEADS:
            gaps = [run for run in self.nan_runs if run.lead == lead]
            if gaps:
                longest = max(run.length for run in gaps)
                found.append(
                    f"Lead {lead} misses {sum(run.length for run in gaps)} samples in {len(gaps)} gap"
                    f"{'s' if len(gaps) > 1 else ''}, the longest {longest / self.sampling_rate:.3g} s."
                )
        if self.flat_leads:
            found.append(f"{_leads(self.flat_leads)} flat: electrode off or not recorded.")
        for run in self.flat_runs:
            start = run.start / self.sampling_rate
            found.append(
                f"Lead {run.lead} is constant for {run.length / self.sampling_rate:.3g} s from {start:.3g} s on."
            )
        for lead, share in self.clipped.items():
            found.append(f"Lead {lead} is clipped: {100 * share:.2g} % of its samples rest on its extreme value.")
        found += self.limb.problems
        if len(self.flat_leads) < len(LEADS) and not _SMALL_MV <= self.amplitude <= _LARGE_MV:
            size = "small" if self.amplitude < _SMALL_MV else "large"
            found.append(
                f"The typical amplitude of {self.amplitude:.3g} mV is implausibly {size}: check the unit and the gain."
            )
        wander = [lead for lead, rms in self.baseline_wander.items() if rms > _BASELINE_LIMIT_MV]
        if wander:
            worst = max(self.baseline_wander.values())
            found.append(f"Baseline wander in {', '.join(wander)} (up to {worst:.2f} mV rms below {_BASELINE_HZ} Hz).")
        mains = [lead for lead, rms in self.mains_noise.items() if rms > _MAINS_LIMIT_MV]
        if mains:
            worst = max(self.mains_noise.values())
            found.append(
                f"Mains noise at {self.mains_frequency:g} Hz in {', '.join(mains)} (up to {worst:.2f} mV rms)."
            )
        return found


def _leads(names: tuple[str, ...]) -> str:
    return f"Lead {names[0]} is" if len(names) == 1 else f"Leads {', '.join(names)} are"


def quality(recording: Recording) -> QualityReport:
    """Examines a recording; it may hold NaN (read it with nan_policy="keep").

    Clipping and flat runs are most dependable at the rate the file was recorded at, since resampling rounds the rails.
    """
    signal, rate = np.asarray(recording.signal, dtype=np.float64), recording.sampling_rate
    missing = ~np.isfinite(signal)
    filled = np.asarray(fill_gaps(signal), dtype=np.float64)
    low, high = np.percentile(filled, (0.5, 99.5), axis=1)
    spans = high - low
    flat = tuple(lead for lead, span in zip(LEADS, spans, strict=True) if span < FLAT_MV)
    nan_runs, flat_runs, clipped = [], [], {}
    for lead, row, gaps in zip(LEADS, filled, missing, strict=True):
        nan_runs += [Run(lead, start, length) for start, length in runs(gaps)]
        if lead in flat:
            continue
        still = runs((np.diff(row) == 0) & ~gaps[1:])
        flat_runs += [Run(lead, start, length + 1) for start, length in still if length + 1 >= FLAT_RUN_S * rate]
        share = _clipped_share(row, rate)
        if share > 0:
            clipped[lead] = share
    wander, mains, frequency = _noise(filled, rate)
    return QualityReport(
        sampling_rate=rate,
        nan_runs=tuple(nan_runs),
        flat_leads=flat,
        flat_runs=tuple(flat_runs),
        clipped=clipped,
        limb=check_limb_leads(filled, rate),
        amplitude=float(np.median(spans)),
        baseline_wander=wander,
        mains_noise=mains,
        mains_frequency=frequency,
    )


def _clipped_share(row: npt.NDArray[np.float64], rate: float) -> float:
    """The share of samples that rest on an extreme value; 0 unless that happens as only clipping does.

    A T wave can stay on one quantisation step for some milliseconds, so a rail must be beyond 1 mV and be touched for
    20 ms at least twice, or once for 100 ms.
    """
    share, tolerance = 0.0, 1e-3 * float(np.ptp(row))
    for extreme in (float(row.max()), float(row.min())):
        if abs(extreme) < _CLIP_MIN_MV:
            continue
        # Not at the ends of the file: a recorder that stops holds the last value there (PTB-XL does for 0.1 s).
        at_rail = [
            length
            for start, length in runs(np.abs(row - extreme) <= tolerance)
            if start > 0 and start + length < len(row)
        ]
        long = [length for length in at_rail if length >= max(_CLIP_RUN_S * rate, 3)]
        if len(long) >= 2 or any(length >= 5 * _CLIP_RUN_S * rate for length in long):
            share += sum(long) / len(row)
    return share


def _noise(signal: npt.NDArray[np.float64], rate: float) -> tuple[dict[str, float], dict[str, float], float]:
    """Root mean square of (12, T) below 0.5 Hz and around the mains frequency, from the windowed spectrum."""
    samples = signal.shape[1]
    window = np.hanning(samples) if samples > 1 else np.ones(samples)
    scale = 2.0 / (samples * max(float((window**2).sum()), 1e-12))
    power = np.abs(np.fft.rfft((signal - signal.mean(axis=1, keepdims=True)) * window, axis=1)) ** 2 * scale
    frequencies = np.fft.rfftfreq(samples, 1 / rate)

    def rms(low: float, high: float) -> npt.NDArray[np.float64]:
        return np.sqrt(power[:, (frequencies >= low) & (frequencies < high)].sum(axis=1))

    def line(mains: float) -> npt.NDArray[np.float64]:
        # The heart's own spectrum is smooth here, so the neighbouring 2 Hz on either side are the floor to subtract.
        floor = (rms(mains - 3, mains - 1) ** 2 + rms(mains + 1, mains + 3) ** 2) / 2
        return np.sqrt(np.maximum(rms(mains - 1, mains + 1) ** 2 - floor, 0.0))

    by_mains = {mains: line(mains) for mains in (50.0, 60.0) if mains + 3 <= rate / 2}
    frequency = max(by_mains, key=lambda mains: float(by_mains[mains].sum()), default=50.0)
    mains_rms = by_mains.get(frequency, np.zeros(len(LEADS)))
    wander = rms(0.0, _BASELINE_HZ)
    return (
        {lead: float(value) for lead, value in zip(LEADS, wander, strict=True)},
        {lead: float(value) for lead, value in zip(LEADS, mains_rms, strict=True)},
        frequency,
    )
