// How numbers and times read. All times are UTC and say so once, where they stand alone.

const NONE = "–";

export function score(value, digits = 4) {
  if (value === null || value === undefined) return NONE;
  return value.toFixed(digits).replace("-", "−");
}

export function count(value) {
  return value === null || value === undefined ? NONE : value.toLocaleString("en");
}

export function share(frac64, digits = 4) {
  return (frac64 / 1e7).toFixed(digits) + " %";
}

// "2026-11-25T12:30:05.000" and the same with Z are both UTC on this wire.
export function ms(text) {
  return text ? Date.parse(/Z$|[+-]\d\d:\d\d$/.test(text) ? text : text + "Z") : null;
}

export const iso = (at) => new Date(at).toISOString();

export function minute(text) {
  const at = typeof text === "number" ? text : ms(text);
  return at === null ? NONE : iso(at).slice(0, 16).replace("T", " ");
}

export function second(text) {
  const at = typeof text === "number" ? text : ms(text);
  return at === null ? NONE : iso(at).slice(0, 19).replace("T", " ");
}

export function ago(text, clock) {
  const at = ms(text);
  if (at === null || !clock) return NONE;
  return at > clock ? "now" : `${span(clock - at)} ago`;
}

export function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 90) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} d`;
}

export function period(start, end) {
  const [from, until] = [minute(start), minute(end)];
  return from.slice(0, 10) === until.slice(0, 10) ? `${from} – ${until.slice(11)}` : `${from} – ${until}`;
}

export const windowName = (name) => {
  const words = name.replace(/^score_/, "").replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
};

export const short = (id, length = 20) => (id && id.length > length ? `${id.slice(0, length - 7)}…${id.slice(-6)}` : id || NONE);
