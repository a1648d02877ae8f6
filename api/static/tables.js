// Tables that scroll by themselves on a narrow screen, and a value that differs between two sides.

import { h } from "./dom.js";
import { count } from "./format.js";

// Columns are [name, class of the cells]; rows are lists of cells.
export const table = (label, columns, rows) => h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, h("table", null,
  h("thead", null, h("tr", null, columns.map(([name, kind]) => h("th", { class: kind }, name)))),
  h("tbody", null, rows.map((cells) => h("tr", null, cells.map((cell, i) => h("td", { class: columns[i][1] }, cell)))))));

export const both = (old, now, show = count) => (show(old) === show(now) ? show(now) : [h("span", { class: "soft" }, `${show(old)} → `), h("strong", null, show(now))]);
