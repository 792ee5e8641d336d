from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from app.report.charts import (
    MAX_POINTS,
    MAX_SPANS,
    Axis,
    Bars,
    Mark,
    Panel,
    Series,
    Span,
    bar_chart,
    cumulative,
    span_chart,
    thinned,
    xy_chart,
)
from app.report.svg import Key, Svg

NAME = "{http://www.w3.org/2000/svg}"


def picture(svg: Svg) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{NAME}text")]


def all_within(root: ElementTree.Element) -> bool:
    """Whether everything drawn lies inside the picture; the width of texts aside."""
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    xs: list[float] = []
    ys: list[float] = []
    for element in root.iter():
        for names, found in ((("x", "x1", "x2", "cx"), xs), (("y", "y1", "y2", "cy"), ys)):
            found += [float(element.attrib[name]) for name in names if name in element.attrib]
        if element.tag == f"{NAME}rect":
            xs.append(float(element.attrib["x"]) + float(element.attrib["width"]))
            ys.append(float(element.attrib["y"]) + float(element.attrib["height"]))
        points = re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", element.attrib.get("d", ""))
        xs += [float(x) for x, _ in points]
        ys += [float(y) for _, y in points]
    return min(xs) >= 0 and max(xs) <= width and min(ys) >= 0 and max(ys) <= height


LOADS = bar_chart(
    "Loads",
    ["none", "singleflight"],
    [Bars("loads", [5195, 220]), Bars("least", [220, None])],
    Axis("database loads (queries)"),
)
LATENCY = xy_chart(
    "Latency",
    [Series("none", cumulative([1, 5, 500])), Series("singleflight", cumulative([1, 1, 52]))],
    Axis("latency (ms)", log=True),
    Axis("share of requests", low=0, high=1, label=lambda value: f"{value:.0%}"),
)
WAVE = span_chart(
    "Wave",
    [
        Panel("none", [Span(0, 50, "origin"), Span(0, 100, "origin")]),
        Panel("singleflight", [Span(0, 50, "origin"), Span(1, 51, "shared"), Span(2, 52, "new kind")]),
    ],
    [Key("origin", "vermilion", shape="box"), Key("shared", "blue", shape="box")],
    Axis("time (ms)"),
    "requests",
)


@pytest.mark.parametrize("svg", [LOADS, LATENCY, WAVE])
def test_a_chart_is_well_formed_labelled_and_inside_its_frame(svg: Svg) -> None:
    root = picture(svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"]
    assert all_within(root)
    assert not re.search(r"nan|inf|None", svg)


def test_axes_have_titles_and_units_and_series_have_names() -> None:
    assert {"database loads (queries)", "loads", "least", "none", "singleflight", "5,195", "220"} <= set(
        texts(picture(LOADS))
    )
    assert {"latency (ms)", "share of requests", "0%", "100%", "10", "none"} <= set(texts(picture(LATENCY)))
    assert {"time (ms)", "requests", "origin", "shared", "none", "singleflight"} <= set(texts(picture(WAVE)))


def test_bars_are_as_long_as_their_values_and_a_missing_value_has_none() -> None:
    widths = [float(r.attrib["width"]) for r in picture(LOADS).iter(f"{NAME}rect") if float(r.attrib["height"]) == 22]
    assert len(widths) == 3
    assert widths[0] / widths[1] == pytest.approx(5195 / 220, rel=0.01)


def test_lines_are_told_apart_by_their_dashes_too() -> None:
    lines = [p.attrib.get("stroke-dasharray") for p in picture(LATENCY).iter(f"{NAME}path")]
    assert len(lines) == len(set(lines)) == 2


def test_panels_of_a_timeline_share_one_scale() -> None:
    spans = [r for r in picture(WAVE).iter(f"{NAME}rect") if float(r.attrib["height"]) != 12]
    in_first, in_second = float(spans[0].attrib["width"]), float(spans[-1].attrib["width"])
    assert in_first == pytest.approx(in_second, abs=0.1)
    assert len(spans) == 5


def test_names_are_escaped() -> None:
    nasty = '<b onload="x">&'
    svg = xy_chart(nasty, [Series(nasty, [(1, 1)], style="dots")], Axis(nasty), Axis(nasty))
    assert texts(picture(svg)).count(nasty) == 3
    assert "<b" not in svg
    bars = bar_chart(nasty, [nasty], [Bars(nasty, [1])], Axis(nasty))
    assert nasty in texts(picture(bars))


def test_a_chart_of_nothing_is_an_empty_frame() -> None:
    assert all_within(picture(bar_chart("x", [], [], Axis("a"))))
    assert all_within(picture(xy_chart("x", [], Axis("a", log=True), Axis("b"))))
    assert all_within(picture(xy_chart("x", [Series("s", [])], Axis("a"), Axis("b"))))
    assert all_within(picture(span_chart("x", [Panel("p", [])], [], Axis("a"), "b")))


def test_many_points_and_spans_are_thinned() -> None:
    many = [(float(n + 1), float(n % 7)) for n in range(50_000)]
    dots = picture(xy_chart("x", [Series("s", many, style="dots")], Axis("a"), Axis("b")))
    (path,) = dots.iter(f"{NAME}path")
    assert path.attrib["d"].count("M") == MAX_POINTS
    spans = span_chart("x", [Panel("p", [Span(0, 1, "k")] * 5_000)], [Key("k", "blue")], Axis("a"), "b")
    assert len(list(picture(spans).iter(f"{NAME}rect"))) == MAX_SPANS


def test_thinning_keeps_the_ends() -> None:
    kept = thinned(range(1_000), 7)
    assert (kept[0], kept[-1], len(kept)) == (0, 999, 7)
    assert thinned([1, 2], 7) == [1, 2]


def test_the_distribution_rises_from_0_to_1_and_keeps_its_tail() -> None:
    values = [float(n) for n in range(1, 10_001)]
    points = cumulative(values)
    assert points[0] == (1.0, 0.0)
    assert points[-1] == (10_000.0, 1.0)
    assert all(before <= after for before, after in pairwise(points))
    assert all(share == value / 10_000 for value, share in points[1:])
    assert {9_999.0, 9_990.0} <= {value for value, _ in points}
    assert len(points) < 450
    assert cumulative([]) == []


def test_marks_stand_at_their_place_with_their_labels_inside_the_picture() -> None:
    marks = [Mark(2.0, "Redis killed"), Mark(2.1, "breakers open"), Mark(9.9, "a label near the right-hand end")]
    root = picture(xy_chart("x", [Series("a", [(0, 1), (10, 5)])], Axis("s"), Axis("ms"), marks=marks))
    labels = [e for e in root.iter(f"{NAME}text") if e.text in {mark.label for mark in marks}]
    assert [label.text for label in labels] == [mark.label for mark in marks]
    assert len({label.attrib["y"] for label in labels}) == 3  # or those close to each other could not be read
    assert [label.attrib["text-anchor"] for label in labels] == ["start", "start", "end"]
    assert all_within(root)


def test_points_are_circles_and_a_series_without_a_name_is_not_in_the_legend() -> None:
    svg = xy_chart(
        "x", [Series("", [(1, 1), (2, 2)], "blue", "points"), Series("a", [(1, 1)], "green")], Axis("x"), Axis("y")
    )
    assert svg.count("<circle") == 2
    assert svg.count('class="key"') == 1
