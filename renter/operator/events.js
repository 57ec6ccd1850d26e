// The audit trail as it grows: the newest first, and never more of it on the page than a person looks through.

import { events, liveEvents } from "./admin.js";
import { number } from "./format.js";

const RECONNECT_MS = 5000;
/** Events on the page; of a burst, the newest are shown. */
const SHOWN = 200;
const ALERTS = [
  "RATE_LIMITED",
  "INVALID_ACCESS_ATTEMPT",
  "SESSION_HIJACK_ATTEMPT",
  "BANDWIDTH_EXCEEDED",
  "INVALID_PROVIDER_REGISTRATION",
  "SUSPICIOUS_PROVIDER_URL",
  "OPERATOR_DENIED",
  "STORE_RESTORED",
  "TRAIL_TAMPERED",
];
const clock = new Intl.DateTimeFormat(navigator.languages, { dateStyle: "short", timeStyle: "medium" });

const by = (id) => document.querySelector(`#${id}`);
const list = by("events");
const kind = by("events-kind");
const live = by("events-live");

let stream = null;
let waiting = [];
let newest = 0;
let round = 0;
let onNews = () => {};
let onEnd = () => {};

by("events-choice").addEventListener("submit", (event) => event.preventDefault());
kind.addEventListener("change", () => stream && reload());
live.addEventListener("change", () => stream && live.checked && reload());

/** Follows the trail; `news()` is called when something has happened, `ended(refusal)` when it may not be read. */
export function followEvents(news, ended) {
  [onNews, onEnd] = [news, ended];
  open();
}

export function stopEvents() {
  stream?.close();
  stream = null;
  round += 1;
  waiting = [];
  list.replaceChildren();
}

/** The kinds that there are, to choose from. */
export function offerKinds(kinds) {
  const known = new Set([...kind.options].map(({ value }) => value));
  for (const one of kinds.filter((one) => !known.has(one))) {
    kind.add(new Option(words(one), one));
  }
}

/** The stream is open before the list is asked for, so that nothing falls between them. */
function open() {
  const mine = liveEvents();
  stream = mine;
  mine.onopen = reload;
  mine.addEventListener("event", ({ data }) => {
    onNews();
    take(JSON.parse(data));
  });
  mine.onerror = () => {
    if (stream !== mine) {
      return;
    }
    tell("The connection to the server was lost. Trying again…");
    if (mine.readyState === EventSource.CLOSED) {
      setTimeout(() => stream === mine && open(), RECONNECT_MS);
    }
  };
}

async function reload() {
  const mine = ++round;
  try {
    const page = await events(wantedKinds(), SHOWN);
    if (mine === round) {
      newest = page.events[0]?.place ?? 0;
      waiting = waiting.filter(({ place }) => place > newest);
      list.replaceChildren(...page.events.map(item));
      count();
    }
  } catch (error) {
    tell(error.message);
    onEnd(error);
  }
}

function take(event) {
  const kinds = wantedKinds();
  if (!live.checked || (kinds.length > 0 && !kinds.includes(event.kind))) {
    return;
  }
  waiting.push(event);
  if (waiting.length === 1) {
    requestAnimationFrame(flush);
  } else if (waiting.length > 2 * SHOWN) {
    waiting = waiting.slice(-SHOWN); // a hidden page is not drawn, and its events come nevertheless
  }
}

/** Puts what has come since the last frame on the page. */
function flush() {
  const fresh = waiting.filter(({ place }) => place > newest).slice(-SHOWN).reverse();
  waiting = [];
  newest = fresh[0]?.place ?? newest;
  list.prepend(...fresh.map(item));
  while (list.childElementCount > SHOWN) {
    list.lastElementChild.remove();
  }
  count();
}

function wantedKinds() {
  return kind.value === "alerts" ? ALERTS : kind.value === "" ? [] : [kind.value];
}

function count() {
  const shown = list.childElementCount;
  tell(shown === 0 ? "Nothing of this kind has happened." : `The newest ${number(shown)}:`);
}

function item({ at, kind, sessionId, providerId, address, operator, keyId }) {
  const [row, time, name] = ["li", "time", "span"].map((tag) => document.createElement(tag));
  row.classList.toggle("alert", ALERTS.includes(kind));
  time.dateTime = at;
  time.textContent = clock.format(Date.parse(at));
  name.className = "kind";
  name.title = kind;
  name.textContent = words(kind);
  const about = [
    [sessionId && `session ${sessionId.slice(0, 8)}`, sessionId],
    [providerId && `provider ${providerId}`],
    [address && `from ${address}`],
    [operator && `by ${operator === "configured" ? "the configured operator" : operator.slice(0, 8)}`, operator],
    [keyId && `key ${keyId.slice(0, 8)}`, keyId],
  ];
  row.append(time, name, ...about.filter(([text]) => text).map(([text, title]) => part(text, title)));
  return row;
}

function part(text, title) {
  const span = document.createElement("span");
  span.textContent = text;
  if (title) {
    span.title = title;
  }
  return span;
}

/** "SESSION_CUT" is "Session cut". */
function words(kind) {
  const text = kind.replaceAll("_", " ").toLowerCase();
  return text[0].toUpperCase() + text.slice(1);
}

function tell(text) {
  if (by("events-told").textContent !== text) {
    by("events-told").textContent = text;
  }
}
