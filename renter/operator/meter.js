// A bar that says how much of something is used, with the same in words under it.

import { percent } from "./format.js";

/** `place` holds the bar and its words; `shown` writes an amount for people. */
export function fillMeter(place, name, used, most, shown) {
  const [meter, text] = place.children;
  const share = most === 0 ? 1 : used / most;
  const words = `${shown(used)} of ${shown(most)}`;
  meter.setAttribute("aria-label", name);
  meter.setAttribute("aria-valuemax", most);
  meter.setAttribute("aria-valuenow", used);
  meter.setAttribute("aria-valuetext", words);
  meter.dataset.level = share >= 0.95 ? "full" : share >= 0.8 ? "high" : "fine";
  meter.firstElementChild.style.inlineSize = `${Math.min(100, share * 100)}%`;
  const told = `${words} (${percent(share)})`;
  if (text.textContent !== told) {
    text.textContent = told;
  }
}
