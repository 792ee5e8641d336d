"""SVG in strings: elements, escaping, and the frame that axes and legend make around a plot.

Colours are names of CSS variables that the page defines for light and dark; what a colour tells is told by a label,
a dash or a place as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import NewType

from app.report.scale import Scale, tick_label

Svg = NewType("Svg", str)
"""A whole `<svg>` element, safe to put into HTML."""

PALETTE = ("blue", "vermilion", "green", "purple", "amber", "sky")
"""Okabe and Ito's colours, which people with any colour vision tell apart; `html` gives them their values."""
DASHES = ("", "7 4", "2 3", "10 3 2 3", "4 4", "1 3")

WIDTH = 760
CHAR = 6.6
"""Width of an average character, in user units, at the 12 units of axis text."""
LEGEND_HEIGHT = 30


def element(tag: str, content: str = "", **attributes: str | float) -> str:
    """One element; `content` is markup already. Underscores in names become dashes, a trailing one is dropped."""
    written = "".join(f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"' for name, value in attributes.items())
    return f"<{tag}{written}>{content}</{tag}>" if content else f"<{tag}{written}/>"


def text(x: float, y: float, words: str, *, anchor: str = "start", class_: str = "tick", **more: str | float) -> str:
    return element("text", escape(words), x=x, y=y, text_anchor=anchor, class_=class_, **more)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def drawing(height: float, label: str, parts: Sequence[str]) -> Svg:
    """The whole picture; `label` says what it shows to those who cannot see it."""
    title = element("title", escape(label))
    return Svg(
        element(
            "svg",
            title + "".join(parts),
            viewBox=f"0 0 {WIDTH} {_value(height)}",
            role="img",
            aria_label=label,
            xmlns="http://www.w3.org/2000/svg",
        )
    )


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend."""

    name: str
    color: str
    dash: str = ""
    shape: str = "line"
    """`line`, `box` or `dot`."""


def legend(keys: Sequence[Key], left: float, top: float) -> str:
    """Entries side by side from `left`, their middle at `top`."""
    parts = []
    x = left
    for key in keys:
        paint = f"color:var(--{key.color})"
        if key.shape == "line":
            parts.append(
                element(
                    "line", x1=x, y1=top, x2=x + 22, y2=top, class_="series", stroke_dasharray=key.dash, style=paint
                )
            )
        elif key.shape == "dot":
            parts.append(element("circle", cx=x + 11, cy=top, r=4, class_="solid", style=paint))
        else:
            parts.append(element("rect", x=x + 5, y=top - 6, width=12, height=12, rx=2, class_="solid", style=paint))
        parts.append(text(x + 29, top + 4, key.name, class_="key"))
        x += 29 + len(key.name) * CHAR + 22
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class Frame:
    """A plot's rectangle and its two axes, each with ticks, a title and a unit in it."""

    left: float
    top: float
    right: float
    bottom: float
    x: Scale
    y: Scale
    x_title: str
    y_title: str
    x_label: Callable[[float], str] = field(default=tick_label)
    y_label: Callable[[float], str] = field(default=tick_label)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the data lies in the picture."""
        return self.across(x), self.bottom - self.y.position(y) * (self.bottom - self.top)

    def across(self, x: float) -> float:
        return self.left + self.x.position(x) * (self.right - self.left)

    def axes(self) -> str:
        parts = []
        for tick in self.y.ticks:
            _, y = self.at(self.x.low, tick)
            parts.append(line(self.left, y, self.right, y, "grid"))
            parts.append(text(self.left - 8, y + 4, self.y_label(tick), anchor="end"))
        parts.append(self.x_axis())
        middle = (self.top + self.bottom) / 2
        turned = f"rotate(-90 14 {_value(middle)})"
        parts.append(text(14, middle, self.y_title, anchor="middle", class_="axis", transform=turned))
        return "".join(parts)

    def x_axis(self) -> str:
        parts = []
        for tick in self.x.ticks:
            x = self.across(tick)
            parts.append(line(x, self.top, x, self.bottom, "grid"))
            parts.append(text(x, self.bottom + 18, self.x_label(tick), anchor="middle"))
        parts.append(line(self.left, self.bottom, self.right, self.bottom, "base"))
        centre = (self.left + self.right) / 2
        parts.append(text(centre, self.bottom + 40, self.x_title, anchor="middle", class_="axis"))
        return "".join(parts)


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return escape(value, quote=True)
    return f"{value:.2f}".rstrip("0").rstrip(".")
