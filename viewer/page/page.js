// Shows what the address asks for: #/ the list, #/episode/ID one episode, #/groups, #/curves, #/failures and #/search a whole run,
// #/runs those of a folder, #/compare two runs, #/pair one item of both. The query names the run and the filters, also where one
// episode is shown: previous and next are then those of the list.

import { showComparison, showPair } from "./compare.js";
import { showCurves } from "./curves.js";
import { make, place } from "./dom.js";
import { showEpisode } from "./episode.js";
import { showFailures } from "./failures.js";
import { showGroup, showGroups } from "./groups.js";
import { showList } from "./list.js";
import { follow } from "./live.js";
import { showPicker } from "./picker.js";
import { isFolder, navigation, refreshRuns, sections } from "./runs.js";
import { showSearch } from "./search.js";
import { watchTheme } from "./theme.js";

// By the first word of the path: what fills the page. It is given the element, the query, and what stands behind the word.
const VIEWS = {
  "": showList, episode: showEpisode, compare: showComparison, pair: showPair, groups: showGroups, group: showGroup, curves: showCurves,
  failures: showFailures, search: showSearch, runs: showPicker,
};
const LIVE = new Set(["", "groups", "curves", "failures", "search", "runs"]);

const main = document.getElementById("main");
let shown = 0;

async function show() {
  const { path, query } = place();
  const [, word, rest] = path.match(/^\/([^/]*)\/?(.*)$/) ?? [];
  const turn = ++shown;
  const box = make("div");
  try {
    await refreshRuns(query);
    if (!word && isFolder() && !query.has("run")) return location.replace("#/runs");
    await (VIEWS[word] ?? showList)(box, query, decodeURIComponent(rest ?? ""));
  } catch (error) {
    box.replaceChildren(make("p", { className: "problem", role: "alert", textContent: `This could not be shown: ${error.message}` }));
  }
  if (turn !== shown) return; // another address was asked for in the meantime
  document.getElementById("runs").replaceChildren(...navigation(word, query));
  document.getElementById("sections").replaceChildren(...sections(word, query));
  main.replaceChildren(box);
  document.body.dataset.ready = location.hash || "#/";
}

watchTheme(document.getElementById("theme"));
addEventListener("hashchange", show);
show();
follow(main, show, LIVE);
