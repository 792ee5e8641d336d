// The list: only the rows that can be seen are elements.

import { byId, make, milliseconds } from "./dom.js";

const HEIGHT = 28;
const MORE = 8; // rows above and below what can be seen
const messages = (row) => row.requests + row.responses;
const COLUMNS = [
  { name: "Time", of: (row) => row.timestamp },
  { name: "Method", of: (row) => row.method },
  { name: "Status", of: (row) => row.statusName ?? "" },
  { name: "Duration", of: (row) => row.durationMs ?? Infinity, isNumber: true },
  { name: "Messages", of: messages, isNumber: true, isWide: true },
  { name: "Kind", isKind: true, isWide: true, of: (row) => row.streamKind },
];

export class List {
  #shown = [];
  #elements = new Map();
  #column = null;
  #isDown = false;
  #viewport = byId("viewport");
  #wanted = null;
  selected = null;
  isFollowing = true;

  constructor({ onChosen, onFollowing, onSorted }) {
    this.onFollowing = onFollowing;
    this.#viewport.addEventListener("scroll", () => this.#scrolled());
    this.#viewport.addEventListener("click", (event) => {
      const row = event.target.closest("[data-id]");
      if (row) onChosen(row.dataset.id);
    });
    new ResizeObserver(() => this.draw()).observe(this.#viewport);
    byId("head").append(...COLUMNS.map((column) =>
      make("span", { role: "columnheader", "aria-sort": "none", class: [column.isNumber && "number", column.isWide && "wide", column.isKind && "kind"].filter(Boolean).join(" ") },
        make("button", { type: "button", onclick: () => { this.#sortBy(column); onSorted(); } }, column.name))));
  }

  // A row, as it is read out.
  inWords(id) {
    const place = this.#shown.findIndex((row) => row.id === id);
    const row = this.#shown[place];
    return row ? `${row.method} ${row.live ? "in flight" : `${row.statusName}, ${milliseconds(row.durationMs)}`}, ${place + 1} of ${this.#shown.length}` : "";
  }

  show(rows) {
    if (this.#column) {
      const { of } = this.#column;
      const sign = this.#isDown ? -1 : 1;
      rows.sort((one, other) => {
        const [a, b] = [of(one), of(other)];
        return sign * (a < b ? -1 : a > b ? 1 : 0);
      });
    }
    this.#shown = rows;
    byId("space").style.height = `${rows.length * HEIGHT}px`;
    byId("grid").setAttribute("aria-rowcount", rows.length + 1);
    if (this.isFollowing) this.#toEnd();
    this.draw();
  }

  draw() {
    const top = this.#viewport.scrollTop;
    const first = Math.max(0, Math.floor(top / HEIGHT) - MORE);
    const last = Math.min(this.#shown.length, Math.ceil((top + this.#viewport.clientHeight) / HEIGHT) + MORE);
    const elements = new Map();
    for (let place = first; place < last; place += 1) {
      const row = this.#shown[place];
      let kept = this.#elements.get(row.id);
      if (kept?.row !== row) {
        kept?.element.remove();
        kept = { row, element: this.#row(row) };
      }
      kept.element.style.top = `${place * HEIGHT}px`;
      kept.element.setAttribute("aria-rowindex", place + 2);
      kept.element.setAttribute("aria-selected", row.id === this.selected);
      elements.set(row.id, kept);
    }
    for (const [id, { element }] of this.#elements) if (!elements.has(id)) element.remove();
    let before = byId("space"); // elements are in the order shown, as screen readers read them
    for (const { element } of elements.values()) {
      if (before.nextSibling !== element) before.after(element);
      before = element;
    }
    this.#elements = elements;
  }

  // The id that is `by` rows away from what is chosen.
  beside(by) {
    if (!this.#shown.length) return null;
    const place = this.#shown.findIndex((row) => row.id === this.selected);
    const next = place < 0 ? (by > 0 ? 0 : this.#shown.length - 1) : place + by;
    return this.#shown[Math.max(0, Math.min(this.#shown.length - 1, next))].id;
  }

  select(id) {
    this.selected = id;
    const place = this.#shown.findIndex((row) => row.id === id);
    if (place >= 0) {
      const top = place * HEIGHT;
      const { scrollTop, clientHeight } = this.#viewport;
      if (top < scrollTop) this.#viewport.scrollTop = top;
      else if (top + HEIGHT > scrollTop + clientHeight) this.#viewport.scrollTop = top + HEIGHT - clientHeight;
    }
    this.draw();
  }

  follow(isFollowing) {
    this.isFollowing = isFollowing;
    if (isFollowing) this.#toEnd();
    this.onFollowing(isFollowing);
  }

  #toEnd() {
    this.#viewport.scrollTop = this.#wanted = Math.max(0, this.#shown.length * HEIGHT - this.#viewport.clientHeight);
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#viewport;
    const isAtEnd = scrollTop + clientHeight >= scrollHeight - HEIGHT;
    if (this.isFollowing && !isAtEnd && scrollTop < this.#wanted - 1) this.follow(false);
    this.draw();
  }

  #sortBy(column) {
    if (this.#column !== column) [this.#column, this.#isDown] = [column, false];
    else if (!this.#isDown) this.#isDown = true;
    else this.#column = null;
    COLUMNS.forEach((each, place) => {
      const order = each !== this.#column ? "none" : this.#isDown ? "descending" : "ascending";
      byId("head").children[place].setAttribute("aria-sort", order);
      byId("head").children[place].firstChild.textContent =
        each.name + { none: "", ascending: " ↑", descending: " ↓" }[order];
    });
    if (this.#column) this.follow(false);
  }

  #row(row) {
    const status = row.live ? "live" : row.statusName === "OK" ? "ok" : "failed";
    const cell = (name, text, title = text, ...more) => make("span", { role: "gridcell", class: name, title }, text, ...more);
    const herd = row.duplicates && make("span",
      { class: "herd", title: `${row.duplicates.calls} identical calls in flight together, ${milliseconds(row.duplicates.totalMs)} in all` },
      `×${row.duplicates.calls}`);
    return make("div", { class: "row", role: "row", "data-id": row.id },
      cell("time", row.timestamp.slice(11, 23)),
      cell("method", row.method.slice(row.method.lastIndexOf(".") + 1), row.method, herd,
        row.mutated ? make("span", { class: "herd", title: "changed by a rule", "aria-label": "changed by a rule" }, "✎") : null),
      cell(status, row.live ? "in flight" : row.statusName),
      cell("number", row.live ? "…" : milliseconds(row.durationMs)),
      cell("number wide", `${row.requests} / ${row.responses}`, `${row.requests} requests, ${row.responses} responses`),
      cell("kind wide", row.streamKind.replace("_streaming", " stream")));
  }
}
