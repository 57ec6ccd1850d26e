// The last 24 hours in numbers and plots.

import { bytes, cores, moment, number } from "./format.js";
import { fillMeter } from "./meter.js";
import { drawBars, plot } from "./plot.js";

/** What is counted: its name, its total in the summary, its value in a step of the series. */
const COUNTS = [
  ["Active sessions", ({ sessions }) => sessions.locked, ({ mostLocked }) => mostLocked],
  ["Rate-limit hits", ({ events }) => events.RATE_LIMITED, ({ rateLimited }) => rateLimited],
  ["Invalid access", ({ events }) => events.INVALID_ACCESS_ATTEMPT, ({ invalidAccess }) => invalidAccess],
  ["Hijack attempts", ({ events }) => events.SESSION_HIJACK_ATTEMPT, ({ hijackAttempts }) => hijackAttempts],
  ["Bandwidth violations", ({ events }) => events.BANDWIDTH_EXCEEDED, ({ bandwidthExceeded }) => bandwidthExceeded],
];

const relative = new Intl.RelativeTimeFormat(navigator.languages);
const by = (id) => document.querySelector(`#${id}`);
const tiles = COUNTS.map(([name]) => tile(name));
by("counts").append(...tiles.map(({ element }) => element));
by("counts").hidden = true;

export function showCounts(summary) {
  const { sessions, series } = summary;
  COUNTS.forEach(([, totalOf, valueOf], at) => {
    const { total, svg } = tiles[at];
    total.textContent = number(totalOf(summary));
    const values = series.map(valueOf);
    drawBars(svg, values, described(values, series, summary.stepSeconds));
  });
  const all = sessions.ready + sessions.locked + sessions.recycling;
  tiles[0].total.textContent = `${number(sessions.locked)} of ${number(all)}`;
  by("counts").hidden = false;
  by("counts-loading").hidden = true;
  showContainers(summary.containers, all);
}

function showContainers({ reporting, millicores, memoryBytes, limits }, all) {
  by("containers-told").textContent = reporting === 0 ? "No agent tells what its container uses." : `${number(reporting)} of ${number(all)} tell what they use:`;
  by("containers").hidden = reporting === 0;
  fillMeter(by("containers-processor"), "Processor", millicores, limits.millicores, (some) => `${cores(some)} cores`);
  fillMeter(by("containers-memory"), "Memory", memoryBytes, limits.memoryBytes, bytes);
}

export function showBytes({ usedIn, usedOut, reserved }) {
  by("bytes-in").textContent = bytes(usedIn);
  by("bytes-out").textContent = bytes(usedOut);
  by("bytes-reserved").textContent = bytes(reserved);
  by("bytes").hidden = false;
}

function described(values, series, stepSeconds) {
  const most = Math.max(...values);
  return most === 0
    ? "None in any step"
    : `At most ${number(most)} in ${number(stepSeconds / 60)} minutes, ${moment(Date.parse(series[values.indexOf(most)].beganAt))}`;
}

function tile(name) {
  const [element, heading, total, span, from, to] = ["article", "h3", "p", "p", "span", "span"].map((tag) =>
    document.createElement(tag),
  );
  element.className = "count";
  total.className = "total";
  span.className = "span";
  heading.textContent = name;
  from.textContent = relative.format(-24, "hour");
  to.textContent = "now";
  const svg = plot();
  span.append(from, to);
  element.append(heading, total, svg, span);
  return { element, total, svg };
}
