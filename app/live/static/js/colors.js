// The page's colours as a canvas takes them: resolved, for the scheme that is on.

const resolved = new Map();

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => resolved.clear());

// What the style sheet calls `--name`.
export function paint(name) {
  if (!resolved.has(name)) {
    const probe = document.createElement("i");
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    resolved.set(name, getComputedStyle(probe).color);
    probe.remove();
  }
  return resolved.get(name);
}
