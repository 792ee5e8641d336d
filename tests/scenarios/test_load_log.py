from __future__ import annotations

from app.scenarios.load_log import loads_in


def entry(key: int, words: str = "parameters", mark: str = "AS template_load") -> str:
    return (
        "2026-01-01 00:00:00.000 UTC [7] LOG:  execute __asyncpg_stmt_1__: \n"
        f"\t    SELECT t.id FROM pg_sleep($2) {mark}\n"
        "\t        LEFT JOIN templates AS t ON t.id = $1\n"
        f"2026-01-01 00:00:00.000 UTC [7] DETAIL:  {words}: $1 = '{key}', $2 = '0.02'\n"
    )


def test_loads_are_counted_by_key_whatever_the_servers_version_calls_parameters() -> None:
    log = entry(3) + entry(12) + entry(3, "Parameters")
    assert loads_in(log) == {3: 2, 12: 1}


def test_other_statements_with_parameters_are_no_loads() -> None:
    look = (
        "LOG:  execute x: SELECT count(*) FROM pg_stat_activity WHERE position($2 IN query) > 0\n"
        "DETAIL:  parameters: $1 = '5', $2 = 'template_load'\n"
    )
    assert loads_in(look + entry(4, mark="AS other")) == {}


def test_a_load_whose_parameters_are_cut_off_takes_nobody_elses() -> None:
    cut = entry(3).rpartition("2026")[0]
    assert loads_in(cut + "LOG:  execute x: SELECT $1\nDETAIL:  parameters: $1 = '9'\n") == {}
