// What is not a call: the methods, the rules, and Loom itself.

import { ask, byId, make, milliseconds, table } from "./dom.js";

let shownMethods = null;

export async function showMethods() {
  const found = await ask("/api/methods");
  const text = JSON.stringify(found);
  if (text === shownMethods && byId("methods").childElementCount) return; // its links stay, and with them a click that has begun
  shownMethods = text;
  const { methods, boundsMs } = found;
  const rows = methods.map((method) => [
    make("a", { href: `#/filter/${encodeURIComponent(`method:${method.method}`)}`, title: "its calls" }, method.method),
    String(method.calls), `${(100 * method.errorShare).toFixed(1)} %`,
    milliseconds(method.meanMs), histogram(method.buckets, boundsMs),
    Object.entries(method.statuses).map(([name, count]) => `${name} ${count}`).join(", ")]);
  byId("methods").replaceChildren(make("h2", {}, "Methods, since Loom started"),
    rows.length ? table(["Method", "Calls", "Errors", "Mean", "How long they took", "Statuses"], rows) : make("p", {}, "no call has ended yet"),
    rows.length ? make("p", { class: "dim" }, `A bar each for calls of up to ${boundsMs.map((bound) => milliseconds(bound).replace(/\.0+(?= )/, "")).join(", ")}, and longer ones.`) : "");
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

export async function showRules() {
  const { rules } = await ask("/api/state");
  const facts = make("div", {},
    rules.problem ? make("p", { class: "problem", role: "status" }, rules.problem) : "",
    rules.rules.length
      ? table(["Rule", "Method", "Direction", "Does", "To"], rules.rules.map((rule) =>
        [String(rule.number), rule.method, rule.direction, does(rule), rule.share === 1 ? "all" : `${100 * rule.share} %`]))
      : make("p", {}, rules.file === null ? "None: no file was given. --mutate FILE gives one." : `None in ${rules.file}.`));
  const page = byId("rules");
  if (!page.childElementCount) page.replaceChildren(make("h2", {}, "Rules"), make("button", { type: "button", onclick: reload }, "Read the rules again"), facts);
  else page.lastChild.replaceWith(facts); // the button stays, and with it the focus
}

function does({ set = {}, delete: gone = [], headers = {}, delay, abort }) {
  const json = JSON.stringify;
  const lines = [
    ...Object.entries(set).map(([path, value]) => `set ${path} = ${json(value)}`),
    ...gone.map((path) => `delete ${path}`),
    ...(headers.delete ?? []).map((name) => `delete metadata ${name}`),
    ...Object.entries(headers.set ?? {}).map(([name, value]) => `set metadata ${name}: ${value}`),
    ...(headers.add ?? []).map(([name, value]) => `add metadata ${name}: ${value}`),
    delay ? `wait ${milliseconds(delay)}` : null,
    abort ? `answer ${abort.status} ${abort.message}` : null,
  ].filter(Boolean);
  return make("div", {}, ...lines.map((line) => make("div", {}, line)));
}

async function reload() {
  try {
    await ask("/api/rules/reload", { method: "POST" });
  } catch {
    // The state says why.
  }
  await showRules();
}

export async function showState() {
  const state = await ask("/api/state");
  const lost = Object.entries(state.dropped).filter(([, count]) => count !== null).map(([sink, count]) => `${sink} ${count}`).join(", ");
  byId("state").replaceChildren(
    make("h2", {}, "Circuit breaker"),
    make("p", { class: state.breaker === "closed" ? "ok" : "failed", role: "status" }, state.breaker),
    make("p", {}, inWords(state)),
    make("h2", {}, "Loom"),
    table(["", ""], [
      ["gRPC clients connect to", state.listen],
      ["The backend", state.backend],
      ["Calls under way", state.live],
      ["Calls kept in the list", state.kept],
      ["Older ones held for searching", state.olderHeld],
      ["Bytes of both", `${(state.keptBytes / 1048576).toFixed(1)} MiB`],
      ["Calls that went from the list", state.evicted],
      ["Records dropped", lost],
      ["Pages that watch", state.watching],
      ["Schema", state.schemaProblem || "known"],
    ].map(([name, value]) => [name, String(value)])));
}

function inWords({ breaker, breakerRetryS, breakerFailures, breakerOpenS }) {
  if (breaker === "closed") return `${breakerFailures} failures in a row would open it for ${breakerOpenS} s: dials that fail, or connections lost under calls.`;
  if (breakerRetryS > 0) return `The backend has failed again and again, and calls are answered UNAVAILABLE. The next dial is let through in ${breakerRetryS} s.`;
  return "The next dial is the probe: it closes the breaker, or opens it again.";
}

// Shows where calls come in and where they go; returns the former.
export async function wayThrough() {
  const { listen, backend } = await ask("/api/state");
  byId("way").textContent = `${listen} → ${backend}`;
  return listen;
}
