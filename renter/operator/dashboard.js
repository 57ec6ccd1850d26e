// The operator's page: who has signed in, what is shown to them, and what they do.
//
// Whatever the API answers is put on the page as text, never as markup.

import { act, bytesUsed, providers, sessions, signIn, signOut, summary, whoAmI } from "./admin.js";
import { showBytes, showCounts } from "./counts.js";
import { followEvents, offerKinds, stopEvents } from "./events.js";
import { allowActions, showProviders, showSessions, wantedSessions, watchFleet } from "./fleet.js";

/** Numbers that change without an event, as bytes and ages do, are asked for this often. */
const REFRESH_MS = 5000;
/** After an event the page asks again, but not more often than so. */
const COALESCE_MS = 500;
const QUESTIONS = {
  release: ["Release this session?", "Its lock ends as if the renter had given it back, and the workspace is made anew.", "Release"],
  cut: ["Cut this session?", "It is taken away from its renter at once, connections and all, and the workspace is made anew.", "Cut"],
  remove: ["Remove this session?", "It is taken out of the list, and from its renter if it has one. Its agent is told to register again; revoke its provider's key to keep it out.", "Remove"],
};
const DONE = { release: "Released", cut: "Cut", remove: "Removed" };

const by = (id) => document.querySelector(`#${id}`);
const dialog = by("confirm");
let operator = null;
let round = 0;
let asking = null;

by("sign-in").addEventListener("submit", enter);
by("sign-out").addEventListener("click", leave);
watchFleet(refresh, ask);
document.addEventListener("visibilitychange", () => refresh());
setInterval(refresh, REFRESH_MS);
whoAmI().then(show, (error) => (error.code === "operator_key_required" ? showSignIn() : showSignIn(error.message)));

async function enter(event) {
  event.preventDefault();
  const key = by("key");
  try {
    const known = await signIn(key.value.trim());
    key.value = "";
    show(known);
    by("sessions-title").focus();
  } catch (error) {
    tell(error.message);
    key.select();
  }
}

async function leave() {
  try {
    await signOut();
  } catch (error) {
    if (error.code !== "operator_key_required") {
      tell(error.message); // still signed in, and better told so
      return;
    }
  }
  showSignIn();
}

function show(known) {
  operator = known;
  const what = known.role === "operate" ? "" : ", who may only look";
  by("who").textContent = `Signed in as ${known.name ?? "the configured operator"}${what}`;
  tell("");
  by("sign-in").hidden = true;
  by("sign-out").hidden = false;
  by("dashboard").hidden = false;
  allowActions(known.role === "operate");
  followEvents(soon, failed);
  refresh();
}

function showSignIn(why = "") {
  operator = null;
  round += 1;
  stopEvents();
  dialog.close();
  by("who").textContent = "The operator's page";
  by("done").textContent = "";
  by("sign-out").hidden = true;
  by("dashboard").hidden = true;
  by("sign-in").hidden = false;
  tell(why);
  by("key").focus();
}

/** Asks for everything anew; answers of an older round, which come late, are not shown. */
async function refresh() {
  if (operator === null || document.hidden) {
    return;
  }
  const mine = ++round;
  try {
    const [counts, used, fleet, those] = await Promise.all([summary(), bytesUsed(), sessionsWanted(), providers()]);
    if (mine === round) {
      showCounts(counts);
      offerKinds(Object.keys(counts.events));
      showBytes(used);
      showSessions(fleet);
      showProviders(those);
      tell("");
    }
  } catch (error) {
    if (mine === round) {
      failed(error);
    }
  }
}

/** A word that no name or address looks like matches nothing. */
const sessionsWanted = () =>
  sessions(wantedSessions()).catch((error) => {
    if (error.code === "invalid_query") {
      return { total: 0, sessions: [] };
    }
    throw error;
  });

function soon() {
  asking ??= setTimeout(() => {
    asking = null;
    refresh();
  }, COALESCE_MS);
}

function failed(error) {
  if (operator === null) {
    return;
  }
  if (error.code === "operator_key_required") {
    showSignIn("Your sign-in has ended. Sign in again.");
  } else {
    tell(error.message);
  }
}

function ask(action, session) {
  const [title, text, yes] = QUESTIONS[action];
  by("confirm-title").textContent = title;
  by("confirm-text").textContent = `${session.sessionId} of ${session.providerId}: ${text}`;
  by("confirm-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  dialog.onclose = () => dialog.returnValue === "yes" && carryOut(action, session);
}

async function carryOut(action, { sessionId }) {
  try {
    await act(action, sessionId);
    by("done").textContent = `${DONE[action]}: session ${sessionId.slice(0, 8)}.`;
    by("sessions-title").focus();
    await refresh();
  } catch (error) {
    await refresh();
    failed(error);
  }
}

function tell(text) {
  by("problem").textContent = text;
  by("problem").hidden = text === "";
}
