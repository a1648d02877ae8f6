// Posted questions: rounds with how many stand where, one round's questions, and the answers to one of them.

import { ask, page, when } from "./api.js";
import { h, put, stamp, state } from "./dom.js";
import { explained } from "./explain.js";
import { count, minute, score } from "./format.js";

const EVERY_MS = 10_000;
const KIND = { upcoming: "", open: "accent", closed: "warn", resolved: "up", void: "down" };
const STATES = Object.keys(KIND);
const NOTHING = { now: ["No round yet", "A round appears here when its questions are posted: coordinator rounds post."], then: ["No round", "Nothing had been posted by then."] };

export function roundsView(root, route) {
  const [, roundId, questionId] = route.parts;
  const place = h("div");
  let stopped = new AbortController();
  let timer;
  const title = questionId ?? roundId ?? "Rounds";
  const up = roundId ? h("p", { class: "soft" }, h("a", { href: `#/rounds${questionId ? `/${encodeURIComponent(roundId)}` : ""}${route.query()}` }, questionId ? `Round ${roundId}` : "All rounds")) : h("p", { class: "soft" }, "Questions that were posted, and what came of them");
  put(root, h("div", { class: "head" }, h("h1", { class: "reason" }, title), up), place);
  const show = questionId ? (signal) => oneQuestion(roundId, questionId, route, signal) : roundId ? (signal) => oneRound(roundId, route, signal) : (signal) => allRounds(route, signal);
  const load = async () => {
    clearTimeout(timer);
    stopped.abort();
    stopped = new AbortController();
    const open = new Set([...place.querySelectorAll("details[open]")].map((one) => one.dataset.name));
    try {
      const shown = await show(stopped.signal);
      if (place.contains(document.activeElement) && document.activeElement !== place) { timer = setTimeout(load, EVERY_MS); return; } // not under the reader's hands
      put(place, shown);
      for (const one of place.querySelectorAll("details")) one.open = open.has(one.dataset.name);
    } catch (error) {
      if (error.name === "AbortError") return;
      put(place, state(error.status === 404 ? "There is no such question" : "The rounds cannot be shown", error.message));
    }
    if (when.asOf === null) timer = setTimeout(load, EVERY_MS);
  };
  put(place, state("Loading", "The node is asked for its rounds."));
  load();
  return { change(kind) { if (kind === "moment") load(); }, close() { clearTimeout(timer); stopped.abort(); } };
}

// Whether the page has a link to this view: a node of a market has no rounds.
export async function haveRounds() {
  return (await ask("/reports/rounds", { limit: 1 })).length > 0;
}

const pill = (name) => h("span", { class: `pill ${KIND[name] ?? ""}` }, name);
const region = (name, head, rows) => h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, h("table", null, h("thead", null, h("tr", null, head)), h("tbody", null, rows)));
const number = (text, more = "") => h("th", { class: `number ${more}` }, text);
const counts = (round) => STATES.filter((one) => round[one]).map((one) => `${count(round[one])} ${one}`).join(" · ");

async function allRounds(route, signal) {
  const { rows, next } = await page("/reports/rounds", { limit: 100 }, signal);
  if (!rows.length) return state(...NOTHING[when.asOf === null ? "now" : "then"]);
  const lines = h("tbody");
  const line = (one) => h("tr", null,
    h("td", { class: "what" }, h("a", { href: `#/rounds/${encodeURIComponent(one.round_id)}${route.query()}` }, one.round_id), h("div", null, pill(one.state)), h("div", { class: "narrow soft" }, counts(one))),
    h("td", { class: "when" }, stamp(minute(one.closes_at)), h("div", { class: "soft" }, "opens ", stamp(minute(one.opens_at)))),
    STATES.map((name) => h("td", { class: "number wide" }, one[name] ? count(one[name]) : "–")));
  lines.append(...rows.map(line));
  const table = region("Rounds", [h("th", null, "Round"), h("th", null, "Closes (UTC)"), STATES.map((name) => number(name[0].toUpperCase() + name.slice(1), "wide"))], []);
  table.querySelector("tbody").replaceWith(lines);
  return [table, more(next, lines, line, (found) => found)];
}

async function oneRound(roundId, route, signal) {
  const { rows: round, next } = await page(`/reports/rounds/${encodeURIComponent(roundId)}`, { limit: 100 }, signal);
  const lines = h("tbody");
  const line = (one) => h("tr", null,
    h("td", { class: "what" }, h("a", { href: `#/rounds/${encodeURIComponent(roundId)}/${encodeURIComponent(one.question_id)}${route.query()}` }, name(one)), h("div", { class: "soft" }, pill(one.state), one.tags.length ? ` ${one.tags.join(", ")}` : "")),
    h("td", { class: "when" }, stamp(minute(one.closed_at ?? one.closes_at)), h("div", { class: "soft" }, "opens ", stamp(minute(one.opens_at)))),
    h("td", { class: "what" }, outcome(one)),
    h("td", { class: "number wide" }, count(one.askings)));
  lines.append(...round.questions_shown.map(line));
  const table = region("Questions", [h("th", null, "Question"), h("th", null, "Closes (UTC)"), h("th", null, "Truth"), h("th", { class: "number wide" }, "Asked")], []);
  table.querySelector("tbody").replaceWith(lines);
  return [
    h("p", null, pill(round.state), " ", h("span", { class: "soft" }, STATES.filter((one) => round[one]).map((one) => `${count(round[one])} ${one}`).join(" · "))),
    table, more(next, lines, line, (found) => found.questions_shown),
  ];
}

function more(next, lines, line, rowsOf) {
  if (!next) return null;
  const button = h("button", { type: "button", onclick: async () => {
    button.disabled = true;
    try {
      const found = await page(next);
      lines.append(...rowsOf(found.rows).map(line));
      next = found.next;
      button.hidden = !next;
    } finally { button.disabled = false; }
  } }, "More");
  return h("p", null, button);
}

const name = (one) => one.payload?.title || one.payload?.question || one.question_id;

function outcome(one) {
  if (one.state === "void") return h("span", { class: "soft" }, one.reason ?? "void");
  if (one.truth_refused) return h("span", null, "not taken: ", one.truth_refused);
  if (one.truth === null) return h("span", { class: "soft" }, one.resolves_at ? ["expected ", stamp(minute(one.resolves_at))] : "–");
  return [said(one.truth), one.truth_revision ? h("span", { class: "soft" }, ` corrected ${one.truth_revision === 1 ? "once" : `${one.truth_revision} times`}`) : null];
}

const said = (value, most = 120) => {
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return h("code", { class: "mono" }, text.length > most ? `${text.slice(0, most)}…` : text);
};

async function oneQuestion(roundId, questionId, route, signal) {
  const one = await ask(`/reports/rounds/${encodeURIComponent(roundId)}/questions/${encodeURIComponent(questionId)}`, {}, signal);
  const fact = (term, ...value) => [h("dt", null, term), h("dd", null, value)];
  const time = (text) => (text ? `${minute(text)} UTC` : "–");
  const names = [...new Set(one.answers.flatMap((each) => Object.keys(each.score ?? {})))];
  return [
    h("p", null, pill(one.state), " ", h("strong", null, name(one))),
    one.payload?.description ? h("p", { class: "reason" }, one.payload.description) : null,
    h("dl", { class: "facts" },
      fact("Opens", time(one.opened_at ?? one.opens_at)), fact("Closes", time(one.closed_at ?? one.closes_at)),
      fact("Truth", outcome(one), one.resolved_at ? h("span", { class: "soft" }, ` since ${minute(one.resolved_at)}`) : null),
      fact("Asked", one.askings === 1 ? "once" : `${count(one.askings)} times`),
      fact("Revision", count(one.revision)),
      one.resolves_by ? fact("Resolved by", one.resolves_by) : null,
      one.blob_sha256 ? fact("Table", `${count(one.blob_rows)} rows, `, h("span", { class: "mono reason" }, one.blob_sha256)) : null),
    h("details", { class: "below", "data-name": "payload" }, h("summary", null, "What models are shown"), h("pre", { class: "reason" }, one.payload === null ? `${count(one.payload_bytes)} bytes, in the log alone` : JSON.stringify(one.payload, null, 1).slice(0, 20_000))),
    h("h2", null, "Answers"),
    one.answers.length ? region("Answers", [h("th", null, "Model"), h("th", null, "Answer"), names.map((each) => number(each.replaceAll("_", " ")))],
      one.answers.map((each) => h("tr", null,
        h("td", { class: "what" }, each.model_name || each.model_id, h("div", { class: "soft" }, each.cruncher_name),
          h("a", { href: explained("predictions", `${each.input_id}/${one.scope_key}/${each.model_id}`) + route.query(), title: "Explain this answer" }, "explain")),
        h("td", { class: "what" }, each.output_hidden ? h("span", { class: "soft" }, "hidden until answers are closed") : each.output === null ? h("span", { class: "soft" }, each.reason ?? each.status.toLowerCase()) : [said(each.output), each.reason ? h("div", { class: "soft" }, `${each.status.toLowerCase()}: ${each.reason}`) : null]),
        names.map((field) => h("td", { class: "number" }, score(each.score?.[field])))))) : h("p", { class: "soft" }, "Nobody has answered."),
  ];
}
