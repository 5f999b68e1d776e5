"""HeartLLM: ECG recordings as discrete tokens that a language model reads.

Importing this package loads neither torch nor transformers; the rooms that need them import them on use.
"""

__version__ = "0.1.0"
