// The feeds: what came, up to when it is complete, and what is missing.

import { ask, when } from "./api.js";
import { h, put, stamp, state } from "./dom.js";
import { count, minute, ms, second, span } from "./format.js";
import { store } from "./live.js";
import { gapStrip } from "./charts.js";

const GAPS_SHOWN = 8;
const FEEDS_A_PAGE = 30;

export function feedsView(root, route) {
  const place = h("div");
  const open = new Set();
  let last = 0;
  let shown = FEEDS_A_PAGE;
  let stopped = new AbortController();
  put(root, h("div", { class: "head" }, h("h1", null, "Feeds"), h("p", { class: "soft" }, "What came from outside, and the holes in it")), place);

  const load = async () => {
    last = Date.now();
    stopped.abort();
    stopped = new AbortController();
    try {
      const rows = await ask("/reports/feeds", {}, stopped.signal);
      if (!rows.length) {
        put(place, when.asOf === null ? state("No feed yet", "A feed appears here with its first record.") : state("No feed", "Nothing had come by then."));
        return;
      }
      const focused = document.activeElement?.dataset?.feed;
      put(place,
        rows.slice(0, shown).map((row) => card(row, open)),
        rows.length > shown ? h("button", { type: "button", onclick: () => { shown += FEEDS_A_PAGE; load(); } }, `${count(rows.length - shown)} more feeds`) : null);
      if (focused) place.querySelector(`[data-feed="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    } catch (error) {
      if (error.name !== "AbortError") put(place, state("The feeds cannot be shown", error.message));
    }
  };
  put(place, state("Loading", "The node is asked for its feeds."));
  load();
  return {
    change(kind) {
      if (kind === "moment" || (kind === "feeds" && Date.now() - last > 2_000)) load();
    },
    close() { stopped.abort(); },
  };
}

function card(row, open) {
  const name = `${row.source} ${row.subject} ${row.kind} ${row.granularity}`;
  const gaps = row.gaps ?? [];
  const [from, until] = [ms(row.oldest_ts), ms(row.watermark_ts)];
  const clock = when.asOf ?? store.clock;
  const lag = clock && until ? clock - until : null;
  const standing = row.source_state;
  const health = row.open_gap_count ? h("span", { class: "pill down" }, `${row.open_gap_count} open ${row.open_gap_count === 1 ? "hole" : "holes"}`)
    : standing && standing !== "connected" ? h("span", { class: "pill warn" }, standing) : h("span", { class: "pill up" }, standing ?? "complete");
  const fact = (term, ...value) => [h("dt", null, term), h("dd", null, value)];
  return h("section", { class: "card", "aria-label": name },
    h("header", null, h("h3", null, `${row.subject} ${row.kind} ${row.granularity}`), h("span", { class: "soft" }, `from ${row.source}`), health),
    standing && standing !== "connected" && row.source_reason ? h("p", { class: "notice" }, h("strong", null, `${standing}: `), row.source_reason) : null,
    from ? h("div", null, gapStrip(from, until, gaps, gaps.length ? `${gaps.length} holes between ${minute(from)} and ${minute(until)} UTC` : "No holes"),
      h("p", { class: "ends soft" }, h("span", null, minute(from)), h("span", null, `${minute(until)} UTC`))) : null,
    h("dl", { class: "facts" },
      fact("Records", count(row.record_count)),
      fact("Complete up to", until ? `${second(until)} UTC` : "–", lag !== null && lag > 0 ? h("span", { class: "soft" }, ` · ${span(lag)} behind the clock`) : null),
      fact("One every", row.cadence_seconds ? span(row.cadence_seconds * 1000) : "as they happen"),
      fact("Holes so far", row.gap_count ? count(row.gap_count) : "none")),
    gaps.length ? gapTable(gaps) : null,
    tail(row, name, open));
}

function gapTable(gaps) {
  const rows = gaps.map((gap) => h("tr", null,
    h("td", null, h("span", { class: `pill ${{ open: "down", missing: "warn", filled: "accent" }[gap.state]}` }, gap.state === "missing" ? "missing for good" : gap.state)),
    h("td", null, stamp(second(gap.from_ts)), h("div", { class: "soft" }, gap.reason)), h("td", { class: "when wide" }, stamp(second(gap.until_ts))),
    h("td", { class: "number when" }, span(ms(gap.until_ts) - ms(gap.from_ts)))));
  const table = (some) => h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Holes" }, h("table", null,
    h("thead", null, h("tr", null, h("th", null, "Hole"), h("th", null, "After (UTC), and why"), h("th", { class: "wide" }, "Until (UTC)"), h("th", { class: "number" }, "Length"))),
    h("tbody", null, some)));
  if (gaps.length <= GAPS_SHOWN) return h("div", { class: "below" }, table(rows));
  return h("div", { class: "below" }, table(rows.slice(0, GAPS_SHOWN)), h("details", null, h("summary", null, `${gaps.length - GAPS_SHOWN} older holes`), table(rows.slice(GAPS_SHOWN))));
}

function tail(row, name, open) {
  const place = h("div");
  const show = async () => {
    const { source, subject, kind, granularity } = row;
    try {
      const records = await ask("/reports/feeds/tail", { source, subject, kind, granularity, limit: 20 });
      const fields = [...new Set(records.flatMap((one) => Object.keys(one.values)))];
      put(place, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Newest records of ${name}` }, h("table", null,
        h("thead", null, h("tr", null, h("th", null, "Time (UTC)"), fields.map((field) => h("th", { class: "number" }, field)), h("th", null, ""))),
        h("tbody", null, records.map((one) => h("tr", null, h("td", { class: "when" }, stamp(second(one.ts_event))),
          fields.map((field) => h("td", { class: "number" }, one.values[field] ?? "–")), h("td", { class: "soft" }, one.meta.backfilled ? "backfilled" : "")))))));
    } catch (error) {
      put(place, h("p", { class: "soft" }, error.message));
    }
  };
  const details = h("details", { open: open.has(name), ontoggle: () => { if (details.open) { open.add(name); show(); } else open.delete(name); } },
    h("summary", { "data-feed": name }, "Newest records"), place);
  return details;
}
