// Buttons that copy a text.

import { make } from "./dom.js";

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // A page that came over plain HTTP from another host has no clipboard, but may copy what is selected.
  const field = make("textarea", { value: text, className: "off-screen" });
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  if (!copied) throw new Error("refused");
}

export function copyButton(text, name = "Copy") {
  const button = make("button", { type: "button", className: "quiet copy", textContent: name });
  button.addEventListener("click", async () => {
    try {
      await copy(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "The browser refused";
    }
    setTimeout(() => { button.textContent = name; }, 1500);
  });
  return button;
}
