"""What the service promises when something breaks, each promise measured while it is broken.

A scenario is one module: what it breaks, what it promises, how that is measured. `catalogue` lists them. `fleet` is
what they run on, `stage` what they are given: a load at a fixed rate, writes (`writes`), a timeline (`timeline`).
`run` runs one, `promise` is its verdict, `pages` its tables and its page.
"""
