"""The names of perturbations, for command lines that must not load numpy; see `heartllm.ecg.perturb`."""

NOISES = ("white", "muscle", "wander", "powerline", "powerline60")

KINDS = {
    "noise": "noise at a signal-to-noise ratio, or of an amplitude: 10dB, muscle:5dB, wander:0.3mV. Kinds: white (the "
    "default), muscle, wander (baseline), powerline (50 Hz), powerline60",
    "baseline": "baseline wander of so many mV RMS: 0.3",
    "gain": "every lead times this: 1.5",
    "swap": "two electrodes exchanged: LA-RA, LA-LL, RA-LL, V1-V2, RA-RL (RL taken to be at LL's potential)",
    "channels": "two leads' names exchanged, as in a file read in the wrong order: aVL-aVF",
    "missing": "leads lost, as zeros: V3, V1+V2; or filled in again from their neighbours: V3:interpolate",
    "resample": "down to this rate in Hz and back: 250",
    "lowpass": "a recorder of this bandwidth in Hz: 40",
}
