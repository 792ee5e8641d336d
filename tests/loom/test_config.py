"""loom.toml: what it says is taken as the flags are, and what can't be taken is told by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from app.cli.failure import CommandError
from app.cli.loom import loom
from app.cli.loom_flags import from_file
from app.loom.config import MAX_FILE_BYTES, ConfigError, Key, read

KEYS = {
    "listen": Key(str),
    "backend": Key(str),
    "backend-tls": Key(bool),
    "backend-tls-ca": Key(str),
    "stop-s": Key(float),
    "redact": Key(str, is_list=True),
}


def written(folder: Path, text: str) -> Path:
    path = folder / "some.toml"
    path.write_text(text, "utf-8")
    return path


def test_keys_are_the_flags_flat_or_in_tables_with_either_sign_between_their_words(tmp_path: Path) -> None:
    text = 'listen = ":1"\nstop_s = 5\nredact = ["a", "b"]\n[backend.tls]\nca = "ca.pem"'
    assert read(written(tmp_path, text), KEYS) == {
        "listen": ":1", "stop-s": 5, "redact": ["a", "b"], "backend-tls-ca": "ca.pem",
    }  # fmt: skip
    assert read(written(tmp_path, "[backend]\ntls = true"), KEYS) == {"backend-tls": True}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('bakend = "x:1"', "no key 'bakend'; did you mean 'backend'?"),
        ("[bakend]\ntls = true", "no key 'bakend'; did you mean 'backend'?"),
        ('[backend]\ntls-cs = ""', "no key 'backend-tls-cs'; did you mean 'backend-tls-ca'?"),
        ("qqqqqq = 1", "no key 'qqqqqq'; there are backend, backend-tls, "),
        ("[qqqqqq]", "no key 'qqqqqq'"),
        ("backend-tls = true\nbackend_tls = true", "backend-tls is given twice"),
        ("listen = 9999", "listen wants a string"),
        ('backend-tls = "secret"', "backend-tls wants true or false"),
        ("stop-s = true", "stop-s wants a number"),
        ('redact = "secret"', "redact wants a list, each of it a string"),
        ('redact = ["secret", 1]', "redact wants a list, each of it a string"),
        ("listen = ", "not TOML: Invalid value"),
        ("#" * (MAX_FILE_BYTES + 1), "larger than 1 MiB"),
    ],
)
def test_what_cannot_be_taken_is_told_in_one_line_without_a_value(text: str, said: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        read(path, KEYS)
    assert str(error.value).startswith(f"{path}: {said}")
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_file_that_is_not_there_or_not_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file"):
        read(tmp_path / "nowhere.toml", KEYS)
    (tmp_path / "some.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read(tmp_path / "some.toml", KEYS)


def command(
    listen: str = "default",
    backend_tls: Annotated[bool, typer.Option("--backend-tls")] = False,
    stop_s: Annotated[float, typer.Option(max=10)] = 1.0,
    redact: Annotated[list[str] | None, typer.Option()] = None,
    config: Annotated[Path | None, typer.Option(is_eager=True, callback=from_file)] = None,
) -> None:
    print(listen, backend_tls, stop_s, redact, config and config.name)


def said(*arguments: str) -> str:
    program = typer.Typer()
    program.command()(command)
    return CliRunner().invoke(program, list(arguments), catch_exceptions=False).stdout.strip()


def test_flags_go_before_the_file_and_the_file_before_the_defaults(tmp_path: Path) -> None:
    path = str(written(tmp_path, 'listen = "file"\nbackend-tls = true\nstop-s = 2\nredact = ["a"]'))
    assert said() == "default False 1.0 None None"
    assert said("--config", path) == "file True 2.0 ['a'] some.toml"
    assert said("--listen", "flag", "--config", path, "--redact", "b") == "flag True 2.0 ['b'] some.toml"


def test_loom_toml_of_the_current_folder_is_read_where_no_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loom.toml").write_text('listen = "here"', "utf-8")
    assert said() == "here False 1.0 None loom.toml"


def test_a_value_out_of_its_range_is_told_with_the_file_and_the_key(tmp_path: Path) -> None:
    path = written(tmp_path, "stop-s = 11")
    with pytest.raises(CommandError, match=r"some\.toml: stop-s: .*10") as error:
        said("--config", str(path))
    assert error.value.status == 2


def test_every_flag_of_a_lasting_kind_may_stand_in_the_file(tmp_path: Path) -> None:
    program = typer.Typer(add_completion=False)
    program.command()(loom)
    path = written(tmp_path, "qqqqqq = 1")
    with pytest.raises(CommandError) as error:
        CliRunner().invoke(program, ["--config", str(path)], catch_exceptions=False)
    names = {
        name.removeprefix("--")
        for option in typer.main.get_command(program).params
        for name in option.opts
        if name.startswith("--")
    }
    told = set(str(error.value).partition("there are ")[2].split(", "))
    assert told == names - {"config", "version", "help", "replay", "export", "metadata", "while-stdin-open"}
