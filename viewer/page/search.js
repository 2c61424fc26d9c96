// Words in conversations.

import { address, ask, changed, go, make, number } from "./dom.js";
import { chosenRun, runUrl } from "./runs.js";
import { PAGE, pager, pill } from "./table.js";

// How far the conversations have been read; they are read while the page is looked at.
export async function progress(run) {
  const { episodes, words } = await ask(runUrl(run, "state"));
  const text = words < episodes ? `${words.toLocaleString("en")} of ${episodes.toLocaleString("en")} conversations have been read so far.` : "";
  return make("p", { id: "progress", className: "soft", role: "status", textContent: text });
}

function hitBox({ episode, snippet }, kept) {
  const href = address(`/episode/${encodeURIComponent(episode.episode_id)}`, kept);
  const facts = [episode.step === null ? "" : `step ${episode.step}`, episode.reward === null ? "" : `reward ${number(episode.reward)}`].filter(Boolean).join(", ");
  const where = snippet?.turn ? `turn ${snippet.turn}: ` : "question: ";
  const text = snippet ? make("p", { className: "snippet" }, make("span", { className: "soft", textContent: where }), snippet.before, make("mark", { textContent: snippet.found }), snippet.after) : null;
  return make("li", {}, make("div", { className: "who" }, make("a", { href, textContent: episode.item_id }), pill(episode.stop_reason), make("span", { textContent: facts })), text);
}

export async function showSearch(main, query) {
  const run = chosenRun(query);
  const offset = Number(query.get("offset") || 0);
  const input = make("input", { name: "find", type: "search", value: query.get("find") ?? "", placeholder: "words, or \"a phrase\"", ariaLabel: "Words in conversations" });
  const form = make("form", { className: "filters", role: "search" }, input, make("button", { textContent: "search" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go("/search", changed(query, { find: input.value, offset: "" }));
  });
  main.replaceChildren(make("h1", { textContent: "Words in conversations" }), form);
  if (!query.get("find")) {
    main.append(make("p", { className: "soft", textContent: "All words must be in an episode's question, replies or observations; what stands between double quotes, as it stands." }));
    return;
  }
  const found = await ask(runUrl(run, `search?${changed(query, { run: "", limit: PAGE })}`));
  const kept = changed(query, { offset: "", run: run.key });
  const list = make("a", { href: address("/", kept), textContent: "as a list with filters" });
  main.append(await progress(run), pager(found.total, offset, (to) => address("/search", changed(query, { offset: to })), list),
    make("ul", { className: "hits" }, ...found.hits.map((hit) => hitBox(hit, kept))));
}
