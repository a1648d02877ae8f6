// Checkpoints: what is paid, to whom, and how far it has come.

import { ask, page, when } from "./api.js";
import { h, hidden, put, stamp, state } from "./dom.js";
import { evidence } from "./evidence.js";
import { explained } from "./explain.js";
import { count, minute, ms, period, score, second, share, short } from "./format.js";
import { store } from "./live.js";
import { VirtualRows } from "./virtual.js";

const STEPS = ["PENDING", "SUBMITTED", "CLAIMABLE", "PAID"];
const MEANING = {
  WITHHELD: "held back", PENDING: "offered for payment", SUBMITTED: "transaction sent", CLAIMABLE: "on chain, may be claimed", PAID: "claimed in full",
};
const KIND = { WITHHELD: "down", PENDING: "warn", SUBMITTED: "accent", CLAIMABLE: "accent", PAID: "up" };
const RETAINED = {
  withheld: "the contract names nobody who takes it on chain", left: "paid by prizes only", shared_out: "on chain the paid ones have it", taken: "on chain a model takes it", none: "",
};
const PER_PAGE = 50;

const pill = (status) => h("span", { class: `pill ${KIND[status] ?? ""}` }, status.toLowerCase());

export function checkpointsView(root, route) {
  return route.parts[1] ? oneView(root, route) : listView(root, route);
}

function listView(root, route) {
  const place = h("div");
  let older = [];
  let next; // undefined before the first question, null at the end
  put(root, h("div", { class: "head" }, h("h1", null, "Checkpoints"), h("p", { class: "soft" }, "What each period paid, or will pay")), place);
  const fill = () => {
    const newest = [...store.checkpoints.values()].sort((a, b) => ms(b.period_end) - ms(a.period_end));
    const rows = [...newest, ...older.filter((one) => !store.checkpoints.has(one.id))];
    if (!rows.length) {
      put(place, store.failed ? state("That time cannot be shown", store.failed) : store.connection === "connecting" ? state("Loading", "The node is asked for its checkpoints.")
        : state("No checkpoint yet", "The first one is made when the first payment period closes with a scored prediction in it."));
      return;
    }
    const more = h("button", { type: "button", onclick: load }, "Older");
    put(place, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Checkpoints" }, h("table", null,
      h("thead", null, h("tr", null, h("th", null, "Period (UTC)"), h("th", null, "Status"), h("th", { class: "number wide" }, "Models"), h("th", { class: "wide" }, "Last move (UTC)"), h("th", { class: "wide" }, "Transaction"))),
      h("tbody", null, rows.map((one) => h("tr", null,
        h("td", { class: "when" }, h("a", { href: `#/checkpoints/${one.id}${route.query()}` }, period(one.period_start, one.period_end)), one.rehearsal ? h("span", { class: "soft" }, " rehearsal") : null),
        h("td", null, pill(one.status), one.reason && one.status === "WITHHELD" ? h("div", { class: "soft reason" }, one.reason) : null),
        h("td", { class: "number wide" }, count(one.model_count)), h("td", { class: "when wide" }, stamp(minute(one.moves.at(-1)?.at))),
        h("td", { class: "mono wide" }, one.tx_hash ? short(one.tx_hash) : "–")))))),
    rows.length >= PER_PAGE && next !== null ? h("div", { class: "pager" }, more) : null);
  };
  // The stream tells the newest ones; a cursor leads on from the node's own first page.
  const load = async () => {
    const known = new Set([...store.checkpoints.keys(), ...older.map((one) => one.id)]);
    for (let fresh = []; !fresh.length && next !== null;) {
      const got = next === undefined ? await page("/reports/checkpoints", { limit: PER_PAGE }) : await page(next);
      next = got.next;
      fresh = got.rows.map((one) => ({ ...one, ...one.meta })).filter((one) => !known.has(one.id));
      older = [...older, ...fresh];
    }
    fill();
  };
  fill();
  return { change(kind) { if (kind === "moment") { older = []; next = undefined; } if (["checkpoint", "moment", "connection"].includes(kind)) fill(); }, close() {} };
}

function oneView(root, route) {
  const id = route.parts[1];
  const body = h("div");
  let rows = null;
  let stopped = new AbortController();
  let loadedFor;
  const back = h("a", { href: `#/checkpoints${route.query()}` }, "Checkpoints");
  put(root, h("p", { class: "crumb" }, back, " / ", short(id, 28)), body);
  const load = async () => {
    stopped.abort();
    stopped = new AbortController();
    loadedFor = when.asOf;
    back.href = `#/checkpoints${route.query()}`;
    if (!body.childElementCount) put(body, state("Loading", "The node is asked for the checkpoint."));
    try {
      const one = await ask(`/reports/checkpoints/${encodeURIComponent(id)}`, {}, stopped.signal);
      rows?.close();
      rows = show(body, one, route);
    } catch (error) {
      if (error.name === "AbortError") return;
      put(body, error.status === 404
        ? state("No such checkpoint", when.asOf === null ? "The node knows none by this id." : "It had not been made by then.")
        : state("The checkpoint cannot be shown", error.message));
    }
  };
  load();
  return {
    change(kind, detail) { if ((kind === "moment" && loadedFor !== when.asOf) || (kind === "checkpoint" && detail?.id === id)) load(); },
    close() { stopped.abort(); rows?.close(); },
  };
}

function show(body, one, route) {
  const emission = one.entries[0];
  const shares = new Map(emission.cruncher_rewards.map((reward) => [reward.cruncher_index, reward.reward_pct]));
  const total = emission.cruncher_rewards.reduce((sum, reward) => sum + reward.reward_pct, 0);
  const most = Math.max(1, ...shares.values());
  const entries = one.meta.ranking.map((entry, i) => ({ ...entry, reward: shares.get(i) ?? 0 }));
  const held = one.status === "WITHHELD";
  const rows = new VirtualRows({
    key: (entry) => entry.model_id,
    make: () => h("div", { role: "row", class: "row" }),
    update: (element, entry) => {
      const bar = h("i");
      bar.style.width = `${(100 * entry.reward) / most}%`;
      put(element,
        h("div", { role: "cell", class: "rank" }, String(entry.rank)),
        h("div", { role: "rowheader", class: "model" }, h("a", { href: `#/models/${encodeURIComponent(entry.model_id)}${route.query()}` }, entry.model_name || entry.model_id), h("span", { class: "cruncher" }, entry.cruncher_name)),
        h("div", { role: "cell", class: "number period" }, score(entry.checkpoint_score)),
        h("div", { role: "cell", class: "number other predictions" }, count(entry.prediction_count)),
        h("div", { role: "cell", class: "number key" }, h("a", { href: explained("checkpoints", one.id, entry.model_id) + route.query(), title: "Explain this share" }, entry.reward ? share(entry.reward) : [h("span", { class: "soft", "aria-hidden": "true" }, "–"), hidden("not paid")])),
        h("div", { role: "cell", class: "bar" }, h("div", { class: "meter", "aria-hidden": "true" }, bar)));
    },
  });
  const column = (text, kind) => h("div", { role: "columnheader", class: kind }, text);
  const fact = (term, ...value) => [h("dt", null, term), h("dd", null, value)];
  put(body,
    h("div", { class: "head" }, h("h1", null, period(one.period_start, one.period_end)), h("p", { class: "soft" }, "UTC"), one.meta.rehearsal ? h("span", { class: "pill" }, "rehearsal") : null, h("p", { class: "end" }, pill(one.status))),
    held ? h("div", { class: "notice bad" }, h("strong", null, "Withheld: "), one.reason || "no reason was recorded", h("p", { class: "soft" }, "It is not offered for payment until it is released."))
      : one.reason ? h("div", { class: "notice" }, h("strong", null, "Last said: "), one.reason) : null,
    timeline(one),
    h("dl", { class: "facts" },
      fact("Transaction", one.tx_hash ? h("span", { class: "mono" }, one.tx_hash) : "none yet"),
      fact("Crunch", h("span", { class: "mono" }, emission.crunch)),
      fact("Emission's sha256", h("span", { class: "mono" }, one.meta.emission_sha256)),
      fact("As the chain's tools take it", held ? "not handed out while withheld" : [h("a", { href: `/reports/checkpoints/${one.id}/emission` }, "emission"), " · ", h("a", { href: `/reports/checkpoints/${one.id}/emission/cli-format` }, "CLI format")])),
    corrections(one.meta, route),
    h("h2", null, "Shares"),
    h("p", { class: "soft" }, `${count(emission.cruncher_rewards.length)} of ${count(entries.length)} ranked models are paid. The shares sum to ${count(total)} of 1,000,000,000`, total === 1_000_000_000 ? ", exactly." : ".",
      one.meta.payout?.retained_frac64 ? ` The rules retain ${share(one.meta.payout.retained_frac64)} (${RETAINED[one.meta.payout.retained_is]}).` : ""),
    one.meta.payout ? pools(one.meta) : null,
    h("div", { role: "table", class: "board shares", "aria-label": "Shares by rank", "aria-rowcount": entries.length + 1 },
      h("div", { role: "rowgroup", class: "board-head" }, h("div", { role: "row", class: "row", "aria-rowindex": "1" },
        column("Rank", "rank"), column("Model", "model"), column("Period's score", "number period"), column("Predictions", "number predictions"), column("Share", "number key"), column("", "bar"))),
      rows.element),
    one.meta.unranked?.length ? h("p", { class: "soft" }, "Not ranked, not paid: ", one.meta.unranked.slice(0, 50).map((model, i) => [i ? ", " : "", h("a", { href: explained("checkpoints", one.id, model) + route.query() }, model)]), one.meta.unranked.length > 50 ? " …" : "") : null,
    evidence(one.id));
  rows.set(entries);
  return rows;
}

// What each pool gives to whom, best first.
function pools(meta) {
  const name = new Map(meta.ranking.map((entry) => [entry.model_id, entry.model_name || entry.model_id]));
  const percent = (part) => `${(100 * part).toFixed(4)} %`;
  return h("dl", { class: "facts" }, meta.payout.pools.flatMap((pool) => [
    h("dt", null, `Pool ${pool.name}, ${percent(pool.share)} of the whole`),
    h("dd", null, pool.paid.slice(0, 20).map((one) => `${one.rank}. ${name.get(one.model_id)} ${percent(one.share)}`).join(", ") || "nobody",
      pool.retained ? `; retained ${percent(pool.retained)}` : ""),
  ]));
}

// What it pays for earlier checkpoints, and what was found wrong with it since.
function corrections(meta, route) {
  const link = (id) => h("a", { href: `#/checkpoints/${id}${route.query()}` }, short(id, 28));
  const amounts = (list) => `${list.slice(0, 20).map((one) => `${one.model_id} ${count(one.amount)}`).join(", ")}${list.length > 20 ? " …" : ""} micro-USDC`;
  const rows = [
    ...meta.credits.map((one) => [["On top, for ", link(one.checkpoint_id)], `${amounts(one.prizes)}: ${one.reason}`]),
    ...meta.corrections.map((one) => [["Corrected ", minute(one.at)], one.reason]),
    ...meta.made_good.map((one) => [["Made good by ", link(one.checkpoint_id)], amounts(one.prizes)]),
    ...(meta.owed.to_pay.length ? [["The next checkpoint carries", amounts(meta.owed.to_pay)]] : []),
    ...(meta.owed.overpaid.length ? [["Paid too much, not taken back", amounts(meta.owed.overpaid)]] : []),
  ];
  return rows.length ? [h("h2", null, "Corrections"), h("dl", { class: "facts" }, rows.flatMap(([term, value]) => [h("dt", null, term), h("dd", null, value)]))] : null;
}

// The moves as they happened, then the steps that are still ahead.
function timeline(one) {
  const moves = one.meta.moves;
  const reached = STEPS.indexOf(one.status);
  const ahead = STEPS.slice(reached + 1);
  const steps = [
    ...moves.map((move, i) => h("li", { class: `done${move.status === "WITHHELD" ? " bad" : ""}${i < moves.length - 1 ? " gone" : ""}`, "aria-current": i === moves.length - 1 ? "step" : null },
      h("strong", null, move.status.toLowerCase()), MEANING[move.status], h("br"), h("time", { datetime: move.at }, second(move.at)))),
    ...ahead.map((status) => h("li", null, h("strong", null, status.toLowerCase()), MEANING[status], h("br"), "still ahead")),
  ];
  return h("ol", { class: "timeline", "aria-label": "States" }, steps);
}
