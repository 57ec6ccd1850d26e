// The renter's page: free sessions, and the one that this browser has rented.
//
// Whatever the API answers is put on the page as text, never as markup: hardware and prices are providers' words.

import { requestSession } from "./api.js";
import { isRenting, showRental, startRental } from "./rental.js";
import { watchSessions } from "./sessions.js";

const problem = document.querySelector("#problem");

watchSessions(connect);
showRental();

/** Asks for a session and opens it. The tab is opened at the click, since browsers allow it only then. */
async function connect(sessionId, listed) {
  problem.hidden = true;
  if (isRenting()) {
    tell("You have a session already. Release it before you take another one.");
    return;
  }
  const tab = window.open("about:blank", "_blank");
  try {
    const given = await requestSession(sessionId);
    if (tab) {
      tab.opener = null;
      tab.location.replace(given.url);
    }
    startRental(given, listed);
  } catch (error) {
    tab?.close();
    tell(error.message);
  }
}

function tell(text) {
  problem.textContent = text;
  problem.hidden = false;
  problem.scrollIntoView({ block: "nearest" });
}
