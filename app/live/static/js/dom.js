// Elements, made without HTML: what the server tells is text, whatever it says.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);
export const make = (tag, properties, ...children) => filled(document.createElement(tag), properties, children);
export const draw = (tag, properties, ...children) => filled(document.createElementNS(SVG, tag), properties, children);

function filled(element, properties = {}, children = []) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  for (const child of children) if (child !== null && child !== undefined) element.append(child);
  return element;
}

// Writes only what has changed, so that a page nobody reads costs no layout.
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// A link that was told: to this server or to http(s), never to a script. Null where it is neither.
export function address(url) {
  try {
    const parsed = new URL(url, location.href);
    return ["http:", "https:"].includes(parsed.protocol) ? parsed.href : null;
  } catch {
    return null;
  }
}
