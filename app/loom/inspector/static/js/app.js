// The page: rows from the stream, into the list, through the filter.

import { ask, byId } from "./dom.js";
import { Detail } from "./detail.js";
import { isRemote, isSearched, nameOf, parse, predicate } from "./filter.js";
import { List } from "./list.js";
import { showMethods, showRules, showState, wayThrough } from "./pages.js";
import { MAX_ROWS, Rows } from "./rows.js";

const REFRESH_MS = 1000;
const rows = new Rows();
const found = new Map(); // `body:…` and `metadata:…` to what Loom has found: see filter.js
let terms = [];
let leftOut = 0;
let isIncomplete = false;
let isDue = false;
let isSearching = false;
let asking = new AbortController();
let way = "";

const PAGES = { methods: showMethods, rules: showRules, state: showState };
const pressed = (id, is) => byId(id).setAttribute("aria-pressed", is);
const count = (text) => { byId("told").textContent = text; }; // not read out: it changes with every call
const tell = (text) => { byId("told").textContent = byId("said").textContent = text; };
const list = new List({
  onChosen: (id) => { location.hash = `#/call/${id}`; },
  onFollowing: (is) => pressed("follow", is),
  onSorted: () => update(),
});
const detail = new Detail({ onClose: () => { location.hash = "#/"; }, tell });

function update() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    filterRows();
  });
}

function filterRows() {
  let shown;
  try {
    shown = [...rows.values()].filter(predicate(terms, found));
  } catch (error) {
    return refuse(error);
  }
  list.show(shown);
  byId("none").hidden = shown.length > 0;
  byId("none").textContent = rows.size ? "No call is as the filter says." : `No calls yet${way && `: point a gRPC client at ${way}`}.`;
  count([
    `${shown.length} of ${rows.size} calls`,
    searchedOf(),
    rows.isPaused ? `paused, ${rows.waiting} wait` : "",
    leftOut ? `${leftOut} changes came too fast to be told` : "",
  ].filter(Boolean).join("; "));
}

// Where not all could be looked through.
function searchedOf() {
  const remote = terms.filter(isRemote);
  if (!remote.length) return "";
  const about = remote.map((term) => found.get(nameOf(term)));
  if (about.includes(undefined)) return "searching …";
  const searched = [...rows.values()].filter((row) => about.every((each) => isSearched(row, each))).length;
  return searched < rows.size ? `messages and metadata were looked through of the newest ${searched}: Loom holds no more` : "";
}

function refuse(error) {
  byId("filter").setAttribute("aria-invalid", "true");
  tell(error.message);
}

function filterChanged() {
  try {
    const parsed = parse(byId("filter").value);
    predicate(parsed, found);
    terms = parsed;
  } catch (error) {
    return refuse(error);
  }
  byId("filter").removeAttribute("aria-invalid");
  asking.abort(); // what was looked for is not wanted any more
  asking = new AbortController();
  filterRows();
  search();
}

// Messages and metadata are with Loom: it is asked, one question at a time, and then of what has changed since.
async function search() {
  const wanted = terms.filter(isRemote);
  const names = wanted.map(nameOf);
  for (const name of found.keys()) if (!names.includes(name)) found.delete(name);
  if (!wanted.length || isSearching) return;
  isSearching = true;
  const asked = terms;
  try {
    for (const term of wanted) {
      const before = found.get(nameOf(term));
      const since = before ? `&since=${before.at - 1}` : "";
      const path = `/api/search?${term.key}=${encodeURIComponent(term.value)}${since}`;
      const { ids, at, oldest } = await ask(path, { signal: asking.signal });
      const known = [...(before?.ids ?? [])].filter((id) => rows.get(id));
      found.set(nameOf(term), { ids: new Set([...known, ...ids]), at, oldest: before?.oldest ?? oldest });
    }
  } catch (error) {
    if (error.name !== "AbortError") tell(error.message);
  }
  isSearching = false;
  if (asked === terms) filterRows();
  else search();
}

async function load() {
  let before = "";
  let loaded = 0;
  do {
    const page = await ask(`/api/calls${before && `?before=${before}`}`);
    rows.putKept(page.calls.reverse());
    loaded += page.calls.length;
    before = page.next;
    filterRows();
  } while (before && loaded < MAX_ROWS);
}

function watch() {
  const events = new EventSource("/api/stream");
  const connection = byId("connection");
  events.onopen = () => {
    connection.textContent = "live";
    connection.className = "";
    wayThrough().then((listen) => { way = listen; update(); }).catch((error) => tell(error.message));
    load().catch((error) => tell(error.message));
  };
  events.onerror = () => {
    connection.textContent = "Loom does not answer";
    connection.className = "lost";
    if (events.readyState === EventSource.CLOSED) setTimeout(watch, 2000); // it was refused, not lost
  };
  events.addEventListener("calls", (event) => {
    const batch = JSON.parse(event.data);
    leftOut += batch.leftOut;
    isIncomplete ||= batch.leftOut > 0;
    rows.put(batch.calls);
    if (!rows.isPaused && batch.calls.some((row) => row.id === detail.id)) detail.refresh();
    update();
  });
}

// Of a link, which somebody may have written by hand.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

async function route() {
  const [, page = "", id] = location.hash.split("/");
  const name = Object.hasOwn(PAGES, page) ? page : "calls";
  for (const each of ["calls", ...Object.keys(PAGES)]) byId(each).hidden = each !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === (name === "calls" ? "#/" : `#/${name}`)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    await PAGES[name]?.();
  } catch (error) {
    if (!byId(name).childElementCount) byId(name).textContent = error.message; // what is there is better than nothing
  }
  if (name !== "calls") return;
  if (page === "filter") {
    byId("filter").value = decoded(location.hash.slice("#/filter/".length));
    filterChanged();
  }
  const chosen = page === "call" && id ? decoded(id) : null;
  if (chosen !== null && list.isFollowing) list.follow(false);
  list.select(chosen);
  await detail.show(chosen);
  list.draw();
}

function pause() {
  if (rows.isPaused) rows.resume();
  else rows.isPaused = true;
  pressed("pause", rows.isPaused);
  filterRows();
}

async function clear() {
  try {
    await ask("/api/clear", { method: "POST" });
  } catch (error) {
    return tell(error.message);
  }
  rows.clear();
  leftOut = 0;
  location.hash = "#/";
  filterRows();
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "Light" : "Dark";
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  if (event.key === "Escape") {
    if (event.target.closest("input, textarea")) byId("viewport").focus(); // what was written there stays
    else location.hash = "#/";
    return;
  }
  if (event.target.closest("input, textarea")) return;
  const beside = (by) => {
    const id = list.beside(by);
    if (!id) return;
    list.select(id); // the next key may come before the hash has changed
    byId("said").textContent = list.inWords(id);
    location.hash = `#/call/${id}`;
  };
  const actions = {
    j: () => beside(1),
    k: () => beside(-1),
    c: () => detail.copy(),
    p: pause,
    r: () => detail.open("Replay"),
    "/": () => byId("filter").focus(),
    "?": () => byId("help").showModal(),
  };
  if (event.target === byId("viewport")) Object.assign(actions, { ArrowDown: actions.j, ArrowUp: actions.k });
  if (actions[event.key]) {
    event.preventDefault();
    actions[event.key]();
  }
}

byId("filter").addEventListener("input", filterChanged);
byId("pause").addEventListener("click", pause);
byId("clear").addEventListener("click", clear);
byId("follow").addEventListener("click", () => { list.follow(!list.isFollowing); list.draw(); });
byId("help-button").addEventListener("click", () => byId("help").showModal());
byId("theme").addEventListener("click", () => {
  const name = byId("theme").textContent.toLowerCase();
  theme(name);
  localStorage.setItem("loom-theme", name);
});
addEventListener("keydown", key);
addEventListener("hashchange", route);
theme(localStorage.getItem("loom-theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
setInterval(() => {
  if (byId("calls").hidden) route();
  if (rows.isPaused) return;
  search(); // what came since
  if (isIncomplete) {
    isIncomplete = false;
    load().catch((error) => tell(error.message));
  }
}, REFRESH_MS);
route();
watch();
