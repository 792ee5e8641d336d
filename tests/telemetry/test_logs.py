from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator

import pytest
from _pytest.logging import LogCaptureHandler

from app.telemetry import logs
from app.telemetry.request_id import REQUEST_ID

RECORD = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ \S+ ")
FORGED = "2026-01-01T00:00:00.000Z INFO root all is well"
BREAKS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


class Written:
    """What the log has written since the last look."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def text(self) -> str:
        return self._capture.readouterr().err


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """Logging is as before afterwards."""
    root = logging.getLogger()
    # pytest's own capturing handlers live for one phase of a test only.
    handlers, level = [h for h in root.handlers if not isinstance(h, LogCaptureHandler)], root.level
    chatty = {name: logging.getLogger(name).level for name in ("uvicorn", "uvicorn.access", "asyncio")}
    yield Written(capsys)
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in chatty.items():
        logging.getLogger(name).setLevel(before)


def test_a_record_is_one_line_with_time_level_and_logger(stderr: Written) -> None:
    logs.configure("info")
    logging.getLogger("app.test").warning("%s of %d", "one", 3)
    written = stderr.text()
    assert re.fullmatch(RECORD.pattern + r"one of 3\n", written)
    assert " WARNING app.test " in written


def test_a_record_of_a_request_ends_with_its_id_and_no_other_does(stderr: Written) -> None:
    logs.configure("info")
    before = REQUEST_ID.set("0F-1.b_2")
    try:
        logging.getLogger("app.test").error("failed", exc_info=ValueError("why"))
    finally:
        REQUEST_ID.reset(before)
    logging.getLogger("app.test").error("failed")
    first, trace, last = stderr.text().splitlines()
    assert first.endswith(" failed request_id=0F-1.b_2")
    assert trace == "    ValueError: why"
    assert last.endswith(" failed")


@pytest.mark.parametrize("line_break", BREAKS, ids=ascii)
def test_a_value_with_a_line_break_forges_no_record(stderr: Written, line_break: str) -> None:
    logs.configure("info")
    logging.getLogger("app.test").error("bad name %s", f"x{line_break}{FORGED}")
    lines = stderr.text().splitlines()
    assert len(lines) == 1
    assert len(RECORD.findall(lines[0])) == 1
    assert FORGED in lines[0]


@pytest.mark.parametrize("line_break", BREAKS, ids=ascii)
def test_an_error_s_text_with_a_line_break_forges_no_record_by_way_of_its_traceback(
    stderr: Written, line_break: str
) -> None:
    logs.configure("info")
    error = ValueError(f"x{line_break}{FORGED}")
    logging.getLogger("app.test").error("failed", exc_info=error, stack_info=True)
    lines = stderr.text().splitlines()
    assert [bool(RECORD.match(line)) for line in lines] == [True] + [False] * (len(lines) - 1)
    assert all(line.startswith("    ") for line in lines[1:])
    assert any(line.startswith("    ValueError: x") for line in lines)


def test_what_a_terminal_would_obey_is_escaped(stderr: Written) -> None:
    logs.configure("info")
    logging.getLogger("app.test").error("%s", "\x1b[2J\x07\x9b0m\x00\x7f\ud800 tab\t é 你好 😀")
    written = stderr.text()
    assert r"\x1b[2J\x07\x9b0m\x00\x7f\ud800" in written
    assert "tab\t é 你好 😀\n" in written
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", written)


@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_records_below_the_level_are_not_written(stderr: Written, level: str, shown: int) -> None:
    logs.configure(level)
    for method in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("app.test"), method)("x")
    assert len(stderr.text().splitlines()) == shown


def test_the_server_s_own_chatter_is_left_out_at_every_level(stderr: Written) -> None:
    logs.configure("debug")
    for name in ("uvicorn.error", "uvicorn.access", "asyncio"):
        logging.getLogger(name).info("Application startup complete.")
    assert stderr.text() == ""


def test_warnings_go_to_the_log(stderr: Written) -> None:
    logs.configure("info")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old\nway", DeprecationWarning, stacklevel=1)
    written = stderr.text()
    assert RECORD.match(written)
    assert "DeprecationWarning: old" in written
    assert len(written.splitlines()) == 1
