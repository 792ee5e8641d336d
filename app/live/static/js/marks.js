// What was done, as lines across the charts: which there are, and where their labels have room.

import { make, write } from "./dom.js";
import { clock } from "./numbers.js";
import { WINDOW_S } from "./samples.js";

const MAX_MARKS = 40;
const ROWS = 4;
const ROW_PX = 15;
const CHAR_PX = 6.2;
const MAX_CHARS = 18;
const NAMES = {
  stampede: "stampede",
  expire: "expired",
  change: "changed",
  redis_away: "Redis away",
  redis_back: "Redis back",
  postgres_slow: "PostgreSQL slow",
  postgres_normal: "PostgreSQL normal",
};

export class Marks {
  list = [];

  // Returns whether it was new: a history repeats what was told before.
  add({ at, what, kind }) {
    if (typeof at !== "number") return false;
    const key = `${at} ${kind} ${what}`;
    if (this.list.some((mark) => mark.key === key)) return false;
    this.list.push({ key, at, kind, what: String(what), name: NAMES[kind] ?? shortened(String(what)) });
    this.list.sort((one, other) => one.at - other.at);
    if (this.list.length > MAX_MARKS) this.list.shift();
    return true;
  }

  prune(newest) {
    this.list = this.list.filter((mark) => mark.at >= newest - WINDOW_S);
  }
}

const shortened = (text) => (text.length > MAX_CHARS ? `${text.slice(0, MAX_CHARS - 1)}…` : text);

// Gives each mark `x` a label's place: a row, and the side of its line. Where all rows are taken there, the label before
// it counts it ("+1"). `width` is that of the plot, all in CSS pixels.
export function placed(marks, xOf, width) {
  const ends = new Array(ROWS).fill(-Infinity);
  const places = [];
  for (const mark of marks) {
    const x = xOf(mark.at);
    if (x < 0 || x > width) continue;
    const room = (mark.name.length + 3) * CHAR_PX + 6;
    const turned = x + room > width;
    const left = turned ? x - room : x;
    const row = ends.findIndex((end) => end <= left);
    if (row >= 0) {
      ends[row] = left + room;
      places.push({ mark, x, row, turned, more: 0 });
    } else {
      places.findLast((place) => place.row !== null).more += 1;
      places.push({ mark, x, row: null, turned, more: 0 });
    }
  }
  return places;
}

// The lines and labels over one chart's plot: elements, so that their text can be read, found and selected.
export class MarkLayer {
  #drawn = new Map();

  draw(chart, marks) {
    const places = placed(marks, (at) => chart.valToPos(at, "x"), chart.over.clientWidth);
    const kept = new Set();
    for (const { mark, x, row, turned, more } of places) {
      kept.add(mark.key);
      let line = this.#drawn.get(mark.key);
      if (!line) {
        line = make("div", { class: "mark", title: `${clock(mark.at)} ${mark.what}` }, make("span"));
        this.#drawn.set(mark.key, line);
      }
      if (line.parentNode !== chart.over) chart.over.append(line);
      line.style.left = `${Math.round(x)}px`;
      line.classList.toggle("turned", turned);
      const name = line.firstChild;
      name.hidden = row === null;
      write(name, more ? `${mark.name} +${more}` : mark.name);
      name.style.top = `${(row ?? 0) * ROW_PX}px`;
    }
    for (const [key, line] of this.#drawn) {
      if (kept.has(key)) continue;
      line.remove();
      this.#drawn.delete(key);
    }
  }
}

// The same, newest first, in whole sentences.
export function listMarks(element, marks) {
  const items = marks.toReversed().map((mark) => make("li", {}, make("time", {}, clock(mark.at)), ` ${mark.what}`));
  element.replaceChildren(...items);
}
