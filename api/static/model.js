// One model: how it scores over time, how often it answered, what it missed and why.

import { ask, page, when } from "./api.js";
import { status } from "./board.js";
import { lineChart, stackedBars } from "./charts.js";
import { compareChoice, comparison } from "./compare.js";
import { downloadButton } from "./csv.js";
import { h, put, stamp, state } from "./dom.js";
import { explained, explainedOf } from "./explain.js";
import { count, iso, minute, ms, score, second, short, windowName } from "./format.js";
import { store } from "./live.js";

const PERIODS = 168;
const MISSES = 300;
const MISSES_HOURS = 24; // who looks for rare ones further back makes the node read every round since
const PER_PAGE = 50;
const SCOPES_MAX = 60;
const REFRESH_MS = 30_000;
const NUMBERS_PERIODS = 12;

export function modelView(root, route) {
  const id = route.parts[1];
  let stopped = new AbortController();
  let loaded = 0;
  let table = null;
  let loadedFor;
  let missing = false;
  const back = h("a", { href: `#/${route.query()}` }, "Leaderboard");
  const crumb = h("p", { class: "crumb" }, back, " / ", short(id, 32));
  const head = h("div");
  const body = h("div");
  const facts = h("div");
  const carried = h("div");
  const choice = h("div");
  const chart = h("div");
  const byScope = h("div");
  const answers = h("div");
  const predictions = h("div");
  const members = h("div");
  const numbers = h("div");
  const isEnsemble = id.startsWith("__ensemble_");
  put(body, facts, carried, h("h2", null, "Scores over time"), choice, chart, byScope, numbers, h("h2", null, isEnsemble ? "Rounds" : "Answers"), answers,
    isEnsemble ? [h("h2", null, "Members and weights"), members] : [copies(id, route), h("h2", null, "Predictions"), predictions]);
  put(root, crumb, head, body);

  // The models that it can be compared with are those of the board, which comes when it comes.
  let offered = -1;
  const showChoice = () => {
    const models = store.board?.rows.length ?? 0;
    if (models === offered) return;
    offered = models;
    put(choice, compareChoice(id, route.get("with"), (other) => { route.keep("with", other); loadScores(); }));
  };
  const showHead = () => {
    showChoice();
    const row = store.board?.rows.find((one) => one.model_id === id);
    body.hidden = !row && !store.failed && (missing || Boolean(store.board)); // of a model that is not there nothing is told
    if (!row) {
      put(head, store.failed ? state("That time cannot be shown", store.failed) : store.board || missing
        ? state("No such model", `No model ${id} is known${route.asOf === null ? "" : " at that time"}.`)
        : state("Loading", "The node is asked for the model."));
      return;
    }
    const tile = (name, ...value) => h("div", null, h("dt", null, name), h("dd", null, value));
    put(head,
      h("div", { class: "head" }, h("h1", null, row.model_name || id), h("p", { class: "soft" }, row.ensemble ? "an ensemble: made of the models' answers, scored beside them, neither ranked nor paid" : ["by ", row.cruncher_name || "–"]), h("p", { class: "end" }, status(row))),
      h("dl", { class: "tiles" },
        row.ensemble ? null : tile("Rank", row.rank ?? "–", h("small", null, ` of ${count(store.board.rows.filter((one) => one.rank !== null).length)}`)),
        store.board.windows.map((name, i) => tile([h("a", { href: explainedOf(route, { by: name }, "board", id), title: `Explain this place by ${name}` }, windowName(name)), name === store.board.key ? " · ranks" : null], score(row.scores[i]))),
        tile("Scored", count(row.scored_count))),
      h("p", { class: "soft" }, h("a", { href: explained("board", id) + route.query() }, "Explain this place")));
  };

  const part = async (place, wait, make) => {
    if (!place.childElementCount) put(place, h("p", { class: "soft" }, wait));
    try {
      put(place, await make());
    } catch (error) {
      if (error.name !== "AbortError") put(place, h("div", { class: "notice bad" }, h("strong", null, "Not to be had. "), error.message));
    }
  };

  const load = () => {
    stopped.abort();
    stopped = new AbortController();
    loadedFor = when.asOf;
    loadScores();
    if (!isEnsemble) part(predictions, "Loading the predictions…", async () => {
      table = await predictionsTable(id, stopped.signal, route);
      return table.element;
    });
  };
  const loadScores = () => {
    loaded = Date.now();
    const { signal } = stopped;
    if (isEnsemble) part(members, "Loading its members…", async () => ensembleRounds((await ask("/reports/ensembles", {}, signal)).filter((one) => one.ensemble_id === id), route));
    else part(facts, "", async () => {
      try {
        return modelFacts(await ask(`/reports/models/${encodeURIComponent(id)}`, {}, signal));
      } catch (error) {
        missing = error.status === 404; // a node without a board yet says so here alone
        if (missing) showHead();
        throw error;
      }
    });
    part(carried, "", async () => stateTable(await ask(`/reports/models/${encodeURIComponent(id)}/state`, {}, signal)));
    part(byScope, "", async () => scopesTable(await ask("/reports/models/params", { projectIds: id, limit: SCOPES_MAX }, signal), id, route));
    part(numbers, "", async () => numbersTable(await ask("/reports/snapshots", { model_id: id, limit: NUMBERS_PERIODS }, signal), id, route));
    part(chart, "Loading the scores…", async () => {
      const other = route.get("with");
      return other && other !== id ? comparison(id, other, PERIODS, signal)
        : scoresChart(await ask("/reports/models/global", { projectIds: id, limit: PERIODS }, signal), id, route);
    });
    part(answers, "Loading the answers…", async () => {
      const clock = when.asOf ?? store.clock;
      const start = clock ? iso(clock - MISSES_HOURS * 3_600_000) : null;
      if (isEnsemble) return periodBars(await ask("/reports/snapshots", { model_id: id, limit: PERIODS }, signal));
      const [periods, absent, failed] = await Promise.all([
        ask("/reports/snapshots", { model_id: id, limit: PERIODS }, signal),
        ask("/reports/predictions", { projectIds: id, status: "ABSENT", start, limit: MISSES }, signal),
        ask("/reports/predictions", { projectIds: id, status: "FAILED", start, limit: MISSES }, signal),
      ]);
      return h("div", null, periodBars(periods), misses([...absent, ...failed]));
    });
  };

  showHead();
  load();
  return {
    change(kind) {
      if (kind === "board") showHead();
      if (kind === "address") { offered = -1; showChoice(); loadScores(); }
      if (kind === "moment") {
        back.href = `#/${route.query()}`;
        showHead();
        if (loadedFor !== when.asOf) load();
      }
      // Who reads or has something open is not disturbed.
      const busy = chart.contains(document.activeElement) || answers.contains(document.activeElement) || chart.querySelector("details[open]");
      if (kind === "clock" && when.asOf === null && Date.now() - loaded > REFRESH_MS && !busy) { loadScores(); table?.refresh(); }
    },
    close() { stopped.abort(); },
  };
}

function modelFacts(row) {
  const fact = (term, ...value) => [h("dt", null, term), h("dd", null, value)];
  const failure = row.last_failure;
  const gone = { LEFT: "Left", BANNED: "Banned" }[row.state];
  return h("dl", { class: "facts" },
    gone ? fact(gone, row.reason || "no reason was given") : null,
    row.unranked_reason && !gone ? fact("Not ranked", row.unranked_reason) : null,
    fact("Seen", `${minute(row.first_seen_at)} to ${minute(row.last_seen_at)} UTC`),
    fact("Deployment", h("span", { class: "mono" }, row.deployment_id || "–"), row.deployments > 1 ? h("span", { class: "soft" }, ` · number ${row.deployments}`) : null),
    row.wallet_pubkey ? fact("Wallet", h("span", { class: "mono" }, row.wallet_pubkey)) : null,
    failure ? fact("Last reported", h("span", { class: "pill down" }, failure.code), ` ${failure.reason}`, h("span", { class: "soft" }, ` · ${minute(failure.at)} UTC`)) : null);
}

// What it carries from round to round: positions, wealth. Most contracts carry nothing, and then nothing stands here.
function stateTable(rows) {
  if (!rows.length) return null;
  const shared = rows.some((row) => row.shared !== null);
  const json = (value) => h("td", { class: "reason mono" }, value === null ? "–" : JSON.stringify(value));
  return h("div", null, h("h3", { class: "sub" }, "Carried from round to round"),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Carried state" }, h("table", null,
      h("thead", null, h("tr", null, h("th", null, "Subject"), h("th", null, "Scope"), h("th", null, "State"), shared ? h("th", null, "Shared by all") : null, h("th", null, "Since (UTC)"))),
      h("tbody", null, rows.map((row) => h("tr", null, h("td", null, row.subject ?? "all"), h("td", null, row.scope_key ?? "all"),
        json(row.state), shared ? json(row.shared) : null, h("td", { class: "when" }, stamp(minute(row.changed_at)))))))));
}

// Who was in an ensemble's newest round of each scope, and what each weighed.
function ensembleRounds(rows, route) {
  if (!rows.length) return h("p", { class: "soft" }, "It stands here once a round is scored.");
  const answer = (row) => (typeof row.output?.value === "number" ? score(row.output.value) : JSON.stringify(row.output ?? null).slice(0, 60));
  return h("div", null, rows.map((row) => h("div", null,
    h("h3", { class: "sub" }, `${row.subject} · ${row.scope_key} · ${minute(row.performed_at)} UTC`, " ",
      h("a", { href: explained("predictions", `${row.input_id}/${row.scope_key}/${row.ensemble_id}`) + route.query(), title: "Explain this answer" }, "explain")),
    row.failed_reason ? h("div", { class: "notice bad" }, h("strong", null, "Not made. "), row.failed_reason)
      : h("p", null, "Answered ", h("strong", null, answer(row)), ", scored ", h("strong", null, score(row.score_value)), h("span", { class: "soft" }, ` · ${count(row.members.length)} members`)),
    row.members.length ? h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Members" }, h("table", null,
      h("thead", null, h("tr", null, h("th", null, "Model"), h("th", { class: "number" }, "Weight"))),
      h("tbody", null, row.members.map((one) => h("tr", null, h("td", null, h("a", { href: explained("predictions", `${row.input_id}/${row.scope_key}/${one.model_id}`) + route.query(), title: "Explain this member's answer" }, one.model_name || one.model_id)), h("td", { class: "number" }, `${(100 * one.weight).toFixed(2)} %`)))))) : null)));
}

// What the contract makes of each period beside the windows: its aggregates and metrics. One number alone is what the chart
// of the score says already.
function numbersTable(rows, id, route) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row.result_summary)))].sort();
  if (names.length < 2) return null;
  return h("div", null, h("h3", { class: "sub" }, "Numbers of the contract, by period"),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Numbers of the contract" }, h("table", null,
      h("thead", null, h("tr", null, h("th", null, "Up to (UTC)"), names.map((name) => h("th", { class: "number" }, name.replaceAll("_", " "))))),
      h("tbody", null, rows.map((row) => h("tr", null, h("td", { class: "when" }, h("a", { href: explained("snapshots", id, String(ms(row.period_end) - 1)) + route.query(), title: "Explain this period" }, stamp(minute(row.period_end)))),
        names.map((name) => h("td", { class: "number" }, score(row.result_summary[name])))))))));
}

// Who answers like this one, with the evidence. All models are compared, so the node is asked only where somebody looks.
function copies(id, route) {
  const found = h("div");
  const show = async () => {
    put(found, h("p", { class: "soft" }, "Comparing the answers of all models…"));
    try {
      const { pairs, rounds } = await ask("/reports/models/copies", {});
      put(found, copiesTable(id, pairs.filter((pair) => pair.earlier === id || pair.later === id), rounds, route));
    } catch (error) {
      put(found, h("div", { class: "notice bad" }, h("strong", null, "Not to be had. "), error.message));
    }
  };
  const details = h("details", { ontoggle: () => { if (details.open) show(); } }, h("summary", null, "Models that answer alike"), found);
  return details;
}

function copiesTable(id, pairs, rounds, route) {
  if (!pairs.length) return h("p", { class: "soft" }, `None in the newest ${count(rounds)} rounds.`);
  const row = (pair) => {
    const first = pair.earlier === id;
    const other = first ? pair.later : pair.earlier;
    const lag = pair.lag ? `, ${count(pair.lag)} rounds ${first ? "later" : "earlier"}` : "";
    return h("tr", null, h("td", null, h("a", { href: `#/models/${encodeURIComponent(other)}` }, (first ? pair.later_name : pair.earlier_name) || other)),
      h("td", null, h("a", { href: explainedOf(route, { other }, "copies", id), title: "Explain this evidence" }, pair.kind + lag)), h("td", { class: "number" }, score(pair.correlation, 6)), h("td", { class: "number" }, score(pair.scale)),
      h("td", { class: "number" }, `${(100 * pair.equal_share).toFixed(1)} %`), h("td", { class: "number" }, count(pair.common)));
  };
  return h("div", null, h("p", { class: "soft" }, `Of the newest ${count(rounds)} rounds. Two honest models made of one example agree too: this is evidence, no verdict.`),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Models that answer alike" }, h("table", null,
      h("thead", null, h("tr", null, ["Model", "How"].map((name) => h("th", null, name)), ["Correlation", "Scale", "Equal to 12 digits", "Rounds of both"].map((name) => h("th", { class: "number" }, name)))),
      h("tbody", null, pairs.map(row)))));
}

// The last period's windows of each scope; with one scope the chart says the same.
function scopesTable(rows, id, route) {
  const last = rows.at(-1)?.performed_at;
  const scopes = rows.filter((row) => row.performed_at === last);
  if (scopes.length < 2) return null;
  const names = (store.windows ?? Object.keys(scopes[0].score_metrics)).filter((name) => name in scopes[0].score_metrics);
  return h("div", null, h("h3", { class: "sub" }, "By scope, at the last period's end"),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Scores by scope" }, h("table", null,
      h("thead", null, h("tr", null, h("th", null, "Subject"), h("th", null, "Scope"), names.map((name) => h("th", { class: "number" }, windowName(name))))),
      h("tbody", null, scopes.map((row) => h("tr", null, h("td", null, row.subject), h("td", null, h("a", { href: explainedOf(route, { scope: `${row.subject}/${row.scope_key}` }, "snapshots", id, String(ms(row.performed_at) - 1)), title: "Explain the windows of this scope" }, row.scope_key)),
        names.map((name) => h("td", { class: "number" }, score(row.score_metrics[name])))))))));
}

function scoresChart(rows, id, route) {
  if (!rows.length) return h("p", { class: "soft" }, "No score in a closed period yet.");
  const known = Object.keys(rows[0].score_metrics);
  const names = (store.windows ?? known).filter((name) => known.includes(name));
  const times = rows.map((row) => ms(row.performed_at));
  const series = names.map((name) => ({ name: windowName(name), values: rows.map((row) => row.score_metrics[name]) }));
  const table = h("details", null, h("summary", null, "As a table"),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Scores at each period's end" }, h("table", null,
      h("thead", null, h("tr", null, h("th", null, "Period's end (UTC)"), names.map((name) => h("th", { class: "number" }, windowName(name))))),
      h("tbody", null, rows.slice(-48).reverse().map((row) => h("tr", null, h("td", { class: "when" }, h("a", { href: explained("snapshots", id, String(ms(row.performed_at) - 1)) + route.query(), title: "Explain this period" }, stamp(minute(row.performed_at)))),
        names.map((name) => h("td", { class: "number" }, score(row.score_metrics[name])))))))));
  return h("div", null, lineChart(times, series, `Scores of ${names.length} windows at ${rows.length} period ends; the table below has the numbers`), table);
}

function periodBars(periods) {
  if (!periods.length) return h("p", { class: "soft" }, "No closed period with this model yet.");
  const rows = [...periods].reverse().map((one) => ({
    label: minute(one.period_start),
    parts: [one.scored_count, one.failed_count, one.absent_model_count, one.absent_node_count],
  }));
  const sums = rows[0].parts.map((_, i) => rows.reduce((sum, row) => sum + row.parts[i], 0));
  const all = Math.max(1, sums.reduce((a, b) => a + b, 0));
  const names = ["scored", "failed", "absent, by the model", "absent, by the node"];
  const percent = (n) => (100 * n / all).toFixed(n && n < all ? 2 : 0) + " %";
  return h("div", null,
    h("p", null, h("strong", null, percent(sums[0])), ` of ${count(all)} asked in the last ${rows.length} closed ${rows.length === 1 ? "period" : "periods"} were scored. `,
      h("span", { class: "soft" }, names.slice(1).map((name, i) => `${count(sums[i + 1])} ${name}`).join(" · "))),
    stackedBars(rows, names, `Answers in ${rows.length} periods: ${names.map((name, i) => `${sums[i]} ${name}`).join(", ")}`));
}

// What a participant asks first: which of my predictions are missing, and whose fault is it.
function misses(rows) {
  const title = h("h3", { class: "sub" }, `Absences and failures of the last ${MISSES_HOURS} h, by reason`);
  if (!rows.length) return h("div", null, title, h("p", { class: "soft" }, "None: every round was answered, and every answer could be scored."));
  const groups = new Map();
  for (const row of rows) {
    const name = `${row.status}|${row.fault}|${row.score_failed_reason}`;
    const group = groups.get(name) ?? { row, n: 0, last: 0, charge: 0 };
    group.n += 1;
    group.last = Math.max(group.last, ms(row.performed_at));
    group.charge += row.score_charge ?? 0;
    groups.set(name, group);
  }
  const body = [...groups.values()].sort((a, b) => b.last - a.last).map(({ row, n, last, charge }) => h("tr", null,
    h("td", null, row.fault === "nobody" ? h("span", { class: "pill" }, "no score yet") : h("span", { class: row.status === "ABSENT" ? "pill warn" : "pill down" }, row.status.toLowerCase())),
    h("td", { class: "reason" }, row.score_failed_reason || "no reason was recorded",
      h("div", { class: "soft" }, row.fault === "node" ? "the node's fault: never charged" : row.fault === "model" ? "the model's fault" : row.fault === "nobody" ? "nobody's fault: never charged" : "")),
    h("td", { class: "number wide" }, charge ? score(charge) : "–"),
    h("td", { class: "number" }, count(n)), h("td", { class: "when" }, stamp(minute(last)))));
  return h("div", null, title, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Absences and failures by reason" }, h("table", null,
    h("thead", null, h("tr", null, h("th", null, "Became"), h("th", null, "Reason"), h("th", { class: "number wide" }, "Charged"), h("th", { class: "number" }, "Times"), h("th", null, "Last (UTC)"))),
    h("tbody", null, body))),
    rows.length >= MISSES ? h("p", { class: "soft" }, `Of the newest ${MISSES} of each kind.`) : null);
}

async function predictionsTable(id, signal, route) {
  let filter = null;
  const trail = [];
  const place = h("div");
  let seen = [];
  const newer = h("button", { type: "button", onclick: () => { trail.pop(); show(); } }, "Newer");
  const older = h("button", { type: "button", onclick: () => { trail.push(older.next); show(); } }, "Older");
  const choice = h("select", { "aria-label": "Which predictions", onchange: () => { filter = choice.value || null; trail.length = 0; show(); } },
    [["", "All"], ["SCORED", "Scored"], ["REPLACED", "Replaced"], ["PENDING", "Pending"], ["ABSENT", "Absent"], ["FAILED", "Failed"]].map(([value, name]) => h("option", { value }, name)));

  const show = async () => {
    older.disabled = newer.disabled = true;
    const where = trail.at(-1) ?? {};
    let got;
    try {
      got = where.path ? await page(where.path, {}, signal)
        : await page("/reports/predictions", { projectIds: id, status: filter, limit: PER_PAGE, ...where }, signal);
    } catch (error) {
      if (error.name !== "AbortError") put(place, h("div", { class: "notice bad" }, error.message));
      return;
    }
    const rows = [...got.rows].sort((a, b) => (a.performed_at < b.performed_at ? 1 : -1));
    seen = rows;
    older.next = got.next ? { path: got.next } : rows.length >= PER_PAGE ? { end: iso(ms(rows.at(-1).performed_at) - 1) } : null;
    older.disabled = !older.next;
    newer.disabled = !trail.length;
    put(place, rows.length ? h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Predictions" }, h("table", null,
      h("thead", null, h("tr", null, h("th", null, "Made (UTC)"), h("th", { class: "wide" }, "Subject"), h("th", { class: "wide" }, "Scope"), h("th", null, "Status"), h("th", { class: "number" }, "Answer"), h("th", { class: "number" }, "Score"), h("th", { class: "wide" }, "Reason"), h("th", { class: "number wide" }, "Took"))),
      h("tbody", null, rows.map((row) => predictionRow(row, route))))) : h("p", { class: "soft" }, "None."));
  };
  await show();
  return {
    element: h("div", null, h("p", { class: "tools" }, choice, downloadButton(`predictions-${id}`, () => predictionLines(seen))), place, h("div", { class: "pager" }, newer, older)),
    refresh() { if (!trail.length) show(); },
  };
}

function predictionLines(rows) {
  const names = ["id", "performed_at", "subject", "scope_key", "status", "output", "score_value", "score_failed_reason", "exec_time_us"];
  return [names, ...rows.map((row) => names.map((name) => row[name]))];
}

function predictionRow(row, route) {
  const kind = { SCORED: "up", REPLACED: "accent", PENDING: "accent", ABSENT: "warn", FAILED: "down" }[row.status];
  const answer = row.output && typeof row.output.value === "number" ? score(row.output.value) : row.output ? JSON.stringify(row.output).slice(0, 60) : row.output_hidden ? "hidden" : row.output_bytes ? `${count(row.output_bytes)} bytes` : "–";
  return h("tr", null,
    h("td", { class: "when" }, h("a", { href: explained("predictions", row.id) + route.query(), title: "Explain this prediction" }, stamp(second(row.performed_at)))), h("td", { class: "wide" }, row.subject), h("td", { class: "wide" }, row.scope_key),
    h("td", null, h("span", { class: `pill ${kind}` }, row.status.toLowerCase())),
    h("td", { class: "number" }, answer), h("td", { class: "number" }, score(row.score_value)),
    h("td", { class: "reason wide" }, row.score_failed_reason ?? ""),
    h("td", { class: "number when wide" }, row.exec_time_us ? `${(row.exec_time_us / 1000).toFixed(1)} ms` : "–"));
}
