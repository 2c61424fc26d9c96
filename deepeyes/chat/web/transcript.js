// Shows what happens in an episode. Everything that a model, a tool or a record says goes into the page as text, never as markup.

import { say } from "./words.js";

export function make(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  if (dataset) Object.assign(element.dataset, dataset);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export async function ask(url, options) {
  const response = await fetch(url, options);
  if (response.ok) return response.json();
  const said = await response.json().catch(() => ({}));
  const detail = typeof said.detail === "string" ? said.detail : say("the server answered {0}", response.status);
  throw Object.assign(new Error(detail), { status: response.status });
}

const SECTIONS = { think: "thought", code: "code", tool_call: "call", answer: "answer" };

// A reply, or the beginning of one, in the parts that a reader tells apart: [kind, text] each. Inside an element nothing but its
// own end counts.
export function split(text) {
  const parts = [];
  let kind = "text";
  let from = 0;
  for (const found of text.matchAll(/<(\/?)(think|code|tool_call|answer)>/g)) {
    const [tag, ends, name] = found;
    const section = SECTIONS[name];
    if (kind !== "text" && !(ends && section === kind)) continue;
    const before = text.slice(from, found.index);
    if (ends && kind === "text" && section === "thought") parts.push(["thought", before]); // it began inside thinking
    else parts.push([kind, before]);
    kind = ends ? "text" : section;
    from = found.index + tag.length;
  }
  parts.push([kind, text.slice(from).replace(/<\/?[a-z_]{0,9}$/, "")]); // a tag that is still being written
  return parts.map(([name, part]) => [name, name === "code" || name === "text" ? unfenced(part) : part.trim()]).filter(([, part]) => part);
}

function unfenced(text) {
  return text.replace(/^\s*`{1,3}[a-z]*[^\S\n]*$/gm, "").replace(/^\s*\n|\s+$/g, ""); // fences, also half written ones
}

export function copyButton(text, name = "Copy") {
  const button = make("button", { type: "button", className: "quiet", textContent: say(name) });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = say("Copied");
    } catch {
      button.textContent = say("The browser refused");
    }
    setTimeout(() => { button.textContent = say(name); }, 1500);
  });
  return button;
}

function block(title, text, spans) {
  const code = make("code");
  if (spans) for (const [kind, word] of spans) code.append(kind ? make("span", { className: kind, textContent: word }) : word);
  else code.textContent = text;
  const bar = make("div", { className: "bar" }, make("span", { textContent: say(title) }), copyButton(text));
  return make("div", { className: "block" }, bar, make("pre", {}, code));
}

function pieceBoxes(piece) {
  if (piece.kind === "thought") return split(piece.text).map(([, text]) => make("div", { className: "thought", textContent: text }));
  if (piece.kind === "code") return [block("Python", piece.text, piece.spans)];
  if (piece.kind === "call") return [block("Tool call", piece.text)];
  if (piece.kind === "answer") return [make("div", { className: "answer", textContent: piece.text })];
  return split(piece.text).map(([kind, text]) => partBox(kind, text));
}

function partBox(kind, text) {
  if (kind === "code") return block("Python", text);
  if (kind === "call") return block("Tool call", text);
  return make("div", { className: kind === "text" ? "body" : kind, textContent: text });
}

function zoom(part) {
  const dialog = document.getElementById("zoom");
  const url = `api/images/${part.image}`;
  Object.assign(document.getElementById("zoom-image"), { src: url, width: part.width, height: part.height });
  document.getElementById("zoom-size").textContent = `${part.width} × ${part.height} px`;
  document.getElementById("zoom-open").href = url;
  dialog.showModal();
}

function figure(part) {
  const image = make("img", { src: `api/images/${part.image}`, alt: say("image, {0} by {1} pixels", part.width, part.height), width: part.width, height: part.height, loading: "lazy" });
  const button = make("button", { type: "button", className: "figure", title: say("Show at full size"), onclick: () => zoom(part) }, image);
  image.addEventListener("error", () => {
    button.replaceWith(make("div", { className: "figure lost", textContent: say("An image that cannot be shown.") }));
  });
  return button;
}

function partsOf(parts, textBox) {
  const boxes = [];
  let figures = null;
  for (const part of parts) {
    if (part.image) {
      if (!figures) boxes.push((figures = make("div", { className: "figures" })));
      figures.append(figure(part));
    } else {
      figures = null;
      boxes.push(textBox(part.text));
    }
  }
  return boxes;
}

const plain = (text) => make("div", { className: "body", textContent: text.trim() });

// What code printed, without the frame in which the model reads it.
function outputBoxes(text) {
  const found = text.match(/^Code execution result:\nstdout:\n```\n([^]*?)\n```\n\nstderr:\n```\n([^]*?)\n```\s*(?:Images:)?\s*$/);
  if (!found) return [block("Result", text.trim())];
  const boxes = [];
  if (found[1].trim()) boxes.push(block("Output", found[1]));
  if (found[2].trim()) boxes.push(block("Error", found[2]));
  return boxes;
}

function seconds(value) {
  return say("{0} s", value < 10 ? value.toFixed(1) : Math.round(value));
}

export const STOPS = {
  answered: "answered", no_action: "neither an answer nor a call", max_turns: "no turns left", length: "cut at its token limit",
  context_full: "the context is full", token_budget: "no tokens left", deadline: "no time left for its programs", failed: "failed",
};

export class Transcript {
  // `shows` is called after each change, with the element that changed.
  constructor(box, shows = () => {}) {
    this.box = box;
    this.shows = shows;
    this.clear();
  }

  clear() {
    this.box.replaceChildren();
    this.live = null;
    this.working = null;
  }

  add(row) {
    this.wait(null);
    const handlers = { question: "question", text: "text", reply: "reply", observation: "observation", end: "end", problem: "problem" };
    if (handlers[row.kind]) this[handlers[row.kind]](row);
  }

  put(element) {
    element.classList.add("now");
    this.box.append(element);
    this.shows(element);
    return element;
  }

  wait(text) {
    this.working?.remove();
    this.working = text === null ? null : make("div", { className: "working", textContent: text });
    if (this.working) this.put(this.working);
  }

  question(row) {
    this.live = null;
    if (row.system && !this.box.querySelector(".system")) {
      this.put(make("details", { className: "system" }, make("summary", { textContent: say("System prompt") }), make("div", { className: "body soft", textContent: row.system })));
    }
    for (const message of row.past ?? []) this.past(message);
    this.put(make("article", { className: "asked" }, ...partsOf(row.parts, plain)));
    this.wait(say("The model reads"));
  }

  past(message) {
    if (message.pieces) this.put(make("article", { className: "turn past" }, ...message.pieces.flatMap(pieceBoxes)));
    else this.put(make("article", { className: "asked past" }, ...partsOf(message.parts, plain)));
  }

  text(row) {
    if (!this.live) this.live = { text: "", box: this.put(make("article", { className: "turn live" })), drawn: 0 };
    this.live.text += row.text;
    if (this.live.drawn) return;
    const live = this.live;
    live.drawn = requestAnimationFrame(() => this.draw(live));
    if (document.hidden) this.draw(live); // no frames are drawn for a page that nobody sees
  }

  draw(live) {
    live.drawn = 0;
    if (live !== this.live) return;
    live.box.replaceChildren(...split(live.text).map(([kind, text]) => partBox(kind, text)));
    this.shows(live.box);
  }

  reply(row) {
    const boxes = row.pieces.flatMap(pieceBoxes);
    const facts = [say("{0} tokens", row.tokens.toLocaleString("en")), seconds(row.seconds)];
    if (row.finish === "length") facts.push(say("cut at its token limit"));
    const written = make("details", { className: "written" }, make("summary", { textContent: say("Turn {0}, {1}: as written", row.number, facts.join(", ")) }), block("Reply", row.written));
    const box = make("article", { className: "turn" }, ...boxes, written);
    if (this.live) this.live.box.replaceWith(box);
    else this.box.append(box);
    this.live = null;
    this.shows(box);
    if (row.action.tool) this.wait(say("Running {0}", row.action.tool));
  }

  observation(row) {
    const who = make("div", { className: "who" }, make("b", { textContent: row.tool || say("Refused") }), make("span", { textContent: seconds(row.seconds) }));
    if (row.error) who.append(make("span", { className: "error", textContent: row.error }));
    const boxes = row.parts.flatMap((part) => (part.text === undefined ? [part] : outputBoxes(part.text)));
    const content = [];
    let figures = null;
    for (const part of boxes) {
      if (part instanceof Element) {
        content.push(part);
        figures = null;
        continue;
      }
      if (!figures) content.push((figures = make("div", { className: "figures" })));
      figures.append(figure(part));
    }
    this.put(make("article", { className: `observation${row.error ? " wrong" : ""}` }, who, ...content));
    this.wait(say("The model reads"));
  }

  end(row) {
    this.live?.box.classList.remove("live");
    this.live = null;
    const end = row.failure.startsWith("Stopped") ? "stopped" : (STOPS[row.stop_reason] ?? row.stop_reason);
    const facts = [say(end), say("{0} turns", row.turns), say("{0} tokens", row.tokens.toLocaleString("en")), seconds(row.seconds)];
    const box = make("article", { className: "end" });
    if (row.failure) box.append(make("div", { className: "failure", textContent: row.failure }));
    if (row.problem) box.append(make("div", { className: "failure", textContent: row.problem }));
    box.append(make("span", { textContent: facts.join(" · ") }), make("span", { className: "gap" }));
    if (row.answer !== null) box.append(copyButton(row.answer, "Copy answer"));
    if (row.episode) box.append(make("a", { className: "button", href: row.download ?? `api/episodes/${encodeURIComponent(row.episode)}/download`, textContent: say("Download") }));
    if (row.recorded) {
      const title = say("recorded in {0}", row.recorded);
      const href = `view/#/episode/${encodeURIComponent(row.episode)}`;
      box.append(make("a", { className: "button", href, target: "_blank", rel: "noopener", textContent: say("Viewer ↗"), title }));
    }
    this.put(box);
  }

  problem(row) {
    this.put(make("div", { className: "problem", textContent: row.text }));
  }
}
