// The runs of a folder.

import { address, ask, go, make, number } from "./dom.js";
import { linkedRow } from "./table.js";

function size(bytes) {
  return bytes < 2 ** 20 ? `${Math.ceil(bytes / 2 ** 10).toLocaleString("en")} KiB` : `${(bytes / 2 ** 20).toLocaleString("en", { maximumFractionDigits: 1 })} MiB`;
}

function row(run, chosen) {
  const box = make("input", { type: "checkbox", value: run.key, checked: chosen.has(run.key), ariaLabel: `choose ${run.title}` });
  box.addEventListener("change", () => (box.checked ? chosen.add(run.key) : chosen.delete(run.key)));
  const text = (value, className = "num") => make("td", { className, textContent: value });
  const made = linkedRow(address("/", new URLSearchParams({ run: run.key })), run.title, text(number(run.episodes)), text(number(run.last_step), "num wide"), text(number(run.score)),
    text(number(run.reward)), text(number(run.failed), "num wide"), text(size(run.num_bytes), "num wide"), text(new Date(1000 * run.written_at).toLocaleString("sv-SE"), "num wide"));
  made.append(make("td", { className: "choose" }, box));
  return made;
}

const chosen = new Set();

export async function showPicker(main) {
  const found = await ask("api/picker");
  const heads = [["run", ""], ["episodes", "num"], ["last step", "num wide"], ["score", "num"], ["reward", "num"], ["failed", "num wide"], ["records", "num wide"], ["written", "num wide"], ["", ""]];
  const head = make("tr", {}, ...heads.map(([textContent, className]) => make("th", { textContent, className, scope: "col" })));
  const both = make("button", { type: "button", textContent: "the two that are ticked side by side" });
  both.addEventListener("click", () => {
    const [left_run, right_run, more] = [...chosen];
    if (right_run && !more) go("/compare", new URLSearchParams({ left_run, right_run }));
    else told.textContent = `${chosen.size} runs are ticked; tick two.`;
  });
  const told = make("span", { className: "problem", role: "status" });
  main.replaceChildren(make("h1", { textContent: "Runs" }), make("p", { className: "soft", textContent: "Score and reward are those of the last step, or of all episodes where there are no steps." }),
    make("div", { className: "scroll" }, make("table", { className: "episodes" }, make("thead", {}, head), make("tbody", {}, ...found.map((run) => row(run, chosen))))),
    make("div", { className: "pager" }, both, told));
}
