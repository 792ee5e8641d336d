"""A chart as a PNG: its SVG drawn by Pillow in the colours of the light page, with title and caption.

It knows the elements that `svg` and `charts` write, and no others. Pillow comes with the extra `lab`.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as Xml

from PIL import Image, ImageDraw, ImageFont

from app.report.html import Chart
from app.report.style import CSS
from app.report.svg import WIDTH

SCALE = 2
"""Pixels a user unit."""
FINER = 2
"""It is drawn so much larger and then made smaller, so that edges are smooth."""
MARGIN = 16.0
TITLE_SIZE, CAPTION_SIZE, TEXT_SIZE = 16.0, 13.0, 12.0
LINE_HEIGHT = 18.0
CAPTION_CHARS = 105

_FONTS = Path(__file__).parent / "fonts"
_COLORS: Mapping[str, str] = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", CSS.partition("@media")[0]))
_TEXT_COLORS = {"tick": "muted", "axis": "muted", "key": "ink", "value": "ink", "group": "ink"}
_LINES = {"grid": ("grid", 1.0), "base": ("muted", 1.0), "series": ("", 2.2)}
_DOT = 3.4
_DOT_OPACITY = 0.55

Point = tuple[float, float]


def png(chart: Chart) -> bytes:
    """The file's bytes. Raises `ValueError` where the SVG has an element that is not known here."""
    svg = Xml.fromstring(chart.svg)  # noqa: S314 - of our own making
    height = float(svg.attrib["viewBox"].split()[3])
    caption = textwrap.wrap(chart.caption, CAPTION_CHARS)
    top = MARGIN + 2 * LINE_HEIGHT
    bottom = top + height + LINE_HEIGHT * len(caption) + MARGIN
    canvas = _Canvas(WIDTH + 2 * MARGIN, bottom)
    canvas.text((MARGIN, MARGIN + TITLE_SIZE), chart.title, "start", TITLE_SIZE, _COLORS["ink"], bold=True)
    canvas.origin = (MARGIN, top)
    for element in svg.iter():
        draw = _ELEMENTS.get(_name(element))
        if draw is None:
            raise ValueError(f"no way to draw <{_name(element)}>")
        draw(canvas, element)
    for number, words in enumerate(caption):
        place = (0.0, height + LINE_HEIGHT * (number + 0.5))
        canvas.text(place, words, "start", CAPTION_SIZE, _COLORS["muted"])
    return canvas.png()


class _Canvas:
    """Draws in user units, from `origin`."""

    def __init__(self, width: float, height: float) -> None:
        self._unit = SCALE * FINER
        self._image = Image.new("RGB", (round(width * self._unit), round(height * self._unit)), _COLORS["paper"])
        self._draw = ImageDraw.Draw(self._image)
        self.origin: Point = (0.0, 0.0)

    def png(self) -> bytes:
        width, height = self._image.size
        small = self._image.resize((width // FINER, height // FINER), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        small.save(file, "PNG", optimize=True)
        return file.getvalue()

    def line(self, points: list[Point], color: str, width: float, dash: str = "") -> None:
        for part in _dashes(points, [float(length) for length in dash.split()]):
            places = [self._at(point) for point in part]
            self._draw.line(places, fill=color, width=max(round(width * self._unit), 1), joint="curve")

    def box(self, x: float, y: float, width: float, height: float, radius: float, color: str) -> None:
        corners = (self._at((x, y)), self._at((x + width, y + height)))
        radius = min(radius, width / 2, height / 2)
        self._draw.rounded_rectangle(corners, radius * self._unit, fill=color)

    def circle(self, place: Point, radius: float, color: str) -> None:
        x, y = self._at(place)
        radius *= self._unit
        self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def dots(self, places: list[Point], color: str) -> None:
        """As thick as their own stroke, and together see-through."""
        mask = Image.new("L", self._image.size)
        draw = ImageDraw.Draw(mask)
        radius = _DOT / 2 * self._unit
        for place in places:
            x, y = self._at(place)
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=round(255 * _DOT_OPACITY))
        self._image.paste(color, (0, 0, *self._image.size), mask)

    def text(
        self,
        place: Point,
        words: str,
        anchor: str,
        size: float,
        color: str,
        *,
        bold: bool = False,
        turned: bool = False,
    ) -> None:
        """`place` is on the base line; `turned` reads upwards."""
        font = _font(round(size * self._unit), bold)
        if not turned:
            side = {"start": "l", "middle": "m", "end": "r"}[anchor]
            self._draw.text(self._at(place), words, fill=color, font=font, anchor=f"{side}s")
            return
        length, ascent, descent = math.ceil(font.getlength(words)), *font.getmetrics()
        mask = Image.new("L", (length, ascent + descent))
        ImageDraw.Draw(mask).text((0, ascent), words, fill=255, font=font, anchor="ls")
        upright = mask.transpose(Image.Transpose.ROTATE_90)
        x, y = self._at(place)
        self._image.paste(color, (round(x - ascent), round(y - length / 2)), upright)

    def _at(self, point: Point) -> Point:
        return (point[0] + self.origin[0]) * self._unit, (point[1] + self.origin[1]) * self._unit


def _name(element: Xml.Element) -> str:
    return element.tag.rpartition("}")[2]


def _number(element: Xml.Element, name: str) -> float:
    return float(element.get(name, "0"))


def _color(element: Xml.Element) -> str:
    """The `color` of its style, a variable of the page's."""
    return _COLORS[element.get("style", "").removeprefix("color:var(--").removesuffix(")")]


def _stroke(element: Xml.Element) -> tuple[str, float]:
    name, width = _LINES[element.get("class", "")]
    return (_COLORS[name] if name else _color(element)), width


def _line(canvas: _Canvas, element: Xml.Element) -> None:
    begin, end = (tuple(_number(element, f"{axis}{n}") for axis in "xy") for n in (1, 2))
    color, width = _stroke(element)
    canvas.line([(begin[0], begin[1]), (end[0], end[1])], color, width, element.get("stroke-dasharray", ""))


def _path(canvas: _Canvas, element: Xml.Element) -> None:
    points = list(_points(element.get("d", "")))
    if element.get("class") == "dots":
        canvas.dots(points, _color(element))
    elif points:
        canvas.line(points, *_stroke(element), element.get("stroke-dasharray", ""))


def _rect(canvas: _Canvas, element: Xml.Element) -> None:
    x, y, width, height, radius = (_number(element, name) for name in ("x", "y", "width", "height", "rx"))
    canvas.box(x, y, width, height, radius, _color(element))


def _circle(canvas: _Canvas, element: Xml.Element) -> None:
    canvas.circle((_number(element, "cx"), _number(element, "cy")), _number(element, "r"), _color(element))


def _text(canvas: _Canvas, element: Xml.Element) -> None:
    kind = element.get("class", "tick")
    canvas.text(
        (_number(element, "x"), _number(element, "y")),
        element.text or "",
        element.get("text-anchor", "start"),
        TEXT_SIZE,
        _COLORS[_TEXT_COLORS[kind]],
        bold=kind == "group",
        turned=element.get("transform", "").startswith("rotate(-90"),
    )


def _nothing(_canvas: _Canvas, _element: Xml.Element) -> None:
    """The picture itself, and its title for those who can't see it."""


_ELEMENTS: Mapping[str, Callable[[_Canvas, Xml.Element], None]] = {
    "svg": _nothing,
    "title": _nothing,
    "line": _line,
    "path": _path,
    "rect": _rect,
    "circle": _circle,
    "text": _text,
}


def _points(path: str) -> Iterator[Point]:
    """The points of `M`, `L` and `H`; the `h0` that makes a dot is none of its own."""
    y = 0.0
    for command, words in re.findall(r"([MLHh])([^MLHh]*)", path):
        numbers = [float(word) for word in words.split()]
        if command == "H":
            yield numbers[0], y
        elif command != "h":
            y = numbers[1]
            yield numbers[0], y


def _dashes(points: list[Point], lengths: list[float]) -> Iterator[list[Point]]:
    """The parts of a line that are drawn: `lengths` are on and off in turn."""
    if not lengths:
        yield points
        return
    turn, left = 0, lengths[0]
    part = [points[0]]
    for (x, y), end in itertools.pairwise(points):
        at = (x, y)
        while (rest := math.dist(at, end)) > left:
            share = left / rest
            at = (at[0] + (end[0] - at[0]) * share, at[1] + (end[1] - at[1]) * share)
            if turn % 2 == 0:
                yield [*part, at]
            part, turn = [at], turn + 1
            left = lengths[turn % len(lengths)]
        left -= rest
        part.append(end)
    if turn % 2 == 0 and len(part) > 1:
        yield part


@cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_FONTS / f"DejaVuSans{'-Bold' if bold else ''}.ttf"), size)
