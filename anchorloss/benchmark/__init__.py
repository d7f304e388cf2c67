"""Measures the training loop against the textbook's and against the machine; started by `scripts/bench.py`."""
