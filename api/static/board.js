// The leaderboard: one row a model, the rank first.

import { h, hidden, put, state } from "./dom.js";
import { count, minute, ms, score, span, windowName } from "./format.js";
import { sparkline } from "./charts.js";
import { askedBoard, boardChoice, chosenBoard, scopeName } from "./boards.js";
import { downloadButton } from "./csv.js";
import { explainedOf } from "./explain.js";
import { when } from "./api.js";
import { refreshHistory, store } from "./live.js";
import { VirtualRows } from "./virtual.js";

const ASK_MS_MIN = 3_000;

export function boardView(root, route) {
  let wanted = (route.get("find") ?? "").trim().toLowerCase();
  let shown = [];
  let columns = "";
  let rows = null;
  let compared = null;
  let chosen = chosenBoard(route);
  let other = { board: null, failed: "" }; // the board that was asked for, while one is chosen
  const current = () => (chosen ? other.board : store.board);
  const title = h("h1", null, "Leaderboard");
  const until = h("p", { class: "soft" });
  const mixed = h("p", { class: "soft", role: "note", hidden: "" });
  const found = h("p", { class: "soft found", role: "status" });
  const search = h("input", { type: "search", placeholder: "Find a model or cruncher", "aria-label": "Find a model or cruncher",
    value: route.get("find"), oninput: () => { wanted = search.value.trim().toLowerCase(); route.keep("find", search.value.trim()); fill(); } });
  const place = h("div");
  const asking = askedBoard((board, failed) => { other = { board, failed }; fill(); });
  const choose = (one) => {
    if (JSON.stringify(one) !== JSON.stringify(chosen)) other = { board: null, failed: "" };
    chosen = one;
    if (chosen) asking.load(chosen);
    else asking.close();
    fill();
  };
  const choice = boardChoice(route, choose);
  const fileName = () => ["leaderboard", chosen?.scope ?? chosen?.by].filter(Boolean).join("-").replace(/[^\w.-]+/g, "-");
  put(root, h("div", { class: "head" }, title, until, h("div", { class: "end tools" }, found, choice.element, downloadButton(fileName, () => lines(current(), shown)), search)), mixed, place);

  const table = (board) => {
    rows?.close();
    rows = new VirtualRows({ key: (row) => row.model_id, make: () => h("div", { role: "row", class: "row" }), update });
    const column = (text, kind, more = {}) => h("div", { role: "columnheader", class: kind, ...more }, text);
    const header = h("div", { role: "rowgroup", class: "board-head" }, h("div", { role: "row", class: "row", "aria-rowindex": "1" },
      chosen?.scope ? column("Place", "rank", { title: "The order of this scope; a scope alone has no ranks" }) : column("Rank", "rank"),
      chosen ? null : (compared = column("Change", "change")),
      column("Model", "model"),
      board.windows.map((name) => column([windowName(name), name === board.key ? hidden(", decides the rank") : null],
        name === board.key ? "number key" : "number other")),
      chosen ? null : column("Trend", "trend"), column("Scored", "number scored"), chosen?.scope ? null : column("Updated", "number updated"), column("Status", "status")));
    const kind = chosen?.scope ? " one-scope" : chosen ? " one-number" : "";
    const element = h("div", { role: "table", class: `board windows-${board.windows.length}${kind}`, "aria-label": chosen?.scope ? `Models in ${scopeName(chosen.scope)}` : "Models by rank" }, header, rows.element);
    element.style.setProperty("--windows", board.windows.length);
    put(place, element);
  };

  // A scope alone has no ranks: its models are counted as they stand.
  const rankOf = (row) => (chosen?.scope ? other.places.get(row.model_id) ?? null : row.rank);
  const unrankedOf = (row) => (chosen?.scope ? "no score that orders it here, or not running" : row.unranked_reason);
  const update = (element, row) => {
    const board = current();
    const past = store.history?.series[row.model_id];
    const rank = rankOf(row);
    const name = row.model_name || row.model_id;
    const key = board.windows.indexOf(board.key);
    element.classList.toggle("unranked", rank === null && !row.ensemble);
    element.classList.toggle("ensemble", row.ensemble);
    if (board.moved.has(row.model_id) && element.childElementCount && element.dataset.score !== String(row.scores[key])) {
      element.classList.remove("flash");
      requestAnimationFrame(() => element.classList.add("flash"));
    }
    element.dataset.score = String(row.scores[key]);
    const values = past ? [...past.scores, row.scores[key]] : [];
    const cells = [
      h("div", { role: "cell", class: "rank" }, rank ?? [h("span", { "aria-hidden": "true", title: unrankedOf(row) }, row.ensemble ? "≈" : "–"), hidden(`not ranked: ${unrankedOf(row)}`)]),
      chosen ? null : h("div", { role: "cell", class: "change" }, change(row, past)),
      h("div", { role: "rowheader", class: "model" },
        h("a", { href: `#/models/${encodeURIComponent(row.model_id)}${route.query()}` }, name),
        h("span", { class: "cruncher" }, row.ensemble ? "made of the models, not ranked, not paid" : row.cruncher_name)),
      row.scores.map((value, i) => h("div", { role: "cell", class: i === key ? "number key" : "number other" },
        chosen && i === key ? h("a", { href: explainedOf(route, chosen, "board", row.model_id), title: "Explain this number" }, score(value)) : score(value))),
      chosen ? null : h("div", { role: "cell", class: "trend" }, sparkline(values), hidden(trend(values))),
      h("div", { role: "cell", class: "number scored" }, count(row.scored_count)),
      chosen?.scope ? null : h("div", { role: "cell", class: "number updated" }, updated(row, board)),
      h("div", { role: "cell", class: "status" }, status(row)),
    ];
    const focused = element.contains(document.activeElement);
    put(element, cells);
    if (focused) element.querySelector("a").focus({ preventScroll: true });
  };

  const fill = () => {
    const board = current();
    if (board && chosen?.scope) other.places = new Map(board.rows.filter((row) => row.status && row.scores[board.windows.indexOf(board.key)] !== null).map((row, i) => [row.model_id, i + 1]));
    mixed.hidden = !board?.mixed?.length;
    mixed.textContent = mixed.hidden ? "" : `The windows mix rounds of ${board.mixed.length} contracts: ${board.mixed.map((one) => one.slice(0, 12)).join(", then ")}.`;
    if (!board) {
      columns = "";
      until.textContent = found.textContent = "";
      put(place, store.failed ? state("That time cannot be shown", store.failed)
        : other.failed ? state(chosen.scope ? "There is no board of that scope" : "There is no such board", other.failed)
        : chosen ? state("Loading", "The node is asked for the board.")
        : store.connection === "live" && when.asOf === null
        ? state("Waiting for the first data", "The node has started; the board appears with its first record.")
        : state("Loading", "The node is asked for the board."));
      return;
    }
    // A key of the snapshot summary moves only when a period ends.
    const ranked = board.rankedAsOf ? `; ranked by ${windowName(board.key)} of the period that ended ${minute(board.rankedAsOf)} UTC` : "";
    const alone = chosen?.scope ? `; ${scopeName(chosen.scope)} alone, ordered by ${windowName(board.key)}: the contract does not rank by it` : chosen && !ranked ? `; ranked by ${windowName(board.key)}, not as the contract ranks` : "";
    until.textContent = board.until ? `Scores up to ${minute(board.until)} UTC${ranked}${alone}` : "";
    if (!board.rows.length) {
      columns = found.textContent = "";
      put(place, when.asOf === null
        ? state("No models yet", "The board fills as soon as the first model is seen; scores follow when its first horizon has passed.")
        : state("Nothing yet at that time", "No model had been seen by then. Move the slider to a later time."));
      return;
    }
    const shape = [...board.windows, board.key, JSON.stringify(chosen)].join(" ");
    if (shape !== columns) { columns = shape; table(board); }
    const since = store.history?.change_since;
    if (!chosen) compared.title = since ? `Places gained or lost since ${minute(since)} UTC` : "Nothing to compare with yet";
    shown = wanted
      ? board.rows.filter((row) => `${row.model_name} ${row.model_id} ${row.cruncher_name}`.toLowerCase().includes(wanted))
      : board.rows;
    found.textContent = wanted ? `${count(shown.length)} of ${count(board.rows.length)}` : `${count(board.rows.filter((row) => !row.ensemble).length)} models`;
    rows.element.parentElement.setAttribute("aria-rowcount", shown.length + 1);
    rows.element.classList.toggle("none", !shown.length);
    rows.set(shown);
  };

  // What a period's end looked like does not change: ask again when there is a new end, and not more often than that.
  let asked = { at: 0, ends: null };
  const ask = (force) => {
    const every = store.history?.period_seconds * 1000;
    const ends = every ? Math.floor((store.board?.until ?? 0) / every) : null;
    if (!force && (Date.now() - asked.at < ASK_MS_MIN || (every && ends === asked.ends))) return;
    asked = { at: Date.now(), ends };
    refreshHistory();
  };
  const names = () => choice.load().catch(() => {}); // where the node does not answer, the board itself says so
  choose(chosen);
  names();
  ask(true);
  return {
    change(kind) {
      if (["board", "history", "moment", "connection"].includes(kind)) fill();
      if (kind === "moment") { ask(true); names(); choose(chosenBoard(route)); }
      if (kind === "board") { ask(false); if (choice.element.hidden) names(); if (chosen && when.asOf === null) asking.later(chosen); }
      if (kind === "address") {
        search.value = route.get("find") ?? "";
        wanted = search.value.trim().toLowerCase();
        names();
        choose(chosenBoard(route));
      }
    },
    close() { rows?.close(); asking.close(); },
  };
}

function lines(board, rows) {
  return [["rank", "model_id", "model_name", "cruncher_name", ...(board?.windows ?? []), "scored_count", "last_scored_at", "unranked_reason"],
    ...rows.map((row) => [row.rank, row.model_id, row.model_name, row.cruncher_name, ...row.scores, row.scored_count, row.last_scored_at, row.unranked_reason])];
}

export function status(row) {
  if (row.ensemble) return h("span", { class: "pill accent" }, "ensemble");
  if (row.state === "BANNED") return h("span", { class: "pill down" }, "banned");
  if (row.state === "LEFT") return h("span", { class: "pill" }, "left");
  if (row.status) return h("span", { class: "pill up" }, "active");
  return h("span", { class: "pill warn", title: row.unranked_reason ?? "" }, row.scored_count ? "not ranked" : "no score");
}

function change(row, past) {
  const before = past?.change_from;
  if (row.rank === null || before === null || before === undefined) return [h("span", { class: "soft", "aria-hidden": "true" }, "·"), hidden("no rank to compare with")];
  const by = before - row.rank;
  if (by === 0) return [h("span", { class: "soft", "aria-hidden": "true" }, "–"), hidden("same place")];
  return h("span", { class: by > 0 ? "up" : "down" }, h("span", { "aria-hidden": "true" }, by > 0 ? "▲ " : "▼ "), Math.abs(by), hidden(by > 0 ? " up" : " down"));
}

function updated(row, board) {
  const at = ms(row.last_scored_at);
  if (at === null) return "–";
  return [h("time", { datetime: new Date(at).toISOString(), title: `${minute(at)} UTC` }, at >= board.until ? "now" : `${span(board.until - at)} ago`)];
}

function trend(values) {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.length < 2 ? "no history yet" : `from ${score(known[0])} to ${score(known.at(-1))}`;
}
