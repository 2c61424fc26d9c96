// What a run's episodes were like, step by step. A point leads to the episodes behind it, and so does each value of the tables.

import { choice, phase } from "./choices.js";
import { address, ask, go, make, number } from "./dom.js";
import { chosenRun, runUrl } from "./runs.js";

const SPLITS = [["", "all episodes"], ["source", "each source"], ["category", "each category"], ["tool", "each tool"]];
const SHARES = new Set(["accuracy", "tool rate", "truncated", "failed"]);
const HEIGHT = 190;
let plots = [];

// uPlot listens to the window: a chart that is no longer shown must not go on.
function sweep() {
  plots = plots.filter((plot) => plot.root.isConnected || (plot.destroy(), false));
}

function colour(name) {
  const probe = make("span", { hidden: true });
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function said(value) {
  return value === null ? "" : number(value, Math.abs(value) < 10 ? 3 : 1);
}

// The nearest line to the pointer that has a value there.
function nearest(plot) {
  const { idx, top } = plot.cursor;
  if (idx === null || idx === undefined) return null;
  const away = (at) => Math.abs(plot.valToPos(plot.data[at][idx], "y") - top);
  const lines = plot.series.map((_, at) => at).filter((at) => at > 0 && plot.data[at][idx] !== null);
  return lines.length ? { idx, line: lines.reduce((best, at) => (away(at) < away(best) ? at : best)) - 1 } : null;
}

function drawn(uPlot, box, measure, found, readout, link) {
  const painted = (name) => () => colour(name);
  const axis = () => ({ stroke: painted("soft"), grid: { stroke: painted("line"), width: 1 }, ticks: { stroke: painted("line") } });
  const points = { show: found.steps.length < 60, size: 5, fill: painted("paper") };
  const series = found.curves.map(({ name }, at) => ({ label: name, stroke: painted(`curve-${at + 1}`), width: 2, spanGaps: true, points }));
  const options = {
    width: Math.max(box.clientWidth, 120), height: HEIGHT, legend: { show: false }, cursor: { drag: { x: false, y: false } },
    scales: { x: { time: false }, ...(SHARES.has(measure) ? { y: { range: [0, 1] } } : { y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.08 : 1] } }) },
    axes: [{ ...axis(), size: 34, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] }, { ...axis(), size: 52 }],
    series: [{}, ...series],
    hooks: { setCursor: [(plot) => {
      const at = nearest(plot);
      readout.textContent = at ? `step ${found.steps[at.idx]}: ${found.curves.length > 1 ? `${found.curves[at.line].name || "–"} ` : ""}${said(found.curves[at.line].values[measure][at.idx])}` : "";
    }] },
  };
  const plot = new uPlot(options, [found.steps, ...found.curves.map((curve) => curve.values[measure])], box);
  plot.over.addEventListener("click", () => {
    const at = nearest(plot);
    if (at) go(...link(at.idx, at.line));
  });
  plots.push(plot);
  return plot;
}

function chart(uPlot, measure, found, meaning, link) {
  const readout = make("span", { className: "soft readout" });
  const box = make("div", { className: "plot", role: "img", ariaLabel: `${measure} by step; the values are in the table below` });
  let plot = null;
  if (uPlot) {
    // The box has no width before it is shown.
    new ResizeObserver(() => {
      if (!box.clientWidth) return;
      plot ? plot.setSize({ width: box.clientWidth, height: HEIGHT }) : (plot = drawn(uPlot, box, measure, found, readout, link));
    }).observe(box);
  }
  const heads = ["step", ...found.curves.map(({ name }) => name || "–")].map((textContent) => make("th", { className: "num", scope: "col", textContent }));
  const details = make("details", { open: !uPlot }, make("summary", { textContent: "Values" }));
  const fill = () => {
    if (!details.open || details.childElementCount > 1) return;
    const rows = found.steps.map((step, at) => make("tr", {}, make("td", { className: "num", textContent: step }), ...found.curves.map((curve, line) => {
      const value = curve.values[measure][at];
      return make("td", { className: "num" }, value === null ? null : make("a", { href: address(...link(at, line)), textContent: said(value) }));
    })));
    details.append(make("div", { className: "scroll values" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows))));
  };
  details.addEventListener("toggle", fill);
  fill();
  return make("section", { className: "chart", dataset: { measure } }, make("h2", { textContent: measure, title: meaning }), make("p", { className: "soft", textContent: meaning }), box, readout, details);
}

export async function showCurves(main, query) {
  sweep();
  const run = chosenRun(query);
  const split = query.get("split") ?? "";
  const { chosen, box } = phase(run, query);
  const [{ curves: found, meanings }, plotting] = await Promise.all([
    ask(runUrl(run, `curves?${new URLSearchParams({ split, validation: chosen })}`)), import("./plotting/uPlot.esm.js").catch(() => null),
  ]);
  const link = (at, line) => {
    const values = { run: run.key, step: found.steps[at], validation: chosen, ...(split ? { [split]: found.curves[line].name } : {}) };
    return ["/", new URLSearchParams(Object.entries(values).filter(([, value]) => value !== ""))];
  };
  const legend = make("div", { className: "legend" }, ...found.curves.map(({ name }, at) => {
    const swatch = make("span", { className: "swatch line" });
    swatch.style.background = `var(--curve-${at + 1})`;
    return make("span", {}, swatch, name || "–");
  }));
  const told = [
    found.left_out ? `The ${found.left_out} rarest lines are left out.` : "",
    found.unnumbered ? `${found.unnumbered.toLocaleString("en")} episodes belong to no step.` : "",
    plotting ? "" : "The charts need uPlot, which this installation lacks: npm ci --prefix viewer brings it.",
  ].filter(Boolean).join(" ");
  const measures = found.curves.length ? Object.keys(meanings).filter((measure) => found.curves.some((curve) => curve.values[measure].some((value) => value !== null))) : [];
  main.replaceChildren(make("h1", { textContent: "Curves" }),
    make("div", { className: "filters" }, choice("split", "a line for", SPLITS, split), box), split ? legend : "",
    make("p", { className: "soft", textContent: told }),
    measures.length ? make("div", { className: "charts" }, ...measures.map((measure) => chart(plotting?.default, measure, found, meanings[measure], link)))
      : make("p", { textContent: "No episode here belongs to a step of training." }));
}

function repaint() {
  sweep();
  plots.forEach((plot) => plot.redraw());
}

addEventListener("hashchange", () => setTimeout(sweep, 1000));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
new MutationObserver(repaint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
