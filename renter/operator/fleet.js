// The tables of sessions and of providers. A row stays the same element while its session lives, so that focus stays, too.

import { bytes, duration, moment, number, percent } from "./format.js";

const PAGE = 50;
const STATES = { READY: "free", LOCKED: "rented out", RECYCLING: "being made anew" };
const WHO = { true: "browser", false: "program" };

const by = (id) => document.querySelector(`#${id}`);
const rows = by("sessions-table").tBodies[0];
const rowsById = new Map();
let offset = 0;
let onAction;

/** `reload()` asks again for what is wanted; `act(action, session)` does what a button says. */
export function watchFleet(reload, act) {
  onAction = act;
  by("sessions-choice").addEventListener("submit", (event) => event.preventDefault());
  by("sessions-choice").addEventListener("input", () => turnTo(0, reload));
  by("sessions-before").addEventListener("click", () => turnTo(Math.max(0, offset - PAGE), reload));
  by("sessions-after").addEventListener("click", () => turnTo(offset + PAGE, reload));
}

/** Whether the operator's key may act. */
export function allowActions(may) {
  by("sessions-table").classList.toggle("read-only", !may);
  by("actions-title").hidden = !may;
}

/** What the page wants to see, as the API's query. */
export function wantedSessions() {
  const [sort, descending] = by("sessions-sort").value.split(" ");
  const wanted = { sort, descending: descending !== undefined, offset, limit: PAGE };
  for (const name of ["status", "provider"]) {
    const value = by(`sessions-${name}`).value.trim();
    if (value !== "") {
      wanted[name] = value;
    }
  }
  return wanted;
}

export function showSessions({ total, sessions }) {
  const past = offset > 0 && sessions.length === 0;
  tell(by("sessions-told"), past ? "Nothing is left on this page." : told(total, sessions.length));
  by("sessions-table").hidden = sessions.length === 0;
  by("sessions-pages").hidden = total <= PAGE && offset === 0;
  by("sessions-before").disabled = offset === 0;
  by("sessions-after").disabled = offset + PAGE >= total;
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
}

export function showProviders({ providers }) {
  tell(by("providers-told"), providers.length === 0 ? "No provider has registered a session yet." : "");
  by("providers-told").hidden = providers.length > 0;
  by("providers-table").hidden = providers.length === 0;
  const fresh = providers.map(({ providerId, health, lastHeartbeatAt, sessions: { ready, locked, recycling } }) => {
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

function turnTo(place, reload) {
  offset = place;
  reload();
}

function told(total, shown) {
  if (total > 0) {
    return `${number(offset + 1)} to ${number(offset + shown)} of ${number(total)}`;
  }
  const { status, provider } = wantedSessions();
  return status || provider ? "No session matches." : "No session is registered. One appears here as soon as an agent offers it.";
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
  fillMeter(data, session);
  tell(age, duration(ageSeconds * 1000));
  tell(container, resources(session));
  actions.hidden = by("sessions-table").classList.contains("read-only");
  for (const button of actions.querySelectorAll("button")) {
    button.hidden = lock === null && button.dataset.action !== "remove";
  }
}

function fillMeter(place, { sessionId, usage: { cap, remaining } }) {
  const [meter, text] = place.children;
  const used = cap - remaining;
  const share = cap === 0 ? 1 : used / cap;
  meter.setAttribute("aria-label", `Data of ${sessionId.slice(0, 8)}`);
  meter.setAttribute("aria-valuemax", cap);
  meter.setAttribute("aria-valuenow", used);
  meter.setAttribute("aria-valuetext", `${bytes(used)} of ${bytes(cap)}`);
  meter.dataset.level = share >= 0.95 ? "full" : share >= 0.8 ? "high" : "fine";
  meter.firstElementChild.style.inlineSize = `${Math.min(100, share * 100)}%`;
  tell(text, `${bytes(used)} of ${bytes(cap)} (${percent(share)})`);
}

/** What the agent told last, as far as it is of the shape that our agent gives it. */
function resources({ report, hardware }) {
  const parts = [];
  if (typeof report?.memoryBytes === "number") {
    const most = typeof hardware?.memoryBytes === "number" ? ` of ${bytes(hardware.memoryBytes)}` : "";
    parts.push(`${bytes(report.memoryBytes)}${most} memory`);
  }
  if (typeof report?.processes === "number") {
    parts.push(`${number(report.processes)} processes`);
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
