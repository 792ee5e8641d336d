from __future__ import annotations

import pytest

from app.scenarios.writes import Ledger
from tests.scenarios.answers import answer


@pytest.fixture
def ledger() -> Ledger:
    """Key 1 had versions 2, 3 and 5 acknowledged at seconds 10, 20 and 30."""
    ledger = Ledger()
    for version, at in ((2, 10.0), (3, 20.0), (5, 30.0)):
        ledger.acknowledged(1, version, at)
    return ledger


@pytest.mark.parametrize(
    ("version", "sent", "lag_s"),
    [
        (1, 9.0, 0.0),  # nothing newer had been acknowledged
        (1, 12.0, 2.0),
        (1, 35.0, 25.0),  # since the first write that it misses, not the last
        (2, 20.5, 0.5),
        (4, 31.0, 1.0),  # written by somebody else, and passed over by 5
        (5, 99.0, 0.0),
        (6, 99.0, 0.0),  # newer than all that we know of
    ],
)
def test_an_answer_lags_since_the_first_acknowledged_write_that_it_misses(
    ledger: Ledger, version: int, sent: float, lag_s: float
) -> None:
    assert ledger.lag_s(answer(version=version, sent=sent)) == pytest.approx(lag_s)


def test_what_counts_is_when_a_request_was_sent_not_when_it_was_due(ledger: Ledger) -> None:
    assert ledger.lag_s(answer(version=1, due=9.0, sent=12.0)) == pytest.approx(2.0)


def test_writes_after_a_given_moment_can_be_left_out(ledger: Ledger) -> None:
    assert ledger.lag_s(answer(version=3, sent=40.0), until=29.0) == 0
    assert ledger.lag_s(answer(version=3, sent=40.0), until=30.0) == pytest.approx(10.0)


def test_an_answer_without_a_template_and_a_key_never_written_do_not_lag(ledger: Ledger) -> None:
    assert ledger.lag_s(answer(version=0, sent=40.0)) == 0
    assert ledger.lag_s(answer(key=2, version=1, sent=40.0)) == 0


def test_the_keys_written_in_a_stretch_are_told(ledger: Ledger) -> None:
    ledger.acknowledged(2, 2, 15.0)
    assert ledger.keys_written(11.0, 19.0) == {2}
    assert ledger.writes == 4
