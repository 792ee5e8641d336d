// The last stampede of each app: side by side, on one time scale, so that the difference is seen at a glance.

import { color, label } from "./apps.js";
import { byId, make, write } from "./dom.js";
import { axis, left, picture, waits } from "./lanes.js";
import { clock, counted, digits, milliseconds, number } from "./numbers.js";
import { summary } from "./stampede_table.js";

const MAX_APPS = 4;
const MAX_LANES = 200;

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
    const shown = [...this.#told.values()].sort(
      (one, other) => (one.mode === "none" ? -1 : 1) - (other.mode === "none" ? -1 : 1),
    );
    const longest = Math.max(...shown.map(length));
    byId("no-stampede").hidden = shown.length > 0;
    showKey(shown.flatMap(({ lanes }) => lanes));
    this.#own.parentElement.hidden = shown.length < 2;
    write(byId("compared"), compared(shown));
    const open = new Set(
      [...this.#container.querySelectorAll("[data-app]:has(details[open])")].map((figure) => figure.dataset.app),
    );
    this.#container.replaceChildren(
      ...shown.map((stampede) => {
        const span = this.#own.checked ? length(stampede) : longest;
        return panel(
          stampede,
          label(stampede.app, { ...this.#apps, [stampede.app]: { mode: stampede.mode } }),
          span,
          open.has(stampede.app),
        );
      }),
    );
  }
}

// Of the key's colours, those that are in the pictures.
function showKey(lanes) {
  const there = new Set([
    "here",
    ...lanes.flatMap(waits).map(({ on }) => `on-${on}`),
    ...lanes.map(({ end }) => `end-${end}`),
  ]);
  for (const item of byId("stampede-key").children) item.hidden = lanes.length === 0 || !there.has(item.dataset.kind);
}

const length = ({ lanes, took_ms: took }) => Math.max(number(took) ?? 0, ...lanes.map(left), 0.001);

// The difference in one sentence, where both apps had the same stampede.
function compared(shown) {
  const cure = shown.find(({ mode }) => mode !== "none");
  const plain = shown.find(({ mode }) => mode === "none");
  if (!cure || !plain || cure.key !== plain.key || cure.callers !== plain.callers) return "";
  return (
    `${counted(cure.callers, "caller")} at once for one template: ` +
    `${counted(plain.loads, "load")} unprotected, ${digits(cure.loads)} protected; ` +
    `the last was answered after ${milliseconds(plain.took_ms)} and ${milliseconds(cure.took_ms)}.`
  );
}

function panel(stampede, name, span, open) {
  const lanes = stampede.lanes.slice(0, MAX_LANES);
  const detail = make(
    "output",
    { class: "detail" },
    "Point at a lane, or press the arrow keys on the picture, to read of one caller.",
  );
  const partly = lanes.length < stampede.callers ? `, ${lanes.length} of them shown` : "";
  return make(
    "figure",
    { class: `stampede c-${color(stampede.app)}`, "data-app": stampede.app },
    make(
      "figcaption",
      {},
      make("h3", {}, make("span", { class: "dot" }), name, " ", make("span", { class: "mode" }, stampede.mode)),
      make(
        "p",
        {},
        make("strong", {}, counted(stampede.loads, "load")),
        ` for ${counted(stampede.callers, "caller")}${partly}; the last was answered after ${milliseconds(stampede.took_ms)}`,
      ),
      make("p", { class: "about" }, `template ${stampede.key}, ${clock(stampede.at)}`),
    ),
    picture(lanes, name, span, detail),
    axis(span),
    detail,
    make("details", { open: open ? "" : null }, make("summary", {}, "As a table"), summary(stampede, lanes)),
  );
}
