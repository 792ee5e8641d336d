"""Where a server lives: a directory with its data, its log and a lock that says that somebody lives there."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from types import TracebackType

from app.embedded.account import Account
from app.embedded.errors import EmbeddedError

PREFIX = "stampede-"
STALE_AFTER_S = 60.0
_REMOVAL_ATTEMPTS = 5


class ServerDirectory:
    """One server's directory: `given`, or one of its own under the temp directory, which `close` removes.

    The lock is the kernel's (flock) on the directory itself, so it goes with its last holder. Making one sweeps those
    that nobody holds any more. Raises `EmbeddedError` when the directory cannot be made or another server lives in it.
    """

    def __init__(self, name: str, given: Path | None, account: Account | None) -> None:
        self.is_own = given is None
        try:
            if given is None:
                base = _temporary_base(account)
                _sweep(base)
                self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{name}-", dir=base))
            else:
                self.path = given.absolute()
                self.path.mkdir(parents=True, exist_ok=True)
            self.lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise EmbeddedError(f"cannot make a directory for {name}: {error}") from error
        try:
            self._settle(name, account)
        except BaseException:
            self.close()
            raise

    @property
    def data(self) -> Path:
        """The server's own part; it belongs to the account that the server runs as."""
        return self.path / "data"

    @property
    def log(self) -> Path:
        """What the server writes to its standard streams."""
        return self.path / "server.log"

    def last_log_lines(self, start: int = 0, count: int = 8) -> str:
        """The last lines of what was logged from byte `start` on."""
        try:
            with self.log.open("rb") as file:
                file.seek(start)
                lines = file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-count:])

    def close(self) -> None:
        """Let go of the lock, and remove the directory if it is our own."""
        if self.is_own:
            remove(self.path)
        fcntl.flock(self.lock, fcntl.LOCK_UN)  # a fork of this process would hold it on
        os.close(self.lock)

    def _settle(self, name: str, account: Account | None) -> None:
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedError(f"{self.path} is in use by another {name}") from None
        self.data.mkdir(mode=0o700, exist_ok=True)
        if account is not None:
            os.chown(self.data, account.uid, account.gid)
            self.path.chmod(stat.S_IMODE(self.path.stat().st_mode) | stat.S_IXOTH)


class LogDirectory:
    """A directory for the logs of several processes, under the temp directory. A context manager that removes it.

    It is locked as a server's own is, lest a sweep take it for one that its owner has left.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> Path:
        self._path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{self._name}-"))
        self._lock = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self._path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
        os.close(self._lock)


def remove(directory: Path) -> None:
    """Remove it with all that is in it; a process that is just ending may still be writing there."""
    for _ in range(_REMOVAL_ATTEMPTS):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.05)
    raise EmbeddedError(f"{directory} could not be removed")


def _temporary_base(account: Account | None) -> Path:
    """The temp directory; where the account cannot get there (one of root's own), one that all can reach."""
    configured = Path(tempfile.gettempdir()).resolve()
    if account is None:
        return configured
    for base in (configured, Path("/tmp"), Path("/var/tmp")):  # noqa: S108 - only mkdtemp makes anything there
        if base.is_dir() and all(one.stat().st_mode & stat.S_IXOTH for one in (base, *base.parents)):
            return base
    raise EmbeddedError(f"the servers' account cannot reach {configured}; set TMPDIR to a directory open to all users")


def _sweep(base: Path) -> None:
    """Remove what owners left that were killed together with their watchdog.

    The age leaves alone a directory that was just made and is about to be locked.
    """
    for directory in base.glob(f"{PREFIX}*-*"):
        try:
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # somebody else's, or gone meanwhile
            continue
        try:
            status = os.fstat(lock)
            if status.st_uid == os.geteuid() and time.time() - status.st_mtime > STALE_AFTER_S:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)
