"""What a codec keeps of an ECG: errors in mV and in what is read off a beat, use of its codes, and their stability."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from heartllm.codec.codec import Codec
from heartllm.codec.measures import Agreement, disturbed, equal_shares, reconstruct, shorter_turn, wave_agreements
from heartllm.ecg.recording import LEADS, SAMPLING_RATE, Recording
from heartllm.ecg.waves import Floats, Waves, averaged_beat, beat_windows, delineate, find_beats
from heartllm.errors import DataError
from heartllm.writing import write_whole

BATCH = 8  # recordings encoded at a time


@dataclass(frozen=True)
class CodecReport:
    """The figures of one codec on some recordings.

    Attributes:
        recordings: how many. delineated: how many of them have at least three beats to average.
        seconds: their length, all together.
        moments_given: the decoder was told each record's mean and deviation, which a z-scored codec's codes lack.
        rmse_mv, correlation: lead -> mean over recordings; correlation over those where the lead is not flat.
        waves: figure -> agreement, all read off the averaged beat.
        axis_within_15: share of recordings.
        sokolow_same_side: share of recordings on the same side of 3.5 mV.
        beats_found: share of the original's beats that are found within 50 ms in the reconstruction. beats_added: share
            of the reconstruction's beats that are not in the original.
        codes, codes_used: size of the codebook, and how many of them occur.
        perplexity: exp of the codes' entropy in nats. digit_perplexity: the same for each FSQ digit, of its levels.
        commonest_share: of the most frequent code.
        equal_codes, equal_digits: disturbance -> share of codes, and of digits, that stay the same.
        bits_per_second: at a fixed length a code. entropy_bits_per_second: what an ideal entropy coder would need
            without looking at neighbours.
    """

    recordings: int
    delineated: int
    seconds: float
    moments_given: bool
    rmse_mv: dict[str, float]
    correlation: dict[str, float]
    waves: dict[str, Agreement]
    axis_within_15: float
    sokolow_same_side: float
    beats_found: float
    beats_added: float
    codes: int
    codes_used: int
    perplexity: float
    digit_perplexity: tuple[float, ...]
    commonest_share: float
    equal_codes: dict[str, float]
    equal_digits: dict[str, float]
    bits_per_second: float
    entropy_bits_per_second: float
    about: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Strict JSON: figures that do not exist are null."""
        return json.dumps(_without_nan(asdict(self)), indent=1) + "\n"

    def to_markdown(self, title: str = "Codec") -> str:
        """Three tables: leads, waves, stability; and the use of the codes."""
        lines = [f"# {title}", "", *(f"- {name}: {value}" for name, value in self.about.items())]
        lines += [
            f"- {self.recordings} recordings, {self.seconds:.0f} s; {self.delineated} with an averaged beat",
            f"- {self.bits_per_second:.1f} bit/s ({self.entropy_bits_per_second:.1f} bit/s of entropy)",
            f"- codes used: {self.codes_used:,} of {self.codes:,}, perplexity {self.perplexity:.1f}, commonest "
            f"{self.commonest_share:.1%}; digits: {', '.join(f'{value:.2f}' for value in self.digit_perplexity)}",
        ]
        if self.moments_given:
            lines.append("- amplitude was restored from each record's own mean and deviation: the codes do not hold it")
        lines += ["", "| lead | RMSE, mV | correlation |", "|---|---|---|"]
        lines += [f"| {lead} | {self.rmse_mv[lead]:.4f} | {self.correlation[lead]:.4f} |" for lead in LEADS]
        means = [_mean(list(figures.values())) for figures in (self.rmse_mv, self.correlation)]
        lines += [
            f"| mean | {means[0]:.4f} | {means[1]:.4f} |",
            "",
            "| averaged beat | pairs | original, mean | bias | median abs. error | 90th percentile | correlation |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, a in self.waves.items():
            numbers = " | ".join(f"{x:.3f}" for x in (a.original, a.bias, a.median_error, a.p90_error, a.correlation))
            lines.append(f"| {name}, {a.unit} | {a.count} | {numbers} |")
        lines += [
            "",
            f"Frontal axis within 15 degrees: {self.axis_within_15:.1%}. Same side of 3.5 mV by Sokolow-Lyon: "
            f"{self.sokolow_same_side:.1%}. Beats found again: {self.beats_found:.1%}; added: {self.beats_added:.1%}.",
            "",
            "| disturbance | equal codes | equal digits |",
            "|---|---|---|",
        ]
        lines += [
            f"| {name} | {self.equal_codes[name]:.1%} | {self.equal_digits[name]:.1%} |" for name in self.equal_codes
        ]
        return "\n".join(lines) + "\n"


def codec_report(
    codec: Codec,
    recordings: Iterable[Recording],
    *,
    seed: int = 0,
    about: dict[str, str] | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> CodecReport:
    """Measures `codec` on recordings at 500 Hz without NaN, a few at a time; memory does not grow with their number.

    Args:
        seed: of the noise.
        about: facts to print above the figures.
        progress: told how many recordings are done.

    Raises:
        DataError: if there are none, or one is not at 500 Hz or holds NaN.
    """
    codec = codec.eval()
    tally, rng = _Tally(codec), np.random.default_rng(seed)
    for batch in _batches(recordings):
        tally.add(torch.from_numpy(np.stack([recording.signal for recording in batch])).float(), rng)
        progress(tally.recordings)
    if not tally.recordings:
        raise DataError("there are no recordings to measure the codec on", remedy="Name a split that has some.")
    return tally.report(about or {})


def codec_stage_report(
    codec: Codec,
    recordings: Iterable[Recording],
    *,
    title: str,
    about: dict[str, str] | None = None,
    out: Path | None = None,
    say: Callable[[str], object] = print,
) -> CodecReport:
    """The command: measures, prints the report as Markdown, and writes `out/codec.md` and `out/codec.json` if asked."""
    report = codec_report(codec, recordings, about=about)
    text = report.to_markdown(title)
    say(text)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "codec.md", text)
        write_whole(out / "codec.json", report.to_json())
    return report


class _Tally:
    """Sums over recordings."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.recordings, self.samples, self.code_total = 0, 0, 0
        self.rmse: list[Floats] = []
        self.correlation: list[Floats] = []
        self.pairs: list[tuple[Waves, Waves]] = []
        self.counts = torch.zeros(codec.codes, dtype=torch.int64)
        self.equal: dict[str, list[tuple[float, float, int]]] = {}
        self.beats = np.zeros(4, int)  # the original's, found again; the reconstruction's, not in the original

    def add(self, signal: Tensor, rng: np.random.Generator) -> None:
        """(B, 12, T) mV."""
        index = self.codec.encode(signal)
        decoded = reconstruct(self.codec, signal, index)
        self.recordings += len(signal)
        self.samples += len(signal) * signal.shape[-1]
        self.code_total += index.numel()
        self.counts += torch.bincount(index.flatten(), minlength=self.codec.codes)
        a, b = (x.double() - x.double().mean(-1, keepdim=True) for x in (signal, decoded))
        norms = a.norm(dim=-1) * b.norm(dim=-1)
        flat = torch.full_like(norms, float("nan"))
        self.rmse.extend((decoded - signal).double().square().mean(-1).sqrt().numpy())
        self.correlation.extend(torch.where(norms > 1e-6, (a * b).sum(-1) / norms.clamp_min(1e-12), flat).numpy())
        for original, copy in zip(signal.double().numpy(), decoded.double().numpy(), strict=True):
            self._compare(original, copy)
        for name, before, after in disturbed(self.codec, signal, rng):
            self.equal.setdefault(name, []).append((*equal_shares(self.codec, before, after), before.numel()))

    def _compare(self, original: Floats, copy: Floats) -> None:
        beats, again = find_beats(original), find_beats(copy)
        if len(beats) and len(again):
            apart = np.abs(beats[:, None] - again[None]) <= 0.05 * SAMPLING_RATE
            self.beats += [len(beats), apart.any(1).sum(), len(again), (~apart.any(0)).sum()]
        else:
            self.beats += [len(beats), 0, len(again), len(again)]
        # The same windows for both: a wave that the codec moves is then measured as moved.
        windows = beat_windows(original)
        if len(windows) >= 3:
            rr = float(np.median(np.diff(beats)))
            first, second = (delineate(averaged_beat(signal, windows), rr) for signal in (original, copy))
            self.pairs.append((first, second))

    def report(self, about: dict[str, str]) -> CodecReport:
        share = self.counts.double() / self.code_total
        entropy = _entropy(share)
        seconds = self.samples / SAMPLING_RATE
        rate = self.code_total / seconds
        digits = self.codec.fsq.index_to_digits(torch.arange(self.codec.codes))
        correlation = np.array(self.correlation)
        levels = self.codec.config.levels
        return CodecReport(
            recordings=self.recordings,
            delineated=len(self.pairs),
            seconds=seconds,
            moments_given=self.codec.config.scale == "zscore",
            rmse_mv=dict(zip(LEADS, map(float, np.mean(self.rmse, axis=0)), strict=True)),
            correlation={lead: _mean(correlation[:, i]) for i, lead in enumerate(LEADS)},
            waves=wave_agreements(self.pairs),
            axis_within_15=_mean([bool(abs(shorter_turn(b.axis - a.axis)) <= 15) for a, b in self.pairs]),
            sokolow_same_side=_mean([(a.sokolow_lyon >= 3.5) == (b.sokolow_lyon >= 3.5) for a, b in self.pairs]),
            beats_found=float(self.beats[1] / max(1, self.beats[0])),
            beats_added=float(self.beats[3] / max(1, self.beats[2])),
            codes=self.codec.codes,
            codes_used=int((self.counts > 0).sum()),
            perplexity=math.exp(entropy),
            digit_perplexity=tuple(
                math.exp(_entropy(torch.bincount(digits[:, i], weights=share, minlength=level)))
                for i, level in enumerate(levels)
            ),
            commonest_share=float(share.max()),
            equal_codes={name: _weighted(parts, 0) for name, parts in self.equal.items()},
            equal_digits={name: _weighted(parts, 1) for name, parts in self.equal.items()},
            bits_per_second=rate * math.log2(self.codec.codes),
            entropy_bits_per_second=rate * entropy / math.log(2),
            about=about,
        )


def _entropy(share: Tensor) -> float:
    """In nats."""
    there = share[share > 0]
    return float(-(there * there.log()).sum())


def _mean(values: Floats | Sequence[float]) -> float:
    """Mean of what is not NaN; NaN where nothing is left."""
    kept = np.asarray(values, float)
    kept = kept[~np.isnan(kept)]
    return float(kept.mean()) if len(kept) else float("nan")


def _weighted(parts: list[tuple[float, float, int]], column: int) -> float:
    total = sum(part[2] for part in parts)
    return sum(part[column] * part[2] for part in parts) / total if total else float("nan")


def _batches(recordings: Iterable[Recording]) -> Iterator[list[Recording]]:
    """At most BATCH recordings of one length at a time."""
    batch: list[Recording] = []
    for recording in recordings:
        if recording.sampling_rate != SAMPLING_RATE:
            raise DataError(
                f"is sampled at {recording.sampling_rate:g} Hz, the codec at {SAMPLING_RATE:g}",
                where=recording.path or recording.record_id,
                remedy="Read it with target_rate=500.",
            )
        if batch and (len(batch) == BATCH or batch[0].signal.shape != recording.signal.shape):
            yield batch
            batch = []
        batch.append(recording)
    if batch:
        yield batch


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
