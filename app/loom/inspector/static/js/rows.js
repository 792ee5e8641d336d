// The calls that the page knows: at most 10,000, the oldest go first.

export const MAX_ROWS = 10_000;

export class Rows {
  #rows = new Map();
  #pending = new Map();
  isPaused = false;

  get size() { return this.#rows.size; }
  get waiting() { return this.#pending.size; }
  get(id) { return this.#rows.get(id); }
  values() { return this.#rows.values(); }

  // In the order in which they came. While paused they wait, and no more of them than are kept.
  put(rows) {
    for (const row of rows) {
      if (this.isPaused) {
        this.#pending.delete(row.id);
        this.#pending.set(row.id, row);
        if (this.#pending.size > MAX_ROWS) this.#pending.delete(this.#pending.keys().next().value);
      } else {
        this.#keep(row);
      }
    }
  }

  // Those that Loom keeps: what the page has missed, such as an end that came while it was cut off.
  putKept(rows) {
    const all = new Map(this.#rows);
    for (const row of rows) if (all.get(row.id)?.live ?? true) all.set(row.id, row);
    this.#rows = new Map();
    const inOrder = [...all.values()].sort(asTheyBegan);
    for (const row of inOrder) this.#keep(row);
  }

  // What came meanwhile, in the order in which the calls began.
  resume() {
    this.isPaused = false;
    this.put(this.#pending.values());
    this.#pending.clear();
  }

  clear() {
    for (const row of [...this.#rows.values()]) if (!row.live) this.#rows.delete(row.id);
    this.#pending.clear();
  }

  #keep(row) {
    row.name = row.method.slice(row.method.lastIndexOf("/") + 1);
    row.text = `${row.method} ${row.statusName ?? ""} ${row.grpcMessage ?? ""}`.toLowerCase();
    this.#rows.set(row.id, row);
    if (this.#rows.size > MAX_ROWS) this.#rows.delete(this.#rows.keys().next().value);
  }
}

// Within a millisecond by the number that ends an id.
function asTheyBegan(one, other) {
  if (one.timestamp !== other.timestamp) return one.timestamp < other.timestamp ? -1 : 1;
  return number(one) - number(other);
}

const number = ({ id }) => Number(id.slice(id.lastIndexOf("-") + 1)) || 0;
