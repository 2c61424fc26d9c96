// The list of a run's episodes: filters, sorting, pages.

import { address, ask, changed, go, make } from "./dom.js";
import { chosenRun, runUrl } from "./runs.js";
import { cell, linkedRow, PAGE, pager, sortedHead } from "./table.js";

const FILTERS = ["step", "source", "category", "stop_reason", "tool"];
const COLUMNS = [
  ["item_id", "item", "text"], ["sample", "sample", "num wide"], ["step", "step", "num wide"], ["category", "category", "text wide"],
  ["stop_reason", "stop", "end"], ["reward", "reward", "num"], ["score", "score", "num"], ["answer", "answer", "text"],
  ["gold", "gold", "text"], ["turns", "turns", "num wide"], ["tool_calls", "calls", "num wide"], ["tool_errors", "errors", "num wide"],
  ["tokens", "tokens", "num wide"], ["wall_s", "seconds", "num wide"],
];

function filterForm(run, query) {
  const form = make("form", { className: "filters" });
  for (const name of FILTERS) {
    const choices = run.facets[name].map(([value, count]) => [String(value ?? ""), `${value ?? "–"} (${count.toLocaleString("en")})`]);
    if (name === "tool") choices.push(["none", "no call"]);
    if (choices.length < 2) continue;
    const select = make("select", { name }, make("option", { value: "", textContent: "all" }));
    for (const [value, text] of choices) if (value !== "") select.append(make("option", { value, textContent: text }));
    select.value = query.get(name) || "";
    form.append(make("label", {}, name.replace("_", " "), select));
  }
  for (const [name, text] of [["min_reward", "reward from"], ["max_reward", "to"]]) {
    form.append(make("label", {}, text, make("input", { name, type: "number", step: "any", value: query.get(name) || "" })));
  }
  for (const [name, text] of [["text", "item, answer or gold holds"], ["find", "conversation holds"]]) {
    form.append(make("label", {}, text, make("input", { name, type: "search", value: query.get(name) || "" })));
  }
  // What came by a link from elsewhere has no field here; it is shown, and can be taken away.
  for (const [name, text] of [["reason", "failed by"], ["group", "group"], ["validation", "validation"]]) {
    if (!query.get(name)) continue;
    const without = make("a", { className: "button", href: address("/", changed(query, { [name]: "", offset: "" })), textContent: `${text}: ${query.get(name)} ✕` });
    without.ariaLabel = `no longer only ${text} ${query.get(name)}`;
    form.append(without);
  }
  const apply = (event) => {
    event.preventDefault();
    go("/", changed(query, { ...Object.fromEntries(new FormData(form)), offset: "" }));
  };
  form.addEventListener("submit", apply);
  form.addEventListener("change", apply);
  return form;
}

function accuracyOf(found) {
  if (found.accuracy === null) return null;
  const text = `accuracy ${(100 * found.accuracy).toFixed(1)} % over ${found.items.toLocaleString("en")} items`;
  return make("span", { id: "accuracy", className: "soft", textContent: text, title: "mean over the items of the mean score of each one's episodes" });
}

export async function showList(main, query) {
  const run = chosenRun(query);
  const offset = Number(query.get("offset") || 0);
  const found = await ask(runUrl(run, `episodes?${changed(query, { run: "", limit: PAGE })}`));
  const body = make("tbody");
  const kept = changed(query, { run: run.key, offset: "" });
  for (const row of found.rows) {
    const href = address(`/episode/${encodeURIComponent(row.episode_id)}`, kept);
    body.append(linkedRow(href, row.item_id, ...COLUMNS.slice(1).map((column) => cell(row, column))));
  }
  const table = make("table", { className: "episodes" }, make("thead", {}, make("tr", {}, ...COLUMNS.map((column) => sortedHead("/", query, column)))), body);
  main.replaceChildren(
    filterForm(run, query), pager(found.total, offset, (to) => address("/", changed(query, { offset: to })), accuracyOf(found)),
    make("div", { className: "scroll" }, table),
  );
}
