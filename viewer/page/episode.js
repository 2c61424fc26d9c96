// One episode, from the question to the tokens.

import { copyButton } from "./copy.js";
import { address, ask, changed, make, number } from "./dom.js";
import { figure } from "./images.js";
import { chosenRun, runUrl } from "./runs.js";
import { pill } from "./table.js";
import { tokenBox } from "./tokens.js";

const ACTED = { code: "this ran", call: "this was called", answer: "this was taken as the answer" };

function imageUrl(run, part) {
  return `images/${encodeURIComponent(run.key)}/${part.image}`;
}

function parts(message, run) {
  return message.parts.map((part) => part.text !== undefined ? make("div", { className: "body", textContent: part.text.trim() }) : figure(part, imageUrl(run, part)));
}

function messageBox(kind, title, facts, content, copied) {
  const who = make("div", { className: "who" }, make("b", { textContent: title }), make("span", { textContent: facts }), make("span", { className: "gap" }));
  if (copied) who.append(copyButton(copied));
  return make("section", { className: `message ${kind}` }, who, ...content);
}

function words(piece) {
  return piece.spans ? piece.spans.map(([kind, word]) => (kind ? make("span", { className: kind, textContent: word }) : word)) : [piece.text];
}

// What the model wrote, to the letter, with what was parsed out of it in a frame.
function pieceBox(piece, index, all) {
  // Below a frame a new line begins anyway.
  if (!ACTED[piece.kind]) return make("span", { className: piece.kind, textContent: ACTED[all[index - 1]?.kind] ? piece.text.replace(/^\n/, "") : piece.text });
  const bar = make("span", { className: "bar" }, make("span", { textContent: ACTED[piece.kind] }), copyButton(piece.text));
  return make("span", { className: `acted ${piece.kind}` }, bar, make("code", {}, ...words(piece)));
}

function turnFacts(turn) {
  const { reply_s, at_s, waited_s } = turn.seconds;
  const waited = waited_s > 0.01 ? `, ${waited_s.toFixed(2)} s waiting` : "";
  const cut = turn.finish === "length" ? ", cut at its token limit" : "";
  return `${turn.tokens.toLocaleString("en")} tokens, ${reply_s.toFixed(2)} s at ${at_s.toFixed(1)} s${waited}${cut}`;
}

function turnBoxes(turn, index, run) {
  const whole = turn.pieces.map((piece) => piece.text).join("");
  const written = [make("div", { className: "written" }, ...turn.pieces.map(pieceBox))];
  if (!whole) written.push(make("p", { className: "soft", textContent: "It wrote nothing." }));
  if (turn.action.malformed) written.push(make("p", { className: "problem", textContent: `No action: ${turn.action.malformed}` }));
  const boxes = [messageBox("assistant", `Model, turn ${index + 1}`, turnFacts(turn), written, whole)];
  if (turn.observation) {
    const title = `${turn.action.tool || "Refused"}${turn.tool_error ? `: ${turn.tool_error}` : ""}`;
    const text = turn.observation.parts.map((part) => part.text ?? "<image>").join("");
    boxes.push(messageBox(turn.tool_error ? "tool error" : "tool", title, `${turn.seconds.tool_s.toFixed(2)} s`, parts(turn.observation, run), text));
  }
  return boxes;
}

function factsBox(values) {
  const box = make("div", { className: "facts" });
  for (const [name, value] of Object.entries(values)) {
    if (value === "" || value === null) continue;
    box.append(make("span", {}, `${name.replace("_", " ")} `, make("b", { textContent: typeof value === "number" ? number(value, 3) : String(value) })));
  }
  return box;
}

export function episodeBox(episode, run) {
  const box = make("article", { className: "episode" },
    make("h1", { textContent: episode.facts.item_id || episode.episode_id }),
    make("div", { className: "facts" }, pill(episode.stop_reason),
      make("span", {}, "answer ", make("b", { textContent: episode.answer ?? "none" })), make("span", {}, `${number(episode.wall_s)} s`)),
    episode.failure ? make("p", { className: "problem", textContent: episode.failure }) : null,
    factsBox(episode.rewards), factsBox(episode.facts));
  for (const message of episode.opening) {
    const opened = messageBox("", message.role, "", parts(message, run), message.parts.map((part) => part.text ?? "<image>").join(""));
    box.append(message.role === "system" ? make("details", {}, make("summary", { textContent: "System prompt" }), opened) : opened);
  }
  episode.turns.forEach((turn, index) => box.append(...turnBoxes(turn, index, run)));
  const tokens = tokenBox(episode.tokens);
  if (tokens) box.append(make("h2", { textContent: "What was trained on" }), tokens);
  return box;
}

// The way through the list from here, within its filters and in its order.
function way(at, kept) {
  const step = (id, textContent, rel) => id === null ? make("span", { className: "button off", textContent })
    : make("a", { className: "button", rel, href: address(`/episode/${encodeURIComponent(id)}`, kept), textContent });
  const text = at.number ? `${at.number.toLocaleString("en")} of ${at.total.toLocaleString("en")}` : "not among those that the filters leave";
  return make("nav", { className: "pager", ariaLabel: "Episodes" }, make("a", { id: "back", href: address("/", kept), textContent: "all episodes" }),
    step(at.previous, "‹ previous", "prev"), step(at.next, "next ›", "next"), make("span", { id: "place", className: "soft", textContent: text }));
}

export async function showEpisode(main, query, id) {
  const run = chosenRun(query);
  const asked = changed(query, { run: "", episode: id });
  const [episode, at] = await Promise.all([ask(runUrl(run, `episode?episode=${encodeURIComponent(id)}`)), ask(runUrl(run, `place?${asked}`))]);
  main.replaceChildren(way(at, query), make("div", { className: "one" }, episodeBox(episode, run)));
}
