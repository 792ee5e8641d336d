"""The page's style sheet."""

from __future__ import annotations

CSS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f6f7f9; --ink: #1b1f24; --muted: #59636e; --rule: #d8dee4; --grid: #e6e9ed;
  --blue: #0072b2; --vermilion: #d55e00; --green: #009e73; --purple: #b4508d; --amber: #c98500; --sky: #3d9bd3;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #0f1318; --panel: #171d24; --ink: #e8ecf1; --muted: #9aa6b2; --rule: #2d3640; --grid: #242c35;
    --blue: #4ca6e3; --vermilion: #f5854a; --green: #2fc79a; --purple: #e096c4; --amber: #f2bb45; --sky: #8fd0f5;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
}
main { max-width: 53rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; letter-spacing: -.01em; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .9rem; padding-bottom: .35rem; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 0 0 .75rem; }
p { margin: .6rem 0; }
.summary { color: var(--muted); margin: 0; }
.highlights {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; margin: 1.6rem 0;
}
.highlights div {
  background: var(--panel); border: 1px solid var(--rule); border-radius: .6rem; padding: .9rem 1.1rem;
  display: flex; flex-direction: column;
}
.highlights strong { font-size: 1.7rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.highlights small { color: var(--muted); font-size: .82rem; }
.scroll { overflow-x: auto; }
.scroll + .scroll { margin-top: 1.8rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); font-size: .9rem; padding-bottom: .4rem; }
th, td { padding: .42rem .7rem; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; }
tbody th { text-align: left; font-weight: 400; color: var(--muted); white-space: normal; min-width: 8rem; }
table.dense { font-size: .82rem; }
table.dense th, table.dense td { padding-left: .4rem; padding-right: .4rem; }
table.dense th:first-child { padding-left: 0; }
table.wraps { font-size: .9rem; }
table.wraps td { white-space: normal; }
thead th { font-weight: 600; border-bottom: 1px solid var(--rule); }
thead td { border-bottom: 1px solid var(--rule); }
tr.strong th, tr.strong td { font-weight: 600; color: var(--ink); }
figure { margin: 1.6rem 0 2rem; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { color: var(--muted); font-size: .9rem; margin-top: .3rem; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
svg .tick { fill: var(--muted); font-variant-numeric: tabular-nums; }
svg .axis { fill: var(--muted); }
svg .key, svg .value { fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .group { fill: var(--ink); font-weight: 600; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .base { stroke: var(--muted); stroke-width: 1; }
svg .series { stroke: currentColor; stroke-width: 2.2; fill: none; stroke-linejoin: round; }
svg .dots { stroke: currentColor; stroke-width: 3.4; stroke-linecap: round; fill: none; opacity: .55; }
svg .solid { fill: currentColor; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.4rem; margin: .6rem 0; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
pre {
  background: var(--panel); border: 1px solid var(--rule); border-radius: .5rem; padding: .8rem 1rem; overflow-x: auto;
  font: .88rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media print {
  :root { color-scheme: light; --paper: #fff; --panel: #fff; --ink: #000; --muted: #444; --rule: #bbb; --grid: #ddd;
    --blue: #0072b2; --vermilion: #d55e00; --green: #009e73; --purple: #b4508d; --amber: #c98500; --sky: #3d9bd3; }
  main { max-width: none; padding: 0; }
  h2 { break-after: avoid; }
  .highlights div, svg .solid { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""
