"""From the heart vector to the electrodes: the lead field of a synthetic patient.

The heart is one dipole H(t) = (x, y, z) in millivolts, x to the left, y to the feet, z to the front of the chest. A
lead is the scalar product of H with the lead's vector. The average lead vectors are the transfer coefficients
published by Dower, Machado and Osborne (Clin Cardiol 1980;3:87), with z turned to point forward. Eight leads (I, II,
V1-V6) are independent; the other four follow exactly from Einthoven's and Goldberger's equations.

A patient differs from the average by a rotation of the heart, by electrodes that sit a little off their places (each
precordial lead takes a share of its neighbour), and by the gain of the chest wall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

INDEPENDENT_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")

LEAD_FIELD: Array = np.array(
    [
        [0.632, -0.235, -0.059],
        [0.235, 1.066, 0.132],
        [-0.515, 0.157, 0.917],
        [0.044, 0.164, 1.387],
        [0.882, 0.098, 1.277],
        [1.213, 0.127, 0.601],
        [1.125, 0.127, 0.086],
        [0.831, 0.076, -0.230],
    ]
)

# (12, 8): the twelve canonical leads from the eight independent ones.
TWELVE_FROM_EIGHT: Array = np.zeros((12, 8))
TWELVE_FROM_EIGHT[0, 0] = TWELVE_FROM_EIGHT[1, 1] = 1.0
TWELVE_FROM_EIGHT[2, :2] = (-1.0, 1.0)
TWELVE_FROM_EIGHT[3, :2] = (-0.5, -0.5)
TWELVE_FROM_EIGHT[4, :2] = (1.0, -0.5)
TWELVE_FROM_EIGHT[5, :2] = (-0.5, 1.0)
TWELVE_FROM_EIGHT[6:, 2:] = np.eye(6)

# (8, 9): the eight leads from electrode potentials; the precordial leads are taken against Wilson's central terminal.
EIGHT_FROM_ELECTRODES: Array = np.zeros((8, 9))
EIGHT_FROM_ELECTRODES[0, :3] = (-1.0, 1.0, 0.0)
EIGHT_FROM_ELECTRODES[1, :3] = (-1.0, 0.0, 1.0)
EIGHT_FROM_ELECTRODES[2:, :3] = -1.0 / 3.0
EIGHT_FROM_ELECTRODES[2:, 3:] = np.eye(6)


@dataclass(frozen=True)
class Patient:
    """One synthetic patient: who they are and how their chest conducts.

    Attributes:
        number: the patient's number within the site, from 0.
        age: years. sex: "male" or "female". height: centimetres. weight: kilograms.
        field: (8, 3) lead vectors of `INDEPENDENT_LEADS`.
        axis_offset: degrees by which this patient's normal frontal axis differs from +45.
    """

    number: int
    age: int
    sex: str
    height: int
    weight: int
    field: Array
    axis_offset: float


def draw_patient(number: int, rng: np.random.Generator) -> Patient:
    """Draws demographics and lead field. Obese chests give smaller precordial voltages, slim and young ones larger."""
    sex = "male" if rng.random() < 0.52 else "female"
    age = int(np.clip(rng.normal(60, 17), 18, 95))
    height = round(rng.normal(176 if sex == "male" else 163, 7))
    bmi = float(np.clip(rng.normal(26.5, 4.2), 17, 42))
    weight = round(bmi * (height / 100) ** 2)
    habitus = float(np.exp(-0.018 * (bmi - 26) - 0.002 * (age - 60) + 0.16 * rng.normal()))
    turn = np.radians(rng.normal(0, 7)), np.radians(rng.normal(0, 9))  # about the long and the vertical axis
    pitch, yaw = ((np.cos(a), np.sin(a)) for a in turn)
    about_x = np.array([[1, 0, 0], [0, pitch[0], -pitch[1]], [0, pitch[1], pitch[0]]])
    about_y = np.array([[yaw[0], 0, yaw[1]], [0, 1, 0], [-yaw[1], 0, yaw[0]]])
    field = LEAD_FIELD @ about_x @ about_y
    shift = np.clip(rng.normal(0, 0.12, 6), -0.25, 0.25)  # towards the next electrode (positive) or the previous one
    chest = field[2:].copy()
    for lead in range(6):
        neighbour = min(lead + 1, 5) if shift[lead] > 0 else max(lead - 1, 0)
        field[2 + lead] = (1 - abs(shift[lead])) * chest[lead] + abs(shift[lead]) * chest[neighbour]
    field[2:] *= np.exp(0.07 * rng.normal(size=(6, 1)) - 0.006 * (bmi - 26))
    field *= habitus
    axis = -0.35 * (age - 50) - 0.9 * (bmi - 26) + rng.normal(0, 17)
    return Patient(number, age, sex, height, weight, field, float(np.clip(axis, -65, 38)))
