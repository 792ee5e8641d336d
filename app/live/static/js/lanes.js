// A stampede as a picture: a lane a caller, in the order of coming, coloured by what it waited on; and the time below.

import { draw, make, write } from "./dom.js";
import { digits, milliseconds, number } from "./numbers.js";
import { WAITS } from "./stampede_table.js";

const ENDS = {
  loaded: "left with the value that it loaded",
  shared: "left with another’s value",
  hit: "left with a cached value",
  stale: "left with a stale value",
  failed: "left with an error",
  left: "went away",
};
const STEPS = {
  ArrowDown: 1,
  ArrowRight: 1,
  ArrowUp: -1,
  ArrowLeft: -1,
  PageDown: 10,
  PageUp: -10,
  Home: -Infinity,
  End: Infinity,
};
const MAX_WAITS = 20;
const HEIGHT = 300;
const MAX_LANE = 14;
const LEAST_PX = 2; // a look into memory takes microseconds, and is to be seen
const MARKED = 6; // width of the mark before the lane of a caller that loaded
const TICKS = 6;

export const left = (lane) => number(lane.left_ms) ?? 0;

export function waits(lane) {
  if (!Array.isArray(lane.waits)) return [];
  return lane.waits.slice(0, MAX_WAITS).filter(({ on }) => Object.hasOwn(WAITS, on));
}

// `span` is the time scale's length in milliseconds. What the chosen caller did is written into `detail`.
export function picture(lanes, name, span, detail) {
  const tall = Math.min(MAX_LANE, HEIGHT / Math.max(lanes.length, 1));
  const thick = tall > 3 ? tall - 1 : tall;
  const height = lanes.length * tall;
  const across = (ms) => `${((number(ms) ?? 0) / span) * 100}%`;
  const bar = (from, to, y, kind) => {
    const width = `max(${LEAST_PX}px, ${across(Math.max(0, to - from))})`;
    return draw("rect", { x: across(from), y, height: thick, class: kind, style: { width } });
  };
  const marked = draw("svg", { class: "loads", height, "aria-hidden": "true" });
  const drawing = draw("svg", { class: "lanes", height, "aria-hidden": "true" });
  for (const tick of ticks(span)) {
    drawing.append(draw("line", { class: "grid", x1: across(tick), x2: across(tick), y1: 0, y2: height }));
  }
  lanes.forEach((lane, nth) => {
    const y = nth * tall;
    const group = draw("g", { class: "lane" }, bar(lane.came_ms, left(lane), y, "here"));
    for (const wait of waits(lane)) group.append(bar(wait.from_ms, wait.to_ms, y, `on-${wait.on}`));
    if (lane.end === "failed" || lane.end === "stale") {
      group.append(draw("rect", { x: across(left(lane)), width: 4, y, height: thick, class: `end-${lane.end}` }));
    }
    drawing.append(group);
    if (waits(lane).some(({ on }) => on === "load")) {
      marked.append(draw("rect", { width: MARKED, y, height: thick, class: "on-load" }));
    }
  });
  const chosen = draw("rect", { class: "chosen", x: 0, width: "100%", height: tall, visibility: "hidden" });
  drawing.append(chosen);
  const element = make(
    "div",
    {
      class: "picture",
      tabindex: "0",
      role: "slider",
      "aria-orientation": "vertical",
      "aria-label": `Callers of the ${name} app`,
      "aria-valuemin": 1,
      "aria-valuemax": Math.max(1, lanes.length),
      "aria-valuenow": 1,
      "aria-valuetext": lanes.length > 0 ? described(lanes[0]) : "nobody",
    },
    marked,
    drawing,
  );

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
  element.addEventListener("pointermove", (event) => {
    choose(Math.floor((event.clientY - drawing.getBoundingClientRect().top) / tall));
  });
  element.addEventListener("keydown", (event) => {
    if (!Object.hasOwn(STEPS, event.key)) return;
    event.preventDefault();
    choose(at + STEPS[event.key]);
  });
  return element;
}

export function axis(span) {
  const labels = ticks(span).map((tick) => {
    const part = tick / span;
    return make("span", { class: part > 0.94 ? "end" : null, style: { left: `${part * 100}%` } }, milliseconds(tick));
  });
  return make("div", { class: "axis", "aria-hidden": "true" }, ...labels);
}

// Round times from 0 on, about as many as `TICKS`.
function ticks(span) {
  const least = span / TICKS;
  const power = 10 ** Math.floor(Math.log10(least));
  const step = power * [1, 2, 5, 10].find((factor) => power * factor >= least);
  return Array.from({ length: Math.floor(span / step) + 1 }, (_, nth) => nth * step);
}

function described(lane) {
  const spent = waits(lane).map(({ on, from_ms: from, to_ms: to }) => `${WAITS[on]} ${milliseconds(to - from)}`);
  return (
    `Caller ${digits(lane.n)} came at ${milliseconds(lane.came_ms)}; ${spent.join(", ") || "waited on nothing"}; ` +
    `${ENDS[lane.end] ?? "left"} at ${milliseconds(lane.left_ms)}.`
  );
}
