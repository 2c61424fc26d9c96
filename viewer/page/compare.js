// Two runs, item by item.

import { address, ask, changed, go, make, number } from "./dom.js";
import { episodeBox } from "./episode.js";
import { chosenRun, runs, runUrl } from "./runs.js";
import { linkedRow, PAGE, pager, pill } from "./table.js";

// The two runs that the address names, or those that are open.
function sides(query) {
  return ["left_run", "right_run"].map((name, at) => chosenRun(new URLSearchParams({ run: query.get(name) ?? runs[at]?.key ?? "" })));
}

function side(row) {
  if (row === null) return [make("td", { className: "soft", textContent: "not there", colSpan: 3 })];
  return [
    make("td", { className: "text", textContent: row.answer, title: row.answer }), make("td", { className: "end wide" }, pill(row.stop_reason)),
    make("td", { className: "num", textContent: number(row.score ?? row.reward) }),
  ];
}

export async function showComparison(main, query) {
  const offset = Number(query.get("offset") || 0);
  const [left_run, right_run] = sides(query).map((run) => run.key);
  const found = await ask(`api/compare?${new URLSearchParams({ left_run, right_run, limit: PAGE, offset, differ: Boolean(query.get("differ")) })}`);
  const only = make("input", { type: "checkbox", checked: Boolean(query.get("differ")) });
  only.addEventListener("change", () => go("/compare", changed(query, { differ: only.checked ? "1" : "", offset: "" })));
  const body = make("tbody");
  for (const { item_id, left, right } of found.rows) {
    const gold = (left ?? right).gold;
    const href = address("/pair", changed(query, { left: left?.episode_id ?? "", right: right?.episode_id ?? "" }));
    body.append(linkedRow(href, item_id, make("td", { className: "text", textContent: gold, title: gold }), ...side(left), ...side(right)));
  }
  const heads = [["item", 1], ["gold", 1], [left_run, 3], [right_run, 3]];
  const head = make("tr", {}, ...heads.map(([textContent, colSpan]) => make("th", { textContent, colSpan, scope: colSpan > 1 ? "colgroup" : "col" })));
  main.replaceChildren(
    make("form", { className: "filters" }, make("label", { className: "check" }, only, "only where they differ")),
    pager(found.total, offset, (to) => address("/compare", changed(query, { offset: to }))),
    make("div", { className: "scroll" }, make("table", {}, make("thead", {}, head), body)),
  );
}

export async function showPair(main, query) {
  const columns = make("div", { className: "columns" });
  const [left, right] = sides(query);
  for (const [run, id] of [[left, query.get("left")], [right, query.get("right")]]) {
    const content = id ? episodeBox(await ask(runUrl(run, `episode?episode=${encodeURIComponent(id)}`)), run)
      : make("p", { className: "soft", textContent: "This run has no episode of the item." });
    columns.append(make("section", { ariaLabel: run.key }, make("div", { className: "soft", textContent: run.title }), content));
  }
  const back = address("/compare", changed(query, { left: "", right: "" }));
  main.replaceChildren(make("div", { className: "pager" }, make("a", { href: back, textContent: "all items" })), columns);
}
