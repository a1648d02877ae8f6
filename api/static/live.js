// What the node says by itself, and the state that the views show: of now from the stream, of the past by asking.

import { ask, when } from "./api.js";
import { ms } from "./format.js";

export const store = {
  crunch: "", clock: null, first: null, connection: "connecting",
  board: null, feeds: null, checkpoints: new Map(), history: null, failed: null, windows: null,
};
const listeners = new Set();
let source = null;
let waiting = null;

export function onChange(callback) {
  listeners.add(callback);
  return () => listeners.delete(callback);
}

const changed = (kind, detail) => { for (const callback of [...listeners]) callback(kind, detail); };

export function connect() {
  source?.close();
  source = new EventSource("/reports/live");
  const on = (kind, take) => source.addEventListener(kind, (event) => take(JSON.parse(event.data)));
  on("state", (body) => {
    store.crunch = body.crunch_id;
    times(body);
    if (body.reset) store.checkpoints.clear();
    connection("live");
  });
  on("leaderboard", (body) => { if (when.asOf === null) takeBoard(body); });
  on("checkpoint", (body) => {
    if (when.asOf !== null) return;
    store.checkpoints.set(body.id, body);
    changed("checkpoint", body);
  });
  on("feeds", () => { if (when.asOf === null) changed("feeds"); });
  on("beat", (body) => {
    times(body);
    connection("live");
    changed("clock");
  });
  source.onerror = () => {
    connection("lost");
    if (source.readyState !== EventSource.CLOSED) return; // the browser asks again by itself, with the last id
    clearTimeout(waiting);
    waiting = setTimeout(connect, 5000);
  };
}

function times(body) {
  store.first = ms(body.first_ts) ?? store.first;
  store.clock = ms(body.clock_ts) ?? store.clock;
}

function connection(state) {
  if (store.connection === state) return;
  store.connection = state;
  changed("connection");
}

function takeBoard(body) {
  const known = body.complete || !store.board ? new Map() : new Map(store.board.rows.map((row) => [row.model_id, row]));
  const moved = new Set();
  for (const row of body.rows) {
    if (known.has(row.model_id)) moved.add(row.model_id);
    known.set(row.model_id, row);
  }
  for (const id of body.gone) known.delete(id);
  store.board = {
    until: ms(body.until), key: body.ranking_key, direction: body.direction, windows: body.windows, moved, mixed: body.mixed_contracts,
    rankedAsOf: ms(body.ranked_as_of),
    rows: [...known.values()].sort((a, b) => a.place - b.place),
  };
  store.windows = body.windows;
  changed("board");
}

// A board that was asked for, of a past moment or one of several, in the shape that the stream has.
export function boardOf(rows) {
  const first = rows[0];
  const windows = first ? Object.keys(first.score_metrics) : [];
  return {
    until: first ? ms(first.created_at) : null, key: first ? first.score_ranking.key : "", windows, moved: new Set(),
    direction: first ? first.score_ranking.direction : "desc", mixed: first ? first.mixed_contracts : [],
    rankedAsOf: first ? ms(first.ranked_as_of) : null,
    rows: rows.map((row, place) => ({
      ...row, place, state: row.status ? "RUNNING" : "LEFT", scores: windows.map((name) => row.score_metrics[name]),
    })),
  };
}

let moving = new AbortController();
// Move the whole page to a time, or with null back to now. Answers that come late for an older wish are dropped. The
// stream stays open in the past, for the clock; what it says of the present is not taken.
export async function moveTo(asOf) {
  moving.abort();
  moving = new AbortController();
  const { signal } = moving;
  when.asOf = asOf;
  store.history = store.failed = null;
  changed("moving");
  if (asOf === null) {
    store.board = null;
    store.checkpoints.clear();
    connect();
    changed("moment");
    return;
  }
  try {
    const [rows, checkpoints] = await Promise.all([
      ask("/reports/leaderboard", { include_ensembles: true }, signal), ask("/reports/checkpoints", {}, signal),
    ]);
    store.board = boardOf(rows);
    store.checkpoints = new Map(checkpoints.map((one) => [one.id, { ...one, ...one.meta }]));
    changed("moment");
  } catch (error) {
    if (error.name === "AbortError") return;
    store.board = null; // what stands there is of another time
    store.checkpoints.clear();
    store.failed = error.message;
    changed("moment");
  }
}

// Ranks and key scores at the last period ends: the sparklines, and what a rank is compared with.
let asking = false;
export async function refreshHistory() {
  if (asking) return;
  asking = true;
  try {
    store.history = await ask("/reports/leaderboard/history");
    changed("history");
  } catch (error) {
    if (error.status !== 404) changed("history-failed", error);
  } finally {
    asking = false;
  }
}
