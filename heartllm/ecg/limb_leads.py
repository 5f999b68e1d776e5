"""Do the six limb leads belong together? Einthoven's and Goldberger's relations, and the swaps that break or pass them.

Two kinds of mistake differ. *Channels* that are mixed up or inverted in a file break the relations, and the exchange
that restores them can be searched for. *Electrodes* on the wrong limb keep every relation and only show in the shapes:
with the arms exchanged lead I is upside down and aVR upright (Batchvarov et al., Europace 2007), with a foot electrode
on an arm one lead is nearly a straight line.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
import numpy.typing as npt

from heartllm.ecg.leads import LIMB_FROM_I_II, LIMB_LEADS

# Projects on what no heart can produce in six limb leads: off the span of Einthoven's and Goldberger's forms.
_OFF_PLANE = np.eye(6) - LIMB_FROM_I_II @ np.linalg.pinv(LIMB_FROM_I_II)

# Residual over signal, rms. In 625 real recordings from four sites it was 0.001 (median) to 0.033 (largest, from
# filtering and rounding); each of the 15 exchanges of two channels, tried in 60 of them, left more than 0.05.
_BROKEN, _RESTORED = 0.05, 0.3
_QRS_BAND_HZ = (5.0, 25.0)
_STRAIGHT = 0.12  # rms of a limb lead beside its neighbours' below which a foot electrode sits on an arm


@dataclass(frozen=True)
class LimbCheck:
    """Result of the limb-lead check.

    Attributes:
        residual: rms of what breaks the relations, over the rms of the limb leads; rounding alone leaves about 0.001.
        suggestion: what would restore the relations ("exchange I and II", "invert aVL"), where something does.
        electrodes: electrodes that may sit on the wrong limbs ("right arm and left arm"), where the shapes suggest it.
    """

    residual: float
    suggestion: str | None = None
    electrodes: str | None = None

    @property
    def problems(self) -> list[str]:
        """One sentence for each finding."""
        found = []
        if self.residual > _BROKEN:
            cure = f"; to {self.suggestion} would restore them" if self.suggestion else ""
            found.append(
                f"The limb leads break III = II - I and Goldberger's equations "
                f"(residual {100 * self.residual:.0f} %){cure}."
            )
        if self.electrodes:
            found.append(f"The electrodes of {self.electrodes} may be exchanged.")
        return found


def check_limb_leads(signal: npt.NDArray[np.float64], rate: float) -> LimbCheck:
    """Checks the limb leads of (12, T) mV, without NaN, at `rate` Hz."""
    band = _qrs_band(signal, rate)
    limb = band[:6]
    covariance = limb @ limb.T / limb.shape[1]
    if np.trace(covariance) < 6 * 0.005**2:  # nothing above noise to check
        return LimbCheck(0.0)
    residual = _residual(covariance)
    if residual > _BROKEN:
        return LimbCheck(residual, suggestion=_restoring_change(covariance, residual))
    return LimbCheck(residual, electrodes=_misplaced_electrodes(band))


def _qrs_band(signal: npt.NDArray[np.float64], rate: float) -> npt.NDArray[np.float64]:
    """The signal's QRS frequencies: without baseline, which machines filter lead by lead, and without noise."""
    spectrum = np.fft.rfft(signal, axis=1)
    frequencies = np.fft.rfftfreq(signal.shape[1], 1 / rate)
    spectrum[:, (frequencies < _QRS_BAND_HZ[0]) | (frequencies > _QRS_BAND_HZ[1])] = 0
    return np.fft.irfft(spectrum, n=signal.shape[1], axis=1)


def _residual(covariance: npt.NDArray[np.float64]) -> float:
    off_plane = float(np.trace(_OFF_PLANE @ covariance))
    return float(np.sqrt(max(off_plane, 0.0) / np.trace(covariance)))


def _restoring_change(covariance: npt.NDArray[np.float64], residual: float) -> str | None:
    """The smallest change of channels that makes the relations hold: an inversion, an exchange, or another order."""
    changes: list[tuple[str, list[int], list[float]]] = []
    identity = list(range(6))
    for i, lead in enumerate(LIMB_LEADS):
        changes.append((f"invert {lead}", identity, [-1.0 if j == i else 1.0 for j in range(6)]))
    for i, j in combinations(range(6), 2):
        order = identity.copy()
        order[i], order[j] = j, i
        changes.append((f"exchange {LIMB_LEADS[i]} and {LIMB_LEADS[j]}", order, [1.0] * 6))
    best = _best(covariance, changes)
    if best[0] < _BROKEN and best[0] < _RESTORED * residual:
        return best[1]
    orders = []
    for places in permutations(range(6)):
        named = " ".join(LIMB_LEADS[i] for i in places)
        orders.append((f"take the channels in the order {named}", list(places), [1.0] * 6))
    best = _best(covariance, orders)
    return best[1] if best[0] < _BROKEN and best[0] < _RESTORED * residual else None


def _best(covariance: npt.NDArray[np.float64], changes: list[tuple[str, list[int], list[float]]]) -> tuple[float, str]:
    scored = []
    for text, order, signs in changes:
        sign = np.array(signs)
        scored.append((_residual(covariance[np.ix_(order, order)] * np.outer(sign, sign)), text))
    return min(scored)


def _misplaced_electrodes(band: npt.NDArray[np.float64]) -> str | None:
    """Electrodes that the shapes of (12, T), in the QRS band, suggest to be exchanged."""
    size = np.sqrt((band**2).mean(axis=1))
    first, second, third = size[:3]
    if min(second, third, first) < _STRAIGHT * max(first, second, third):
        # With the right-leg electrode on an arm, the lead between the two feet measures nothing.
        if second < _STRAIGHT * min(first, third):
            return "right arm and right leg"
        if third < _STRAIGHT * min(first, second):
            return "left arm and right leg"
    if first > 0.02 and size[11] > 0.02:
        # Lead I and V6 look at the heart from the same side and agree, unless the arms are exchanged.
        agreement = float(np.corrcoef(band[0], band[11])[0, 1])
        upright = float(np.corrcoef(band[3], band[11])[0, 1])
        if agreement < -0.6 and upright > 0.6:
            return "right arm and left arm"
    return None
