// What this rental used and costs, to read: while it lasts, and after it until the list is shown again.

import { statement } from "./api.js";
import { bytes, clock, duration, price, sum } from "./format.js";

const by = (id) => document.querySelector(`#statement${id}`);
const box = by("");

let token = null;

box.addEventListener("toggle", () => box.open && read());

/** Offers the statement of the lock that this token took; null: of none. */
export function offerStatement(of) {
  token = of;
  box.hidden = of === null;
  box.open &&= of !== null;
  for (const shown of box.querySelectorAll("dd, p")) {
    shown.textContent = "";
  }
}

/** Reads it again if it is open, and opens it where the rental is over. */
export function closeStatement() {
  if (token !== null) {
    box.open ? read() : (box.open = true);
  }
}

async function read() {
  const mine = token;
  try {
    const known = await statement(mine);
    if (mine === token) {
      show(known);
    }
  } catch (error) {
    if (mine === token && error.code === "unknown_token") {
      offerStatement(null); // it was never taken
    } else if (mine === token) {
      by("-note").textContent = error.message;
    }
  }
}

function show(known) {
  const ended = known.endedAt === null ? null : Date.parse(known.endedAt);
  const words = {
    provider: known.providerId,
    began: clock(Date.parse(known.startedAt)),
    ended: ended === null ? "not yet" : clock(ended),
    time: duration(known.seconds * 1000),
    in: bytes(known.bytesIn),
    out: bytes(known.bytesOut),
    price: price(known.pricing) ?? (known.pricing === null ? "none was said" : JSON.stringify(known.pricing)),
    sum: sum(known.pricing, known.seconds) ?? "by agreement with the provider",
    reference: known.idempotencyKey,
  };
  for (const [name, text] of Object.entries(words)) {
    by(`-${name}`).textContent = text;
  }
  by("-note").textContent = known.final
    ? "All of it is counted."
    : "Data of the last minute may still be added.";
}
