// The page: which view is shown, of which moment. Both stand in the address, so that any state of it can be sent on.

import { when } from "./api.js";
import { boardView } from "./board.js";
import { checkpointsView } from "./checkpoints.js";
import { checksView } from "./checks.js";
import { announce, byId, h, put, state } from "./dom.js";
import { explainView } from "./explain.js";
import { feedsView } from "./feeds.js";
import { minute } from "./format.js";
import { connect, moveTo, onChange, store } from "./live.js";
import { modelView } from "./model.js";
import { haveRounds, roundsView } from "./rounds.js";
import { rulesView } from "./rules.js";
import { timebar } from "./timebar.js";

const VIEWS = { "": boardView, models: modelView, feeds: feedsView, checkpoints: checkpointsView, checks: checksView, explain: explainView, rules: rulesView, rounds: roundsView };
const TITLES = { "": "Leaderboard", models: "Model", feeds: "Feeds", checkpoints: "Checkpoints", checks: "Checks", explain: "Explained", rules: "Rules", rounds: "Rounds" };
const main = byId("main");
let view = null;
let shown = null;

function readRoute() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const asOf = Date.parse(new URLSearchParams(query).get("as_of") ?? "");
  return {
    parts: path.split("/").map(decodeURIComponent),
    asOf: Number.isNaN(asOf) ? null : asOf,
    query: () => (when.asOf === null ? "" : `?as_of=${new Date(when.asOf).toISOString()}`),
    // What a view itself keeps in the address: a search, a second model.
    get: (name) => new URLSearchParams(location.hash.split("?")[1]).get(name),
    keep,
  };
}

function keep(name, value) {
  const [path, query] = (location.hash || "#/").split("?");
  const all = new URLSearchParams(query);
  if (value) all.set(name, value);
  else all.delete(name);
  // A time keeps its colons: people read it.
  history.replaceState(history.state, "", path + (all.size ? `?${all.toString().replaceAll("%3A", ":")}` : ""));
}

function goTo(asOf) {
  keep("as_of", asOf === null ? null : new Date(asOf).toISOString());
  apply();
}

function apply() {
  const route = readRoute();
  const path = route.parts.join("/");
  const moved = route.asOf !== when.asOf || (route.asOf !== null && !store.board && !store.failed);
  if (moved) {
    moveTo(route.asOf);
    announce(route.asOf === null ? "Now" : `As of ${minute(route.asOf)} UTC`);
  }
  if (path !== shown) {
    view?.close();
    const make = VIEWS[route.parts[0]];
    view = make ? make(main, route) : null;
    if (!make) put(main, state("There is no such view", h("a", { href: "#/" }, "To the leaderboard")));
    if (shown !== null) main.focus({ preventScroll: true });
    scrollOnceThere(leftAt);
    shown = path;
    title(route);
  } else if (!moved) view?.change("address");
  if (route.parts[0] === "rounds") linkToRounds.hidden = false;
  for (const link of byId("nav").querySelectorAll("a")) {
    const current = link.dataset.view === ({ "": "board", models: "board", explain: route.parts[1] === "checkpoints" ? "checkpoints" : "board" }[route.parts[0]] ?? route.parts[0]);
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    link.href = link.href.split("?")[0] + route.query();
  }
  showTime();
}

// Back leads to where the reader was. What a view shows comes a moment later, so the place may not be there yet.
let leftAt = history.state?.scrolled ?? 0;
let sought = 0;
function scrollOnceThere(y, again = false, tries = 90) {
  if (again && y !== sought) return;
  sought = y;
  scrollTo(0, y);
  if (scrollY < y - 1 && tries) requestAnimationFrame(() => scrollOnceThere(y, true, tries - 1));
}

function title(route) {
  byId("brand").textContent = store.crunch || "Crunch";
  document.title = [TITLES[route.parts[0]] ?? "Not found", store.crunch].filter(Boolean).join(" · ");
}

function themes() {
  const button = byId("theme");
  const order = ["system", "light", "dark"];
  const show = (name) => {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    button.textContent = { system: "◐", light: "○", dark: "●" }[name];
    button.setAttribute("aria-label", `Colour scheme: ${name}`);
    button.title = `Colour scheme: ${name}`;
  };
  let name = order.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "system";
  button.addEventListener("click", () => {
    name = order[(order.indexOf(name) + 1) % order.length];
    localStorage.setItem("theme", name);
    show(name);
  });
  show(name);
}

const showTime = timebar(goTo);
// A board's head stands below the page's, however many lines that has.
const header = document.querySelector(".top");
new ResizeObserver(() => document.documentElement.style.setProperty("--top", `${header.offsetHeight}px`)).observe(header);
onChange((kind, detail) => {
  main.classList.toggle("moving", kind === "moving" || (kind !== "moment" && main.classList.contains("moving")));
  if (kind === "connection" || kind === "clock") { showTime(); if (store.crunch && byId("brand").textContent !== store.crunch) title(readRoute()); }
  if (kind === "moment") showTime();
  view?.change(kind, detail);
});
history.scrollRestoration = "manual";
let noted;
addEventListener("scroll", () => {
  clearTimeout(noted);
  noted = setTimeout(() => history.replaceState({ scrolled: scrollY }, ""), 150); // browsers bound how often
});
for (const given of ["wheel", "touchmove", "keydown"]) addEventListener(given, () => { sought = null; }, { passive: true });
addEventListener("popstate", (event) => { leftAt = event.state?.scrolled ?? 0; }); // of a link's new entry: 0
addEventListener("hashchange", apply);
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.matches("input, select, textarea")) return;
  const search = main.querySelector("input[type=search]");
  if (search) { event.preventDefault(); search.focus(); }
});
const linkToRounds = byId("nav").querySelector("[data-view=rounds]");
haveRounds().then((some) => { linkToRounds.hidden &&= !some; }, () => {}); // the view itself says what is wrong
themes();
connect();
apply();
