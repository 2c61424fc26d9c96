// The open runs, as the server last told them.

import { address, ask, make } from "./dom.js";

export let runs = [];
const SECTIONS = [["", "episodes", "episode"], ["groups", "groups", "group"], ["curves", "curves"], ["failures", "failures"], ["search", "search"]];
const OF_A_RUN = new Set(SECTIONS.flatMap(([name, , within]) => [name, within]));

export async function refreshRuns(query) {
  runs = await ask(`api/runs?${new URLSearchParams({ run: query.get("run") ?? "" })}`);
}

// Whether they are those of a folder, of which only the one that is looked at is open.
export function isFolder() {
  return runs.some((run) => run.episodes === undefined);
}

// The run that an address names; the first one if it names none.
export function chosenRun(query) {
  const key = query.get("run");
  if (key === null && isFolder()) throw new Error("the address names no run; choose one");
  const found = key === null ? runs[0] : runs.find((run) => run.key === key);
  if (!found) throw new Error(`no run ${key} is open here; there are ${runs.map((run) => run.key).join(", ")}`);
  return found;
}

export function runUrl(run, rest) {
  return `api/runs/${encodeURIComponent(run.key)}/${rest}`;
}

// The links to what can be looked at; that to the place where we are stands out.
export function navigation(word, query) {
  const here = OF_A_RUN.has(word) ? (query.get("run") ?? runs[0]?.key) : null;
  const links = runs.filter((run) => !isFolder() || run.key === here).map((run) => {
    const more = [run.unread_bytes ? "reading on" : "", run.unreadable ? `${run.unreadable.toLocaleString("en")} unreadable` : ""].filter(Boolean);
    const text = `${run.key} (${[run.episodes.toLocaleString("en"), ...more].join(", ")})`;
    return link(address("/", new URLSearchParams({ run: run.key })), text, run.key === here, run.title);
  });
  if (isFolder()) links.unshift(link("#/runs", "all runs", word === "runs", ""));
  else if (runs.length === 2) links.push(link("#/compare", "side by side", word === "compare", ""));
  return links;
}

// The links to what a whole run can be looked at by.
export function sections(word, query) {
  if (!OF_A_RUN.has(word) || (isFolder() && !query.has("run"))) return [];
  const run = new URLSearchParams({ run: query.get("run") ?? runs[0].key });
  return SECTIONS.map(([name, text, within]) => link(address(`/${name}`, run), text, word === name || word === within, ""));
}

function link(href, textContent, isHere, title) {
  const made = make("a", { href, textContent, title });
  if (isHere) made.ariaCurrent = "page";
  return made;
}
