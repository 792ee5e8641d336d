// What was sampled in the last five minutes: one column a figure and app, all of one length, bounded.

import { number } from "./numbers.js";

export const WINDOW_S = 300;
export const MAX_POINTS = 300;
const MAX_APPS = 4;
const MAX_STEP_S = 2.5; // without a sample for longer, lines break

const PLAIN = [
  "requests_s",
  "loads_s",
  "least_loads_s",
  "shared_s",
  "in_flight",
  "p50_ms",
  "p95_ms",
  "p99_ms",
  "stampede_factor",
];
const TIERS = ["l1", "l2", "origin", "stale"];

export class Samples {
  at = [];
  latest = null; // {at, apps} as it was told, of the apps that are kept
  #columns = new Map();

  get apps() {
    return [...this.#columns.keys()];
  }

  column(app, field) {
    return this.#columns.get(app)[field];
  }

  // Whether any of the app's values of the field is other than zero.
  has(app, field) {
    return this.column(app, field).some((value) => value);
  }

  // Takes a sample that is newer than all; returns whether it was. What a history repeats is left out.
  add(sample) {
    const at = number(sample?.at);
    if (at === null || typeof sample.apps !== "object" || sample.apps === null) return false;
    const last = this.at.at(-1);
    if (last !== undefined) {
      if (at <= last) return false;
      if (at - last > MAX_STEP_S) this.#row(last + MAX_STEP_S / 2, {});
    }
    this.#row(at, sample.apps);
    this.latest = {
      at,
      apps: Object.fromEntries(Object.entries(sample.apps).filter(([app]) => this.#columns.has(app))),
    };
    this.#trim(at);
    return true;
  }

  // The server's clock was set back: what was sampled before it is of another time.
  forget() {
    this.at.length = 0;
    this.#columns.clear();
  }

  #row(at, apps) {
    for (const [app, values] of Object.entries(apps)) if (values && !this.#columns.has(app)) this.#begin(app);
    this.at.push(at);
    for (const [app, columns] of this.#columns) {
      const values = apps[app]?.up ? apps[app] : {};
      for (const field of PLAIN) columns[field].push(number(values[field]));
      for (const tier of TIERS) columns[tier].push(number(values.hits_s?.[tier]));
    }
  }

  #begin(app) {
    if (this.#columns.size >= MAX_APPS) return;
    const columns = {};
    for (const field of [...PLAIN, ...TIERS]) columns[field] = this.at.map(() => null);
    this.#columns.set(app, columns);
  }

  #trim(newest) {
    while (this.at.length > MAX_POINTS || this.at[0] < newest - WINDOW_S) {
      this.at.shift();
      for (const columns of this.#columns.values()) for (const column of Object.values(columns)) column.shift();
    }
    for (const [app, columns] of this.#columns) {
      if (!(app in this.latest.apps) && columns.requests_s.every((value) => value === null)) this.#columns.delete(app);
    }
  }
}
