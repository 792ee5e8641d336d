// Which charts there are, and their upkeep: made anew where other apps are to be shown, drawn once a frame at most.

import { label } from "./apps.js";
import { Chart } from "./chart.js";
import { aSecond, digits, milliseconds, times } from "./numbers.js";

const CHARTS = [
  {
    id: "loads",
    title: "Database loads a second",
    unit: aSecond,
    lines: [
      { field: "loads_s", name: "" },
      { field: "least_loads_s", name: "least possible" },
    ],
  },
  {
    id: "factor",
    title: "Stampede factor, over 60 s",
    unit: times,
    lines: [{ field: "stampede_factor", name: "" }],
    empty: "No load was needed in the last 60 seconds.",
  },
  { id: "requests", title: "Requests a second", unit: aSecond, lines: [{ field: "requests_s", name: "" }] },
  {
    id: "latency",
    title: "Latency, logarithmic",
    unit: milliseconds,
    log: true,
    lines: [
      { field: "p50_ms", name: "p50" },
      { field: "p95_ms", name: "p95" },
      { field: "p99_ms", name: "p99" },
    ],
    empty: "No requests in these five minutes.",
  },
  {
    id: "hits",
    title: "Answers a second, by where they came from",
    unit: aSecond,
    lines: [
      { field: "l1", name: "L1" },
      { field: "l2", name: "L2" },
      { field: "origin", name: "origin" },
      { field: "stale", name: "stale", isRare: true },
    ],
  },
  {
    id: "shared",
    title: "Callers that shared a flight, a second",
    unit: aSecond,
    lines: [{ field: "shared_s", name: "" }],
  },
  { id: "flight", title: "Requests in flight", unit: digits, whole: true, lines: [{ field: "in_flight", name: "" }] },
];

export class Charts {
  #charts = [];
  #shown = "";
  #container;
  #samples;
  #marks;
  #frame = 0;

  constructor(container, samples, marks) {
    this.#container = container;
    this.#samples = samples;
    this.#marks = marks;
    new ResizeObserver(() => this.#again(() => this.#charts.forEach((chart) => chart.resize()))).observe(container);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
      this.#charts.forEach((chart) => chart.repaint()),
    );
  }

  update() {
    this.#again(() => {});
  }

  #again(before) {
    before();
    if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    const told = this.#samples.latest?.apps ?? {};
    const apps = this.#samples.apps.map((name) => ({ name, label: label(name, told) }));
    const shown = JSON.stringify(apps);
    if (shown !== this.#shown) {
      for (const chart of this.#charts) chart.remove();
      this.#charts = CHARTS.map((definition) => new Chart(definition, apps, this.#samples, this.#container));
      this.#shown = shown;
    }
    for (const chart of this.#charts) chart.update(this.#marks.list);
  }
}
