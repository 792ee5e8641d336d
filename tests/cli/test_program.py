"""`python -m app`: how it ends where what it was asked can't be."""

from __future__ import annotations

import sys

import pytest

from app import __version__
from app.cli.program import main


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["app", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["loom", "--lisen", "x"], "No such option: --lisen (Possible options: --listen,"),
        (["loom", "--listen"], "Option '--listen' requires an argument; see"),
        (["loom", "--tls-cert", "/nonexistent"], "file '/nonexistent' does not exist; see python -m app loom --help"),
        (["loom", "--proto-dir", __file__], "Invalid value for '--proto-dir': "),
        (["loom", "--stop-s", "soon"], "Invalid value for '--stop-s': "),
        (["loom", "--breaker-failures", "0"], "greater than or equal to 1"),
        (["loom", "more"], "Got unexpected extra argument"),
        (["loom", "--redact", "two words"], "--redact: 'two words' is no metadata's name"),
        (["loom", "--replay", "/nonexistent"], "'/nonexistent' is neither a file nor a session in "),
        (["get", "first"], "Invalid value for 'ID': "),
        (["lom"], "No such command 'lom'. Did you mean 'loom'?"),
    ],
)
def test_what_it_was_asked_wrongly_is_told_in_one_line_and_a_status(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("app.cli.loom.logs.configure", lambda _level: None)
    assert ended(monkeypatch, *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert said in shown.err
    assert len(shown.err.splitlines()) == 1


def test_without_arguments_it_says_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch) == 2
    assert "loadtest" in capsys.readouterr().out
    assert ended(monkeypatch, "version") == 0
    assert capsys.readouterr().out == f"{__version__}\n"
