// What the node checks about itself: its invariants, and the health of its folding.

import { ask, when } from "./api.js";
import { h, put, state } from "./dom.js";
import { count, second } from "./format.js";

const EVERY_MS = 5_000;

export function checksView(root) {
  const invariants = h("div");
  const folding = h("div");
  put(root, h("div", { class: "head" }, h("h1", null, "Checks"), h("p", { class: "soft" }, "The node's own sums, and how far it has read")),
    invariants, h("h2", null, "Reading the log, now"), folding);
  const load = async () => {
    try {
      showInvariants(invariants, await ask("/reports/invariants"));
    } catch (error) {
      put(invariants, state("No checks to show", error.status === 404 ? "This node does not run its invariant monitor." : error.message));
    }
    try {
      showHealth(folding, await health());
    } catch (error) {
      put(folding, state("The node does not say how far it has read", error.message));
    }
  };
  load();
  const timer = setInterval(() => { if (when.asOf === null && !document.hidden) load(); }, EVERY_MS);
  return { change(kind) { if (kind === "moment") load(); }, close() { clearInterval(timer); } };
}

async function health() {
  const answer = await fetch("/healthz");
  return answer.json(); // ill is 503, with the same body
}

function showInvariants(place, body) {
  const checks = Array.isArray(body) ? body : body.invariants ?? [];
  if (!checks.length) { put(place, state("Nothing checked yet", "The first checks run when the first period has closed.")); return; }
  const broken = checks.filter((one) => !holds(one));
  put(place,
    h("div", { class: broken.length ? "notice bad" : "notice good" }, h("strong", null, broken.length ? `${count(broken.length)} of ${count(checks.length)} do not hold. ` : `All ${count(checks.length)} hold. `),
      broken.length ? "A checkpoint whose sums do not add up is withheld." : "Every prediction has one end, every period its sums, every checkpoint exactly one whole."),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Invariants" }, h("table", null,
      h("thead", null, h("tr", null, h("th", null, "State"), h("th", null, "What must hold"), h("th", null, "Found"))),
      h("tbody", null, checks.map((one) => h("tr", null,
        h("td", null, holds(one) ? h("span", { class: "pill up" }, "holds") : h("span", { class: "pill down" }, "broken")),
        h("td", null, h("strong", null, one.name ?? one.id), h("div", { class: "soft" }, one.about ?? one.description ?? "")),
        h("td", { class: "reason" }, one.detail ?? one.reason ?? "–")))))));
}

const holds = (one) => one.ok ?? one.holds ?? (one.state === "ok" || one.status === "ok");

function showHealth(place, body) {
  const fact = (term, ...value) => [h("dt", null, term), h("dd", null, value)];
  put(place,
    h("dl", { class: "facts" },
      fact("State", h("span", { class: `pill ${body.status === "ok" ? "up" : "down"}` }, body.status), body.error ? ` ${body.error}` : ""),
      fact("Clock", body.clock_ts ? `${second(body.clock_ts)} UTC` : "–"),
      fact("Events folded by this process", count(body.events_folded)),
      fact("Records that did not count", count(body.duplicates_ignored))),
    h("div", { class: "scroll below", tabindex: "0", role: "region", "aria-label": "Topics" }, h("table", null,
      h("thead", null, h("tr", null, h("th", null, "Topic"), h("th", { class: "number" }, "Read up to"), h("th", { class: "number" }, "Waiting"))),
      h("tbody", null, Object.entries(body.positions ?? {}).map(([topic, at]) => h("tr", null, h("td", null, topic), h("td", { class: "number" }, count(at)), h("td", { class: "number" }, count(body.lag[topic] ?? 0))))))));
}
