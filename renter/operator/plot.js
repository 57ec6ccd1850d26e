// A small plot of bars over time, drawn as one SVG path.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 30;
const BAR = 0.8;

/** An empty plot; `drawBars` fills it. */
export function plot() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "plot");
  svg.setAttribute("role", "img");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.append(document.createElementNS(SVG, "path"));
  return svg;
}

/** One bar for each value, the highest as high as the plot; `label` says the same in words. */
export function drawBars(svg, values, label) {
  const most = Math.max(1, ...values);
  const bars = values.map((value, at) => {
    const top = HEIGHT - (value / most) * HEIGHT;
    return value === 0 ? "" : `M${at} ${HEIGHT}V${top.toFixed(2)}h${BAR}V${HEIGHT}z`;
  });
  svg.setAttribute("viewBox", `0 0 ${values.length} ${HEIGHT}`);
  svg.setAttribute("aria-label", label);
  svg.firstElementChild.setAttribute("d", bars.join(""));
}
