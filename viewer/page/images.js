// Images of an episode with their size, and the one that is looked at in full.

import { make } from "./dom.js";

function size(part) {
  return `${part.width} × ${part.height} px`;
}

// The image in its own pixels; a click, or the key of the button, fits it to the window and back.
export function zoom(url, part) {
  const image = make("img", { src: url, alt: `image of ${size(part)}`, width: part.width, height: part.height });
  const dialog = make("dialog", { className: "zoom", ariaLabel: "Image at full size" });
  const fit = make("button", { type: "button", textContent: "Fit" });
  const toggle = () => { fit.textContent = dialog.classList.toggle("fits") ? "Full size" : "Fit"; };
  const close = make("button", { type: "button", textContent: "Close", onclick: () => dialog.close() });
  fit.addEventListener("click", toggle);
  image.addEventListener("click", toggle);
  dialog.addEventListener("close", () => dialog.remove());
  const bar = make("div", { className: "bar" }, make("span", { textContent: size(part) }), fit,
    make("a", { href: url, target: "_blank", rel: "noopener", textContent: "Open alone" }), close);
  dialog.append(bar, make("div", { className: "zoom-scroll", tabIndex: 0 }, image));
  document.body.append(dialog);
  dialog.showModal();
}

export function lost(reason) {
  return make("div", { className: "lost", textContent: `An image that cannot be shown: ${reason}` });
}

export function figure(part, url) {
  if (part.problem) return lost(part.problem);
  const image = make("img", { src: url, loading: "lazy", alt: `image of ${size(part)}`, width: part.width, height: part.height });
  const button = make("button", { type: "button", className: "image", title: "Show at full size", onclick: () => zoom(url, part) }, image);
  const box = make("figure", {}, button, make("figcaption", { textContent: size(part) + (part.preview ? ", a preview of a larger one" : "") }));
  image.addEventListener("error", () => box.replaceWith(lost("its pixels are broken")));
  return box;
}
