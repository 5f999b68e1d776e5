"""Two synthetic hospitals with known ground truth: recordings from a heart-vector model, written as files.

`write_site("a", ...)` writes in PTB-XL's layout, `write_site("b", ...)` in MIMIC-IV-ECG's; `simulate` gives one
recording in memory. These are not patients: any number from them says so.
"""

from heartllm.data.synthetic.simulation import Truth, simulate
from heartllm.data.synthetic.writing import write_site

__all__ = ["Truth", "simulate", "write_site"]
