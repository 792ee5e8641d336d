"""A self-contained HTML page: style and charts inline, no script, nothing fetched, light and dark, fit for print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from app.report.style import CSS
from app.report.svg import Svg
from app.report.table import Table

DENSE_FROM = 6
"""Tables of more columns than that are set smaller, to fit the page."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its heading, and a caption that says how to read it."""

    title: str
    svg: Svg
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Highlight:
    """A figure that a reader is to see first."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Highlights:
    figures: Sequence[Highlight]


@dataclass(frozen=True, slots=True)
class Facts:
    """Labels and values, such as what was run on what."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Commands:
    """Lines for a shell."""

    lines: Sequence[str]


Block = Paragraph | Chart | Highlights | Table | Facts | Commands


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Page:
    """`summary` is the sentence below the title; `opening` stands before the first section."""

    title: str
    summary: str
    sections: Sequence[Section]
    opening: Sequence[Block] = ()


def render(page: Page) -> str:
    """The page as one HTML document; all text is escaped."""
    opening = "".join(map(_block, page.opening))
    sections = "".join(
        f"<section><h2>{escape(section.title)}</h2>{''.join(map(_block, section.blocks))}</section>\n"
        for section in page.sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(page.title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(page.title)}</h1><p class=summary>{escape(page.summary)}</p></header>\n"
        f"{opening}\n{sections}</main>\n</body>\n</html>\n"
    )


def _block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Chart(title, svg, caption):
            below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
            return f"<figure><h3>{escape(title)}</h3>{svg}{below}</figure>"
        case Highlights(figures):
            return f"<div class=highlights>{''.join(map(_highlight, figures))}</div>"
        case Table():
            return _table(block)
        case Facts(pairs):
            return f"<dl>{''.join(f'<dt>{escape(label)}</dt><dd>{escape(value)}</dd>' for label, value in pairs)}</dl>"
        case Commands(lines):
            return f"<pre>{escape(chr(10).join(lines))}</pre>"


def _highlight(figure: Highlight) -> str:
    note = f"<small>{escape(figure.note)}</small>" if figure.note else ""
    return f"<div><strong>{escape(figure.value)}</strong><span>{escape(figure.label)}</span>{note}</div>"


def _table(table: Table) -> str:
    head = "".join(f"<th scope=col>{escape(column)}</th>" for column in table.columns)
    rows = "".join(
        f"<tr{' class=strong' if row.strong else ''}><th scope=row>{escape(row.label)}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row.cells)
        + "</tr>"
        for row in table.rows
    )
    caption = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    kind = " class=wraps" if table.wraps else " class=dense" if len(table.columns) > DENSE_FROM else ""
    body = f"{caption}<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody>"
    return f"<div class=scroll><table{kind}>{body}</table></div>"
