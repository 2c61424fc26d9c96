// Tables of episodes, and the way through their pages.

import { address, changed, make, number } from "./dom.js";

export const PAGE = 100;

// `kind` is the cell's classes: num, text or end, and wide for what a narrow screen leaves out.
export function cell(row, [name, , kind]) {
  const value = row[name] ?? "";
  if (kind.startsWith("end")) return make("td", { className: kind }, pill(value));
  return make("td", { className: kind, textContent: kind.startsWith("num") ? number(row[name]) : value, title: kind.startsWith("text") ? value : "" });
}

export function pill(stop) {
  return make("span", { className: `pill ${stop}`, textContent: stop });
}

// A row that leads somewhere: its first cell holds a link that takes the whole row, so that every way of opening a link works.
export function linkedRow(href, first, ...cells) {
  const link = make("a", { href, className: "row-link", textContent: first || "–", title: first ?? "" });
  return make("tr", {}, make("td", { className: "text" }, link), ...cells);
}

// The head of a column by which the rows can be sorted.
export function sortedHead(path, query, [name, text, kind]) {
  const sorted = query.get("sort") === name;
  const down = sorted && query.get("descending");
  const href = address(path, changed(query, { sort: name, descending: sorted && !down ? "1" : "", offset: "" }));
  const link = make("a", { href, textContent: text + (sorted ? (down ? " ↓" : " ↑") : "") });
  const box = make("th", { className: kind, scope: "col" }, link);
  if (sorted) box.ariaSort = down ? "descending" : "ascending";
  return box;
}

export function pager(total, offset, href, ...more) {
  const last = Math.min(offset + PAGE, total);
  const step = (text, to, there) => (there ? make("a", { className: "button", href: href(to), textContent: text }) : make("span", { className: "button off", textContent: text }));
  const back = step("‹ previous", Math.max(0, offset - PAGE), offset > 0);
  const on = step("next ›", offset + PAGE, last < total);
  const where = total ? `${(offset + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ${total.toLocaleString("en")}` : "none";
  return make("div", { className: "pager" }, back, on, make("span", { id: "total", className: "soft", textContent: where }), ...more);
}
