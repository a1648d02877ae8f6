// Which board is shown: that of the contract, by another number, or of one scope alone. The choice stands in the address.

import { ask } from "./api.js";
import { h } from "./dom.js";
import { windowName } from "./format.js";
import { boardOf } from "./live.js";

const KINDS = [["window", "Windows"], ["board", "Boards"], ["summary", "Numbers of the last period"], ["scope", "One scope alone"]];
const EVERY_MS = 3_000;

// What the address asks for: `{ by }`, `{ scope }`, or null for the board of the contract.
export function chosenBoard(route) {
  const [scope, by] = [route.get("scope"), route.get("by")];
  return scope ? { scope } : by ? { by } : null;
}

export const scopeName = (name) => name.replace(/\/(?=[^/]*$)/, " · ");

// A choice of boards, shown where there are several. onChoice(chosen or null)
export function boardChoice(route, onChoice) {
  const select = h("select", { "aria-label": "Board", hidden: true, onchange: () => {
    const [kind, name] = JSON.parse(select.value);
    const chosen = kind === null ? null : { [kind]: name };
    route.keep("by", chosen?.by);
    route.keep("scope", chosen?.scope);
    onChoice(chosen);
  } });
  const value = (kind, name) => JSON.stringify([kind, name]);
  const option = (kind, name, text, selected) => h("option", { value: value(kind, name), selected }, text);
  const show = (names) => {
    const chosen = chosenBoard(route);
    const [kind, name] = chosen ? Object.entries(chosen)[0] : [null, null];
    const others = names.filter((one) => !one.decides);
    const known = kind === null || others.some((one) => one.name === name && (one.kind === "scope") === (kind === "scope"));
    select.hidden = !others.length && known;
    select.replaceChildren(
      option(null, null, "As the contract ranks", kind === null),
      ...KINDS.map(([each, title]) => [title, others.filter((one) => one.kind === each)]).filter(([, group]) => group.length).map(([title, group]) =>
        h("optgroup", { label: title }, group.map((one) => {
          const asked = one.kind === "scope" ? "scope" : "by";
          return option(asked, one.name, one.kind === "scope" ? scopeName(one.name) : windowName(one.name), asked === kind && one.name === name);
        }))),
      ...(known ? [] : [option(kind, name, name, true)]));
  };
  show([]);
  return { element: select, async load(signal) { show(await ask("/reports/leaderboard/boards", {}, signal)); } };
}

// A board that the stream does not bring is asked for, at most every EVERY_MS. onBoard(board or null, what is wrong)
export function askedBoard(onBoard) {
  let stopped = new AbortController();
  let asked = 0;
  let timer;
  const load = async (chosen) => {
    clearTimeout(timer);
    stopped.abort();
    stopped = new AbortController();
    asked = Date.now();
    try {
      onBoard(boardOf(await ask("/reports/leaderboard", { ...chosen, include_ensembles: true }, stopped.signal)), "");
    } catch (error) {
      if (error.name !== "AbortError") onBoard(null, error.message);
    }
  };
  return {
    load,
    // The live board has moved: this one has, too.
    later(chosen) {
      clearTimeout(timer);
      timer = setTimeout(() => load(chosen), Math.max(0, asked + EVERY_MS - Date.now()));
    },
    close() { clearTimeout(timer); stopped.abort(); },
  };
}
