// What is not a call: the methods, and Loom itself.

import { ask, byId, make, milliseconds, table } from "./dom.js";

export async function showMethods() {
  const { methods, boundsMs } = await ask("/api/methods");
  const rows = methods.map((method) => [method.method, String(method.calls), `${(100 * method.errorShare).toFixed(1)} %`,
    milliseconds(method.meanMs), histogram(method.buckets, boundsMs),
    Object.entries(method.statuses).map(([name, count]) => `${name} ${count}`).join(", ")]);
  byId("methods").replaceChildren(make("h2", {}, "Methods, since Loom started"),
    rows.length ? table(["Method", "Calls", "Errors", "Mean", "How long they took", "Statuses"], rows) : make("p", {}, "no call has ended yet"));
}

function histogram(buckets, bounds) {
  const most = Math.max(...buckets);
  const words = buckets.map((count, place) => count && `${count} ${place < bounds.length ? `up to ${bounds[place]} ms` : `over ${bounds.at(-1)} ms`}`);
  const bars = make("span", { class: "bars", role: "img", "aria-label": words.filter(Boolean).join(", ") });
  buckets.forEach((count, place) => {
    const bar = make("i", { title: words[place] || "none" });
    bar.style.height = `${(100 * count) / most}%`;
    bars.append(bar);
  });
  return bars;
}

export async function showState() {
  const { breaker, rules, ...rest } = await ask("/api/state");
  const text = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));
  const facts = make("div", {},
    make("h2", {}, "Circuit breaker"), make("p", {}, text(breaker)),
    make("h2", {}, "Rules"),
    rules.problem ? make("p", { class: "problem" }, rules.problem) : "",
    rules.rules.length ? table(["Rule", "Method", "Share"], rules.rules.map((rule) => [rule.number, rule.method, rule.share].map(text)))
      : make("p", {}, rules.file === null ? "none: no file was given" : `none in ${rules.file}`),
    make("h2", {}, "Loom"), table(["", ""], Object.entries(rest).map(([name, value]) => [name, text(value)])));
  const page = byId("state");
  if (!page.firstChild) page.append(make("button", { type: "button", onclick: reload }, "Read the rules again"), facts);
  else page.lastChild.replaceWith(facts); // the button stays, and with it the focus
}

async function reload() {
  try {
    await ask("/api/rules/reload", { method: "POST" });
  } catch {
    // The state says why.
  }
  await showState();
}
