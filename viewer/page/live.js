// New episodes appear while a run is written: what is shown is asked for anew when the server knows of more. Nothing is asked while
// the page is hidden, and nothing is replaced under a hand that types.

import { ask, place } from "./dom.js";
import { chosenRun, runUrl } from "./runs.js";

const EVERY_MS = 2000;
const SOON_MS = 300; // while records are still being read

function isTyping(main) {
  const focused = document.activeElement;
  return main.contains(focused) && focused.matches("input:not([type=checkbox]), textarea, select");
}

// What a reader has opened and where the keyboard is, to be found again in what comes in its place.
function held(main) {
  const reachable = () => [...main.querySelectorAll("a, button, input, summary")];
  const at = reachable().indexOf(document.activeElement);
  const open = [...main.querySelectorAll("details")].map((one) => one.open);
  const { scrollX, scrollY } = window;
  return () => {
    main.querySelectorAll("details").forEach((one, index) => { one.open ||= open[index] ?? false; });
    if (at >= 0) reachable()[at]?.focus({ preventScroll: true });
    scrollTo(scrollX, scrollY);
  };
}

// What the server knows, in a form that differs when there is more, and whether there soon will be.
async function known(word, query) {
  if (word === "runs") {
    const found = await ask("api/picker");
    return { state: JSON.stringify(found), soon: found.some((run) => run.episodes === null) };
  }
  const { episodes, unread_bytes: unread, words } = await ask(runUrl(chosenRun(query), "state"));
  const reads = word === "search" || word === "failures";
  return { state: JSON.stringify([episodes, unread, reads ? words : 0]), soon: unread > 0 || (reads && words > 0 && words < episodes) };
}

// Calls `show` whenever there is more to show at one of the `live` places, which are told by the first word of their path.
export function follow(main, show, live) {
  let seen = { hash: null, state: null };
  const look = async () => {
    const { path, query } = place();
    const word = path.split("/")[1] ?? "";
    let wait = EVERY_MS;
    if (!document.hidden && live.has(word)) {
      try {
        const { hash } = location;
        const { state, soon } = await known(word, query);
        if (soon) wait = SOON_MS;
        if (hash === location.hash && !isTyping(main)) {
          if (seen.state !== state || seen.hash !== hash) {
            const restore = held(main);
            await show();
            if (hash === location.hash) restore();
          }
          seen = { hash, state };
        }
      } catch {
        // The server has ended or the run is gone; whoever goes on is told so by the next answer.
      }
    }
    setTimeout(look, wait);
  };
  setTimeout(look, EVERY_MS);
}
