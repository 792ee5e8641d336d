// Elements, made without HTML: what a call carries is text, whatever it says.

export const byId = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  for (const child of children) if (child !== null && child !== undefined) element.append(child);
  return element;
}

export function table(heads, rows) {
  return make("table", { class: heads.some(Boolean) ? "" : "facts" },
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell))))));
}

// With its unit.
export function milliseconds(value) {
  if (value === null || value === undefined) return "…";
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  return `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ms`;
}

export async function ask(path, options) {
  const answer = await fetch(path, options).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("Loom does not answer");
  });
  const document_ = await answer.json();
  if (!answer.ok) throw new Error(document_.error ?? `status ${answer.status}`);
  return document_;
}
