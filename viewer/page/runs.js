// The open runs, as the server last told them.

import { address, ask, make } from "./dom.js";

export let runs = [];

export async function refreshRuns() {
  runs = await ask("api/runs");
}

// The run that an address names; the first one if it names none.
export function chosenRun(query) {
  const key = query.get("run");
  const found = key === null ? runs[0] : runs.find((run) => run.key === key);
  if (!found) throw new Error(`no run ${key} is open here; there are ${runs.map((run) => run.key).join(", ")}`);
  return found;
}

export function runUrl(run, rest) {
  return `api/runs/${encodeURIComponent(run.key)}/${rest}`;
}

// The links to what can be looked at; that to the place where we are stands out.
export function navigation(word, query) {
  const here = word === "" ? (query.get("run") ?? runs[0]?.key) : null;
  const links = runs.map((run) => {
    const unreadable = run.unreadable ? `, ${run.unreadable.toLocaleString("en")} unreadable` : "";
    const text = `${run.key} (${run.episodes.toLocaleString("en")}${unreadable})`;
    return link(address("/", new URLSearchParams({ run: run.key })), text, run.key === here, run.title);
  });
  if (runs.length === 2) links.push(link("#/compare", "side by side", word === "compare", ""));
  return links;
}

function link(href, textContent, isHere, title) {
  const made = make("a", { href, textContent, title });
  if (isHere) made.ariaCurrent = "page";
  return made;
}
