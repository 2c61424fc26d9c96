// What was trained on: every token with its mask and its log-probability.

import { make } from "./dom.js";

const SURPRISING = 5; // a log-probability of -5 and below has the full colour
const MOST_OPEN = 4000;
const PART = 20_000; // spans that are made at once

function tokenSpan([text, sampled, logprob, times]) {
  const span = make("span", { textContent: times > 1 ? `${text}×${times} ` : text });
  if (!sampled) return Object.assign(span, { className: "context", title: "not sampled: mask 0" });
  span.style.setProperty("--surprise", Math.min(1, -logprob / SURPRISING).toFixed(3));
  return Object.assign(span, { className: "sampled", title: `log-probability ${logprob}` });
}

export function tokenBox(tokens) {
  if (!tokens.length) return null;
  const box = make("div", { className: "tokens", tabIndex: 0, role: "region", ariaLabel: "Tokens" });
  const details = make("details", {}, make("summary", { textContent: `Tokens (${tokens.length.toLocaleString("en")} entries)` }),
    make("div", { className: "legend" }, make("span", {}, "sampled, certain", make("span", { className: "swatch" }), "surprising"), make("span", { textContent: "grey: not sampled (mask 0)" })), box);
  let made = 0;
  const more = make("button", { type: "button", textContent: "more" });
  const fill = () => {
    box.append(...tokens.slice(made, made + PART).map(tokenSpan));
    made += PART;
    made < tokens.length ? details.append(more) : more.remove();
  };
  more.addEventListener("click", fill);
  details.addEventListener("toggle", () => { if (!made) fill(); });
  details.open = tokens.length < MOST_OPEN;
  return details;
}
