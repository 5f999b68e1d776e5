"""Length policy: what happens to a recording that is longer or shorter than a model reads. Never silently."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from heartllm.ecg.recording import Recording
from heartllm.errors import DataError, UsageError

LengthKind = Literal["fit", "crop", "pad", "keep"]


@dataclass(frozen=True)
class LengthPolicy:
    """How long a recording becomes.

    Attributes:
        kind: "fit" crops what is longer and pads what is shorter; "crop" only crops and refuses what is shorter; "pad"
            only pads and refuses what is longer; "keep" leaves the length alone (for `windows`, plots, quality).
        seconds: the length; ten seconds are what a model reads.
    """

    kind: LengthKind = "fit"
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(LengthKind):
            hint = "Read with length='keep' and call windows()." if str(self.kind) == "windows" else ""
            raise UsageError(
                f"unknown length policy {self.kind!r}",
                remedy=hint or f"Choose one of: {', '.join(get_args(LengthKind))}.",
            )
        if not self.seconds > 0:
            raise UsageError(f"a length of {self.seconds} s", remedy="Give a positive number of seconds.")


def fit_length(recording: Recording, policy: LengthPolicy | LengthKind) -> Recording:
    """Applies a policy; crops and pads at the end (zeros, so 0 mV) and says so in `notes`.

    Raises:
        DataError: where the policy refuses the recording.
    """
    policy = LengthPolicy(policy) if isinstance(policy, str) else policy
    wanted = round(policy.seconds * recording.sampling_rate)
    have = recording.signal.shape[1]
    if policy.kind == "keep" or have == wanted:
        return recording
    lengths = f"{have / recording.sampling_rate:g} s"
    if have > wanted:
        if policy.kind == "pad":
            raise DataError(
                f"{lengths} long, more than {policy.seconds:g} s",
                where=recording.path,
                remedy="Use the policy 'crop' or 'fit', or windows().",
            )
        note = f"cropped to the first {policy.seconds:g} s of {lengths}"
        return replace(recording, signal=recording.signal[:, :wanted].copy(), notes=(*recording.notes, note))
    if policy.kind == "crop":
        raise DataError(
            f"{lengths} long, less than {policy.seconds:g} s",
            where=recording.path,
            remedy="Use the policy 'pad' or 'fit'.",
        )
    note = f"padded with zeros at the end from {lengths} to {policy.seconds:g} s"
    padded = np.pad(recording.signal, ((0, 0), (0, wanted - have)))
    return replace(recording, signal=padded, notes=(*recording.notes, note))


def windows(recording: Recording, seconds: float = 10.0, step: float | None = None) -> list[Recording]:
    """Cuts a recording into windows of `seconds`, each starting `step` (default: `seconds`) after the one before.

    Only whole windows are returned; each notes its place and what was left over at the end.

    Raises:
        UsageError: for a length or step below one sample.
        DataError: where the recording is shorter than one window.
    """
    size = round(seconds * recording.sampling_rate)
    hop = round((seconds if step is None else step) * recording.sampling_rate)
    if size < 1 or hop < 1:
        raise UsageError(f"windows of {seconds} s every {step} s", remedy="Give positive numbers of seconds.")
    total = recording.signal.shape[1]
    if total < size:
        raise DataError(
            f"{recording.duration:g} s long, less than one window of {seconds:g} s",
            where=recording.path,
            remedy="Use shorter windows or the length policy 'pad'.",
        )
    starts = range(0, total - size + 1, hop)
    left = (total - starts[-1] - size) / recording.sampling_rate
    rest = f"; the last {left:g} s are in no window" if left else ""
    return [
        replace(
            recording,
            signal=recording.signal[:, start : start + size].copy(),
            notes=(
                *recording.notes,
                f"window {index + 1} of {len(starts)}, from {start / recording.sampling_rate:g} s{rest}",
            ),
        )
        for index, start in enumerate(starts)
    ]
