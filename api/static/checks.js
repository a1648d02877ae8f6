// What the node checks about itself: its invariants, and the health of its folding.

import { askNow, when } from "./api.js";
import { h, put, state } from "./dom.js";
import { count, second, span } from "./format.js";

const EVERY_MS = 5_000;

export function checksView(root) {
  const moment = h("div");
  const invariants = h("div");
  const folding = h("div");
  put(root, h("div", { class: "head" }, h("h1", null, "Checks"), h("p", { class: "soft" }, "The node's own sums, and how far it has read, as of now")),
    moment, invariants, h("h2", null, "Reading the log, now"), folding);
  const load = async () => {
    put(moment, when.asOf === null ? null : h("div", { class: "notice" }, h("strong", null, "As of now. "), "What is checked is the whole log, so the slider does not move this view."));
    try {
      showInvariants(invariants, await askNow("/reports/invariants"));
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
  const checks = body.invariants;
  const waiting = checks.filter((one) => !one.checked).length;
  const broken = checks.filter((one) => !one.ok);
  const verdict = broken.length ? `${count(broken.length)} of ${count(checks.length)} do not hold. `
    : waiting ? `${count(checks.length - waiting)} of ${count(checks.length)} were looked at, and hold. ` : `All ${count(checks.length)} hold. `;
  put(place,
    h("div", { class: broken.length ? "notice bad" : "notice good" }, h("strong", null, verdict),
      broken.length ? "The next checkpoint is withheld because of them." : null,
      body.looked_at ? h("p", { class: "soft" }, `As of ${second(body.looked_at)} UTC`) : null),
    body.alerts.map((one) => h("div", { class: "notice" }, h("strong", null, `${one.kind}: `), one.text, h("p", { class: "soft" }, `since ${second(one.since)} UTC`))),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Invariants" }, h("table", { class: "stacked" },
      h("thead", null, h("tr", null, h("th", null, "State"), h("th", null, "What must hold"), h("th", null, "Found"))),
      h("tbody", null, checks.map((one) => h("tr", null,
        h("td", null, pill(one)),
        h("td", { class: "reason" }, h("strong", null, one.name), h("div", { class: "soft" }, one.about)),
        h("td", { class: "reason" }, one.detail || "–", counts(one.counts))))))));
}

function pill(one) {
  if (!one.ok) return h("span", { class: "pill down" }, "broken");
  return one.checked ? h("span", { class: "pill up" }, "holds") : h("span", { class: "pill" }, "not yet");
}

const counts = (found) => h("div", { class: "soft" }, Object.entries(found).map(([name, n]) => `${name.replaceAll("_", " ")} ${count(n)}`).join(" · "));

function showHealth(place, body) {
  const fact = (term, ...value) => [h("dt", null, term), h("dd", null, value)];
  put(place,
    h("dl", { class: "facts" },
      fact("State", h("span", { class: `pill ${{ ok: "up", degraded: "warn" }[body.status] ?? "down"}` }, body.status), body.error ? ` ${body.error}` : ""),
      fact("Clock", body.clock_ts ? `${second(body.clock_ts)} UTC` : "–"),
      fact("Events folded by this process", count(body.events_folded)),
      fact("Records that did not count", count(body.duplicates_ignored))),
    h("div", { class: "scroll below", tabindex: "0", role: "region", "aria-label": "Stages" }, h("table", null,
      h("thead", null, h("tr", null, h("th", null, "Stage"), h("th", null, "Newest decision"), h("th", { class: "number" }, "Behind the clock"), h("th", { class: "number" }, "Written"))),
      h("tbody", null, (body.stages ?? []).map((one) => h("tr", null, h("td", null, one.stage), h("td", null, one.decided_ts ? `${second(one.decided_ts)} UTC` : "–"), h("td", { class: "number" }, lasting(one.behind_seconds)), h("td", { class: "number" }, one.last_written_seconds_ago === null ? "–" : `${lasting(one.last_written_seconds_ago)} ago`)))))),
    h("div", { class: "scroll below", tabindex: "0", role: "region", "aria-label": "Topics" }, h("table", null,
      h("thead", null, h("tr", null, h("th", null, "Topic"), h("th", { class: "number" }, "Read up to"), h("th", { class: "number" }, "Waiting"))),
      h("tbody", null, Object.entries(body.positions ?? {}).map(([topic, at]) => h("tr", null, h("td", null, topic), h("td", { class: "number" }, count(at)), h("td", { class: "number" }, count(body.lag[topic] ?? 0))))))));
}

const lasting = (seconds) => (seconds === null ? "–" : span(1000 * seconds));
