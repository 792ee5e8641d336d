"""`python -m app migrate`: brings the database's schema up to date."""

from __future__ import annotations

import asyncio

from app.cli.failure import CommandError
from app.cli.serve import settings_or_fail
from app.domain.errors import StorageUnavailableError
from app.storage.errors import MigrationError, StorageConfigurationError
from app.storage.migrate import migrate as run_migrations


def migrate() -> None:
    """Apply the migrations that the database at APP_DATABASE_URL lacks, each exactly once."""
    settings = settings_or_fail()
    try:
        applied = asyncio.run(
            run_migrations(
                settings.database_url,
                connect_timeout_s=settings.database_connect_timeout_s,
                start_timeout_s=settings.database_start_timeout_s,
            )
        )
    except (StorageUnavailableError, StorageConfigurationError, MigrationError) as error:
        raise CommandError(str(error)) from error
    for name in applied:
        print(f"applied {name}")
    if not applied:
        print("nothing to apply")
