// A stampede in figures: how many callers waited on what, for how long, and how they left.

import { make } from "./dom.js";
import { counted, digits, milliseconds } from "./numbers.js";

export const WAITS = {
  load: "the database load",
  flight: "another caller’s flight",
  lock: "the key’s lock",
  lease: "another replica’s lease",
  l2: "Redis (L2)",
  l1: "memory (L1)",
};

export function summary(stampede, lanes) {
  const rows = [
    ["Callers", digits(stampede.callers), ""],
    ["Database loads", digits(stampede.loads), ""],
    ["From the first’s coming to the last’s leaving", milliseconds(stampede.took_ms), ""],
  ];
  for (const [on, name] of Object.entries(WAITS)) {
    const spent = lanes
      .map((lane) => waited(lane, on))
      .filter((ms) => ms !== null)
      .sort((one, other) => one - other);
    if (spent.length > 0)
      rows.push([
        `Waited on: ${name}`,
        counted(spent.length, "caller"),
        `${milliseconds(spent[Math.floor(spent.length / 2)])} in the middle, ${milliseconds(spent.at(-1))} at most`,
      ]);
  }
  for (const end of new Set(lanes.map((lane) => String(lane.end)))) {
    rows.push([`Left: ${end}`, counted(lanes.filter((lane) => String(lane.end) === end).length, "caller"), ""]);
  }
  const note =
    lanes.length < stampede.callers ? `Waits and ends are of the ${digits(lanes.length)} callers shown.` : "";
  return make(
    "table",
    {},
    make("caption", {}, note),
    make(
      "tbody",
      {},
      ...rows.map(([name, ...cells]) =>
        make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((cell) => make("td", {}, cell))),
      ),
    ),
  );
}

function waited(lane, on) {
  const mine = (Array.isArray(lane.waits) ? lane.waits : []).filter((wait) => wait.on === on);
  return mine.length > 0 ? mine.reduce((sum, wait) => sum + (wait.to_ms - wait.from_ms), 0) : null;
}
