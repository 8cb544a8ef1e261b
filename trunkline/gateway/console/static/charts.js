// Charts of the page Today: drawn by uPlot once the page is there, from the numbers that its tables have, too.
"use strict";

const COLOURS = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6"];
const HEIGHT = 200;

// light-dark() is resolved by the browser only in a property that is a colour.
function resolved(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function shown(value, unit) {
  if (value == null) return "–";
  if (unit === "$") return `$${value < 0.1 && value > 0 ? value.toFixed(4) : value.toFixed(2)}`;
  if (unit === "ms") return value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
  return value.toLocaleString();
}

// Of a stack, each column on top of those before it; drawn from the highest, so that none hides another.
function stacked(columns) {
  const sums = new Array(columns[0]?.length ?? 0).fill(0);
  return columns.map((column) => column.map((value, at) => (sums[at] += value ?? 0)));
}

function draw(box, times, by, columns) {
  const names = Object.keys(columns);
  const look = box.dataset.look;
  const unit = box.dataset.unit || "";
  const values = names.map((name) => columns[name]);
  if (!names.length || values.every((column) => column.every((value) => !value))) {
    box.textContent = "Nothing to show yet.";
    box.classList.add("faint");
    return null;
  }
  const order = look === "stacked" ? [...names.keys()].reverse() : [...names.keys()];
  const drawn = look === "stacked" ? stacked(values) : values;
  const ink = resolved("--faint");
  const line = resolved("--line");
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui" };
  const series = order.map((at) => {
    const stroke = resolved(COLOURS[at % COLOURS.length]);
    const whole = names[at] === "total";
    return {
      label: names[at],
      stroke,
      width: look === "stacked" ? 0 : whole ? 2.5 : 1.5,
      fill: look === "stacked" ? stroke : undefined,
      paths: look === "stacked" ? uPlot.paths.bars({ size: [0.8, 40], align: 1 }) : undefined,
      points: { show: look !== "stacked", size: 4 },
      value: (plot, value, number, index) => shown(index == null ? null : values[at][index], unit),
    };
  });
  return new uPlot(
    {
      width: box.clientWidth,
      height: HEIGHT,
      cursor: { y: false, drag: { x: false, y: false } },
      scales: {
        x: { range: (plot, low, high) => [low, high + (by === "day" ? 86400 : 3600)] },
        y: { range: (plot, low, high) => [0, (high || 1) * 1.1] },
      },
      series: [{ label: "from", value: (plot, at) => (at == null ? "–" : new Date(at * 1000).toLocaleString([], kinds.both)) }, ...series],
      axes: [axis, { ...axis, size: 68, values: (plot, ticks) => ticks.map((tick) => shown(tick, unit)) }],
    },
    [times, ...order.map((at) => drawn[at])],
    box,
  );
}

async function charts(root) {
  const answer = await fetch(root.dataset.charts, { headers: { Accept: "application/json" } });
  if (!answer.ok) return;
  const data = await answer.json();
  const times = data.at.map((at) => Date.parse(at) / 1000);
  const boxes = [...root.querySelectorAll("[data-chart]")];
  let plots = [];
  const all = () => {
    for (const plot of plots) plot?.destroy();
    plots = boxes.map((box) => draw(box, times, data.by, data.charts[box.dataset.chart]));
  };
  all();
  new ResizeObserver(() => {
    plots.forEach((plot, at) => plot?.setSize({ width: boxes[at].clientWidth, height: HEIGHT }));
  }).observe(root);
  document.querySelector("[data-theme-toggle]")?.addEventListener("click", () => setTimeout(all));
}

document.addEventListener("DOMContentLoaded", () => {
  const root = document.querySelector("[data-charts]");
  if (root) charts(root);
});
