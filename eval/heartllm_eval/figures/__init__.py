"""The paper's figures: each module holds a pure function from numbers to a matplotlib figure, and what measures them.

matplotlib, umap-learn and scikit-learn are imported on use only (extra "figures").
"""
