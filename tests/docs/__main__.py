"""`python -m tests.docs`: writes the tables in docs/ that are made from the code."""

from __future__ import annotations

from tests.docs.tables import BLOCKS, write_block

for (file, name), make in BLOCKS.items():
    print(f"{file}, {name}: {'written' if write_block(file, name, make()) else 'as it was'}")
