// The filter's language: words, and key:value with * for anything and ! for not.

const KEYS = ["method", "status", "kind", "peer", "ms", "is", "body", "metadata"];
const REMOTE = new Set(["body", "metadata"]);
const TERM = /(?:([a-z]+):)?(!?)(?:"([^"]*)"?|(\S+))/gy;

const glob = (pattern) =>
  new RegExp(`^${pattern.split("*").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join(".*")}$`, "i");

// The text as terms of {key, isNot, value}; an Error says what is wrong.
export function parse(text) {
  const terms = [];
  TERM.lastIndex = 0;
  let rest = 0;
  for (;;) {
    while (text[rest] === " ") rest += 1;
    if (rest >= text.length) return terms;
    TERM.lastIndex = rest;
    const found = TERM.exec(text);
    if (!found) throw new Error(`“${text.slice(rest)}” is no filter`);
    rest = TERM.lastIndex;
    const [, key = "", not, quoted, plain] = found;
    const value = quoted ?? plain;
    if (key && !KEYS.includes(key)) throw new Error(`there is no “${key}:”; there are ${KEYS.join(", ")}`);
    terms.push({ key, isNot: not === "!", value });
  }
}

export const isRemote = (term) => REMOTE.has(term.key);
export const nameOf = ({ key, value }) => `${key}:${value}`;
export const isSearched = (row, about) => about !== undefined && about.oldest !== null && row.timestamp >= about.oldest;

// A function of a row. `found` maps `key:value` of what Loom searches itself to the `ids` that it found, and to the time
// of the `oldest` call that it looked through: of those before nothing is known, and they are not shown.
export function predicate(terms, found) {
  const tests = terms.map((term) => {
    const test = one(term, found);
    const is = term.isNot ? (row) => !test(row) : test;
    return isRemote(term) ? (row) => isSearched(row, found.get(nameOf(term))) && is(row) : is;
  });
  return (row) => tests.every((test) => test(row));
}

function one(term, found) {
  const { key, value } = term;
  if (isRemote(term)) return (row) => found.get(nameOf(term))?.ids.has(row.id) ?? false;
  if (key === "ms") {
    const match = /^([<>]?)([0-9.]+)$/.exec(value);
    if (!match) throw new Error("ms: takes a number of milliseconds after > or <, as in ms:>100");
    const bound = Number(match[2]);
    return (row) => row.durationMs !== null && (match[1] === "<" ? row.durationMs < bound : row.durationMs > bound);
  }
  if (key === "is") {
    if (value === "duplicate") return (row) => row.duplicates !== undefined;
    if (value === "live") return (row) => row.live;
    throw new Error("is: takes duplicate or live");
  }
  const pattern = glob(value);
  if (key === "method") return (row) => pattern.test(row.method) || pattern.test(row.name) || pattern.test(row.method.slice(1));
  if (key === "status") return (row) => pattern.test(row.statusName ?? "live");
  if (key === "kind") return (row) => pattern.test(row.streamKind);
  if (key === "peer") return (row) => pattern.test(row.peer);
  const word = value.toLowerCase();
  return (row) => row.text.includes(word);
}
