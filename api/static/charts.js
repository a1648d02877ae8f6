// Drawings from numbers, as SVG. Beside each stands the same in words or in a table.

import { h, svg } from "./dom.js";
import { minute, ms, score } from "./format.js";

const present = (value) => value !== null && value !== undefined;

export function sparkline(values, width = 96, height = 26) {
  const known = values.filter(present);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "spark", "aria-hidden": "true" });
  if (known.length < 2) return picture;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const x = (i) => 2 + (i * (width - 6)) / (values.length - 1);
  const y = (value) => (high === low ? height / 2 : height - 4 - ((value - low) / (high - low)) * (height - 8));
  picture.append(svg("path", { d: path(values, x, y) }));
  const last = values.findLastIndex(present);
  picture.append(svg("circle", { cx: x(last), cy: y(values[last]), r: 2 }));
  return picture;
}

function path(values, x, y) {
  let text = "";
  let pen = "M";
  values.forEach((value, i) => {
    if (!present(value)) { pen = "M"; return; }
    text += `${pen}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = "L";
  });
  return text;
}

// Lines over time. series: [{name, values}], times: ms. Points of the pointer and of the arrow keys are read out.
export function lineChart(times, series, label) {
  const picture = svg("svg", { class: "lines", role: "img", "aria-label": label, tabindex: "0" });
  const values = series.map(() => h("b", null, "–"));
  const moment = h("span", { class: "moment" });
  const legend = h("p", { class: "legend" },
    series.map((one, n) => h("span", null, h("i", { class: `key-${n + 1}` }), one.name, " ", values[n])), moment);
  let at = times.length - 1;
  let plot = null;
  const read = (i, visible) => {
    at = Math.min(times.length - 1, Math.max(0, i));
    plot?.point(at, visible);
    series.forEach((one, n) => { values[n].textContent = score(one.values[at]); });
    moment.textContent = `${minute(times[at])} UTC`;
  };
  picture.addEventListener("pointermove", (event) => {
    const where = event.clientX - picture.getBoundingClientRect().left;
    let best = 0;
    times.forEach((_, i) => { if (Math.abs(plot.x(i) - where) < Math.abs(plot.x(best) - where)) best = i; });
    read(best, true);
  });
  picture.addEventListener("pointerleave", () => read(times.length - 1, false));
  picture.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) { event.preventDefault(); read(at + step, true); }
  });
  read(at, false);
  // Drawn in the pixels it has, so that its words keep their size on a phone.
  new ResizeObserver(() => {
    const { width, height } = picture.getBoundingClientRect();
    if (width && (!plot || plot.width !== width)) plot = draw(picture, times, series, width, height);
  }).observe(picture);
  return h("figure", { class: "chart" }, legend, picture);
}

function draw(picture, times, series, width, height) {
  const known = series.flatMap((one) => one.values).filter(present);
  const [low, high, ticks] = niceRange(Math.min(...known), Math.max(...known));
  const words = ticks.map((tick) => score(tick, digits(ticks)));
  const [left, right, bottom, top] = [16 + 7.5 * Math.max(...words.map((word) => word.length)), 8, 26, 10];
  const x = (i) => left + (times.length < 2 ? 0.5 : (times[i] - times[0]) / (times.at(-1) - times[0])) * (width - left - right);
  const y = (value) => top + (1 - (value - low) / (high - low)) * (height - top - bottom);
  picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
  picture.replaceChildren();
  ticks.forEach((tick, i) => picture.append(
    svg("line", { x1: left, x2: width - right, y1: y(tick), y2: y(tick), class: tick === 0 ? "zero" : "grid" }),
    svg("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, words[i]),
  ));
  const marks = width < 560 ? [0, 1] : [0, 0.33, 0.66, 1];
  for (const i of new Set(marks.map((part) => Math.round(part * (times.length - 1))))) {
    const anchor = i === 0 ? "start" : i === times.length - 1 ? "end" : "middle";
    picture.append(svg("text", { x: x(i), y: height - 6, "text-anchor": anchor }, minute(times[i])));
  }
  series.forEach((one, n) => {
    picture.append(svg("path", { d: path(one.values, x, y), class: `line series-${n + 1}` }));
    if (one.values.filter(present).length === 1) {
      const i = one.values.findIndex(present);
      picture.append(svg("circle", { cx: x(i), cy: y(one.values[i]), r: 3, class: `dot-${n + 1}` }));
    }
  });
  const cursor = svg("line", { y1: top, y2: height - bottom, class: "cursor", visibility: "hidden" });
  picture.append(cursor);
  const point = (i, visible) => {
    cursor.setAttribute("x1", x(i));
    cursor.setAttribute("x2", x(i));
    cursor.setAttribute("visibility", visible ? "visible" : "hidden");
  };
  return { x, point, width };
}

function niceRange(low, high) {
  if (low === high) { low -= Math.abs(low) || 1; high += Math.abs(high) || 1; }
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const first = Math.floor(low / step + 1e-9) * step;
  const ticks = [];
  for (let tick = first; ; tick += step) {
    ticks.push(Math.abs(tick) < step / 1e6 ? 0 : tick);
    if (tick >= high - step * 1e-9) break;
  }
  return [ticks[0], ticks.at(-1), ticks];
}

const digits = (ticks) => Math.min(6, Math.max(0, 1 - Math.floor(Math.log10(ticks[1] - ticks[0]) + 1e-9)));

// Bars of parts per period. rows: [{label, parts: [n, ...]}]
export function stackedBars(rows, names, label) {
  const [width, height] = [960, 84];
  const most = Math.max(1, ...rows.map((row) => row.parts.reduce((sum, part) => sum + part, 0)));
  const each = Math.min(28, (width - 8) / Math.max(1, rows.length));
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "bars", role: "img", "aria-label": label, preserveAspectRatio: "none" });
  rows.forEach((row, i) => {
    let y = height;
    row.parts.forEach((part, n) => {
      const tall = (part / most) * (height - 4);
      y -= tall;
      if (part) picture.append(svg("rect", { x: i * each + 1, y, width: Math.max(1, each - 2), height: tall, class: `part-${n + 1}` }, svg("title", null, `${row.label}: ${part} ${names[n]}`)));
    });
  });
  const legend = h("p", { class: "legend" }, names.map((name, n) => h("span", null, h("i", { class: `box part-${n + 1}` }), name)));
  return h("figure", { class: "chart" }, legend, picture);
}

// A stretch of time with holes in it. gaps: [{from_ts, until_ts, state}]
export function gapStrip(from, until, gaps, label) {
  const [width, height] = [960, 14];
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "strip", role: "img", "aria-label": label, preserveAspectRatio: "none" });
  picture.append(svg("rect", { x: 0, y: 0, width, height, class: "whole" }));
  const place = (at) => Math.min(width, Math.max(0, ((at - from) / Math.max(1, until - from)) * width));
  for (const gap of gaps) {
    const [x1, x2] = [place(ms(gap.from_ts)), place(ms(gap.until_ts))];
    picture.append(svg("rect", { x: x1, y: 0, width: Math.max(3, x2 - x1), height, class: `gap-${gap.state}` }));
  }
  return picture;
}
