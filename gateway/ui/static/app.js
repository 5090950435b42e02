/* What the page does beyond links and forms. Everything works without it, but nothing moves by itself. */
"use strict";

document.documentElement.classList.add("js");

/* ---- Live parts: what the reader has opened, ticked or focused stays as it is when new content arrives. */

const keep = Idiomorph.defaults.callbacks;
keep.beforeAttributeUpdated = (name, node) =>
  !((name === "open" && node.tagName === "DETAILS") || (name === "checked" && node.type === "checkbox"));
keep.beforeNodeMorphed = (node) => node.id !== "plot";

document.addEventListener("htmx:configRequest", (event) => {
  const given = event.detail.parameters;
  for (const name of Object.keys(given)) if (given[name] === "") delete given[name];
});

document.addEventListener("htmx:beforeRequest", (event) => {
  // Nobody looks: the next tick asks.
  if (document.hidden && event.detail.requestConfig.triggeringEvent === undefined) event.preventDefault();
});

const offline = document.getElementById("offline");
for (const name of ["htmx:sendError", "htmx:timeout", "htmx:responseError"])
  document.addEventListener(name, () => { offline.hidden = false; });
document.addEventListener("htmx:afterOnLoad", (event) => { if (event.detail.successful) offline.hidden = true; });
document.addEventListener("htmx:afterSettle", () => { count(); draw(); });

/* ---- Choosing two runs */

function count() {
  const button = document.getElementById("compare-button");
  if (!button) return;
  const chosen = document.querySelectorAll("input[name=run]:checked").length;
  button.disabled = chosen !== 2;
  button.textContent = chosen ? `Compare (${chosen} of 2)` : "Compare";
}

document.addEventListener("change", (event) => { if (event.target.name === "run") count(); });

/* ---- Small comforts */

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(new URL(button.dataset.copy, location.href).href);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy link"; }, 2000);
});

document.addEventListener("keydown", (event) => {
  const field = document.getElementById("text");
  if (event.key !== "/" || !field || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select")) return;
  event.preventDefault();
  field.select();
});

/* ---- The picture above the list: one mark per run, time of acceptance against its duration */

const STATES = ["succeeded", "refused", "failed", "cancelled", "expired", "running", "queued"];
const UNITS = [[7200, 3600, "h"], [120, 60, "min"], [1, 1, "s"], [0.001, 0.001, "ms"]];
/* From how many seconds on, in which unit. */
let plot = null;
let points = [];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function span(seconds) {
  for (const [from, size, unit] of UNITS)
    if (seconds >= from * 0.9995) return `${Number((seconds / size).toPrecision(3))} ${unit}`;
  return `${Number((seconds * 1000).toPrecision(2))} ms`;
}

function series() {
  const lists = [points.map((point) => point[0])];
  for (const state of STATES)
    lists.push(points.map((point) => (point[2] === state ? Math.max(point[1], 0.001) : null)));
  return lists;
}

function timeRange() {
  // Not what uPlot found: a single run would get a month.
  const low = points[0][0];
  const high = points[points.length - 1][0];
  const margin = Math.max((high - low) * 0.03, 5);
  return [low - margin, high + margin];
}

function durationRange(_, low, high) {
  if (low === null) return [0.01, 10];
  return [10 ** Math.floor(Math.log10(low) - 0.05), 10 ** Math.ceil(Math.log10(high) + 0.05)];
}

function decades(_, __, low, high) {
  const found = [];
  for (let power = Math.round(Math.log10(low)); power <= Math.round(Math.log10(high)); power++) found.push(10 ** power);
  return found;
}

function nearest(chart, left, top) {
  let best = null;
  let distance = 14 ** 2;
  for (const point of points) {
    const x = chart.valToPos(point[0], "x") - left;
    const y = chart.valToPos(Math.max(point[1], 0.001), "y") - top;
    if (x * x + y * y < distance) [best, distance] = [point, x * x + y * y];
  }
  return best;
}

function pointing(tip) {
  const at = (chart) => nearest(chart, chart.cursor.left, chart.cursor.top);
  return {
    hooks: {
      ready: (chart) => {
        chart.over.appendChild(tip);
        chart.over.addEventListener("click", () => {
          const point = at(chart);
          if (point) location.assign(`/ui/jobs/${encodeURIComponent(point[3])}`);
        });
      },
      setCursor: (chart) => {
        const point = chart.cursor.left < 0 ? null : at(chart);
        chart.over.classList.toggle("on-mark", point !== null);
        tip.hidden = point === null;
        if (!point) return;
        tip.textContent = `${point[2]} · ${span(point[1])} · ${new Date(point[0] * 1000).toISOString().slice(11, 19)}`;
        tip.classList.toggle("at-right", chart.cursor.left > chart.over.clientWidth / 2);
        tip.style.left = `${chart.valToPos(point[0], "x")}px`;
        tip.style.top = `${chart.valToPos(Math.max(point[1], 0.001), "y")}px`;
      },
    },
  };
}

function draw(anew = false) {
  const figure = document.getElementById("chart");
  const target = document.getElementById("plot");
  if (!figure || !target || typeof uPlot === "undefined") return;
  points = JSON.parse(figure.dataset.points);
  if (plot && !anew && target.contains(plot.root)) {
    plot.setData(series());
    return;
  }
  if (plot) plot.destroy();
  const axis = {
    stroke: colour("--muted"),
    font: "11px system-ui, sans-serif",
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
  };
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  const options = {
    width: target.clientWidth,
    height: target.clientHeight,
    legend: { show: false },
    padding: [8, 24, 0, 0],
    tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
    cursor: { drag: { x: false, y: false, setScale: false }, points: { show: false }, y: false },
    scales: { x: { time: true, range: timeRange }, y: { distr: 3, range: durationRange } },
    axes: [
      { ...axis, size: 24, gap: 4, space: 90, values: (_, splits) => splits.map((at) => label(at, splits)) },
      { ...axis, size: 56, gap: 6, splits: decades, values: (_, splits) => splits.map(span), filter: (_, splits) => splits },
    ],
    series: [
      {},
      ...STATES.map((state) => ({
        stroke: colour(`--s-${state}`),
        paths: () => null,
        points: { show: true, size: 6, width: 0, fill: colour(`--s-${state}`) },
      })),
    ],
    plugins: [pointing(tip)],
  };
  plot = new uPlot(options, series(), target);
}

function label(at, splits) {
  const when = new Date(at * 1000).toISOString();
  const step = splits.length > 1 ? splits[1] - splits[0] : 60;
  if (step >= 86400) return when.slice(5, 10);
  return step >= 60 ? when.slice(11, 16) : when.slice(11, 19);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(true));
new ResizeObserver(() => {
  const target = document.getElementById("plot");
  if (plot && target && target.clientWidth) plot.setSize({ width: target.clientWidth, height: target.clientHeight });
}).observe(document.getElementById("main"));

count();
draw();
