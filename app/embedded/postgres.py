"""An embedded PostgreSQL, with the database, roles and extension that the service needs."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from app.embedded import wheels
from app.embedded.directory import ServerDirectory
from app.embedded.errors import EmbeddedError
from app.embedded.server import EmbeddedServer

ROLES_SCRIPT = Path(__file__).parents[2] / "migrations" / "bootstrap" / "roles.sql"
SUPERUSER = "postgres"
_SQL_TIMEOUT_S = 30.0
_IPC_RMID = 0

# A crash of the server loses no commit with these; a crash of the machine may lose all, and the data are not meant to
# outlive it. Shared memory goes into the data directory, so that a killed server leaves none of it behind.
_OPTIONS: Mapping[str, str] = {
    "dynamic_shared_memory_type": "mmap",
    "fsync": "off",
    "io_method": "sync",
    "log_timezone": "UTC",
    "max_connections": "300",
    "shared_preload_libraries": "pg_stat_statements",
    "timezone": "UTC",
    "unix_socket_directories": "",
}


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL from its wheel, on loopback, with trust authentication: any user of this machine may connect.

    The first start on a directory runs `migrations/bootstrap/roles.sql`. Root's server runs as `nobody`.
    """

    name: ClassVar[str] = "postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast": clients are disconnected, the data are written

    _programs: Path

    def url(self, role: str = SUPERUSER, database: str = "app") -> str:
        """Where it is, for a role and a database. Raises `EmbeddedError` before the first start."""
        self._require_started()
        return f"postgresql://{role}@{self.host}:{self.port}/{database}"

    def sql(self, script: str, *, role: str = SUPERUSER, database: str = "app") -> str:
        """Run a psql script and return what it prints: unaligned, rows only.

        Each statement is its own transaction. Raises `EmbeddedError` with psql's words at the first that fails.
        """
        self._require_started()
        return self._psql(self.port, script, role, database)

    def _find_programs(self, directory: ServerDirectory) -> None:
        self._programs = wheels.postgres_programs(self._account, directory.path)

    def _preparation(self, directory: ServerDirectory) -> list[list[str]]:
        if (directory.data / "PG_VERSION").exists():
            return []
        initdb = [str(self._programs / "initdb"), "-D", str(directory.data), "-U", SUPERUSER, "-A", "trust"]
        return [[*initdb, "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]]

    def _command(self, directory: ServerDirectory, port: int) -> list[str]:
        options = {**_OPTIONS, **self._options, "listen_addresses": self.host, "port": str(port)}
        settings = (word for name, value in options.items() for word in ("-c", f"{name}={value}"))
        return [str(self._programs / "postgres"), "-D", str(directory.data), *settings]

    def _is_ready(self, directory: ServerDirectory, port: int, pid: int) -> bool:
        lines = _pid_file(directory)
        # src/include/utils/pidfile.h: the first line is the process id, the eighth the state, as pg_ctl reads them.
        if len(lines) < 8 or lines[0].strip() != str(pid) or lines[7].strip() != "ready":
            return False
        with suppress(EmbeddedError):
            return self._psql(port, "SELECT 1", SUPERUSER, "postgres") == "1"
        return False

    def _first_use(self) -> None:
        self._psql(self.port, ROLES_SCRIPT.read_text(), SUPERUSER, "postgres")

    def _clean_after_crash(self, directory: ServerDirectory) -> None:
        """Remove the System V segment, by which a server that starts finds out whether another uses the same data."""
        lines = _pid_file(directory)
        words = lines[6].split() if len(lines) > 6 else []
        if len(words) == 2:
            ctypes.CDLL(None).shmctl(int(words[1]), _IPC_RMID, None)

    def _psql(self, port: int, script: str, role: str, database: str) -> str:
        command = [str(self._programs / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        where = ["-h", self.host, "-p", str(port), "-U", role, "-d", database]
        environment = {
            "LC_ALL": "C",
            "PATH": os.defpath,
            "PGCLIENTENCODING": "UTF8",
            "PGCONNECT_TIMEOUT": "5",
            "PGGSSENCMODE": "disable",
            "PGSSLMODE": "disable",
        }
        try:
            done = subprocess.run(  # noqa: S603 - the wheel's own program
                [*command, *where],
                input=script,
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=_SQL_TIMEOUT_S,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise EmbeddedError(f"{self.name} did not run a script within {_SQL_TIMEOUT_S:g} s") from None
        if done.returncode != 0:
            raise EmbeddedError(f"{self.name}: {done.stderr.strip()}")
        return done.stdout.removesuffix("\n")


def _pid_file(directory: ServerDirectory) -> list[str]:
    try:
        return (directory.data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []
