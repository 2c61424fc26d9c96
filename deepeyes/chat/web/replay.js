// Recorded episodes: a list, and one of them step by step.

import { ask, make, STOPS, Transcript } from "./transcript.js";
import { say } from "./words.js";

const PAGE = 50;
const PLAY_MS = 900;
const ending = (row) => say(STOPS[row.stop_reason] ?? row.stop_reason);

export async function showRecords(box, offset) {
  const found = await ask(`api/records?offset=${offset}&limit=${PAGE}`);
  if (!found.total) {
    box.replaceChildren(make("p", { className: "soft", textContent: say("Nothing is recorded yet. What you ask is recorded, and can then be replayed here.") }));
    return;
  }
  const rows = found.rows.map((row) => {
    const link = make("a", { href: `#/replay/${row.id}`, textContent: row.title || say("episode {0}", row.id) });
    return make("tr", {}, make("td", { className: "num", textContent: row.id }), make("td", {}, link), make("td", { textContent: row.answer || ending(row) }),
      make("td", { className: "wide-only", textContent: ending(row) }), make("td", { className: "num wide-only", textContent: row.turns }));
  });
  const heads = [["#", "num"], ["Episode", ""], ["Answer", ""], ["End", "wide-only"], ["Turns", "num wide-only"]];
  const head = make("tr", {}, ...heads.map(([textContent, className]) => make("th", { textContent: say(textContent), className, scope: "col" })));
  const last = Math.min(offset + PAGE, found.total);
  const pager = make("div", { className: "pager" }, make("span", { className: "soft", textContent: say("{0} to {1} of {2}, newest first", offset + 1, last, found.total.toLocaleString("en")) }),
    offset ? make("a", { href: `#/replay?offset=${Math.max(0, offset - PAGE)}`, textContent: say("newer") }) : null,
    last < found.total ? make("a", { href: `#/replay?offset=${last}`, textContent: say("older") }) : null);
  box.replaceChildren(pager, make("table", { className: "records" }, make("thead", {}, head), make("tbody", {}, ...rows)));
}

export class Player {
  constructor(bar, box) {
    this.bar = bar;
    this.transcript = new Transcript(box);
    this.timer = null;
  }

  async open(number, step) {
    this.rows = await ask(`api/records/${number}`);
    for (const row of this.rows) if (row.kind === "end") row.download = `api/records/${number}/download`;
    this.number = number;
    const button = (textContent, label, onclick) => {
      const made = make("button", { type: "button", textContent: say(textContent), onclick });
      made.setAttribute("aria-label", say(label));
      return made;
    };
    this.slider = make("input", { type: "range", min: 1, max: this.rows.length, step: 1, oninput: () => this.show(Number(this.slider.value)) });
    this.slider.setAttribute("aria-label", say("Step"));
    this.where = make("span", { className: "soft" });
    this.playing = button("▶ Play", "Play", () => this.toggle());
    this.bar.replaceChildren(make("a", { href: "#/replay", textContent: say("All") }), button("‹", "Step back", () => this.by(-1)), button("›", "Step on", () => this.by(1)), this.playing, this.slider, this.where);
    this.bar.hidden = false;
    this.show(step ?? this.rows.length);
  }

  close() {
    this.stop();
    this.bar.hidden = true;
    this.bar.replaceChildren();
    this.rows = null;
  }

  by(steps) {
    if (this.rows) this.show(this.step + steps);
  }

  show(step) {
    this.step = Math.min(Math.max(1, step || 1), this.rows.length);
    this.transcript.clear();
    for (const row of this.rows.slice(0, this.step)) this.transcript.add(row);
    this.transcript.wait(null);
    this.slider.value = this.step;
    this.where.textContent = say("{0} of {1}", this.step, this.rows.length);
    history.replaceState(null, "", `#/replay/${this.number}?step=${this.step}`);
    if (this.step > 1) this.transcript.box.lastElementChild?.scrollIntoView({ block: "nearest" });
  }

  toggle() {
    if (this.timer) return this.stop();
    if (this.step === this.rows.length) this.show(1);
    this.playing.textContent = say("❚❚ Pause");
    this.timer = setInterval(() => (this.step === this.rows.length ? this.stop() : this.by(1)), PLAY_MS);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    if (this.playing) this.playing.textContent = say("▶ Play");
  }
}
