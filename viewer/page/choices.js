// Choices that are kept in the address.

import { changed, go, make, place } from "./dom.js";

// A labelled select; `options` are [value, text], the first one where the address names none.
export function choice(name, label, options, chosen) {
  const select = make("select", { name }, ...options.map(([value, textContent]) => make("option", { value, textContent })));
  select.value = chosen ?? options[0][0];
  select.addEventListener("change", () => {
    const { path, query } = place();
    go(path, changed(query, { [name]: select.value, offset: "" }));
  });
  return make("label", {}, label, select);
}

// Of training or of validation, where a run has both; what the address says, else training.
export function phase(run, query) {
  if (run.facets.validation.length < 2) return { chosen: "", box: null };
  const chosen = query.get("validation") ?? "0";
  return { chosen, box: choice("validation", "episodes of", [["0", "training"], ["1", "validation"]], chosen) };
}
