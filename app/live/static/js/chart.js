// One chart: a title with its unit, a row of keys an app with the figures under the cursor or the newest, and the plot.
// Colour says which app, the dash says which of its figures.

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { color } from "./apps.js";
import { paint } from "./colors.js";
import { draw, make, write } from "./dom.js";
import { MarkLayer } from "./marks.js";
import { clock } from "./numbers.js";
import { WINDOW_S } from "./samples.js";

const HEIGHT = 190;
const FONT = "11px system-ui, sans-serif";
const LEAST_S = 60; // a page that has just been opened shows less than the window
const EDGE = 0.05;
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];
const DASHES = [[], [6, 4], [2, 3], [10, 3, 2, 3]];

export class Chart {
  #plot;
  #values = [];
  #keys;
  #empty;
  #time;
  #layer = new MarkLayer();
  #samples;
  #lines;
  #unit;

  // `definition`: {id, title, unit, lines: [{field, name, isRare}], log, whole, empty}. `apps`: [{name, label}].
  constructor(definition, apps, samples, container) {
    this.#samples = samples;
    this.#unit = definition.unit;
    this.#lines = apps.flatMap((app) =>
      definition.lines.map((line, nth) => ({ ...line, app: app.name, dash: DASHES[nth] })),
    );
    this.#keys = make("ul", { class: "keys" }, ...apps.map((app) => this.#row(app, definition.lines)));
    this.#empty = make("p", { class: "empty" }, definition.empty);
    this.#time = make("span", { class: "under" });
    const plot = make("div", { class: "plot", "aria-hidden": "true" });
    this.element = make(
      "figure",
      {
        class: "chart",
        id: `chart-${definition.id}`,
        tabindex: "0",
        "aria-description": "The arrow keys read single seconds.",
        onkeydown: (event) => this.#walk(event),
        onblur: () => this.#leave(),
      },
      make("figcaption", {}, make("h3", {}, definition.title), this.#time),
      this.#keys,
      plot,
      this.#empty,
    );
    container.append(this.element);
    this.#plot = new uPlot(this.#options(definition, plot.clientWidth || 300), this.#data(), plot);
    this.plot = plot;
  }

  resize() {
    const width = this.plot.clientWidth;
    if (width > 0 && width !== this.#plot.width) this.#plot.setSize({ width, height: HEIGHT });
  }

  update(marks) {
    this.#plot.setData(this.#data());
    this.#layer.draw(this.#plot, marks);
    this.#show(this.#plot.cursor.idx ?? null);
    this.#lines.forEach(({ app, field, isRare }, nth) => {
      if (isRare) this.#values[nth].parentElement.hidden = !this.#samples.has(app, field);
    });
    this.#empty.hidden = this.#lines.some(({ app, field }) =>
      this.#samples.column(app, field).some((value) => value !== null),
    );
  }

  // After the colours have changed.
  repaint() {
    this.#plot.redraw(false, true);
  }

  remove() {
    this.#plot.destroy();
    this.element.remove();
  }

  #data() {
    return [this.#samples.at, ...this.#lines.map(({ app, field }) => this.#samples.column(app, field))];
  }

  #row(app, lines) {
    const keys = lines.map((line, nth) => {
      const value = make("b");
      this.#values.push(value);
      const dash = DASHES[nth].join(" ");
      const swatch = draw(
        "svg",
        { viewBox: "0 0 22 8", "aria-hidden": "true" },
        draw("path", { d: "M0 4h22", "stroke-dasharray": dash }),
      );
      return make("span", { class: "key" }, swatch, line.name ? `${line.name} ` : "", value);
    });
    return make("li", { class: `c-${color(app.name)}` }, make("span", { class: "app" }, app.label), ...keys);
  }

  #show(index) {
    const at = index ?? this.#samples.at.length - 1;
    this.#lines.forEach(({ app, field }, nth) =>
      write(this.#values[nth], this.#unit(this.#samples.column(app, field)[at])),
    );
    write(this.#time, index === null ? "" : clock(this.#samples.at[index]));
  }

  #walk(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    const last = this.#samples.at.length - 1;
    if (step === undefined || last < 0) return;
    event.preventDefault();
    const index = Math.min(last, Math.max(0, (this.#plot.cursor.idx ?? last) + step));
    this.#plot.setCursor({ left: this.#plot.valToPos(this.#samples.at[index], "x"), top: 0 });
  }

  #leave() {
    this.#plot.setCursor({ left: -10, top: -10 });
  }

  #options(definition, width) {
    const axis = (rest) => ({ stroke: () => paint("muted"), font: FONT, ticks: { show: false }, ...rest });
    const grid = { stroke: () => paint("grid"), width: 1 };
    const tens = {
      ...grid,
      filter: (_, ticks) => ticks.map((tick) => (Number.isInteger(Math.log10(tick)) ? tick : null)),
    };
    return {
      width,
      height: HEIGHT,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "live" }, drag: { x: false, y: false }, y: false, points: { size: 6 } },
      scales: {
        x: { range: () => this.#span() },
        y: definition.log
          ? { distr: 3, range: (_, low, high) => decades(low, high) }
          : { range: (_, low, high) => [0, ceiling(high)] },
      },
      axes: [
        axis({
          grid,
          size: 26,
          space: 64,
          incrs: [10, 30, 60],
          values: (_, times, __, ___, step) => this.#times(times, step),
        }),
        axis({
          grid: definition.log ? tens : grid,
          size: 62,
          space: 28,
          ...(definition.whole && { incrs: WHOLE }),
          values: (_, ticks) => ticks.map((tick) => (tick === null ? null : definition.unit(tick))),
        }),
      ],
      series: [{}, ...this.#lines.map(({ app, dash }) => line(() => paint(color(app)), dash))],
      hooks: { setCursor: [(plot) => this.#show(plot.cursor.idx ?? null)] },
    };
  }

  // Without what would be cut off at the right edge.
  #times(times, step) {
    const [from, to] = this.#span();
    return times.map((at) => (to - at < EDGE * (to - from) ? null : clock(at).slice(0, step < 60 ? 8 : 5)));
  }

  #span() {
    const newest = this.#samples.at.at(-1) ?? Date.now() / 1_000;
    const age = newest - (this.#samples.at[0] ?? newest);
    return [newest - Math.min(WINDOW_S, Math.max(LEAST_S, age)), newest];
  }
}

const line = (stroke, dash) => ({
  stroke,
  dash,
  width: 1.75,
  points: { show: false, filter: alone, size: 4, width: 0, stroke, fill: stroke },
});

// A second between two gaps is no line: it is shown as a point.
function alone(plot, nth) {
  const values = plot.data[nth];
  const lonely = [];
  values.forEach((value, at) => {
    if (value !== null && (values[at - 1] ?? null) === null && (values[at + 1] ?? null) === null) lonely.push(at);
  });
  return lonely.length > 0 ? lonely : null;
}

const ceiling = (high) => Math.max(1, (high ?? 0) * 1.08);

function decades(low, high) {
  if (low === null || low === undefined || high === null) return [0.1, 100];
  const bottom = 10 ** Math.floor(Math.log10(Math.max(low, 0.001)));
  const top = 10 ** Math.ceil(Math.log10(Math.max(high, 0.01)));
  return [bottom, Math.max(top, bottom * 10)];
}
