// The rollouts of one prompt: all such groups, and one of them side by side.

import { choice, phase } from "./choices.js";
import { address, ask, changed, make, number } from "./dom.js";
import { episodeBox } from "./episode.js";
import { chosenRun, runUrl } from "./runs.js";
import { linkedRow, PAGE, pager, pill, sortedHead } from "./table.js";

const COLUMNS = [
  ["item_id", "item", "text"], ["step", "step", "num"], ["rollouts", "rollouts", "num wide"], ["right", "right", "num"], ["reward", "reward, mean", "num"],
  ["spread", "lowest to highest", "num wide"], ["lost", "lost", "num wide"],
];
const KINDS = [["", "all"], ["different", "rewards differ"], ["equal", "rewards are all equal"]];


function row(group, kept) {
  const href = address("/group", changed(kept, { step: group.step, group: group.group, validation: group.validation }));
  const range = group.lowest === null ? "" : `${number(group.lowest)} to ${number(group.highest)}`;
  const values = [number(group.step), number(group.rollouts), number(group.right), number(group.reward), range, number(group.lost)];
  return linkedRow(href, group.item_id, ...values.map((textContent, at) => make("td", { className: COLUMNS[at + 1][2], textContent })));
}

export async function showGroups(main, query) {
  const run = chosenRun(query);
  const { chosen, box } = phase(run, query);
  const offset = Number(query.get("offset") || 0);
  const asked = changed(query, { run: "", validation: chosen, limit: PAGE, sort: query.get("sort") ?? "step", descending: query.has("sort") ? query.get("descending") : "1" });
  const found = await ask(runUrl(run, `groups?${asked}`));
  const steps = run.facets.step.filter(([step]) => step !== null).map(([step]) => [String(step), String(step)]);
  const choices = make("div", { className: "filters" }, choice("kind", "groups", KINDS, query.get("kind")),
    steps.length > 1 ? choice("step", "step", [["", "all"], ...steps], query.get("step")) : null, box);
  const told = `${found.equal.toLocaleString("en")} of them with equal rewards, from which nothing is learned`;
  const table = make("table", { className: "episodes" }, make("thead", {}, make("tr", {}, ...COLUMNS.map((column) => sortedHead("/groups", query, column)))),
    make("tbody", {}, ...found.rows.map((group) => row(group, new URLSearchParams({ run: run.key })))));
  main.replaceChildren(make("h1", { textContent: "Groups: the rollouts of one prompt" }), choices,
    pager(found.total, offset, (to) => address("/groups", changed(query, { offset: to })), make("span", { className: "soft", textContent: told })),
    found.total ? make("div", { className: "scroll" }, table) : make("p", { textContent: "No prompt has several rollouts here." }));
}

function advantageBar(value, largest) {
  const bar = make("span", { className: `advantage ${value < 0 ? "below" : "above"}`, ariaHidden: "true" });
  bar.style.setProperty("--share", largest ? Math.abs(value) / largest : 0);
  return bar;
}

function memberBox(member, largest, run) {
  const { episode, advantage } = member;
  const href = address(`/episode/${encodeURIComponent(episode.episode_id)}`, new URLSearchParams({ run: run.key }));
  const said = make("details", {}, make("summary", { textContent: "Conversation" }));
  said.addEventListener("toggle", async () => {
    if (!said.open || said.childElementCount > 1) return;
    const box = make("div", { textContent: "Loading…" });
    said.append(box);
    try {
      box.replaceChildren(episodeBox(await ask(runUrl(run, `episode?episode=${encodeURIComponent(episode.episode_id)}`)), run));
    } catch (error) {
      box.replaceChildren(make("p", { className: "problem", textContent: error.message }));
    }
  });
  const fact = (name, value) => make("div", {}, make("span", { className: "soft", textContent: `${name} ` }), make("b", { textContent: value }));
  return make("section", { className: "member", ariaLabel: `rollout ${episode.sample}` },
    make("div", { className: "who" }, make("a", { href, textContent: `rollout ${episode.sample}` }), pill(episode.stop_reason)),
    fact("reward", episode.reward === null ? "none: it was lost" : number(episode.reward, 3)),
    advantage === null ? null : make("div", { className: "facts" }, fact("advantage", (advantage > 0 ? "+" : "") + advantage.toFixed(3)), advantageBar(advantage, largest)),
    fact("answer", episode.answer || "none"), fact("calls", number(episode.tool_calls)), fact("turns", number(episode.turns)), fact("tokens", number(episode.tokens)), said);
}

export async function showGroup(main, query) {
  const run = chosenRun(query);
  const found = await ask(runUrl(run, `group?${changed(query, { run: "" })}`));
  const first = found.members[0].episode;
  const largest = Math.max(0, ...found.members.map((member) => Math.abs(member.advantage ?? 0)));
  const members = make("div", { className: "members" }, ...found.members.map((member) => memberBox(member, largest, run)));
  const all = make("button", { type: "button", textContent: "open all conversations" });
  all.addEventListener("click", () => members.querySelectorAll("details").forEach((one) => (one.open = true)));
  const gold = first.gold ? make("span", {}, "gold ", make("b", { textContent: first.gold })) : null;
  const more = found.total > found.members.length ? `, the first ${found.members.length} of them here` : "";
  main.replaceChildren(make("div", { className: "pager" }, make("a", { href: address("/groups", changed(query, { group: "", step: "" })), textContent: "all groups" }), all),
    make("h1", { textContent: first.item_id }),
    make("div", { className: "facts" }, first.step === null ? null : make("span", {}, "step ", make("b", { textContent: first.step })), make("span", { textContent: `${found.total} rollouts${more}` }), gold),
    make("p", { id: "rule", className: "soft", textContent: `Advantages: ${found.rule}.` }), members);
}
