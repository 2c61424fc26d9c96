// Why episodes went wrong: reasons with their counts, each a link to its episodes.

import { phase } from "./choices.js";
import { address, ask, make, number } from "./dom.js";
import { chosenRun, runUrl } from "./runs.js";
import { progress } from "./search.js";

const KINDS = [
  ["outage", "Outages of ours", "These episodes are not scored."],
  ["end", "Ends without an answer", "A limit, or a reply without an action; they are scored."],
  ["tool", "Errors of calls", "The model was told of them and went on."],
];

function steps({ first_step: first, last_step: last }) {
  return first === null ? "" : first === last ? String(first) : `${first} to ${last}`;
}

function table(clusters, run, chosen, most) {
  const rows = clusters.map((one) => {
    const kept = new URLSearchParams({ run: run.key, reason: `${one.kind}:${one.reason}` });
    if (chosen) kept.set("validation", chosen);
    const bar = make("span", { className: "bar-of-count", ariaHidden: "true" });
    bar.style.setProperty("--share", one.episodes / most);
    const example = make("a", { href: address(`/episode/${encodeURIComponent(one.example)}`, kept), textContent: "newest" });
    return make("tr", {}, make("td", { className: "reason" }, make("a", { href: address("/", kept), textContent: one.reason }), bar),
      make("td", { className: "num", textContent: number(one.episodes) }), make("td", { className: "num", textContent: steps(one) }), make("td", {}, example));
  });
  const heads = [["reason", ""], ["episodes", "num"], ["steps", "num"], ["", ""]].map(([textContent, className]) => make("th", { textContent, className, scope: "col" }));
  return make("div", { className: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows)));
}

export async function showFailures(main, query) {
  const run = chosenRun(query);
  const { chosen, box } = phase(run, query);
  const found = await ask(runUrl(run, `failures?${new URLSearchParams({ validation: chosen })}`));
  const most = Math.max(1, ...found.map((one) => one.episodes));
  const sections = KINDS.map(([kind, title, meaning]) => [title, meaning, found.filter((one) => one.kind === kind)]).filter(([, , some]) => some.length);
  main.replaceChildren(make("h1", { textContent: "Failures" }), make("div", { className: "filters" }, box), await progress(run),
    ...sections.flatMap(([title, meaning, some]) => [make("h2", { textContent: title }), make("p", { className: "soft", textContent: meaning }), table(some, run, chosen, most)]),
    sections.length ? "" : make("p", { textContent: "Nothing has gone wrong in what was read." }));
}
