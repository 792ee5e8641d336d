"""Experiments on the real cache: each asks a question, measures, and compares with what was published or derived.

`experiment` says what an experiment is and what it is given, `result` what it gives; `catalogue` lists them, `run` runs
them, `pages` shows their tables, JSON and the report. `simulation` is what virtual time needs. Nothing here is a copy
of the cache: what runs is `app/cache` and `app/concurrency`.
"""
