"use strict";
// The list of episodes: filters, pages, and the episode that the address names (#ID), whose images are put in when it is opened.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const rows = read("rows"), cards = read("cards"), images = read("images");
const PAGE = 50, COLUMNS = ["id", "category", "result", "decided", "kind", "calls", "tokens", "stop"];
let page = 0, shown = rows;
const byId = (id) => document.getElementById(id);
function cell(tag, content) {
  const made = document.createElement(tag);
  made.append(content);
  return made;
}
function named(id) {
  const link = document.createElement("a");
  Object.assign(link, { href: `#${encodeURIComponent(id)}`, textContent: id });
  const head = cell("th", link);
  head.scope = "row";
  return head;
}
function draw() {
  byId("list").replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map(([id, ...values]) => {
    const tr = document.createElement("tr");
    tr.append(named(id), ...values.map((value) => cell("td", value)));
    return tr;
  }));
  const last = Math.max(0, Math.ceil(shown.length / PAGE) - 1);
  byId("count").textContent = `${shown.length} episodes, page ${page + 1} of ${last + 1}`;
  byId("back").disabled = page === 0;
  byId("next").disabled = page >= last;
}
function open() {
  const id = decodeURIComponent(location.hash.slice(1));
  if (!rows.some((row) => row[0] === id)) return;
  const place = byId("episode");
  if (cards[id]) {
    place.innerHTML = cards[id];
    place.querySelectorAll("img[data-image]").forEach((img) => { img.src = images[img.dataset.image]; });
  } else {
    place.replaceChildren(cell("p", `${id} is not part of this page.`));
  }
  const { run, viewer } = document.body.dataset;
  const link = Object.assign(document.createElement("a"), { href: `${viewer}#/?text=${encodeURIComponent(id.replace(/#\d+$/, ""))}`, target: "_blank", rel: "noopener", textContent: "the viewer" });
  const told = cell("p", "It opens in ");
  told.append(link, " while this runs: ", cell("code", `deepeyes view ${run}`));
  place.append(told);
  place.scrollIntoView();
  place.focus({ preventScroll: true });
}
function filter() {
  const words = byId("words").value.toLowerCase();
  const wanted = COLUMNS.map((name) => byId(`f-${name}`)).map((select) => (select ? select.value : ""));
  const onlyOpen = byId("embedded").checked;
  shown = rows.filter((row) => wanted.every((value, column) => !value || String(row[column]) === value)
    && (!words || row.join(" ").toLowerCase().includes(words)) && (!onlyOpen || cards[row[0]]));
  page = 0;
  draw();
}
COLUMNS.forEach((name, column) => {
  const select = byId(`f-${name}`);
  if (!select) return;
  [...new Set(rows.map((row) => String(row[column])))].sort().forEach((value) => select.add(new Option(value || "(none)", value)));
  select.addEventListener("change", filter);
});
document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
byId("words").addEventListener("input", filter);
byId("embedded").addEventListener("change", filter);
byId("back").addEventListener("click", () => { page -= 1; draw(); });
byId("next").addEventListener("click", () => { page += 1; draw(); });
// A number in a table leads to the episodes behind it.
document.querySelectorAll("a.behind").forEach((link) => link.addEventListener("click", () => {
  COLUMNS.forEach((name) => { const select = byId(`f-${name}`); if (select) select.value = link.dataset[name] || ""; });
  byId("words").value = "";
  byId("embedded").checked = false;
  filter();
}));
addEventListener("hashchange", open);
filter();
open();
