// The renter's page: the sessions that are free, live, and a button that opens one.
//
// Whatever the API answers is put on the page as text, never as markup: hardware and prices are providers' words.

const RECONNECT_MS = 5000;

const status = document.querySelector("#status");
const problem = document.querySelector("#problem");
const list = document.querySelector("#sessions");
const card = document.querySelector("#session");

watch();

/** Keeps the list as the server tells it. The browser reconnects a stream that broke, but not one that was refused. */
function watch() {
  const events = new EventSource("/renter/sessions/events");
  events.addEventListener("sessions", (event) => show(JSON.parse(event.data)));
  events.onerror = () => {
    status.textContent = "The connection to the server was lost. Trying again…";
    if (events.readyState === EventSource.CLOSED) {
      setTimeout(watch, RECONNECT_MS);
    }
  };
}

function show(sessions) {
  status.textContent =
    sessions.length === 0
      ? "No session is free at the moment. This page updates by itself."
      : sessions.length === 1
        ? "1 session is free."
        : `${sessions.length} sessions are free.`;
  const shown = new Map([...list.children].map((item) => [item.dataset.id, item]));
  // Items that stay are kept, so that focus stays on the button it is on.
  list.replaceChildren(...sessions.map((session) => shown.get(session.sessionId) ?? itemFor(session)));
}

function itemFor({ sessionId, hardware, pricing }) {
  const item = card.content.cloneNode(true).firstElementChild;
  const heading = item.querySelector("h2");
  const button = item.querySelector("button");
  item.dataset.id = sessionId;
  heading.textContent = hardware?.gpu ? String(hardware.gpu) : "Notebook";
  heading.id = `heading-${sessionId}`;
  button.setAttribute("aria-describedby", heading.id);
  button.addEventListener("click", () => connect(sessionId, button));
  for (const [name, value] of Object.entries({ ...hardware, ...pricing })) {
    const term = document.createElement("dt");
    const detail = document.createElement("dd");
    term.textContent = name;
    detail.textContent = typeof value === "object" ? JSON.stringify(value) : String(value);
    item.querySelector("dl").append(term, detail);
  }
  return item;
}

async function connect(sessionId, button) {
  problem.hidden = true;
  button.disabled = true;
  button.textContent = "Connecting…";
  try {
    location.assign(await accessUrl(sessionId));
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
    button.disabled = false;
    button.textContent = "Connect";
  }
}

async function accessUrl(sessionId) {
  const response = await fetch("/renter/request", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ sessionId }),
  }).catch(() => {
    throw new Error("The server cannot be reached. Check your connection and try again.");
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Error(refusal(response, answer));
  }
  const url = new URL(answer.url);
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw new Error("The server answered with something that is not a web address.");
  }
  return url.href;
}

function refusal(response, answer) {
  switch (response.status) {
    case 404:
      return "Somebody was faster: this session is taken. Pick another one.";
    case 429:
      return `Too many requests. Try again in ${response.headers.get("Retry-After") ?? "some"} seconds.`;
    default:
      return `The server refused: ${answer.error ?? `status ${response.status}`}.`;
  }
}
