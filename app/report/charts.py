"""Charts as SVG strings: grouped bars, lines and dots over any axes, and spans on a timeline."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from app.report.scale import Scale, linear, logarithmic, tick_label
from app.report.svg import (
    CHAR,
    DASHES,
    LEGEND_HEIGHT,
    PALETTE,
    WIDTH,
    Frame,
    Key,
    Svg,
    drawing,
    element,
    legend,
    line,
    text,
)

T = TypeVar("T")

MAX_POINTS = 2_000
"""Most points drawn of one series; more are thinned out evenly."""
MAX_SPANS = 400
"""Most spans drawn in one panel, thinned in the same way."""


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis' title, its unit included, and how it runs: `low` and `high` override the data's own ends."""

    title: str
    log: bool = False
    low: float | None = None
    high: float | None = None
    label: Callable[[float], str] = tick_label

    def scale(self, values: Sequence[float]) -> Scale:
        low = self.low if self.low is not None else min(values, default=0.1 if self.log else 0.0)
        high = self.high if self.high is not None else max(values, default=1.0)
        return logarithmic(low, high) if self.log else linear(low, high)


@dataclass(frozen=True, slots=True)
class Bars:
    """One series of bars: a value for each group, `None` where there is none."""

    name: str
    values: Sequence[float | None]
    color: str = ""


def bar_chart(
    label: str,
    groups: Sequence[str],
    series: Sequence[Bars],
    axis: Axis,
    value_label: Callable[[float], str] = tick_label,
) -> Svg:
    """Horizontal bars in groups, each with its value written at its end. The axis begins at 0."""
    thick, gap, between = 22.0, 4.0, 20.0
    left = 24 + max((len(group) for group in groups), default=0) * CHAR * 1.1
    top = float(LEGEND_HEIGHT)
    height = len(series) * (thick + gap) - gap
    bottom = top + len(groups) * (height + between) + between / 2
    values = [value for bars in series for value in bars.values if value is not None]
    scale = Axis(axis.title, low=0, high=axis.high).scale(values)
    room = max((len(value_label(value)) for value in values), default=0) * CHAR * 1.1 + 14
    frame = Frame(left, top, WIDTH - room, bottom, scale, linear(0, 1), axis.title, "", x_label=axis.label)
    colors = [bars.color or PALETTE[n % len(PALETTE)] for n, bars in enumerate(series)]
    parts = [
        legend([Key(bars.name, color, shape="box") for bars, color in zip(series, colors, strict=True)], left, 12),
        frame.x_axis(),
    ]
    for place, group in enumerate(groups):
        y = top + between * 0.75 + place * (height + between)
        parts.append(text(left - 12, y + height / 2 + 4, group, anchor="end", class_="group"))
        for n, bars in enumerate(series):
            value = bars.values[place]
            if value is None:
                continue
            end = frame.across(value)
            row = y + n * (thick + gap)
            width = max(end - left, 1.5)
            paint = f"color:var(--{colors[n]})"
            parts.append(element("rect", x=left, y=row, width=width, height=thick, rx=2, class_="solid", style=paint))
            parts.append(text(left + width + 8, row + thick / 2 + 4, value_label(value), class_="value"))
    return drawing(bottom + 52, label, parts)


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one name: joined by a line, by steps, or left alone (`style` is `line`, `step`, `dots` or `points`).

    `dots` are small, for crowds; `points` are large, for a few. Without a name it has no place in the legend.
    """

    name: str
    points: Sequence[tuple[float, float]]
    color: str = ""
    style: str = "line"


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at `x`: a line across the plot, with its label beside it."""

    x: float
    label: str


def xy_chart(
    label: str, series: Sequence[Series], x: Axis, y: Axis, height: float = 300, marks: Sequence[Mark] = ()
) -> Svg:
    """Lines and dots over two axes; every line has a dash of its own besides its colour. `marks` stand before them."""
    xs = [point[0] for one in series for point in one.points]
    ys = [point[1] for one in series for point in one.points]
    x_scale, y_scale = x.scale(xs), y.scale(ys)
    left = 40 + max(len(y.label(tick)) for tick in y_scale.ticks) * CHAR
    top = float(LEGEND_HEIGHT)
    frame = Frame(
        left, top, WIDTH - 24, top + height, x_scale, y_scale, x.title, y.title, x_label=x.label, y_label=y.label
    )
    keys, parts = [], [frame.axes()]
    for n, one in enumerate(series):
        color = one.color or PALETTE[n % len(PALETTE)]
        alone = one.style in ("dots", "points")
        dash = "" if alone else DASHES[n % len(DASHES)]
        if one.name:
            keys.append(Key(one.name, color, dash, "dot" if alone else "line"))
        parts.append(_drawn(one, frame, color, dash))
    parts += [_marked(mark, place, frame) for place, mark in enumerate(marks)]
    return drawing(frame.bottom + 52, label, [legend(keys, left, 12), *parts])


def cumulative(values: Sequence[float], points: int = 400) -> list[tuple[float, float]]:
    """The distribution of `values` as points (value, share of all that do not exceed it), tails in full."""
    ordered = sorted(values)
    last = len(ordered)
    if not last:
        return []
    ranks = {round(n * last / points) for n in range(1, points)} | {1, *range(max(1, last - 20), last + 1)}
    return [(ordered[0], 0.0)] + [(ordered[rank - 1], rank / last) for rank in sorted(ranks) if rank >= 1]


@dataclass(frozen=True, slots=True)
class Span:
    """Something from `start` to `end`, of a kind."""

    start: float
    end: float
    kind: str


@dataclass(frozen=True, slots=True)
class Panel:
    """Spans on a timeline, one above the other in the order given."""

    title: str
    spans: Sequence[Span]


def span_chart(label: str, panels: Sequence[Panel], kinds: Sequence[Key], x: Axis, y_title: str) -> Svg:
    """Timelines one below the other on one scale, which begins at 0.

    The first of `kinds` lies on top and is never too thin to be seen; a kind that `kinds` lacks is drawn as its last.
    """
    x_scale = x.scale([0.0, *(span.end for panel in panels for span in panel.spans)])
    colors = {key.name: key.color for key in kinds}
    fallback = kinds[-1].color if kinds else PALETTE[0]
    front = kinds[0].name if kinds else None
    deep, head, left = 180.0, 34.0, 64.0
    parts = [legend(kinds, left, 12)]
    top = float(LEGEND_HEIGHT)
    for place, panel in enumerate(panels):
        top += head
        total = len(panel.spans)
        frame = Frame(
            left, top, WIDTH - 24, top + deep, x_scale, Scale(0, max(total, 1), [0, total], float), "", y_title
        )
        parts.append(text(left, top - 10, panel.title, class_="group"))
        if place == len(panels) - 1:
            frame = Frame(left, top, WIDTH - 24, top + deep, x_scale, frame.y, x.title, y_title, x_label=x.label)
        parts.append(frame.axes())
        shown = thinned(list(enumerate(panel.spans)), MAX_SPANS)
        thick = min(max(deep / max(len(shown), 1) * 0.8, 0.5), 6)
        for row, span in sorted(shown, key=lambda item: item[1].kind == front):
            begin, y = frame.at(span.start, total - row - 0.5)
            tall = max(thick, 2.5) if span.kind == front else thick
            paint = f"color:var(--{colors.get(span.kind, fallback)})"
            width = max(frame.across(span.end) - begin, 0.8)
            parts.append(
                element("rect", x=begin, y=y - tall / 2, width=width, height=tall, class_="solid", style=paint)
            )
        top += deep + 24
    return drawing(top + 28, label, parts)


def thinned(items: Sequence[T], most: int) -> Sequence[T]:
    """At most `most` of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(n * (len(items) - 1) / (most - 1))] for n in range(most)]


def _marked(mark: Mark, place: int, frame: Frame) -> str:
    """Labels take turns on three heights, so that marks close to each other can be read."""
    x, y = frame.across(mark.x), frame.top + 14 + place % 3 * 16
    left = x + len(mark.label) * CHAR + 8 > frame.right
    words = text(x - 5 if left else x + 5, y, mark.label, anchor="end" if left else "start", class_="key")
    return line(x, frame.top, x, frame.bottom, "base") + words


def _drawn(series: Series, frame: Frame, color: str, dash: str) -> str:
    paint = f"color:var(--{color})"
    places = [frame.at(x, y) for x, y in thinned(series.points, MAX_POINTS)]
    if series.style == "dots":
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places)
        return element("path", d=dots, class_="dots", style=paint)
    if series.style == "points":
        return "".join(element("circle", cx=x, cy=y, r=4, class_="solid", style=paint) for x, y in places)
    if not places:
        return ""
    path = [f"M{places[0][0]:.1f} {places[0][1]:.1f}"]
    for (before, _), (x, y) in itertools.pairwise(places):
        if series.style == "step" and x != before:
            path.append(f"H{x:.1f}")
        path.append(f"L{x:.1f} {y:.1f}")
    return element("path", d="".join(path), class_="series", stroke_dasharray=dash, style=paint)
