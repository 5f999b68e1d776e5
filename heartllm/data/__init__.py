"""Datasets, questions and reports: everything that is known about recordings, without their waveforms."""

from heartllm.data.dataset import DATASETS, Dataset, data_root_from, open_dataset
from heartllm.data.records import NOISE_KINDS, SPLITS, Entry, Labels, Question

__all__ = [
    "DATASETS",
    "Dataset",
    "Entry",
    "Labels",
    "NOISE_KINDS",
    "Question",
    "SPLITS",
    "data_root_from",
    "open_dataset",
]
