from __future__ import annotations

import pytest

from app.lab.catalogue import find
from app.lab.errors import UnknownExperimentError
from tests.lab.fake_experiments import experiment

CATALOGUE = [experiment("approaches"), experiment("xfetch"), experiment("scale")]


def test_no_name_is_all_and_names_are_each_taken_once_in_the_catalogues_order() -> None:
    assert [each.name for each in find([], CATALOGUE)] == ["approaches", "xfetch", "scale"]
    assert [each.name for each in find(["scale", "approaches", "scale"], CATALOGUE)] == ["approaches", "scale"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("xfetsh", "there is no experiment xfetsh; did you mean xfetch? there are approaches, xfetch, scale"),
        ("earthquake", "there is no experiment earthquake; there are approaches, xfetch, scale"),
        ("", "there is no experiment ; there are approaches, xfetch, scale"),
    ],
)
def test_an_unknown_experiment_is_told_with_the_nearest_and_all_there_are(name: str, complaint: str) -> None:
    with pytest.raises(UnknownExperimentError) as raised:
        find(["scale", name], CATALOGUE)
    assert str(raised.value) == complaint
