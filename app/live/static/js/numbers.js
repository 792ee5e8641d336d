// Figures as people read them: two or three digits, a unit, a dash where there is none.

export const NONE = "–";

export const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);

export function digits(value, most = 3) {
  if (number(value) === null) return NONE;
  const size = Math.abs(value);
  if (size > 0 && size < 0.01) return "< 0.01";
  if (size < 999.5) return String(Number(value.toPrecision(size < 1 ? 2 : most)));
  if (size < 9_999.5) return value.toLocaleString("en", { maximumFractionDigits: 0 });
  if (size < 999_500) return `${Number((value / 1_000).toPrecision(3))}k`;
  return `${Number((value / 1_000_000).toPrecision(3))}M`;
}

export function milliseconds(value) {
  if (number(value) === null) return NONE;
  return Math.abs(value) < 999.5 ? `${digits(value)} ms` : `${digits(value / 1_000)} s`;
}

export const aSecond = (value) => (number(value) === null ? NONE : `${digits(value, value < 99.5 ? 2 : 3)}/s`);
export const times = (value) => (number(value) === null ? NONE : `${digits(value)}×`);
export const percent = (value) =>
  number(value) === null ? NONE : `${Number((value * 100).toFixed(value > 0.99 && value < 1 ? 2 : 1))} %`;
export const counted = (value, one, more = `${one}s`) => `${digits(value)} ${value === 1 ? one : more}`;

// `at` in seconds since the epoch, as this browser's clock shows it.
export const clock = (at) => new Date(at * 1_000).toLocaleTimeString("en-GB");
