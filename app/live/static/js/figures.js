// The newest second in large figures: a tile a figure, a line an app.

import { color, label } from "./apps.js";
import { make, write } from "./dom.js";
import { NONE, aSecond, digits, milliseconds, number, percent, times } from "./numbers.js";

const FIGURES = [
  { title: "Requests", note: "a second", of: (now) => aSecond(now.requests_s) },
  {
    title: "Database loads",
    note: "a second",
    of: (now) => aSecond(now.loads_s),
    beside: (now) => `least possible ${digits(now.least_loads_s)}`,
  },
  { title: "Stampede factor", note: "loads ÷ least, over 60 s", of: (now) => times(now.stampede_factor) },
  { title: "Hits", note: "without the database", of: (now) => percent(hits(now)) },
  {
    title: "Latency",
    note: "95th percentile",
    of: (now) => milliseconds(now.p95_ms),
    beside: (now) => `p50 ${milliseconds(now.p50_ms)}, p99 ${milliseconds(now.p99_ms)}`,
  },
  { title: "In flight", note: "requests now", of: (now) => digits(now.in_flight) },
];

function hits({ hits_s: tiers, shared_s: shared }) {
  const from = (tier) => number(tiers?.[tier]) ?? 0;
  const cached = from("l1") + from("l2") + from("stale");
  const all = cached + from("origin") + (number(shared) ?? 0);
  return all > 0 ? (all - from("origin")) / all : null;
}

export class Figures {
  #container;
  #shown = "";
  #lines = [];

  constructor(container) {
    this.#container = container;
  }

  update(apps) {
    const shown = JSON.stringify(Object.entries(apps).map(([name, { mode, replicas }]) => [name, mode, replicas]));
    if (shown !== this.#shown) this.#build(apps);
    this.#shown = shown;
    for (const { app, figure, value, beside } of this.#lines) {
      const now = apps[app];
      write(value, now.up ? figure.of(now) : "down");
      if (beside) write(beside, now.up ? figure.beside(now) : NONE);
    }
  }

  #build(apps) {
    this.#lines = [];
    const names = Object.keys(apps);
    const tiles = FIGURES.map((figure) => {
      const lines = names.map((app) => {
        const value = make("strong");
        const beside = figure.beside ? make("small") : null;
        this.#lines.push({ app, figure, value, beside });
        const { mode, replicas } = apps[app];
        const about = [mode, replicas > 1 ? `${replicas} replicas` : ""].filter(Boolean).join(", ");
        return make(
          "div",
          { class: `line c-${color(app)}` },
          make("dt", {}, make("span", { class: "dot" }), label(app, apps), " ", make("span", { class: "mode" }, about)),
          make("dd", {}, value, beside),
        );
      });
      return make(
        "div",
        { class: "tile" },
        make("h3", {}, figure.title),
        make("p", {}, figure.note),
        make("dl", {}, ...lines),
      );
    });
    this.#container.replaceChildren(...tiles);
  }
}
