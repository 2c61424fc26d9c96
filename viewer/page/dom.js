// What every part of the page uses: elements, questions to the server, the address. Texts of records go into the page as text,
// never as markup.

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
  const detail = typeof said.detail === "string" ? said.detail : `the server answered ${response.status}`;
  throw Object.assign(new Error(detail), { status: response.status, said });
}

// The address holds all that is shown, so that it can be sent to a colleague: #/path?query.
export function place() {
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  return { path: path || "/", query: new URLSearchParams(query || "") };
}

export function address(path, query) {
  const text = query.toString();
  return `#${path}${text ? `?${text}` : ""}`;
}

export function go(path, query) {
  location.hash = address(path, query);
}

// A copy of a query with some values changed; an empty one leaves it.
export function changed(query, values) {
  const copy = new URLSearchParams(query);
  for (const [name, value] of Object.entries(values)) value === "" || value === null ? copy.delete(name) : copy.set(name, value);
  return copy;
}

export function number(value, digits = 2) {
  if (value === null || value === undefined) return "";
  return Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(digits);
}
