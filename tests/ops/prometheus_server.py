"""A real Prometheus over the project's own configuration, its targets replaced by addresses on loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

ROOT = Path(__file__).parents[2]
START_S = 20.0
SCRAPE_INTERVAL = "1s"


def binary(name: str = "prometheus") -> str:
    """Skips the test where the program is missing, but fails it in CI, which installs it."""
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed (Debian and Ubuntu: apt install prometheus; macOS: brew install prometheus)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class PrometheusServer:
    """`targets` gives the address to scrape for each job of prometheus.yaml; a job that is not named has none."""

    def __init__(self, directory: Path, targets: Mapping[str, str]) -> None:
        self._directory = directory
        self._targets = targets
        self._process: subprocess.Popen[bytes] | None = None
        self._log = directory / "prometheus.log"
        self.url = f"http://127.0.0.1:{free_port()}"

    def __enter__(self) -> Self:
        config = yaml.safe_load((ROOT / "prometheus.yaml").read_text())
        config["global"].update(scrape_interval=SCRAPE_INTERVAL, scrape_timeout=SCRAPE_INTERVAL)
        config["rule_files"] = [str(ROOT / file) for file in config["rule_files"]]
        for job in config["scrape_configs"]:
            job.pop("dns_sd_configs", None)
            address = self._targets.get(job["job_name"])
            job["static_configs"] = [{"targets": [address]}] if address else []
        file = self._directory / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        command = [
            binary(),
            f"--config.file={file}",
            f"--storage.tsdb.path={self._directory / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                pytest.fail(f"Prometheus did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)

    def get(self, path: str, **parameters: str | float) -> Any:
        """The `data` of an answer. A query that Prometheus refuses fails the test with its reason."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{path} {parameters}: {error.read().decode()}")

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
