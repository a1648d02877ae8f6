// Rules that are not in force: the shadow that decides beside the live ones, and the plans that were kept. Both are about
// this node's files, so they are asked as of now wherever the page stands.

import { askNow } from "./api.js";
import { h, put, stamp, state } from "./dom.js";
import { count, minute, period, share } from "./format.js";
import { shadowPart } from "./shadow.js";
import { both, table } from "./tables.js";

const CHANGE = {
  none: ["up", "nothing changes"], board: ["accent", "only the board changes"], payout: ["warn", "payments change"], inputs: ["down", "cannot be computed"],
};
const SAYS = {
  none: "Nothing changes.", board: "Only the board changes; what is paid stays the same.", payout: "What is paid changes.",
  inputs: "The models would have been asked otherwise. Their answers are not known, so nothing is computed.",
};

const plainly = (value) => (typeof value === "string" ? value : JSON.stringify(value));
const pill = (change) => h("span", { class: `pill ${CHANGE[change][0]}` }, CHANGE[change][1]);
const address = (route, ...names) => `#/rules/plans/${names.map(encodeURIComponent).join("/")}${route.query()}`;

export function rulesView(root, route) {
  return route.parts[1] === "plans" ? planView(root, route) : listView(root, route);
}

function listView(root, route) {
  const shadow = h("div");
  const plans = h("div");
  put(root, h("div", { class: "head" }, h("h1", null, "Rules"), h("p", { class: "soft" }, "What other rules would decide. Nothing here is in force, and nothing of it is paid")),
    h("p", null, h("a", { href: "/rules" }, "The rules in force, in words")),
    h("h2", null, "Shadow"), shadow, h("h2", null, "Plans"), plans);
  const stop = shadowPart(shadow, route);
  askNow("/reports/plans").then((rows) => put(plans, rows.length ? planTable(rows, route)
    : state("No plan was kept", "On the node, ", h("code", { class: "mono" }, "coordinator plan --contract MODULE:NAME"), " shows what other rules would have made of what is recorded, and keeps it.")))
    .catch((error) => put(plans, state("The plans cannot be shown", error.message)));
  return { change() {}, close: stop };
}

function planTable(rows, route) {
  return table("Plans", [["Made (UTC)", "when"], ["New rules", "reason"], ["First other payment (UTC)", "when wide"]], rows.map((one) => (one.fault
    ? [h("span", { class: "mono" }, one.name), one.fault, ""]
    : [h("a", { href: address(route, one.name) }, stamp(minute(one.made_at))), [one.contract, " ", h("span", { class: "soft mono" }, one.contract_hash.slice(0, 12)), " ", pill(one.change), asides(one)], one.first_affected ? minute(one.first_affected) : "–"])));
}

const asides = (one) => Object.entries(one.values_set).map(([name, value]) => h("div", { class: "soft mono" }, `${name} = ${plainly(value)}`));

function planView(root, route) {
  const [, , name, at] = route.parts;
  const body = h("div");
  const stopped = new AbortController();
  put(root, h("p", { class: "crumb" }, h("a", { href: `#/rules${route.query()}` }, "Rules"), " / ", "Plan"), body);
  put(body, state("Loading", "The node reads the plan."));
  askNow(`/reports/plans/${encodeURIComponent(name)}`, { period: at }, stopped.signal)
    .then((plan) => showPlan(body, plan, route))
    .catch((error) => { if (error.name !== "AbortError") put(body, state(error.status === 404 ? "No such plan" : "The plan cannot be shown", error.message)); });
  return { change() {}, close() { stopped.abort(); } };
}

function showPlan(body, plan, route) {
  const fact = (term, ...value) => [h("dt", null, term), h("dd", null, value)];
  const terms = plan.terms.filter((one) => one.name !== "contract_hash");
  const set = Object.keys(plan.values_set).length > 0;
  put(body,
    h("div", { class: "head" }, h("h1", null, plan.contract), h("p", { class: "soft" }, `made ${minute(plan.made_at)} UTC`), h("p", { class: "end" }, pill(plan.change))),
    h("div", { class: "notice" }, h("strong", null, SAYS[plan.change]), plan.inputs_reason ? h("p", null, plan.inputs_reason) : null),
    h("dl", { class: "facts" },
      fact("Computed over", `${plan.planned_from ? period(plan.planned_from, plan.planned_until) : `the beginning – ${minute(plan.planned_until)}`} UTC, ${count(plan.answers_count)} answers`),
      fact("Rules then", h("span", { class: "mono" }, plan.made_on_contract_hash)), fact("New rules", h("span", { class: "mono" }, plan.contract_hash)),
      plan.first_affected ? fact("First other payment", `of the period from ${minute(plan.first_affected)} UTC`) : null,
      set ? fact("Set for this plan", asides(plan)) : null,
      fact("To apply it", set ? "what was set for the plan alone stands in no text: write it into the contract, and plan again"
        : [h("code", { class: "mono" }, `coordinator apply plans/${plan.name}.json`), plan.would_hold_from ? `; it would hold from ${minute(plan.would_hold_from)} UTC` : ""])),
    h("h2", null, "Terms"),
    terms.length ? table("Terms", [["Term", ""], ["Old", "reason"], ["New", "reason"]], terms.map((one) => [one.name.replaceAll("_", " "), plainly(one.old), plainly(one.new)])) : h("p", { class: "soft" }, "Both say the same, in another text or in the same one."),
    plan.periods.length ? payments(plan, route) : null,
    plan.board.length ? [h("h2", null, `The board at ${minute(plan.board_at)} UTC`), models("The board", plan.board, route, { shares: false })] : null);
}

function payments(plan, route) {
  const differing = plan.periods.filter((one) => one.differs).length;
  const shown = plan.periods.find((one) => one.period_start === plan.period_start);
  const notes = (one) => [one.old_note ? h("div", { class: "soft reason" }, `old: ${one.old_note}`) : null, one.new_note ? h("div", { class: "soft reason" }, `new: ${one.new_note}`) : null];
  return [
    h("h2", null, "Payments"), h("p", { class: "soft" }, `${count(differing)} of ${count(plan.periods.length)} differ.`),
    table("Payments", [["Period (UTC)", "when"], ["", ""]], plan.periods.map((one) => [
      h("a", { href: address(route, plan.name, one.period_start), "aria-current": one === shown ? "true" : null }, period(one.period_start, one.period_end)),
      [h("span", { class: `pill ${one.differs ? "warn" : ""}` }, one.differs ? "differs" : "the same"), notes(one)]])),
    h("h2", null, period(shown.period_start, shown.period_end)), models("Shares of this period", plan.models, route, { shares: true }),
  ];
}

function models(label, rows, route, { shares }) {
  const why = shares && rows.some((one) => one.new_unranked_reason);
  const columns = [["Model", ""], ["Rank", "number"], ["Key, in units", "number wide"], ...(shares ? [["Share", "number"]] : []), ...(why ? [["Why not ranked", "reason"]] : [])];
  return table(label, columns, rows.map((one) => [
    h("a", { href: `#/models/${encodeURIComponent(one.model_id)}${route.query()}` }, one.model_name || one.model_id), both(one.old_rank, one.new_rank), both(one.old_units, one.new_units),
    ...(shares ? [both(one.old_share_frac64, one.new_share_frac64, share)] : []), ...(why ? [one.new_unranked_reason ?? ""] : [])]));
}
