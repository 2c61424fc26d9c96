"use strict";
// The address holds all state: #/?run=0&step=3, #/episode/0/17, #/compare?differ=1. So a view can be sent to a colleague.

const main = document.getElementById("main");
const FILTERS = ["step", "category", "stop_reason", "tool"];
const COLUMNS = [
  ["id", "#", "num"], ["item_id", "item", "text"], ["sample", "sample", "num"], ["step", "step", "num"], ["category", "category", "text"], ["stop_reason", "stop", "pill"],
  ["reward", "reward", "num"], ["score", "score", "num"], ["answer", "answer", "text"], ["gold", "gold", "text"],
  ["turns", "turns", "num"], ["tool_calls", "calls", "num"], ["tool_errors", "errors", "num"], ["tokens", "tokens", "num"],
  ["wall_s", "seconds", "num"],
];
const PAGE = 100;
let runs = [];

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

async function ask(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error((await response.json().catch(() => ({}))).detail || `HTTP ${response.status}`);
  return response.json();
}

function place() {
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  return { path: path || "/", query: new URLSearchParams(query || "") };
}

function go(path, query) {
  const text = query.toString();
  location.hash = path + (text ? `?${text}` : "");
}

function number(value, digits = 2) {
  if (value === null || value === undefined) return "";
  return Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(digits);
}

function cell(row, [name, , kind]) {
  const value = row[name];
  if (kind === "num") return make("td", { className: "num", textContent: number(value) });
  if (kind === "pill") return make("td", {}, make("span", { className: `pill ${value}`, textContent: value }));
  return make("td", { className: "text", textContent: value ?? "", title: value ?? "" });
}

// ---- the list ----

function filterForm(run, query) {
  const form = make("form");
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
  form.append(make("label", {}, "item, answer or gold holds", make("input", { name: "text", type: "search", value: query.get("text") || "" })));
  const apply = (event) => {
    event.preventDefault();
    for (const [name, value] of new FormData(form)) value === "" ? query.delete(name) : query.set(name, value);
    query.delete("offset");
    go("/", query);
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

function pager(total, offset, move, ...more) {
  const last = Math.min(offset + PAGE, total);
  const back = make("button", { textContent: "‹ previous", disabled: offset === 0, onclick: () => move(Math.max(0, offset - PAGE)) });
  const on = make("button", { textContent: "next ›", disabled: last >= total, onclick: () => move(offset + PAGE) });
  const where = total ? `${(offset + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ${total.toLocaleString("en")}` : "none";
  return make("div", { className: "pager" }, back, on, make("span", { id: "total", className: "soft", textContent: where }), ...more);
}

async function showList(query) {
  const which = Number(query.get("run") || 0);
  const run = runs[which];
  const offset = Number(query.get("offset") || 0);
  const asked = new URLSearchParams(query);
  asked.delete("run");
  asked.set("limit", PAGE);
  const found = await ask(`api/runs/${which}/episodes?${asked}`);
  const heads = COLUMNS.map(([name, text, kind]) => {
    const sorted = query.get("sort") === name ? (query.get("descending") ? " ↓" : " ↑") : "";
    return make("th", { className: kind === "num" ? "num" : "", textContent: text + sorted, onclick: () => {
      const down = query.get("sort") === name && !query.get("descending");
      query.set("sort", name);
      down ? query.set("descending", "1") : query.delete("descending");
      query.delete("offset");
      go("/", query);
    } });
  });
  const body = make("tbody");
  for (const row of found.rows) {
    body.append(make("tr", { onclick: () => go(`/episode/${which}/${row.id}`, new URLSearchParams()) }, ...COLUMNS.map((column) => cell(row, column))));
  }
  const move = (to) => { query.set("offset", to); go("/", query); };
  main.replaceChildren(
    filterForm(run, query), pager(found.total, offset, move, accuracyOf(found)),
    make("div", { className: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body)),
  );
}

// ---- one episode ----

function parts(message, run) {
  return message.parts.map((part) => part.text !== undefined
    ? make("div", { className: "body", textContent: part.text.trim() })
    : make("img", { src: `images/${run}/${part.image}`, loading: "lazy", alt: "image", title: "click to enlarge",
        onclick: (event) => event.target.classList.toggle("large") }));
}

function messageBox(kind, title, detail, ...content) {
  const who = make("div", { className: "who" }, make("span", { textContent: title }), make("span", { textContent: detail || "" }));
  return make("section", { className: `message ${kind}` }, who, ...content);
}

function turnBoxes(turn, index, run) {
  const seconds = turn.seconds;
  const waited = seconds.waited_s > 0.01 ? `, ${seconds.waited_s.toFixed(2)} s waiting` : "";
  const detail = `${turn.tokens} tokens, ${seconds.reply_s.toFixed(2)} s at ${seconds.at_s.toFixed(1)} s${waited}`;
  const written = turn.pieces.map((piece) => {
    const box = make(piece.kind === "code" ? "pre" : "div", { className: piece.kind === "code" ? "code" : `body ${piece.kind}` });
    box.innerHTML = piece.html; // escaped by the server
    return box;
  });
  const boxes = [messageBox("assistant", `model, turn ${index + 1}`, detail, ...written)];
  if (turn.observation) {
    const failed = turn.tool_error ? " error" : "";
    const name = turn.action.tool || "refused";
    boxes.push(messageBox(`tool${failed}`, `${name}${turn.tool_error ? `: ${turn.tool_error}` : ""}`, `${seconds.tool_s.toFixed(2)} s`, ...parts(turn.observation, run)));
  }
  return boxes;
}

function tokenBox(tokens) {
  if (!tokens.length) return null;
  const box = make("div", { className: "tokens" });
  for (const [text, sampled, logprob, times] of tokens) {
    const span = make("span", { textContent: times > 1 ? `${text}×${times} ` : text });
    if (sampled) {
      // 0 is certain (white); -5 and below is a surprise (full colour)
      const surprise = Math.min(1, -logprob / 5);
      span.style.background = `rgba(36, 89, 196, ${(0.08 + 0.62 * surprise).toFixed(3)})`;
      span.title = `log-probability ${logprob}`;
    } else {
      span.className = "context";
      span.title = "not sampled: mask 0";
    }
    box.append(span);
  }
  const ramp = make("span", { className: "swatch" });
  ramp.style.background = "linear-gradient(90deg, rgba(36,89,196,.08), rgba(36,89,196,.7))";
  const legend = make("div", { className: "legend" }, make("span", {}, "sampled, certain", ramp, "surprising"), make("span", { textContent: "grey: not sampled (mask 0)" }));
  return make("details", { open: tokens.length < 4000 }, make("summary", { textContent: `Tokens (${tokens.length.toLocaleString("en")} entries)` }), legend, box);
}

function factsBox(values) {
  const box = make("div", { className: "facts" });
  for (const [name, value] of Object.entries(values)) {
    if (value === "" || value === null) continue;
    box.append(make("span", {}, `${name} `, make("b", { textContent: typeof value === "number" ? number(value, 3) : String(value) })));
  }
  return box;
}

function episodeBox(episode, run) {
  const box = make("div", { className: "episode" },
    make("h1", { textContent: episode.facts.item_id || episode.episode_id }),
    make("div", { className: "facts" }, make("span", { className: `pill ${episode.stop_reason}`, textContent: episode.stop_reason }),
      make("span", {}, "answer ", make("b", { textContent: episode.answer ?? "none" })), make("span", {}, `${number(episode.wall_s)} s`)),
    episode.failure ? make("p", { className: "problem", textContent: episode.failure }) : null,
    factsBox(episode.rewards), factsBox(episode.facts));
  for (const message of episode.opening) {
    const box_ = messageBox("", message.role, "", ...parts(message, run));
    box.append(message.role === "system" ? make("details", {}, make("summary", { textContent: "system prompt" }), box_) : box_);
  }
  episode.turns.forEach((turn, index) => box.append(...turnBoxes(turn, index, run)));
  const tokens = tokenBox(episode.tokens);
  if (tokens) box.append(make("h2", { textContent: "What was trained on" }), tokens);
  return box;
}

async function showEpisode(run, id) {
  const episode = await ask(`api/runs/${run}/episodes/${id}`);
  const step = (by) => make("a", { href: `#/episode/${run}/${id + by}`, textContent: by < 0 ? "‹ previous" : "next ›" });
  const links = make("div", { className: "pager" }, make("a", { href: `#/?run=${run}`, textContent: "all episodes" }), id > 1 ? step(-1) : null,
    id < runs[run].episodes ? step(1) : null);
  main.replaceChildren(links, make("div", { className: "one" }, episodeBox(episode, run)));
}

// ---- two runs ----

async function showComparison(query) {
  const offset = Number(query.get("offset") || 0);
  const found = await ask(`api/compare?limit=${PAGE}&offset=${offset}&differ=${query.get("differ") ? "true" : "false"}`);
  const box = make("input", { type: "checkbox", checked: Boolean(query.get("differ")), onchange: () => {
    query.get("differ") ? query.delete("differ") : query.set("differ", "1");
    query.delete("offset");
    go("/compare", query);
  } });
  const side = (row) => row === null ? [make("td", { className: "soft", textContent: "not there" }), make("td"), make("td")]
    : [cell(row, ["answer", "", "text"]), cell(row, ["stop_reason", "", "pill"]),
       make("td", { className: "num", textContent: number(row.score ?? row.reward) })];
  const body = make("tbody");
  for (const pair of found.rows) {
    const ids = `${pair.left ? pair.left.id : ""}-${pair.right ? pair.right.id : ""}`;
    body.append(make("tr", { onclick: () => go(`/pair/${ids}`, new URLSearchParams()) }, make("td", { className: "text", textContent: pair.item_id }), ...side(pair.left), ...side(pair.right)));
  }
  const head = make("tr", {}, ...["item", runs[0].name, "", "", runs[1].name, "", ""].map((text) => make("th", { textContent: text })));
  const move = (to) => { query.set("offset", to); go("/compare", query); };
  main.replaceChildren(make("form", {}, make("label", {}, "only where they differ", box)), pager(found.total, offset, move),
    make("div", { className: "scroll" }, make("table", {}, make("thead", {}, head), body)));
}

async function showPair(ids) {
  const columns = make("div", { className: "columns" });
  for (const [run, id] of ids.split("-").entries()) {
    const content = id === "" ? make("p", { className: "soft", textContent: "This run has no episode of the item." }) : episodeBox(await ask(`api/runs/${run}/episodes/${id}`), run);
    columns.append(make("div", {}, make("div", { className: "soft", textContent: runs[run].name }), content));
  }
  main.replaceChildren(make("div", { className: "pager" }, make("a", { href: "#/compare", textContent: "all items" })), columns);
}

async function show() {
  const { path, query } = place();
  try {
    runs = await ask("api/runs");
    const links = runs.map((run, index) => make("a", { href: `#/?run=${index}`, textContent: `${run.name} (${run.episodes.toLocaleString("en")}${run.unreadable ? `, ${run.unreadable.toLocaleString("en")} unreadable` : ""})`,
      className: path === "/" && Number(query.get("run") || 0) === index ? "on" : "" }));
    if (runs.length === 2) links.push(make("a", { href: "#/compare", textContent: "side by side", className: path === "/compare" ? "on" : "" }));
    document.getElementById("runs").replaceChildren(...links);
    const [, kind, ...rest] = path.split("/");
    if (kind === "episode") await showEpisode(Number(rest[0]), Number(rest[1]));
    else if (kind === "compare") await showComparison(query);
    else if (kind === "pair") await showPair(rest[0]);
    else await showList(query);
    document.body.dataset.ready = location.hash || "#/";
  } catch (error) {
    main.replaceChildren(make("p", { className: "problem", textContent: `This could not be shown: ${error.message}` }));
  }
}

window.addEventListener("hashchange", show);
show();
