// The shadow: what other rules decide on the live log, beside what is live.

import { askNow } from "./api.js";
import { h, put, state } from "./dom.js";
import { minute, period, score, share } from "./format.js";
import { both, table } from "./tables.js";

const KIND = { runs: "up", waits: "warn", stopped: "", failed: "down" };
const AGAIN_MS = 15_000;

// Fills the place now and every few seconds; what it returns ends that.
export function shadowPart(place, route) {
  const stopped = new AbortController();
  let timer;
  const load = async () => {
    try {
      const now = await askNow("/reports/shadow", {}, stopped.signal);
      const asked = now.decided_until ? ["/reports/shadow/models", "/reports/shadow/periods"] : [];
      const [models, periods] = await Promise.all(asked.map((path) => askNow(path, {}, stopped.signal)));
      put(place, ...shown(now, models, periods, route));
      timer = setTimeout(load, AGAIN_MS);
    } catch (error) {
      if (error.name !== "AbortError") put(place, state("The shadow cannot be shown", error.message));
    }
  };
  load();
  return () => { clearTimeout(timer); stopped.abort(); };
}

function shown(now, models, periods, route) {
  if (!now.started) return [h("p", { class: "soft" }, "No shadow was started. ", h("code", { class: "mono" }, "coordinator shadow start --contract MODULE:NAME"), " decides by other rules beside the live ones, and pays nobody.")];
  return [
    h("p", null, now.contract, " ", h("span", { class: "soft mono" }, now.contract_hash.slice(0, 12)), " ", h("span", { class: `pill ${KIND[now.state]}` }, now.state)),
    now.reason ? h("div", { class: `notice ${now.state === "failed" ? "bad" : ""}` }, now.reason) : null,
    now.divergence ? h("div", { class: "notice" }, h("strong", null, "It diverges: "), now.divergence) : null,
    h("p", { class: "soft" }, now.decided_from ? `From ${minute(now.decided_from)} UTC on` : "From the first event on", now.decided_until ? `, decided up to ${minute(now.decided_until)} UTC.` : "; it has decided nothing yet."),
    models ? board(models, route) : null,
    periods ? payments(periods) : null,
  ];
}

// Live on the left, the shadow on the right: what would change stands out.
function board(models, route) {
  const ended = models.checkpoint_end ? `; shares of the checkpoint that ends at ${minute(models.checkpoint_end)} UTC` : "";
  return [
    h("p", { class: "soft" }, `Live → shadow. The live board as of ${minute(models.live_board_at)} UTC, the shadow's as of ${minute(models.board_at)} UTC${ended}.`),
    table("The live board and the shadow's", [["Model", ""], ["Rank", "number"], ["Score", "number wide"], ["Share", "number"]], models.models.map((one) => [
      h("a", { href: `#/models/${encodeURIComponent(one.model_id)}${route.query()}` }, one.model_name || one.model_id),
      both(one.live_rank, one.rank), both(one.live_ranking_score, one.ranking_score, score), models.checkpoint_end ? both(one.live_share_frac64, one.share_frac64, share) : "–"])),
  ];
}

function payments({ periods }) {
  if (!periods.length) return h("p", { class: "soft" }, "No payment period has ended since.");
  const note = (side, text) => (text ? h("div", { class: "soft reason" }, `${side}: ${text}`) : null);
  return table("Payments of both sides", [["Period (UTC)", "when"], ["", ""]], periods.map((one) => [
    period(one.period_start, one.period_end), [h("span", { class: `pill ${one.differs ? "warn" : ""}` }, one.differs ? "differs" : "the same"), note("live", one.live_note), note("shadow", one.note)]]));
}
