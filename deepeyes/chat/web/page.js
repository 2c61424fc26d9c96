// The address holds what is shown: #/ a new conversation, #/c/ID one under way, #/replay the records, #/replay/N?step=K one of them.

import { Player, showRecords } from "./replay.js";
import { ask, make, Transcript } from "./transcript.js";
import { say, translatePage } from "./words.js";

const at = (id) => document.getElementById(id);
const root = document.documentElement;
const composer = at("composer");
const question = at("question");
const chat = { id: null, source: null, busy: false, images: [], uploading: 0 };
let setup = null;

// ---- light and dark ----

function dark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

if (localStorage.getItem("theme")) root.dataset.theme = localStorage.getItem("theme");
at("theme").addEventListener("click", () => {
  root.dataset.theme = dark() ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
});

// ---- what happens ----

function atBottom() {
  return innerHeight + scrollY > document.body.scrollHeight - 160;
}

let follows = true;
addEventListener("scroll", () => { follows = atBottom(); }, { passive: true });
function follow() {
  if (follows) scrollTo(0, document.body.scrollHeight);
}
const transcript = new Transcript(at("transcript"), follow);
at("transcript").addEventListener("load", () => { if (chat.id) follow(); }, true); // an image has taken its room
const player = new Player(at("player"), at("transcript"));

function busy(value) {
  chat.busy = value;
  at("stop").hidden = !value;
  at("send").hidden = value;
  at("choices").disabled = chat.id !== null;
  at("locked").hidden = chat.id === null;
}

function notice(text = "") {
  at("notice").textContent = text;
}

function watch(id) {
  chat.source?.close();
  chat.id = id;
  transcript.clear();
  const source = new EventSource(`api/conversations/${id}/events`);
  chat.source = source;
  source.onmessage = (event) => {
    const row = JSON.parse(event.data);
    if (row.kind === "closed") {
      source.close();
      notice(say("The server has ended this conversation. What was said is recorded; begin another one."));
    }
    if (row.kind === "question") busy(true);
    if (row.kind === "idle" || row.kind === "closed") busy(false);
    if (row.kind !== "idle" && row.kind !== "closed") transcript.add(row);
  };
  source.onopen = () => { if (at("notice").dataset.lost) { delete at("notice").dataset.lost; notice(); } };
  source.onerror = () => {
    at("notice").dataset.lost = "yes";
    notice(say(source.readyState === EventSource.CLOSED ? "This conversation is not there any more. What was said is recorded; see Replay."
      : "The connection to the server is lost; trying again."));
  };
}

function leave() {
  chat.source?.close();
  Object.assign(chat, { id: null, source: null });
  transcript.clear();
}

// ---- asking ----

function chosen() {
  const form = new FormData(composer);
  const values = { model: form.get("model") || null, tools: form.getAll("tool"), limits: {} };
  if (form.get("temperature")) values.temperature = Number(form.get("temperature"));
  for (const name of Object.keys(setup.limits)) {
    if (form.get(name)) values.limits[name] = Number(form.get(name));
  }
  return values;
}

async function send() {
  const text = question.value.trim();
  if (!text || chat.busy) return;
  if (chat.uploading) return notice(say("An image is still on its way; ask again in a moment."));
  const images = chat.images.map((one) => one.image);
  const body = JSON.stringify({ text, images, conversation: chat.id, ...(chat.id ? {} : { chosen: chosen() }) });
  notice();
  follows = true;
  at("send").disabled = true;
  try {
    const { conversation } = await ask("api/questions", { method: "POST", body, headers: { "Content-Type": "application/json" } });
    question.value = "";
    grow();
    for (const one of chat.images) URL.revokeObjectURL(one.url);
    chat.images = [];
    drawPending();
    at("settings").open = false;
    if (conversation !== chat.id) {
      watch(conversation);
      history.pushState(null, "", `#/c/${conversation}`);
      at("empty").hidden = true;
    }
    busy(true);
  } catch (error) {
    notice(error.message);
  } finally {
    at("send").disabled = false;
  }
}

composer.addEventListener("submit", (event) => { event.preventDefault(); send(); });
question.addEventListener("keydown", (event) => {
  // Enter that ends the choice of a Chinese or Japanese word is none of ours.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
at("stop").addEventListener("click", async () => {
  try {
    await ask(`api/conversations/${chat.id}/stop`, { method: "POST", body: "{}", headers: { "Content-Type": "application/json" } });
    question.focus();
  } catch (error) {
    notice(error.message);
  }
});

function grow() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}
question.addEventListener("input", grow);

// ---- images ----

function drawPending() {
  at("pending").replaceChildren(...chat.images.map((one, index) => {
    const remove = make("button", { type: "button", textContent: "×", onclick: () => { chat.images.splice(index, 1); drawPending(); question.focus(); } });
    remove.setAttribute("aria-label", say("Remove image {0}", index + 1));
    return make("li", {}, make("img", { src: one.url, alt: say("image {0}", index + 1) }), remove);
  }));
}

async function upload(files) {
  notice();
  for (const file of files) {
    const most = setup?.most_upload_bytes ?? 20 << 20;
    if (file.size > most) {
      notice(say("{0} has {1} MiB; an image may have {2}.", file.name, (file.size / 2 ** 20).toFixed(0), most / 2 ** 20));
      continue;
    }
    chat.uploading += 1;
    try {
      const kept = await ask("api/images", { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
      chat.images.push({ ...kept, url: URL.createObjectURL(file) });
      drawPending();
    } catch (error) {
      notice(`${file.name}: ${error.message}`);
    } finally {
      chat.uploading -= 1;
    }
  }
  question.focus();
}

at("attach").addEventListener("click", () => at("files").click());
at("files").addEventListener("change", async (event) => { await upload([...event.target.files]); event.target.value = ""; });
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length && !composer.hidden) { event.preventDefault(); upload(files); }
});
const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files") && !composer.hidden;
document.addEventListener("dragover", (event) => { if (carriesFiles(event)) { event.preventDefault(); at("dropping").hidden = false; } });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) at("dropping").hidden = true; });
document.addEventListener("drop", (event) => {
  at("dropping").hidden = true;
  if (carriesFiles(event)) { event.preventDefault(); upload([...event.dataTransfer.files]); }
});

at("zoom-close").addEventListener("click", () => at("zoom").close());

// ---- settings ----

function offer() {
  at("model").replaceChildren(...setup.models.map((name) => make("option", { value: name, textContent: name })));
  at("tools").replaceChildren(...setup.tools.map((name) => make("label", {}, make("input", { type: "checkbox", name: "tool", value: name, checked: true }), name.replaceAll("_", " "))));
  const temperature = composer.elements.temperature;
  Object.assign(temperature, { max: setup.most_temperature, value: setup.temperature });
  for (const [name, most] of Object.entries(setup.limits)) {
    const input = composer.elements[name];
    input.value = most ?? "";
    if (most !== null) Object.assign(input, { max: most, title: say("at most {0}", most) });
  }
  at("problems").replaceChildren(...setup.problems.map((text) => make("div", { className: "problem", textContent: text })));
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && at("settings").open) { at("settings").open = false; at("settings").querySelector("summary").focus(); }
  const typing = event.target.closest?.("input, textarea, select, dialog");
  if (!player.rows || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = { ArrowRight: () => player.by(1), ArrowLeft: () => player.by(-1), Home: () => player.show(1), End: () => player.show(Infinity), p: () => player.toggle() };
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
document.addEventListener("click", (event) => { if (at("settings").open && !at("settings").contains(event.target)) at("settings").open = false; });

document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); question.focus(); }); // the address is ours

// ---- where we are ----

async function show() {
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const [, kind, name] = (path || "/").split("/");
  const values = new URLSearchParams(query || "");
  const replaying = kind === "replay";
  for (const link of document.querySelectorAll("[data-page]")) {
    if ((link.dataset.page === "replay") === replaying) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  notice();
  player.close();
  at("records").replaceChildren();
  composer.hidden = replaying;
  at("empty").hidden = replaying || kind === "c";
  try {
    if (kind === "c") {
      if (chat.id !== name) watch(name);
    } else {
      leave();
    }
    busy(kind === "c" && chat.busy);
    if (replaying && name) await player.open(Number(name), values.has("step") ? Number(values.get("step")) : null);
    else if (replaying) await showRecords(at("records"), Number(values.get("offset")) || 0);
    else question.focus();
  } catch (error) {
    at("records").replaceChildren(make("div", { className: "problem", textContent: error.message }));
  }
  document.body.dataset.ready = location.hash || "#/";
}

async function start() {
  translatePage();
  try {
    setup = await ask("api/setup");
    offer();
  } catch (error) {
    at("problems").replaceChildren(make("div", { className: "problem", textContent: say("The server does not answer: {0}", error.message) }));
  }
  addEventListener("hashchange", show);
  await show();
}

start();
