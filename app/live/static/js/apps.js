// The apps that are shown: their names, and the colour that each keeps in every chart.

const COLORS = { app: "blue", "app-unprotected": "vermilion" };
const OTHERS = ["green", "purple"];
const given = new Map();

export function color(app) {
  if (app in COLORS) return COLORS[app];
  if (!given.has(app)) given.set(app, OTHERS[given.size % OTHERS.length]);
  return given.get(app);
}

// "protected" or "unprotected", by what the app does now; its own name where that would name two apps.
export function label(app, apps) {
  const kind = (name) => (apps?.[name]?.mode === "none" ? "unprotected" : "protected");
  if (!(app in COLORS)) return app;
  if (!apps?.[app]?.mode) return app === "app" ? "protected" : "unprotected";
  const same = Object.keys(apps).filter((other) => kind(other) === kind(app));
  return same.length > 1 ? app : kind(app);
}
