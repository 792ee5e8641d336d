"""`python -m app …` as a person runs it: in a folder of its own, with a temp directory of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


class Command:
    """One run, in its own session as a terminal's foreground job is in its own process group.

    `settings` are the app's (without `APP_`), `environment` further variables; `in_the_way` is a file that lies in the
    folder already. What it writes goes to files, so that nothing it says can hold it up.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        environment: dict[str, str] | None = None,
        in_the_way: str | None = None,
        **settings: object,
    ) -> None:
        self.folder = folder / "folder"
        self.temp = folder / "temp"
        for path in (folder, self.folder, self.temp):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
        if in_the_way is not None:
            (self.folder / in_the_way).touch()
        self._out, self._err = folder / "out.txt", folder / "err.txt"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("APP_", "DEMO_"))}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", *arguments],
                cwd=self.folder,
                env={
                    **inherited,
                    "PYTHONPATH": str(ROOT),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "TMPDIR": str(self.temp),
                    "COLUMNS": "200",
                    **{f"APP_{name.upper()}": str(value) for name, value in settings.items()},
                    **(environment or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def wait(self, timeout_s: float = 30.0) -> int:
        """The exit status."""
        return self.process.wait(timeout_s)

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT to the whole foreground process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def processes(self) -> list[psutil.Process]:
        """All that run for it: itself, what it started, and what those started, servers under other accounts too."""
        found = []
        for process in psutil.process_iter():
            try:
                words = [*process.cmdline(), process.cwd(), process.environ().get("TMPDIR", "")]
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            if str(self.temp) in " ".join(words):
                found.append(process)
        return found

    def runs(self, word: str) -> bool:
        """Whether one of its processes has this word on its command line."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if word in process.cmdline():
                    return True
        return False

    def has_loaded(self, extension: str) -> bool:
        """Whether the command's own process has come as far in its imports as this extension module."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return any(extension in mapped.path for mapped in psutil.Process(self.process.pid).memory_maps())
        return False

    def temp_files(self) -> list[str]:
        return sorted(path.name for path in self.temp.iterdir())

    def complaints(self) -> list[str]:
        """The lines by which it said why it failed."""
        return [line for line in self.stderr.splitlines() if line.startswith("error: ")]
