"""How fast the stack is, and how fast it could be.

arithmetic   multiplications and bytes that a stage needs, from the shapes of its models
limits       what this machine can do at most: matrix products and memory copies
rates        what the stages reach on a device, as shares of that; answers compared with the CPU's
growth       how cost and memory grow with recordings, questions, length and batch
profiles     where the time of a tuning step and of an evaluation goes
page         reports/performance/README.md from the figures of `make bench`
capacity     MIMIC-IV-ECG from end to end on H100s, on paper: docs/capacity.md
"""
