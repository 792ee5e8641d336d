"""The way to PostgreSQL: a bounded pool, a deadline on every wait, the one place where driver errors are told apart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar, cast
from urllib.parse import urlsplit

import asyncpg
from asyncpg import exceptions as pg
from asyncpg.pool import PoolConnectionProxy

from app.domain.errors import StorageUnavailableError
from app.storage.errors import DatabaseUnreachableError, StorageConfigurationError

logger = logging.getLogger(__name__)
_DRIVER_LOG = logging.getLogger("asyncpg.pool")

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
PooledConnection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

ANSWER_GRACE_S = 0.5
"""How much longer than the server's own statement timeout the client waits: past it the server hangs or is cut off."""
RELEASE_TIMEOUT_S = 1.0
"""Longest wait for a connection to become usable again after an error."""
CANCEL_TIMEOUT_S = 0.1
"""Longest wait for the server to acknowledge a cancelled query. A request to cancel that overtakes its query is lost
(PostgreSQL ignores it); then the connection is ended, and the server finds that out by itself:"""
CLIENT_CHECK_INTERVAL_S = 0.05
"""how often the server looks, while it runs a query, whether its client is still there (PostgreSQL 14 and later)."""
RETRY_FIRST_S, RETRY_MOST_S = 0.05, 1.0

CONNECTION_LOST = (
    OSError,
    pg.PostgresConnectionError,
    pg.AdminShutdownError,
    pg.CrashShutdownError,
    pg.CannotConnectNowError,
    pg.DatabaseDroppedError,
    pg.IdleSessionTimeoutError,
    pg.IdleInTransactionSessionTimeoutError,
    pg.TransactionTimeoutError,
)
"""The connection is gone. (TimeoutError is an OSError; the driver raises it for an answer that did not come.)"""
_BUSY = (
    pg.OperatorInterventionError,
    pg.InsufficientResourcesError,
    pg.LockNotAvailableError,
    pg.TransactionRollbackError,
)
"""The connection is good and the server could not do it now: statement timeout, too many connections, deadlock."""
_DRIVER_STATE = (pg.InterfaceError, pg.InternalClientError)
"""Misuse of the driver, which is a bug, unless the connection is gone: then it is how the driver says so."""
DRIVER_ERRORS = (asyncpg.PostgresError, *_DRIVER_STATE)
"""All that the driver raises of its own; besides, it lets `OSError` pass."""


class ConnectionLostError(StorageUnavailableError):
    """The connection ended before the answer came; the statement may or may not have been carried out."""


class Session(asyncpg.Connection):
    """A pooled session, which goes back as it is, without the driver's round trip to reset it.

    The exception is one whose last call did not end as it should. A call cancelled between preparing and executing
    leaves the server waiting for the rest, with its statement timeout running: a round trip brings both in step again.
    """

    _in_step = True

    def fell_out_of_step(self) -> None:
        self._in_step = False

    def get_reset_query(self) -> str:
        if self._in_step:
            return ""
        self._in_step = True
        return "SELECT 1"


class Database:
    """A pool of connections to one PostgreSQL database.

    Sessions are not reset when they go back to the pool: code that runs on one must not `SET`, `LISTEN` or take
    session-level locks.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], acquire_timeout_s: float) -> None:
        self._pool = pool
        self._acquire_timeout_s = acquire_timeout_s
        self._epoch = 0

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        pool_min: int,
        pool_max: int,
        connect_timeout_s: float,
        acquire_timeout_s: float,
        statement_timeout_s: float,
        start_timeout_s: float,
        application_name: str,
        session: type[Session] = Session,
    ) -> Database:
        """A database that has answered once.

        An unreachable one is tried again, ever more slowly, until `start_timeout_s` have passed, and then raises
        `DatabaseUnreachableError`, a `StorageUnavailableError`. One that refuses the role, the password or the
        database's name raises `StorageConfigurationError` at once.
        """
        _DRIVER_LOG.addFilter(_without_traceback)

        async def attempt() -> Database:
            pool = asyncpg.create_pool(
                url,
                min_size=pool_min,
                max_size=pool_max,
                timeout=connect_timeout_s,
                command_timeout=statement_timeout_s + ANSWER_GRACE_S,
                connection_class=session,
                server_settings=_session_settings(application_name, statement_timeout_s, statement_timeout_s / 2),
            )
            try:
                await pool
                database = cls(pool, acquire_timeout_s)
                await pool.fetchval("SELECT 1")
            except BaseException:
                pool.terminate()
                raise
            return database

        return await _reach(url, attempt, start_timeout_s)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[PooledConnection]:
        """A connection, for the body of an `async with` that does nothing but talk to the database.

        Raises `StorageUnavailableError` where none comes free or can be opened in time, and in place of whatever the
        driver raises in the body because the server is away, hangs, shuts down or has no room. Other errors of the
        driver pass as they are: they are bugs. A body that is cancelled cancels its query on the server.
        """
        connection = await self._acquire()
        epoch = self._epoch
        release_timeout_s = RELEASE_TIMEOUT_S
        try:
            yield connection
        except asyncio.CancelledError:
            release_timeout_s = CANCEL_TIMEOUT_S
            _bring_in_step(connection)
            raise
        except Exception as error:
            _bring_in_step(connection)
            outage = _outage(error, connection)
            if outage is None:
                raise
            if isinstance(error, CONNECTION_LOST) or _is_gone(connection):
                await self._forsake(connection, epoch)
            raise outage from error
        finally:
            await self._release(connection, release_timeout_s)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PooledConnection]:
        """A connection in a transaction, which is committed where the body ends well, and undone where it does not.

        Raises as `connection` does. Where the commit itself is cancelled or lost it may have been carried out.
        """
        async with self.connection() as connection:
            try:
                await connection.execute("BEGIN")  # cancelled, it may have been carried out all the same
                yield connection
                await connection.execute("COMMIT")
            except BaseException as error:
                cancelled = isinstance(error, asyncio.CancelledError)
                await _roll_back(connection, CANCEL_TIMEOUT_S if cancelled else RELEASE_TIMEOUT_S)
                raise

    async def read(self, work: Callable[[PooledConnection], Awaitable[T]]) -> T:
        """What `work` returns for a connection; raises as `connection` does.

        A connection that turns out lost costs the caller nothing: `work` is called once more, with a new one. So
        `work` must change nothing.
        """
        try:
            async with self.connection() as connection:
                return await work(connection)
        except ConnectionLostError:
            async with self.connection() as connection:
                return await work(connection)

    async def ping(self) -> None:
        """Raises `StorageUnavailableError` where the database does not answer."""
        await self.read(lambda connection: connection.execute("SELECT 1"))

    async def close(self, timeout_s: float) -> None:
        """Waits up to `timeout_s` for the connections in use, then cuts them off. Later calls of all else raise."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._pool.close()
        except TimeoutError:
            logger.warning("connections to PostgreSQL were cut off: still in use after %g s", timeout_s)

    async def _acquire(self) -> PooledConnection:
        # The driver's own timeout would wrap the wait in one more task; this one cancels it where it stands, and the
        # pool puts its slot back before the cancellation goes on.
        try:
            async with asyncio.timeout(self._acquire_timeout_s):
                return await self._pool.acquire()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StorageUnavailableError from error

    async def _release(self, connection: PooledConnection, timeout_s: float) -> None:
        try:
            await self._pool.release(connection, timeout=timeout_s)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # The pool has ended the connection and freed its slot: the body's outcome stands.
            logger.warning("a connection to PostgreSQL was given up: %s", _reason(error))

    async def _forsake(self, connection: PooledConnection, epoch: int) -> None:
        """Ends a lost connection, and has the pool replace each idle one before its next use: they are suspect too.

        `epoch` is the one in which the connection was taken, so that many lost at once expire the rest only once.
        """
        if not _is_gone(connection):
            connection.terminate()
        if epoch == self._epoch:
            self._epoch += 1
            await self._pool.expire_connections()


@asynccontextmanager
async def dedicated_connection(
    url: str,
    *,
    connect_timeout_s: float,
    start_timeout_s: float,
    statement_timeout_s: float,
    lock_timeout_s: float,
    application_name: str,
) -> AsyncIterator[Connection]:
    """A connection outside any pool, whose session is the caller's own. Raises as `Database.connect` does at first,
    and then as `Database.connection` does."""

    async def attempt() -> Connection:
        return await asyncpg.connect(
            url,
            timeout=connect_timeout_s,
            command_timeout=statement_timeout_s + ANSWER_GRACE_S,
            server_settings=_session_settings(application_name, statement_timeout_s, lock_timeout_s),
        )

    connection = await _reach(url, attempt, start_timeout_s)
    try:
        yield connection
    except (OSError, *DRIVER_ERRORS) as error:
        outage = _outage(error, connection)
        if outage is None:
            raise
        raise outage from error
    finally:
        await _close(connection)


async def _reach(url: str, attempt: Callable[[], Awaitable[T]], timeout_s: float) -> T:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    pause_s = RETRY_FIRST_S
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                return await attempt()
        except (*CONNECTION_LOST, *_BUSY) as error:
            if loop.time() + pause_s >= deadline:
                raise DatabaseUnreachableError(
                    f"PostgreSQL at {_place(url)} cannot be reached, tried for {timeout_s:g} s: {_reason(error)}"
                ) from error
            logger.info("waiting for PostgreSQL at %s: %s", _place(url), _reason(error))
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StorageConfigurationError(f"PostgreSQL at {_place(url)}: {_reason(error)}") from error
        except (ValueError, OverflowError):
            # The text of the URL's parser may quote a piece of the password.
            raise StorageConfigurationError(
                "the database URL is malformed: it must be postgresql://user:password@host:port/database, "
                "with special characters percent-encoded"
            ) from None
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, RETRY_MOST_S)


def _outage(error: Exception, connection: Connection | PooledConnection) -> StorageUnavailableError | None:
    """The domain's error for one of the driver's, or None where it is a bug and no outage."""
    if isinstance(error, TimeoutError):
        return StorageUnavailableError()
    if isinstance(error, CONNECTION_LOST) or (isinstance(error, _DRIVER_STATE) and _is_gone(connection)):
        return ConnectionLostError()
    if isinstance(error, _BUSY):
        return StorageUnavailableError()
    return None


async def _roll_back(connection: PooledConnection, timeout_s: float) -> None:
    """Undoes the transaction, or ends the connection, which undoes it too. Harmless where there is none."""
    if _is_gone(connection):
        return
    try:
        async with asyncio.timeout(timeout_s):
            await connection.execute("ROLLBACK")
    except (OSError, *DRIVER_ERRORS) as error:
        logger.warning("a transaction was undone by ending its connection: %s", _reason(error))
        if not _is_gone(connection):
            connection.terminate()
    except asyncio.CancelledError:
        if not _is_gone(connection):
            connection.terminate()
        raise


def _is_gone(connection: Connection | PooledConnection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        # The pool has taken it back already, which it does when a connection in use ends.
        return True


def _bring_in_step(connection: PooledConnection) -> None:
    """Before it is used again."""
    if not _is_gone(connection):
        cast("Session", connection).fell_out_of_step()


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=RELEASE_TIMEOUT_S)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        logger.warning("a connection to PostgreSQL was given up: %s", _reason(error))


def _session_settings(application_name: str, statement_timeout_s: float, lock_timeout_s: float) -> dict[str, str]:
    return {
        "application_name": application_name,
        "statement_timeout": _milliseconds(statement_timeout_s),
        "lock_timeout": _milliseconds(lock_timeout_s),
        "idle_in_transaction_session_timeout": _milliseconds(statement_timeout_s),
        "client_connection_check_interval": _milliseconds(CLIENT_CHECK_INTERVAL_S),
    }


def _milliseconds(seconds: float) -> str:
    # 0 would mean no timeout at all.
    return str(max(1, round(seconds * 1000)))


def _without_traceback(record: logging.LogRecord) -> bool:
    """A filter for the driver's log: during an outage the pool says again and again, and at length, what went wrong."""
    if record.exc_info and record.exc_info[1]:
        record.msg, record.args = f"{record.getMessage()}: {_reason(record.exc_info[1])}", ()
        record.exc_info = None
    return True


def _reason(error: BaseException) -> str:
    """One line."""
    return str(error).partition("\n")[0] or "no answer in time"


def _place(url: str) -> str:
    """Host, port and database of the URL, without the user and the password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "localhost", parts.port or 5432
    except ValueError:
        return "the given URL"
    return f"{host}:{port}{parts.path}"
