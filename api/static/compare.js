// Two models side by side: the number that decides the rank, at each period's end, and all windows of now.

import { ask } from "./api.js";
import { lineChart } from "./charts.js";
import { downloadButton } from "./csv.js";
import { h, stamp } from "./dom.js";
import { count, minute, ms, score, windowName } from "./format.js";
import { store } from "./live.js";

const nameOf = (id) => store.board?.rows.find((row) => row.model_id === id)?.model_name || id;

// The models that can be chosen; `chosen` is compared now. onChoice(id or null)
export function compareChoice(id, chosen, onChoice) {
  if (chosen === id) chosen = null;
  const others = (store.board?.rows ?? []).filter((row) => row.model_id !== id);
  if (!others.length && !chosen) return null;
  const ids = [...new Set([...(chosen ? [chosen] : []), ...others.map((row) => row.model_id)])];
  const select = h("select", { "aria-label": "Compare with", onchange: () => onChoice(select.value || null) },
    h("option", { value: "" }, "Compare with…"),
    ids.map((other) => h("option", { value: other, selected: other === chosen }, nameOf(other))));
  return h("p", null, select);
}

export async function comparison(id, other, periods, signal) {
  if (store.board && !store.board.rows.some((row) => row.model_id === other)) return h("div", { class: "notice bad" }, h("strong", null, "Nothing to compare with. "), `No model ${other} is known.`);
  const rows = await ask("/reports/models/global", { projectIds: [id, other].join(","), limit: 2 * periods }, signal);
  const key = store.board?.key ?? Object.keys(rows[0]?.score_metrics ?? {})[0];
  const ends = new Map();
  for (const row of rows) {
    const end = ms(row.performed_at);
    if (!ends.has(end)) ends.set(end, {});
    ends.get(end)[row.model_id] = row.score_metrics[key] ?? null;
  }
  const times = [...ends.keys()].sort((a, b) => a - b);
  if (!times.length) return h("p", { class: "soft" }, "No score in a closed period yet.");
  const [one, two] = [id, other].map((model) => ({ name: nameOf(model), values: times.map((end) => ends.get(end)[model] ?? null) }));
  const lines = times.map((end, i) => [end, one.values[i], two.values[i]]);
  const file = () => [["period_end", id, other], ...lines.map(([end, ...values]) => [new Date(end).toISOString(), ...values])];
  return h("div", null, now(id, other),
    lineChart(times, [one, two], `${windowName(key)} of ${one.name} and ${two.name} at ${times.length} period ends; the table below has the numbers`),
    h("details", null, h("summary", null, "As a table"), downloadButton(`${id}-and-${other}`, file),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Both models at each period's end" }, h("table", null,
        h("thead", null, h("tr", null, h("th", null, "Period's end (UTC)"), [one, two].map(({ name }) => h("th", { class: "number name" }, name)), h("th", { class: "number" }, "Difference"))),
        h("tbody", null, lines.slice(-48).reverse().map(([end, a, b]) => h("tr", null, h("td", { class: "when" }, stamp(minute(end))),
          h("td", { class: "number" }, score(a)), h("td", { class: "number" }, score(b)),
          h("td", { class: "number" }, a === null || b === null ? "–" : score(a - b)))))))));
}

// Rank, windows and counts of both, as the board has them.
function now(id, other) {
  const rows = [id, other].map((model) => store.board?.rows.find((row) => row.model_id === model));
  if (rows.includes(undefined)) return null;
  const line = (name, values) => h("tr", null, h("th", { scope: "row" }, name), values.map((value) => h("td", { class: "number" }, value)));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Both models now" }, h("table", null,
    h("thead", null, h("tr", null, h("th", null, ""), rows.map((row) => h("th", { class: "number name" }, row.model_name || row.model_id)))),
    h("tbody", null,
      line("Rank", rows.map((row) => row.rank ?? "–")),
      store.board.windows.map((name, i) => line(windowName(name), rows.map((row) => score(row.scores[i])))),
      line("Scored", rows.map((row) => count(row.scored_count))))));
}
