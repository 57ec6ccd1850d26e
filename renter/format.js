// Numbers, times and names as the reader's locale writes them.

const locale = navigator.languages;
const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte", "petabyte"];
const relative = new Intl.RelativeTimeFormat(locale, { numeric: "auto" });
const dates = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });

/** Bytes in steps of 1,000, as the units' names say. */
export function bytes(count) {
  const step = Math.min(UNITS.length - 1, count < 1000 ? 0 : Math.floor(Math.log10(count) / 3));
  const digits = step === 0 ? 0 : 2;
  return written(count / 1000 ** step, {
    style: "unit",
    unit: UNITS[step],
    unitDisplay: step === 0 ? "long" : "short",
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

export const percent = (share) => written(share, { style: "percent", maximumFractionDigits: 1 });

export const number = (value) => written(value, {});

/** Thousandths of a core as cores. */
export function cores(millicores) {
  return written(millicores / 1000, { maximumFractionDigits: 2 });
}

/** `{perHour, currency}` as the price of an hour; null for other shapes, which are shown as they are. */
export function price(pricing) {
  const perHour = pricing?.perHour;
  if (typeof perHour !== "number") {
    return null;
  }
  return perHour === 0 ? "free of charge" : `${money(perHour, pricing.currency)} an hour`;
}

/** What so many seconds cost at such a price; null where it is none by the hour. */
export function sum(pricing, seconds) {
  const perHour = pricing?.perHour;
  return typeof perHour === "number" ? money((perHour * seconds) / 3600, pricing.currency) : null;
}

function money(value, currency) {
  try {
    return written(value, { style: "currency", currency });
  } catch {
    return `${number(value)} ${currency ?? ""}`.trim(); // no currency, or one of the provider's own
  }
}

/** "2 hours, 5 minutes"; the two largest units. */
export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const parts = [
    ["day", Math.floor(seconds / 86400)],
    ["hour", Math.floor(seconds / 3600) % 24],
    ["minute", Math.floor(seconds / 60) % 60],
    ["second", seconds % 60],
  ];
  const found = parts.findIndex(([, count]) => count > 0);
  const first = found === -1 ? parts.length - 1 : found;
  return parts
    .slice(first, first + 2)
    .map(([unit, count]) => written(count, { style: "unit", unit, unitDisplay: "long" }))
    .join(", ");
}

/** "22 Nov 2026, 18:00" */
export const clock = (time) => dates.format(time);

/** "in 3 hours (22 Nov 2026, 18:00)" */
export function moment(time, now = Date.now()) {
  const minutes = Math.round((time - now) / 60000);
  const near = Math.abs(minutes) < 90 ? relative.format(minutes, "minute") : relative.format(Math.round(minutes / 60), "hour");
  return `${near} (${clock(time)})`;
}

/** What a provider says, any JSON, as pairs of words: `{gpuMemoryBytes: 2e9}` is "gpu memory", "2.00 GB". */
export function facts(name, said) {
  if (said === null || said === undefined) {
    return [];
  }
  return typeof said === "object" && !Array.isArray(said)
    ? Object.entries(said).map(([key, value]) => fact(key, value))
    : [fact(name, said)];
}

function fact(key, value) {
  const words = key.replace(/([a-z0-9])([A-Z])/g, "$1 $2").replaceAll("_", " ").toLowerCase();
  if (typeof value === "number") {
    return words.endsWith(" bytes") ? [words.slice(0, -6), bytes(value)] : [words, number(value)];
  }
  return [words, typeof value === "object" ? JSON.stringify(value) : String(value)];
}

/** Making a format takes far longer than using one, and a list of a thousand sessions writes thousands of numbers. */
const formats = new Map();

function written(value, style) {
  const key = JSON.stringify(style);
  if (!formats.has(key)) {
    formats.set(key, new Intl.NumberFormat(locale, style));
  }
  return formats.get(key).format(value);
}
