"""The script that gives the roles of the postgres container their passwords, against a server that asks for them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg

from app.embedded.postgres import ROLES_SCRIPT, EmbeddedPostgres
from app.embedded.stack import EmbeddedStack

SCRIPT = ROLES_SCRIPT.with_name("passwords.sh")
PASSWORD = """it's "quoted" $HOME \\ and : long"""
DEADLINE_S = 10.0


def run(postgres: EmbeddedPostgres, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", SCRIPT],
        env={
            "PATH": f"{postgres._programs}:{os.defpath}",
            "PGHOST": postgres.host,
            "PGPORT": str(postgres.port),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=30,
    )


def ask_for_passwords(postgres: EmbeddedPostgres) -> None:
    rules = Path(postgres.sql("SHOW hba_file"))
    rules.write_text("host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    postgres.sql("SELECT pg_reload_conf()")


async def connects(postgres: EmbeddedPostgres, role: str, password: str) -> bool:
    try:
        connection = await asyncpg.connect(postgres.url(role), password=password)
    except asyncpg.InvalidPasswordError:
        return False
    await connection.close()
    return True


async def test_every_role_gets_the_password_whatever_its_characters(
    own_postgres: Callable[[], EmbeddedPostgres],
) -> None:
    postgres = own_postgres()
    done = run(postgres, POSTGRES_PASSWORD=PASSWORD)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    ask_for_passwords(postgres)
    deadline = time.monotonic() + DEADLINE_S
    while await connects(postgres, "app", "wrong"):
        assert time.monotonic() < deadline, "the new rules were not read"
    for role in ("app", "unprotected", "loadtest"):
        assert await connects(postgres, role, PASSWORD)


def test_without_a_password_it_fails_and_says_so(stack: EmbeddedStack) -> None:
    done = run(stack.postgres)
    assert done.returncode != 0
    assert "POSTGRES_PASSWORD: must be set" in done.stderr


def test_the_script_is_executable() -> None:
    assert os.access(SCRIPT, os.X_OK)
