from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from app.loadtest.pages import compare_html, run_html
from app.loadtest.plan import Plan
from app.report.html import Chart, Commands, Facts, Highlight, Highlights, Page, Paragraph, Section, render
from app.report.style import CSS
from app.report.svg import PALETTE, Svg
from app.report.table import Row, Table
from tests.loadtest.logs import run_log, sample

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """Checks that tags are balanced, and keeps the text, the tags and the attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def stampede(mode: str) -> list[tuple[int, str]]:
    return [(n, "origin" if mode == "none" or not n else "shared") for n in range(20)]


RUNS = [
    run_log(
        [
            sample(wave, wave + n / 1e5, wave + 0.05 * (n // 5 + 1 if mode == "none" else 1), source, phase=wave)
            for wave in (1, 2)
            for n, source in stampede(mode)
        ],
        mode=mode,
        loads=40 if mode == "none" else 2,
        plan=Plan(concurrency=20, waves=2, ids=2, spread=0),
    )
    for mode in ("none", "singleflight")
]


def test_a_comparison_is_balanced_and_says_what_was_run_and_found() -> None:
    words = Reader(compare_html(RUNS, ["make", "demo"])).words
    for said in (
        "40 database loads in mode none",
        "2 waves of 20",
        "make demo",
        "20.0 ×",
        "1.00 ×",
        "Processor",
        "uvicorn",
    ):
        assert said in words
    assert "none: 20 requests, 20 loads" in words
    assert "singleflight: 20 requests, 1 load," in words


@pytest.mark.parametrize(
    "page",
    [
        compare_html(RUNS, ["make", "demo"]),
        run_html(RUNS[1], ["./loadtest.sh"]),
        run_html(run_log([sample(n, n / 10, n / 10 + 0.01) for n in range(50)], plan=Plan(duration_s=5)), ["x"]),
        run_html(run_log([sample(error="timeout", source="", phase=1)] * 3, loads=0), ["x"]),
        run_html(run_log([], loads=0), ["x"]),
    ],
    ids=["comparison", "waves", "sustained", "all failed", "nothing"],
)
def test_a_page_fetches_nothing_and_runs_nothing(page: str) -> None:
    reader = Reader(page)
    assert not reader.tags & {"script", "link", "img", "iframe", "object", "embed", "a"}
    assert not [name for name in reader.attributes if name in {"src", "href", "srcset"} or name.startswith("on")]
    assert "@import" not in page
    assert "url(" not in page
    assert set(re.findall(r"https?://[^\s\"<]+", page)) <= {"http://www.w3.org/2000/svg", "http://127.0.0.1:8080"}


def test_everything_written_is_escaped() -> None:
    nasty = "<script>&\"'"
    page = render(
        Page(
            nasty,
            nasty,
            [
                Section(
                    nasty,
                    [
                        Paragraph(nasty),
                        Chart(nasty, Svg("<svg/>"), nasty),
                        Table(nasty, [nasty], [Row(nasty, [nasty])]),
                        Facts([(nasty, nasty)]),
                        Commands([nasty]),
                        Highlights([Highlight(nasty, nasty, nasty)]),
                    ],
                )
            ],
        )
    )
    assert "<script" not in page
    assert Reader(page).words.count(nasty) == 17


def colors(theme: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", theme))


def contrast(first: str, second: str) -> float:
    """WCAG 2.2's contrast ratio."""

    def luminance(color: str) -> float:
        parts = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        r, g, b = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", CSS.split("@media")[:2], ids=["light", "dark"])
def test_text_and_charts_are_readable_in_both_themes(theme: str) -> None:
    named = colors(theme)
    for text in ("ink", "muted"):
        for ground in ("paper", "panel"):
            assert contrast(named[text], named[ground]) >= 4.5, (text, ground)
    for paint in PALETTE:
        assert contrast(named[paint], named["paper"]) >= 3, paint


def test_a_table_of_many_columns_is_set_smaller_and_one_of_sentences_wraps() -> None:
    def page(table: Table) -> str:
        return render(Page("t", "s", [Section("x", [table])]))

    few, many = ["a"] * 3, ["a"] * 8
    assert "<table><" in page(Table("", few, [Row("r", few)]))
    assert "<table class=dense>" in page(Table("", many, [Row("r", many)]))
    assert "<table class=wraps>" in page(Table("", many, [Row("r", many)], wraps=True))
