// The last stampede of each app as a picture: a lane a caller, in the order of coming, coloured by what it waited on.

import { color, label } from "./apps.js";
import { byId, draw, make, write } from "./dom.js";
import { clock, counted, digits, milliseconds, number } from "./numbers.js";
import { summary, WAITS } from "./stampede_table.js";

const ENDS = {
  loaded: "left with the value that it loaded",
  shared: "left with another’s value",
  hit: "left with a cached value",
  stale: "left with a stale value",
  failed: "left with an error",
  left: "went away",
};
const MAX_APPS = 4;
const MAX_LANES = 200;
const MAX_WAITS = 20;
const HEIGHT = 300;
const TICKS = 5;

export class Stampedes {
  #told = new Map();
  #container = byId("stampedes");
  #own = byId("own-scale");
  #apps = {};
  #pointed = false;
  #waits = false;

  // Under load there is a new stampede each second: while somebody reads one, by pointer or by keys, it stays.
  constructor() {
    this.#own.addEventListener("change", () => this.#draw());
    this.#container.addEventListener("pointerenter", (event) => (this.#pointed = event.pointerType === "mouse"));
    this.#container.addEventListener("pointerleave", () => {
      this.#pointed = false;
      this.#left();
    });
    this.#container.addEventListener("focusout", () => setTimeout(() => this.#left()));
  }

  add(stampede) {
    if (!Array.isArray(stampede?.lanes)) return;
    const app = String(stampede.app);
    if (!this.#told.has(app) && this.#told.size === MAX_APPS) return;
    this.#told.set(app, stampede);
    this.#drawUnlessRead();
  }

  // The apps as last sampled, for their names.
  name(apps) {
    const before = JSON.stringify(Object.keys(this.#apps));
    this.#apps = apps;
    if (this.#told.size > 0 && before !== JSON.stringify(Object.keys(apps))) this.#drawUnlessRead();
  }

  #drawUnlessRead() {
    this.#waits = this.#pointed || this.#container.contains(document.activeElement);
    byId("held").hidden = !this.#waits;
    if (!this.#waits) this.#draw();
  }

  #left() {
    if (this.#waits) this.#drawUnlessRead();
  }

  #draw() {
    const shown = [...this.#told.values()].sort((one, other) => (one.mode === "none" ? -1 : 1) - (other.mode === "none" ? -1 : 1));
    const longest = Math.max(...shown.map(length));
    byId("no-stampede").hidden = shown.length > 0;
    showKey(shown.flatMap(({ lanes }) => lanes));
    this.#own.parentElement.hidden = shown.length < 2;
    write(byId("compared"), compared(shown));
    const open = new Set([...this.#container.querySelectorAll("[data-app]:has(details[open])")].map((figure) => figure.dataset.app));
    this.#container.replaceChildren(...shown.map((stampede) => {
      const span = this.#own.checked ? length(stampede) : longest;
      return panel(stampede, label(stampede.app, { ...this.#apps, [stampede.app]: { mode: stampede.mode } }), span, open.has(stampede.app));
    }));
  }
}

// Of the key's colours, those that are in the pictures.
function showKey(lanes) {
  const there = new Set(["here", ...lanes.flatMap(waits).map(({ on }) => `on-${on}`), ...lanes.map(({ end }) => `end-${end}`)]);
  for (const item of byId("stampede-key").children) item.hidden = lanes.length === 0 || !there.has(item.dataset.kind);
}

const ends = (lane) => number(lane.left_ms) ?? 0;
const length = ({ lanes, took_ms: took }) => Math.max(number(took) ?? 0, ...lanes.map(ends), 0.001);

// The difference in one sentence, where both apps had the same stampede.
function compared(shown) {
  const cure = shown.find(({ mode }) => mode !== "none");
  const plain = shown.find(({ mode }) => mode === "none");
  if (!cure || !plain || cure.key !== plain.key || cure.callers !== plain.callers) return "";
  return `${counted(cure.callers, "caller")} at once for one template: ${counted(plain.loads, "load")} unprotected, ${digits(cure.loads)} protected; `
    + `all answered after ${milliseconds(plain.took_ms)} and ${milliseconds(cure.took_ms)}.`;
}

function panel(stampede, name, span, open) {
  const lanes = stampede.lanes.slice(0, MAX_LANES);
  const detail = make("output", { class: "detail" }, "Point at a lane, or press the arrow keys on the picture, to read of one caller.");
  const partly = lanes.length < stampede.callers ? `, ${lanes.length} of them shown` : "";
  return make(
    "figure", { class: `stampede c-${color(stampede.app)}`, "data-app": stampede.app },
    make("figcaption", {},
      make("h3", {}, make("span", { class: "dot" }), name, " ", make("span", { class: "mode" }, stampede.mode)),
      make("p", {}, make("strong", {}, counted(stampede.loads, "load")), ` for ${counted(stampede.callers, "caller")}${partly}, all answered in ${milliseconds(stampede.took_ms)}`),
      make("p", { class: "about" }, `template ${stampede.key}, ${clock(stampede.at)}`),
    ),
    picture(lanes, name, span, detail),
    axis(span),
    detail,
    make("details", { open: open ? "" : null }, make("summary", {}, "As a table"), summary(stampede, lanes)),
  );
}

function picture(lanes, name, span, detail) {
  const tall = Math.min(14, HEIGHT / Math.max(lanes.length, 1));
  const thick = tall > 3 ? tall - 1 : tall;
  const across = (ms) => `${((number(ms) ?? 0) / span) * 100}%`;
  const height = lanes.length * tall;
  const bar = (from, to, y, kind) => draw("rect", { x: across(from), width: across(Math.max(0, to - from)), y, height: thick, class: kind });
  const loads = draw("svg", { class: "loads", height, "aria-hidden": "true" });
  const drawing = draw("svg", { class: "lanes", height, "aria-hidden": "true" });
  for (let tick = 1; tick < TICKS; tick++) drawing.append(draw("line", { class: "grid", x1: `${(tick / TICKS) * 100}%`, x2: `${(tick / TICKS) * 100}%`, y1: 0, y2: height }));
  lanes.forEach((lane, nth) => {
    const y = nth * tall;
    const group = draw("g", { class: "lane" }, bar(lane.came_ms, ends(lane), y, "here"));
    for (const wait of waits(lane)) group.append(bar(wait.from_ms, wait.to_ms, y, `on-${wait.on}`));
    if (lane.end === "failed" || lane.end === "stale") group.append(draw("rect", { x: across(ends(lane)), width: 4, y, height: thick, class: `end-${lane.end}` }));
    drawing.append(group);
    if (waits(lane).some(({ on }) => on === "load")) loads.append(draw("rect", { width: 6, y, height: thick, class: "on-load" }));
  });
  const chosen = draw("rect", { class: "chosen", x: 0, width: "100%", height: tall, visibility: "hidden" });
  drawing.append(chosen);
  const element = make("div", {
    class: "picture", tabindex: "0", role: "slider", "aria-orientation": "vertical", "aria-label": `Callers of the ${name} app`,
    "aria-valuemin": 1, "aria-valuemax": Math.max(1, lanes.length), "aria-valuenow": 1, "aria-valuetext": lanes.length ? described(lanes[0]) : "nobody",
  }, loads, drawing);

  let at = -1;
  const choose = (nth) => {
    if (lanes.length === 0) return;
    at = Math.max(0, Math.min(lanes.length - 1, nth));
    chosen.setAttribute("y", at * tall);
    chosen.setAttribute("visibility", "visible");
    element.setAttribute("aria-valuenow", at + 1);
    element.setAttribute("aria-valuetext", described(lanes[at]));
    write(detail, described(lanes[at]));
  };
  element.addEventListener("pointermove", (event) => choose(Math.floor((event.clientY - drawing.getBoundingClientRect().top) / tall)));
  element.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    choose(at + step);
  });
  return element;
}

const waits = (lane) => (Array.isArray(lane.waits) ? lane.waits.slice(0, MAX_WAITS).filter(({ on }) => on in WAITS) : []);

function described(lane) {
  const waited = waits(lane).map(({ on, from_ms: from, to_ms: to }) => `${WAITS[on]} ${milliseconds(to - from)}`);
  return `Caller ${digits(lane.n)} came at ${milliseconds(lane.came_ms)}; ${waited.join(", ") || "waited on nothing"}; ${ENDS[lane.end] ?? "left"} at ${milliseconds(lane.left_ms)}.`;
}

function axis(span) {
  const ticks = Array.from({ length: TICKS + 1 }, (_, nth) => make("span", { style: { left: `${(nth / TICKS) * 100}%` } }, milliseconds((nth / TICKS) * span)));
  return make("div", { class: "axis", "aria-hidden": "true" }, ...ticks);
}
