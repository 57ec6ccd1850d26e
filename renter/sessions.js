// The list of free sessions: live, filtered and sorted, and smooth with thousands of them.

import { facts, number, price } from "./format.js";

const RECONNECT_MS = 5000;
/** Items that are made in one go, so that no task blocks the page. */
const BATCH = 50;

const status = document.querySelector("#status");
const choice = document.querySelector("#choice");
const find = document.querySelector("#find");
const order = document.querySelector("#order");
const list = document.querySelector("#sessions");
const card = document.querySelector("#session");

let sessions = [];
const itemsById = new Map();
let round = 0;
let connect;

/** Keeps the list as the server tells it; `onConnect(sessionId, session)` is called for the one that is picked. */
export function watchSessions(onConnect) {
  connect = onConnect;
  choice.addEventListener("submit", (event) => event.preventDefault());
  find.addEventListener("input", show);
  order.addEventListener("change", show);
  watch();
}

/** The browser reconnects a stream that broke, but not one that was refused. */
function watch() {
  const events = new EventSource("/renter/sessions/events");
  events.addEventListener("sessions", (event) => {
    sessions = JSON.parse(event.data).map(searchable);
    show();
  });
  events.onerror = () => {
    status.textContent = "The connection to the server was lost. Trying again…";
    if (events.readyState === EventSource.CLOSED) {
      setTimeout(watch, RECONNECT_MS);
    }
  };
}

function searchable(session) {
  const hourly = price(session.pricing);
  const { perHour, currency, ...others } = session.pricing ?? {};
  const told = [...facts("hardware", session.hardware), ...facts("price", hourly ? others : session.pricing)];
  const text = [hourly, ...told.flat()].join(" ").toLowerCase();
  return { ...session, name: nameOf(session), hourly, facts: told, text };
}

function nameOf({ hardware }) {
  const gpu = hardware?.gpu;
  return gpu ? String(gpu?.name ?? gpu) : "Notebook";
}

function show() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = sessions.filter(({ text }) => words.every((word) => text.includes(word)));
  sort(chosen);
  choice.hidden = sessions.length === 0;
  const told = tell(chosen.length);
  if (status.textContent !== told) {
    status.textContent = told;
  }
  fill(chosen);
}

function tell(shown) {
  if (sessions.length === 0) {
    return "No session is free at the moment. This page updates by itself: a session appears here as soon as one is.";
  }
  if (shown < sessions.length) {
    return `${number(shown)} of ${number(sessions.length)} free sessions match.`;
  }
  return sessions.length === 1 ? "1 session is free." : `${number(sessions.length)} sessions are free.`;
}

function sort(chosen) {
  if (order.value === "price") {
    chosen.sort((a, b) => (a.hourly ? a.pricing.perHour : Infinity) - (b.hourly ? b.pricing.perHour : Infinity) || 0);
  } else if (order.value === "name") {
    chosen.sort((a, b) => a.name.localeCompare(b.name));
  }
}

/** Puts the items into the list, a batch at a time; a newer list ends an older round. */
async function fill(chosen) {
  const mine = ++round;
  const wanted = new Set(chosen.map(({ sessionId }) => sessionId));
  for (const item of [...list.children]) {
    if (!wanted.has(item.dataset.id)) {
      item.remove();
    }
  }
  const known = new Set(sessions.map(({ sessionId }) => sessionId));
  for (const id of itemsById.keys()) {
    if (!known.has(id)) {
      itemsById.delete(id);
    }
  }
  let place = list.firstElementChild;
  for (let at = 0; at < chosen.length; at += 1) {
    if (at % BATCH === BATCH - 1) {
      await new Promise((resume) => setTimeout(resume));
      if (mine !== round) {
        return;
      }
    }
    const item = itemFor(chosen[at]);
    // An item that is in its place is left alone, so that focus stays on the button it is on.
    if (item === place) {
      place = place.nextElementSibling;
    } else {
      list.insertBefore(item, place);
    }
  }
}

function itemFor(session) {
  const known = itemsById.get(session.sessionId);
  if (known) {
    return known;
  }
  const { sessionId, name, hourly, facts } = session;
  const item = card.content.cloneNode(true).firstElementChild;
  const [heading, cost, details, button] = item.children;
  item.dataset.id = sessionId;
  heading.textContent = name;
  heading.id = `heading-${sessionId}`;
  cost.textContent = hourly ?? "";
  cost.hidden = hourly === null;
  for (const [key, value] of facts.filter(([, value]) => value !== name)) {
    const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, detail.textContent] = [key, value];
    details.append(term, detail);
  }
  details.hidden = facts.length === 0;
  button.setAttribute("aria-describedby", heading.id);
  button.addEventListener("click", () => pick(session, button));
  itemsById.set(sessionId, item);
  return item;
}

async function pick(session, button) {
  button.disabled = true;
  button.textContent = "Connecting…";
  await connect(session.sessionId, session);
  button.disabled = false;
  button.textContent = "Connect";
}
