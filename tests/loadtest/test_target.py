from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from app.loadtest.errors import TargetError
from app.loadtest.target import Given, Target, find_target, running_stack, without_password

STACK = {
    "http_url": "http://127.0.0.1:9001",
    "database_url": "postgresql://app@127.0.0.1:9002/app",
    "loadtest_database_url": "postgresql://loadtest@127.0.0.1:9002/app",
    "redis_url": "redis://127.0.0.1:9003/0",
    "key_prefix": "mine",
}


def test_with_nothing_given_and_nothing_running_it_is_the_compose_files_ports_on_loopback() -> None:
    assert find_target(Given(), None) == Target(
        url="http://127.0.0.1:8080",
        database_url="postgresql://loadtest:app@127.0.0.1:5432/app",
        app_role="app",
        redis_url="redis://127.0.0.1:6379/0",
        key_prefix="template",
    )


def test_a_running_stack_says_where_it_is() -> None:
    target = find_target(Given(), STACK)
    assert target == Target(
        STACK["http_url"], STACK["loadtest_database_url"], "app", STACK["redis_url"], STACK["key_prefix"]
    )


@pytest.mark.parametrize("url", ["http://127.0.0.1:9001", "http://127.0.0.1:9001/", "http://localhost:9001"])
def test_a_url_given_that_is_the_running_stacks_brings_its_other_addresses_along(url: str) -> None:
    assert find_target(Given(url=url), STACK).redis_url == STACK["redis_url"]


def test_another_url_has_nothing_to_do_with_the_running_stack() -> None:
    target = find_target(Given(url="http://127.0.0.1:8081"), STACK)
    assert (target.redis_url, target.key_prefix) == ("redis://127.0.0.1:6379/0", "template")
    assert target.database_url == "postgresql://loadtest:app@127.0.0.1:5432/app"


def test_what_is_given_comes_before_the_running_stack() -> None:
    target = find_target(
        Given(database_url="postgresql://me@db/app", redis_url="redis://r:1/0", key_prefix="p", app_role="x"), STACK
    )
    assert target == Target(STACK["http_url"], "postgresql://me@db/app", "x", "redis://r:1/0", "p")


def test_the_role_whose_loads_count_is_the_apps_own() -> None:
    inside = Given(
        database_url="postgresql://loadtest:s@postgres/app", app_database_url="postgresql://unprotected:s@postgres/app"
    )
    assert find_target(inside, None).app_role == "unprotected"


def test_with_the_apps_database_url_alone_the_app_counts_its_own_statements() -> None:
    target = find_target(Given(app_database_url="postgresql://app:s@db/app"), None)
    assert (target.database_url, target.app_role) == ("postgresql://app:s@db/app", "app")


def test_without_postgres_there_is_no_database_url() -> None:
    assert find_target(Given(database_url="postgresql://me@db/app"), STACK, postgres=False).database_url is None


@pytest.mark.parametrize(
    ("flag", "given"),
    [
        ("--url", Given(url="127.0.0.1:8080")),
        ("--url", Given(url="https://127.0.0.1")),
        ("--url", Given(url="http://")),
        ("--url", Given(url="http://h:99999")),
        ("--url", Given(url="http://h:0")),
        ("--url", Given(url="http://h:80/path")),
        ("--url", Given(url="http://me@h:80")),
        ("--url", Given(url="http://[::1")),
        ("--redis-url", Given(redis_url="http://h")),
        ("--redis-url", Given(redis_url="redis://h:port")),
        ("--database-url", Given(database_url="mysql://h/app")),
        ("--key-prefix", Given(key_prefix="*")),
        ("--key-prefix", Given(key_prefix="a" * 65)),
    ],
)
def test_a_malformed_address_is_refused_in_one_line_that_names_the_flag(flag: str, given: Given) -> None:
    with pytest.raises(TargetError, match=flag) as caught:
        find_target(given, None)
    assert "\n" not in str(caught.value)


def test_no_password_gets_into_a_complaint() -> None:
    with pytest.raises(TargetError) as caught:
        find_target(Given(database_url="mysql://me:secret@h/app"), None)
    assert "secret" not in str(caught.value)
    assert without_password("redis://:secret@h:1/0") == "redis://:***@h:1/0"
    assert without_password("redis://h:1/0") == "redis://h:1/0"


def test_a_stack_file_counts_while_its_process_lives(tmp_path: Path) -> None:
    file = tmp_path / "stack.json"
    file.write_text(json.dumps({**STACK, "pid": os.getpid()}))
    stack = running_stack(file)
    assert stack is not None
    assert stack["http_url"] == STACK["http_url"]


def test_a_stack_file_of_a_process_that_is_gone_counts_for_nothing(tmp_path: Path) -> None:
    gone = os.posix_spawn("/bin/sh", ["sh", "-c", ":"], {})
    os.waitpid(gone, 0)
    file = tmp_path / "stack.json"
    file.write_text(json.dumps({**STACK, "pid": gone}))
    assert running_stack(file) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"pid": "x"}', '{"pid": null}', '{"pid": 99999999999999999999}']
)
def test_a_torn_or_foreign_stack_file_counts_for_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "stack.json"
    file.write_text(text)
    assert running_stack(file) is None
    assert running_stack(tmp_path / "none.json") is None
