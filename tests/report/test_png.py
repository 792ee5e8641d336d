from __future__ import annotations

import io

import pytest
from PIL import Image

from app.report.charts import Axis, Bars, Mark, Panel, Series, Span, bar_chart, span_chart, xy_chart
from app.report.html import Chart
from app.report.png import MARGIN, SCALE, png
from app.report.svg import PALETTE, WIDTH, Key, Svg

INK, PAPER = (27, 31, 36), (255, 255, 255)
BLUE, VERMILION, GREEN = (0, 114, 178), (213, 94, 0), (0, 158, 115)


def drawn(svg: Svg, caption: str = "") -> Image.Image:
    image = Image.open(io.BytesIO(png(Chart("Loads a refresh, β = ½", svg, caption))))
    assert image.format == "PNG"
    return image.convert("RGB")


def pixels(image: Image.Image, color: tuple[int, int, int]) -> int:
    """How many are of about that colour."""
    near = 0
    for count, each in image.getcolors(1 << 24) or []:
        assert isinstance(each, tuple)
        near += count * (max(abs(a - b) for a, b in zip(each, color, strict=True)) < 40)
    return near


def test_bars_are_as_long_as_their_values_in_the_pages_colours() -> None:
    image = drawn(bar_chart("x", ["a"], [Bars("one", [40.0], "blue"), Bars("two", [80.0], "vermilion")], Axis("n")))
    assert image.width == (WIDTH + 2 * MARGIN) * SCALE
    blue, vermilion = pixels(image, BLUE), pixels(image, VERMILION)
    assert vermilion / blue == pytest.approx(2, rel=0.1)
    assert pixels(image, PAPER) > 0.8 * image.width * image.height


def test_every_kind_of_chart_can_be_drawn() -> None:
    crowd = [(float(n), float(n % 7)) for n in range(50)]
    lines = xy_chart(
        "x",
        [
            Series("solid", crowd[:9], "blue"),
            Series("broken", crowd[9:20], "vermilion"),
            Series("steps", crowd[20:30], "green", "step"),
            Series("crowd", crowd, "purple", "dots"),
            Series("few", crowd[:3], "amber", "points"),
            Series("none", [], "sky"),
        ],
        Axis("time (s)"),
        Axis("n"),
        marks=[Mark(3.0, "Redis killed")],
    )
    image = drawn(lines)
    assert pixels(image, BLUE)
    assert pixels(image, VERMILION)
    assert pixels(image, GREEN)
    spans = span_chart(
        "x", [Panel("one", [Span(0, 5, "load"), Span(1, 5, "wait")])], [Key("load", PALETTE[1])], Axis("ms"), "requests"
    )
    assert pixels(drawn(spans), VERMILION)


def test_a_broken_line_takes_less_ink_than_a_whole_one() -> None:
    flat = [(0.0, 1.0), (10.0, 1.0)]
    nothing = Series("", [])
    whole = drawn(xy_chart("x", [Series("a", flat, "green")], Axis("x"), Axis("y", low=0, high=2)))
    broken = drawn(xy_chart("x", [nothing, Series("a", flat, "green")], Axis("x"), Axis("y", low=0, high=2)))
    assert 0.3 < pixels(broken, GREEN) / pixels(whole, GREEN) < 0.8


def test_title_and_caption_are_written_and_a_long_caption_makes_the_picture_higher() -> None:
    svg = bar_chart("x", ["a"], [Bars("one", [1.0])], Axis("n"))
    short, long = drawn(svg), drawn(svg, "Read up from a latency. " * 12)
    assert pixels(short, INK)
    assert long.height - short.height >= 3 * 18 * SCALE


def test_what_it_has_no_way_to_draw_is_an_error_and_not_left_out() -> None:
    with pytest.raises(ValueError, match="no way to draw <ellipse>"):
        drawn(Svg('<svg viewBox="0 0 760 100" xmlns="http://www.w3.org/2000/svg"><ellipse/></svg>'))
