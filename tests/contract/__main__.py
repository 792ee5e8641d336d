"""`python -m tests.contract`: what breaks of the contract released last; with `--release`, keep this version's too."""

from __future__ import annotations

import sys

from app import __version__
from tests.contract.releases import broken, release, versions

if sys.argv[1:] == ["--release"]:
    try:
        release(__version__)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"the contract of {__version__} is kept")
elif sys.argv[1:]:
    sys.exit("usage: python -m tests.contract [--release]")
else:
    found = broken()
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{len(found)} breaks of the contract of {versions()[-1]}")
    sys.exit(bool(found))
