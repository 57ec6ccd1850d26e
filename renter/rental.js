// The session that this browser has rented: its state, its data, and the way back.
//
// The token is kept in `localStorage`, so that a closed tab can be opened again, and with it the secret that proves from
// another address that we are its renter; both are dropped with the session.

import { heartbeat, reconnect, release, usage, usageEvents } from "./api.js";
import { bytes, duration, moment, percent } from "./format.js";
import { closeStatement, offerStatement } from "./statement.js";

const KEY = "runit.rental";
const RECONNECT_MS = 5000;
const WARNINGS = [
  [1, "The cap is reached: nothing passes until older data is 24 hours old. Your files and kernels stay."],
  [0.95, "More than 95 % of the cap is used."],
  [0.8, "More than 80 % of the cap is used."],
];

const by = (id) => document.querySelector(`#${id}`);
const section = by("rental");
const dialog = by("confirm-release");

let rental = null;
let events = null;
let pulse = null;
let lockedSince = null;

by("release").addEventListener("click", confirmRelease);
by("reconnect").addEventListener("click", goOn);
by("forget").addEventListener("click", forget);
for (const button of document.querySelectorAll("[data-copies]")) {
  button.addEventListener("click", () => copy(button));
}
// Another tab may have rented or released.
addEventListener("storage", (event) => {
  if (event.key === KEY) {
    showRental();
  }
});
setInterval(showHeld, 1000);

/** A session was rented here: remembers and shows it. */
export function startRental({ sessionId, accessToken, url, serverUrl, reconnectSecret, hardware }, listed) {
  const kept = { sessionId, accessToken, url, serverUrl, reconnectSecret, hardware, name: listed.name };
  localStorage.setItem(KEY, JSON.stringify(kept));
  showRental();
  by("rental-title").focus();
}

/** Whether a session is rented in this browser that has not ended. */
export const isRenting = () => events !== null;

/** Shows what is rented, if anything is. */
export function showRental() {
  stop();
  rental = stored();
  offerStatement(null);
  section.hidden = rental === null;
  if (rental === null) {
    return;
  }
  by("rental-title").textContent = `Your session: ${rental.name ?? "Notebook"}`;
  by("open-lab").href = rental.url;
  tell("Waiting for you to open JupyterLab.");
  ended(false);
  showElsewhere();
  follow();
  pulse = new Worker("pulse.js", { type: "module" });
  pulse.onmessage = beat;
}

function stored() {
  try {
    const known = JSON.parse(localStorage.getItem(KEY));
    return typeof known?.accessToken === "string" && [known.url, known.serverUrl].every((url) => /^https?:/.test(url))
      ? known
      : null;
  } catch {
    return null;
  }
}

function stop() {
  events?.close();
  pulse?.terminate();
  [events, pulse, lockedSince] = [null, null, null];
  by("usage").hidden = true;
}

/** Follows the session's use. The stream says itself when the session is not ours any more. */
function follow() {
  const mine = usageEvents(rental.accessToken);
  events = mine;
  mine.addEventListener("usage", (event) => showUsage(JSON.parse(event.data)));
  mine.addEventListener("refused", (event) => refused(JSON.parse(event.data).code));
  mine.onerror = async () => {
    if (events === mine) {
      tell("The connection to the server was lost. Your notebook may still be there. Trying again…");
    }
    if (mine.readyState === EventSource.CLOSED) {
      // A stream does not tell why it was refused; the call does.
      await usage(rental.accessToken).catch(({ code }) => events === mine && refused(code));
      setTimeout(() => events === mine && follow(), RECONNECT_MS);
    }
  };
}

async function beat() {
  const mine = pulse;
  try {
    if (lockedSince !== null) {
      await heartbeat(rental.accessToken);
    }
  } catch (error) {
    // One that was on its way when the session was given back is not refused: nobody is there any more.
    if (pulse === mine) {
      refused(error.code);
    }
  }
}

function refused(code) {
  if (code === "ip_mismatch") {
    end("Your network address has changed, so this session is closed to you. Go on from this address, or return to the one that you had.");
    by("reconnect").hidden = false;
  } else if (code === "unknown_token") {
    end("This session is not yours any more: it was released, its provider has gone, or you were away for too long.");
    // Also after a reload, when nothing was heard of it before.
    offerStatement(rental.accessToken);
    closeStatement();
  }
}

/** The way back after a change of address: our secret moves the lock to here. */
async function goOn() {
  const button = by("reconnect");
  button.disabled = true;
  try {
    await reconnect(rental.accessToken, rental.reconnectSecret);
    showRental();
    by("rental-title").focus();
  } catch (error) {
    whyNot(error);
  }
  button.disabled = false;
}

function whyNot({ code, message }) {
  if (code === "unknown_token") {
    refused(code);
  } else if (code === "ip_mismatch" || code === "invalid_payload") {
    tell("This browser has no proof that the session is yours. Press the button in a tab where JupyterLab was open, or return to the address that you had; a minute after it was last used from there, the session is released.");
  } else {
    tell(message);
  }
}

function end(why) {
  stop();
  tell(why);
  ended(true);
}

function ended(is) {
  by("open-lab").hidden = is;
  by("release").hidden = is;
  by("elsewhere").hidden = is;
  by("forget").hidden = !is;
  by("reconnect").hidden = true;
}

function tell(text) {
  const state = by("rental-state");
  if (state.textContent !== text) {
    state.textContent = text;
  }
}

function showUsage(now) {
  if (now.status === "READY") {
    tell("Waiting for you to open JupyterLab.");
  } else if (now.status === "LOCKED") {
    tell("In use by you.");
  }
  if (lockedSince === null && now.lockedAt !== null) {
    offerStatement(rental.accessToken);
  }
  lockedSince = now.lockedAt === null ? null : Date.parse(now.lockedAt);
  const used = now.cap - now.remaining;
  const share = now.cap === 0 ? 1 : used / now.cap;
  const meter = by("meter");
  meter.setAttribute("aria-valuemax", now.cap);
  meter.setAttribute("aria-valuenow", used);
  meter.setAttribute("aria-valuetext", `${bytes(used)} of ${bytes(now.cap)}`);
  by("meter-fill").style.inlineSize = `${Math.min(100, share * 100)}%`;
  const warning = WARNINGS.find(([from]) => share >= from);
  meter.dataset.level = warning === undefined ? "fine" : warning[0] === 0.8 ? "high" : "full";
  by("usage-warning").textContent = warning?.[1] ?? "";
  by("usage-text").textContent = `${bytes(used)} of ${bytes(now.cap)} used (${percent(share)})`;
  by("used-in").textContent = bytes(now.usedIn);
  by("used-out").textContent = bytes(now.usedOut);
  by("remaining").textContent = bytes(now.remaining);
  by("next-free").textContent = now.nextFreeAt === null ? "within 24 hours" : moment(Date.parse(now.nextFreeAt));
  by("usage").hidden = false;
  showHeld();
}

function showHeld() {
  by("held-for").textContent = lockedSince === null ? "not opened yet" : duration(Date.now() - lockedSince);
}

function showElsewhere() {
  const server = rental.serverUrl;
  by("vscode-url").textContent = `${server}?token=${rental.accessToken}`;
  by("python-snippet").textContent = [
    "from jupyter_kernel_client import JupyterKernelClient",
    "",
    `with JupyterKernelClient(server_url="${server.replace(/\/$/, "")}",`,
    `                         token="${rental.accessToken}") as kernel:`,
    '    print(kernel.execute("6 * 7"))',
  ].join("\n");
}

async function copy(button) {
  try {
    await navigator.clipboard.writeText(by(button.dataset.copies).textContent);
    button.textContent = "Copied";
  } catch {
    // Not allowed here: the text is selected, so that one key copies it.
    getSelection().selectAllChildren(by(button.dataset.copies));
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

function confirmRelease() {
  const kept = rental.hardware?.workspace === "persistent";
  by("confirm-text").textContent = kept
    ? "Your kernels end. This provider keeps the workspace: the next renter of this session finds your files."
    : "Your kernels end, and the workspace with all its files is wiped. Save elsewhere what you want to keep.";
  dialog.returnValue = "";
  dialog.showModal();
  dialog.onclose = () => dialog.returnValue === "release" && giveBack();
}

async function giveBack() {
  try {
    if (lockedSince !== null) {
      await release(rental.accessToken);
    }
    localStorage.removeItem(KEY);
    end("Released. Thank you.");
    closeStatement();
  } catch (error) {
    refused(error.code);
    tell(error.message);
  }
}

function forget() {
  localStorage.removeItem(KEY);
  showRental();
  by("free-title").scrollIntoView();
}
