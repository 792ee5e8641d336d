"""The table's rules are the domain's, so that what the domain lets pass is never refused by the database."""

from __future__ import annotations

import sys

import asyncpg
import pytest

from app.domain.template import MAX_BODY_CHARS, MAX_NAME_CHARS, TemplateDraft
from app.storage.postgres import Connection

_INSERT = "INSERT INTO templates (name, body) VALUES ($1, $2)"


async def test_the_table_takes_every_character_that_the_domain_takes_for_a_name(admin: Connection) -> None:
    characters = [chr(code) for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    allowed = [character for character in characters if character.strip()]
    await admin.execute(
        "INSERT INTO templates (name, body) SELECT unnest($1::text[]), ''",
        [character for character in allowed if ord(character) < 0x1_0000],
    )
    blanks = sorted(set(characters) - set(allowed))
    assert len(blanks) > 20
    for blank in [*blanks, "", "".join(blanks)]:
        with pytest.raises(asyncpg.CheckViolationError, match="templates_name_not_blank"):
            await admin.execute(_INSERT, blank, "")


@pytest.mark.parametrize("character", ["x", "é", "漢", "🙂"])
async def test_the_table_counts_characters_as_the_domain_does(admin: Connection, character: str) -> None:
    name, body = character * MAX_NAME_CHARS, character * MAX_BODY_CHARS
    TemplateDraft(name, body)
    await admin.execute(_INSERT, name, body)
    with pytest.raises(asyncpg.CheckViolationError, match="templates_name_length"):
        await admin.execute(_INSERT, name + character, body)
    with pytest.raises(asyncpg.CheckViolationError, match="templates_body_length"):
        await admin.execute(_INSERT, name, body + character)


@pytest.mark.parametrize("value", [0, -1])
async def test_the_table_refuses_ids_that_the_domain_has_not(admin: Connection, value: int) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="templates_id_positive"):
        await admin.execute("INSERT INTO templates (name, body, id) VALUES ('n', '', $1)", value)
