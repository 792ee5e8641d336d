"""Figures with their baselines: `python -m tests.bench`, or `make bench`. One module a subject."""
