// Elements from data. Text is always text: nothing that a model or a cruncher is called can become markup.

const SVG = "http://www.w3.org/2000/svg";

export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...given(children));
  return element;
}

const given = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);

// As replaceChildren, with the same freedom as h: nothing for null.
export function put(element, ...children) {
  element.replaceChildren(...given(children));
}

export const byId = (id) => document.getElementById(id);

export function state(title, text, ...more) {
  return h("div", { class: "state" }, h("strong", null, title), text, ...more);
}

export const hidden = (text) => h("span", { class: "visually-hidden" }, text);

let later = 0;
export function announce(text) {
  clearTimeout(later);
  later = setTimeout(() => { byId("announce").textContent = text; }, 400);
}

// A time that may break between its date and its hour, nowhere else.
export function stamp(words) {
  const [date, ...rest] = words.split(" ");
  return rest.length ? [h("span", { class: "nb" }, date), " ", h("span", { class: "nb" }, rest.join(" "))] : words;
}
