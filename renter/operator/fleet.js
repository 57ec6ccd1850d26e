// The tables of sessions and of providers. A row stays the same element while its session lives, so that focus stays, too.

import { bytes, cores, duration, moment, number } from "./format.js";
import { fillMeter } from "./meter.js";

const PAGE = 50;
/** Who needs attention comes first. */
const HEALTH = ["late", "stuck", "up", "gone"];
const STATES = { READY: "free", LOCKED: "rented out", RECYCLING: "being made anew" };
const WHO = { true: "browser", false: "program" };

const by = (id) => document.querySelector(`#${id}`);
const rows = by("sessions-table").tBodies[0];
const rowsById = new Map();
let offset = 0;
let wanted = chosen();
let providers = [];
let providersOffset = 0;
let onAction;

/** `reload()` asks again for what is wanted; `act(action, session)` does what a button says. */
export function watchFleet(reload, act) {
  onAction = act;
  by("sessions-choice").addEventListener("submit", (event) => event.preventDefault());
  // Words count when they are finished, which half an address never is.
  by("sessions-choice").addEventListener("change", () => {
    wanted = chosen();
    turnTo(0, reload);
  });
  by("sessions-before").addEventListener("click", () => turnTo(Math.max(0, offset - PAGE), reload));
  by("sessions-after").addEventListener("click", () => turnTo(offset + PAGE, reload));
  by("providers-before").addEventListener("click", () => turnProvidersTo(providersOffset - PAGE));
  by("providers-after").addEventListener("click", () => turnProvidersTo(providersOffset + PAGE));
}

/** Whether the operator's key may act. */
export function allowActions(may) {
  by("sessions-table").classList.toggle("read-only", !may);
  by("actions-title").hidden = !may;
}

/** What the page wants to see, as the API's query. */
export const wantedSessions = () => ({ ...wanted, offset, limit: PAGE });

export function showSessions({ total, sessions }) {
  const past = offset > 0 && sessions.length === 0;
  tell(by("sessions-told"), past ? "Nothing is left on this page." : told(total, sessions.length));
  by("sessions-table").hidden = sessions.length === 0;
  offerPages("sessions", offset, total);
  const focused = document.activeElement;
  const live = new Set(sessions.map(({ sessionId }) => sessionId));
  for (const [id, row] of rowsById) {
    if (!live.has(id)) {
      row.remove();
      rowsById.delete(id);
    }
  }
  sessions.forEach((session, at) => {
    const row = rowFor(session);
    if (rows.children[at] !== row) {
      rows.insertBefore(row, rows.children[at] ?? null);
    }
    fillRow(row, session);
  });
  if (rows.contains(focused)) {
    focused.focus({ preventScroll: true }); // a row that moves to another place loses it
  }
}

export function showProviders(known) {
  const rank = ({ health }) => HEALTH.indexOf(health);
  providers = known.providers.sort((one, other) => rank(one) - rank(other));
  const told = HEALTH.map((name) => [name, providers.filter(({ health }) => health === name).length])
    .filter(([, count]) => count > 0)
    .map(([name, count]) => `${number(count)} ${name}`)
    .join(", ");
  tell(by("providers-told"), told || "No provider has registered a session yet.");
  by("providers-table").hidden = providers.length === 0;
  turnProvidersTo(Math.min(providersOffset, Math.max(0, providers.length - 1)));
}

function turnProvidersTo(place) {
  providersOffset = place - (place % PAGE);
  offerPages("providers", providersOffset, providers.length);
  const shown = providers.slice(providersOffset, providersOffset + PAGE);
  const fresh = shown.map(({ providerId, health, lastHeartbeatAt, sessions: { ready, locked, recycling } }) => {
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = providerId;
    row.append(name, ...[health, moment(Date.parse(lastHeartbeatAt)), ...[ready, locked, recycling].map(number)].map(cell));
    row.children[1].dataset.health = health;
    return row;
  });
  by("providers-table").tBodies[0].replaceChildren(...fresh);
}

function offerPages(of, place, total) {
  by(`${of}-pages`).hidden = total <= PAGE && place === 0;
  by(`${of}-before`).disabled = place === 0;
  by(`${of}-after`).disabled = place + PAGE >= total;
}

function chosen() {
  const [sort, descending] = by("sessions-sort").value.split(" ");
  const filters = ["status", "provider", "address"].map((name) => [name, by(`sessions-${name}`).value.trim()]);
  return { sort, descending: descending !== undefined, ...Object.fromEntries(filters.filter(([, value]) => value !== "")) };
}

function turnTo(place, reload) {
  offset = place;
  reload();
}

function told(total, shown) {
  if (total > 0) {
    return `${number(offset + 1)} to ${number(offset + shown)} of ${number(total)}`;
  }
  const { status, provider, address } = wanted;
  return status || provider || address ? "No session matches." : "No session is registered. One appears here as soon as an agent offers it.";
}

function rowFor({ sessionId }) {
  const known = rowsById.get(sessionId);
  if (known) {
    return known;
  }
  const row = by("session-row").content.cloneNode(true).firstElementChild;
  const name = row.querySelector("code");
  name.textContent = sessionId.slice(0, 8);
  name.title = sessionId;
  name.id = `session-${sessionId}`;
  row.dataset.id = sessionId;
  for (const button of row.querySelectorAll("button")) {
    button.setAttribute("aria-describedby", name.id);
    button.addEventListener("click", () => onAction(button.dataset.action, row.session));
  }
  rowsById.set(sessionId, row);
  return row;
}

function fillRow(row, session) {
  const { status, lock, providerId, since, reachable, ageSeconds } = session;
  const [name, state, renter, data, age, container, actions] = row.children;
  row.session = session;
  tell(name.lastElementChild, providerId);
  tell(state.firstElementChild, STATES[status] ?? status);
  tell(state.lastElementChild, reachable ? (since === null ? "" : `for ${duration(Date.now() - Date.parse(since))}`) : "cannot be reached");
  tell(renter.firstElementChild, lock?.address ?? "–");
  tell(renter.lastElementChild, lock ? `${WHO[lock.browser]}, for ${duration(lock.seconds * 1000)}` : "");
  const { cap, remaining } = session.usage;
  fillMeter(data, `Data of ${session.sessionId.slice(0, 8)}`, cap - remaining, cap, bytes);
  tell(age, duration(ageSeconds * 1000));
  tell(container, containerOf(session));
  actions.hidden = by("sessions-table").classList.contains("read-only");
  for (const button of actions.querySelectorAll("button")) {
    button.hidden = lock === null && button.dataset.action !== "remove";
  }
}

/** What the agent told last; `report` as far as it is of the shape that our agent gives it. */
function containerOf({ report, resources }) {
  const parts = [];
  if (resources !== null) {
    const { millicores, memoryBytes, processes, limits } = resources;
    parts.push(
      `${cores(millicores)} of ${cores(limits.millicores)} cores`,
      `${bytes(memoryBytes)} of ${bytes(limits.memoryBytes)} memory`,
      `${number(processes)} of ${number(limits.processes)} processes`,
    );
  }
  if (typeof report?.egressBytes === "number") {
    parts.push(`${bytes(report.egressBytes)} sent out`);
  }
  if (report?.killedForMemory > 0) {
    parts.push(`${number(report.killedForMemory)} killed for memory`);
  }
  return parts.length === 0 ? "not told" : parts.join(", ");
}

function cell(text) {
  const made = document.createElement("td");
  made.textContent = text;
  return made;
}

function tell(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}
