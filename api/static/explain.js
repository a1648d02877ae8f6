// Why a figure is what it is: the recorded events that it rests on, and each step of arithmetic with its numbers.

import { ask, when } from "./api.js";
import { h, put, state } from "./dom.js";
import { count, second, short } from "./format.js";

const SHOWN = 12;
const KINDS = new Set(["predictions", "checkpoints", "snapshots", "board", "copies"]);
const WORDS = { input: "What it was shown", rules: "Rules", round: "The round", answer: "The answer", truth: "The truth", score: "The score" };

// The address of the view, from the parts of the route's path.
export const explained = (kind, ...names) => `#/explain/${kind}/${names.map(encodeURIComponent).join("/")}`;

// The same of one board or scope among several, or of a pair: `of` is `{ by }`, `{ scope }` or `{ other }`.
export function explainedOf(route, of, ...figure) {
  const query = new URLSearchParams(route.query().slice(1));
  for (const [name, value] of Object.entries(of)) query.set(name, value);
  return `${explained(...figure)}?${query}`;
}

export function explainView(root, route) {
  const [, kind, ...names] = route.parts;
  const body = h("div");
  const back = h("a");
  let stopped = new AbortController();
  let loadedFor;
  put(root, h("p", { class: "crumb" }, back, " / ", "Explained"), body);
  const load = async () => {
    stopped.abort();
    stopped = new AbortController();
    loadedFor = when.asOf;
    const model = kind === "snapshots" ? names[0] : names.join("/").split("/").at(-1);
    back.href = kind === "checkpoints" ? `#/checkpoints/${encodeURIComponent(names[0])}${route.query()}` : `#/models/${encodeURIComponent(model)}${route.query()}`;
    back.textContent = kind === "checkpoints" ? short(names[0], 28) : short(model, 32);
    if (!KINDS.has(kind)) return put(body, state("There is no such view", h("a", { href: "#/" }, "To the leaderboard")));
    if (!body.childElementCount) put(body, state("Loading", "The node reads the log."));
    try {
      const path = names.map((name) => name.split("/").map(encodeURIComponent).join("/")).join("/");
      show(body, await ask(`/reports/explain/${kind}/${path}`, { by: route.get("by"), scope: route.get("scope"), other: route.get("other") }, stopped.signal), route);
    } catch (error) {
      if (error.name === "AbortError") return undefined;
      put(body, state(error.status === 404 ? "Not known" : "It cannot be explained", error.message));
    }
    return undefined;
  };
  load();
  return {
    change(what) { if (what === "address" || (what === "moment" && loadedFor !== when.asOf)) load(); },
    close() { stopped.abort(); },
  };
}

function show(body, one) {
  const verdict = one.hidden_until_ms !== null
    ? h("div", { class: "notice" }, h("strong", null, "The answer is hidden. "), `Others could still copy it until its horizon has passed, at ${second(one.hidden_until_ms)} UTC. It is explained then.`)
    : one.agrees === null ? h("div", { class: "notice" }, "Nothing could be computed again here; the steps say why.")
      : one.agrees ? h("div", { class: "notice good" }, h("strong", null, "Computed again and equal. "), "Every step that was computed again gives the recorded figure.")
        : h("div", { class: "notice bad" }, h("strong", null, "It differs. "), "A step gives another figure than the recorded one.");
  put(body, h("h1", null, one.title), h("p", { class: "soft mono" }, one.id), verdict, proof(one), h("ol", { class: "steps", "aria-label": "Steps" }, one.steps.map(stepItem)));
}

// The node's own words are one thing; this file is in the tree that it signed, and anybody can check it offline.
function proof(one) {
  if (one.kind !== "prediction" || one.hidden_until_ms !== null || !one.steps.some((step) => step.name === "score")) return null;
  const address = `/reports/predictions/${one.id.split("/").map(encodeURIComponent).join("/")}/proof`;
  return h("p", null, h("a", { href: address }, "Proof of it"), h("span", { class: "soft" }, " as a file, once a checkpoint holds the score. To check it anywhere, offline: "), h("code", { class: "mono" }, "coordinator verify proof.txt --policy KEYS"));
}

function stepItem(step) {
  const said = step.agrees === null ? null : h("span", { class: `pill ${step.agrees ? "up" : "down"}` }, step.agrees ? "equal" : "different");
  return h("li", null,
    h("h2", null, WORDS[step.name] ?? step.name.charAt(0).toUpperCase() + step.name.slice(1), " ", said),
    h("p", { class: "soft" }, step.rule),
    step.note ? h("div", { class: "notice" }, step.note) : null,
    step.sources.length ? h("p", null, step.sources.map((source) => [place(source), " ", h("span", { class: "mono" }, `${source.kind} ${source.event_id}`), h("br")])) : null,
    h("dl", { class: "facts" }, step.result.map((value) => [h("dt", null, value.name.replaceAll("_", " ")), h("dd", null, figure(value))])),
    inputs(step));
}

const place = (source) => h("span", { class: "pill", title: `${second(source.at_ms)} UTC` }, `${source.topic} ${source.offset}`);

const LONG = 160;
const figure = (value) => (value.exact.length > LONG ? h("details", null, h("summary", null, value.shown), h("span", { class: "mono" }, value.exact)) : value.exact === value.shown ? [value.shown] : [value.shown, h("span", { class: "soft mono" }, `  ${value.exact}`)]);

function inputs(step) {
  if (!step.inputs.length) return null;
  const where = step.inputs.some((value) => value.source);
  const table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `What went into ${step.name}` }, h("table", null,
    h("thead", null, h("tr", null, h("th", null, "From"), h("th", null, "Value"), where ? h("th", null, "In the log") : null, where ? h("th", { class: "wide" }, "Time (UTC)") : null)),
    h("tbody", null, step.inputs.map((value) => h("tr", null, h("td", { class: "mono reason" }, value.name), h("td", { class: "reason" }, figure(value)),
      where ? h("td", null, value.source ? place(value.source) : "") : null, where ? h("td", { class: "when wide" }, value.source ? second(value.source.at_ms) : "") : null)))));
  const all = step.inputs.length + step.left_out;
  const more = step.left_out ? h("p", { class: "soft" }, `And ${count(step.left_out)} more, which are not listed.`) : null;
  if (all <= SHOWN) return h("div", null, table, more);
  return h("details", null, h("summary", null, `From ${count(all)} numbers`), table, more);
}
