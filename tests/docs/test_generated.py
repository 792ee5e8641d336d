from __future__ import annotations

import pytest
from pydantic import Field

from app.settings import Settings
from tests.docs import cases, tables


@pytest.mark.parametrize(("file", "name"), tables.BLOCKS)
def test_what_the_docs_say_is_what_the_code_says(file: str, name: str) -> None:
    assert tables.read_block(file, name) == tables.BLOCKS[file, name](), "run `python -m tests.docs`"


def test_a_new_setting_a_lost_one_and_another_default_each_change_the_table() -> None:
    class MoreSettings(Settings):
        tea_timeout_s: float = Field(4.0, gt=0, description="How long tea draws.")

    class OtherSettings(Settings):
        http_port: int = Field(8081, ge=0, le=65_535, description="HTTP port; 0 takes any free one.")

    row = "| `APP_TEA_TIMEOUT_S` | `4.0` | > 0 s | How long tea draws. |"
    assert tables.settings(MoreSettings) == f"{tables.settings()}\n{row}"
    assert "| `APP_HTTP_PORT` | `8081` |" in tables.settings(OtherSettings)
    assert tables.settings(OtherSettings) != tables.settings()


def test_every_setting_and_metric_says_what_it_means() -> None:
    for table in (tables.settings(), tables.metrics()):
        for line in table.splitlines():
            assert not line.endswith("|  |"), line


def test_every_case_of_singleflight_has_a_test_and_every_numbered_test_a_case() -> None:
    assert len(cases.CASES) == 17
    assert all(cases.tests_of(number) for number in range(1, 18))
    assert not any(cases.tests_of(number) for number in range(18, 100))
