from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from app.cli import lab as command
from app.cli.failure import CommandError
from app.cli.program import program
from app.embedded.errors import EmbeddedError
from app.lab.experiment import Experiment, Options
from app.lab.result import Result
from tests.lab.fake_experiments import broken, experiment, holds, result

ROOT = Path(__file__).parents[2]


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> list[Experiment]:
    """The experiments there are, for a test to fill."""
    there: list[Experiment] = []
    monkeypatch.setattr(command, "find", lambda names: there)
    return there


def test_an_unknown_experiment_exits_2_and_writes_nothing(tmp_path: Path) -> None:
    ended = CliRunner().invoke(program, ["lab", "xfetsh", "--out", str(tmp_path / "out")])
    assert isinstance(ended.exception, CommandError)
    assert ended.exception.status == 2
    assert str(ended.exception).startswith("there is no experiment xfetsh; did you mean xfetch? there are approaches, ")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told_before_anything_runs(tmp_path: Path, only: list[Experiment]) -> None:
    def never(_: Options) -> Result:
        raise AssertionError("ran")

    only.append(experiment(run=never))
    (tmp_path / "file").touch()
    ended = CliRunner().invoke(program, ["lab", "--out", str(tmp_path / "file" / "out")])
    assert isinstance(ended.exception, CommandError)
    assert (ended.exception.status, str(ended.exception)) == (
        2,
        f"cannot write into {tmp_path}/file/out: Not a directory",
    )


def test_each_experiment_leaves_json_as_soon_as_it_has_run_and_all_of_them_one_page(
    tmp_path: Path, only: list[Experiment]
) -> None:
    def second(options: Options) -> Result:
        assert json.loads((tmp_path / "lab-first.json").read_text())["seed"] == options.seed == 5
        options.progress(0.5, "counting")
        return result([holds()])

    only += [experiment("first"), experiment("second", run=second)]
    ended = CliRunner().invoke(program, ["lab", "--out", str(tmp_path), "--seed", "5"])
    assert ended.exit_code == 0, ended.output
    assert "How many loads does second take?" in ended.output
    assert "cannot be reproduced" not in ended.output
    assert "holds" in ended.output
    assert json.loads((tmp_path / "lab-second.json").read_text())["experiment"] == "second"
    page = (tmp_path / "lab.html").read_text()
    assert "python -m app lab --seed 5" in page
    assert (tmp_path / "lab-second-loads.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_without_pillow_all_is_written_but_the_png_files_and_that_is_said(
    tmp_path: Path, only: list[Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "can_draw", lambda: False)
    only.append(experiment("first"))
    ended = CliRunner().invoke(program, ["lab", "--out", str(tmp_path)])
    assert ended.exit_code == 0
    assert "no PNG files: they need Pillow" in ended.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"lab.html", "lab-first.json"}


def test_a_broken_claim_exits_1_says_which_and_still_leaves_the_report(tmp_path: Path, only: list[Experiment]) -> None:
    only += [experiment("first", [broken()]), experiment("second")]
    ended = CliRunner().invoke(program, ["lab", "--out", str(tmp_path), "--quiet"])
    assert isinstance(ended.exception, CommandError)
    assert (ended.exception.status, str(ended.exception)) == (1, "first: one load: 2 loads, not 1")
    assert ended.output == ""
    assert {file.name for file in tmp_path.iterdir()} >= {"lab-first.json", "lab-second.json", "lab.html"}


def test_an_interrupted_experiment_exits_130_and_says_so(tmp_path: Path, only: list[Experiment]) -> None:
    def interrupted(_: Options) -> Result:
        raise KeyboardInterrupt

    only += [experiment("first"), experiment("second", run=interrupted)]
    ended = CliRunner().invoke(program, ["lab", "--out", str(tmp_path)])
    assert ended.exit_code == 130
    assert "interrupted; all is stopped" in ended.output
    assert not (tmp_path / "lab.html").exists()


def test_servers_that_do_not_start_exit_2_with_one_line(tmp_path: Path, only: list[Experiment]) -> None:
    def unable(_: Options) -> Result:
        raise EmbeddedError("Valkey did not start\nno room")

    only.append(experiment(run=unable))
    ended = CliRunner().invoke(program, ["lab", "--out", str(tmp_path)])
    assert isinstance(ended.exception, CommandError)
    assert (ended.exception.status, str(ended.exception)) == (2, "Valkey did not start; no room")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_everything_that_was_started(tmp_path: Path, number: signal.Signals) -> None:
    words = ["approaches", "--out", str(tmp_path / "out")]
    lab_ = subprocess.Popen(
        [sys.executable, "-m", "app", "lab", *words],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "160", "NO_COLOR": "1", "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    family: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while not family and time.monotonic() < deadline:
        time.sleep(0.05)
        family = psutil.Process(lab_.pid).children(recursive=True)
    assert family, "Valkey starts, or runs; at any other moment the outcome is the same"
    lab_.send_signal(number)
    output, errors = lab_.communicate(timeout=60)
    assert (lab_.returncode, errors) == (130, "")
    assert "interrupted; all is stopped" in output
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("words", [["--seed", "-1"], ["--seed", "x"], ["--slow"]])
def test_wrong_flags_exit_2(words: list[str]) -> None:
    assert CliRunner().invoke(program, ["lab", *words]).exit_code == 2
