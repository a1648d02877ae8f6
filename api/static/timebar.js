// The slider that moves the whole page through time, and the button that leads back to now.

import { when } from "./api.js";
import { announce, byId } from "./dom.js";
import { minute, second } from "./format.js";
import { store } from "./live.js";

const WAIT_MS = 120;
const MINUTE = 60_000;

export function timebar(go) {
  const [slider, moment, live, word] = ["slider", "moment", "live", "live-word"].map(byId);
  let waiting = 0;
  let held = false;

  const choose = () => {
    held = true;
    const at = Number(slider.value);
    moment.textContent = `${minute(at)} UTC`;
    slider.setAttribute("aria-valuetext", `${minute(at)} UTC`);
    clearTimeout(waiting);
    waiting = setTimeout(() => { held = false; go(at >= Number(slider.max) ? null : at); }, WAIT_MS);
  };
  slider.addEventListener("input", choose);
  live.addEventListener("click", () => { if (when.asOf !== null) { go(null); announce("Back to now"); } });

  return function show() {
    const past = when.asOf !== null;
    document.documentElement.classList.toggle("past", past);
    live.dataset.state = past ? "past" : store.connection;
    live.setAttribute("aria-pressed", String(!past));
    word.textContent = past ? "Back to live" : { live: "Live", lost: "Reconnecting", connecting: "Connecting" }[store.connection] ?? "Live";
    if (held) return;
    const [first, clock] = [store.first, store.clock];
    slider.disabled = !(first && clock && clock > first);
    if (!slider.disabled) {
      slider.step = Math.max(MINUTE, Math.round((clock - first) / 600 / MINUTE) * MINUTE);
      slider.min = Math.floor(first / MINUTE) * MINUTE;
      slider.max = Math.ceil(clock / MINUTE) * MINUTE + Number(slider.step);
      slider.value = past ? when.asOf : slider.max;
    }
    const text = past ? `as of ${minute(when.asOf)} UTC` : clock ? `${second(clock)} UTC` : "–";
    moment.textContent = text;
    slider.setAttribute("aria-valuetext", past ? text : `now, ${text}`);
  };
}
