// A list of any length of which only the rows in sight exist. The page itself scrolls; rows have one height (--row).

import { h } from "./dom.js";

const SPARE = 8;

export class VirtualRows {
  // make(item) gives a row's element; update(element, item, index) fills it; key(item) names it.
  constructor({ make, update, key }) {
    Object.assign(this, { make, update, key });
    this.items = [];
    this.shown = new Map();
    this.element = h("div", { role: "rowgroup", class: "rows" });
    this.onScroll = () => { this.frame ??= requestAnimationFrame(() => { this.frame = null; this.render(false); }); };
    this.onKey = (event) => this.move(event);
    // Paper does not scroll: all rows stand on it.
    this.onPrint = (event) => { this.whole = event.type === "beforeprint"; this.render(true); };
    addEventListener("beforeprint", this.onPrint);
    addEventListener("afterprint", this.onPrint);
    addEventListener("scroll", this.onScroll, { passive: true });
    addEventListener("resize", this.onScroll, { passive: true });
    this.element.addEventListener("keydown", this.onKey);
  }

  close() {
    removeEventListener("beforeprint", this.onPrint);
    removeEventListener("afterprint", this.onPrint);
    removeEventListener("scroll", this.onScroll);
    removeEventListener("resize", this.onScroll);
    cancelAnimationFrame(this.frame);
  }

  set(items) {
    this.items = items;
    this.render(true);
  }

  rowHeight() {
    return parseFloat(getComputedStyle(this.element).getPropertyValue("--row")) || 46;
  }

  render(refill) {
    const height = this.rowHeight();
    if (this.height !== height || refill) {
      this.element.style.height = `${this.items.length * height}px`;
      refill = refill || this.height !== height;
      this.height = height;
    }
    const top = this.element.getBoundingClientRect().top;
    const first = this.whole ? 0 : Math.max(0, Math.floor(-top / height) - SPARE);
    const last = this.whole ? this.items.length : Math.min(this.items.length, Math.ceil((innerHeight - top) / height) + SPARE);
    const wanted = new Map();
    for (let i = first; i < last; i++) wanted.set(this.key(this.items[i]), i);
    for (const [key, row] of this.shown) {
      if (!wanted.has(key) && !row.contains(document.activeElement)) { row.remove(); this.shown.delete(key); }
    }
    let before = null;
    for (const [key, i] of wanted) {
      let row = this.shown.get(key);
      const fresh = !row;
      if (fresh) {
        row = this.make(this.items[i]);
        this.shown.set(key, row);
      }
      if (fresh || refill) {
        this.update(row, this.items[i], i);
        row.setAttribute("aria-rowindex", i + 2);
        row.style.transform = `translateY(${i * height}px)`;
      }
      // In the order of the list, so that Tab and a screen reader walk down it.
      if (fresh || (before && row.previousSibling !== before && !row.contains(document.activeElement))) {
        if (before) before.after(row); else this.element.prepend(row);
      }
      before = row;
    }
  }

  move(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    const row = event.target.closest("[role=row]");
    if (step === undefined || !row || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const now = Number(row.getAttribute("aria-rowindex")) - 2;
    this.focus(Math.min(this.items.length - 1, Math.max(0, now + step)));
  }

  focus(index) {
    const top = this.element.getBoundingClientRect().top + scrollY + index * this.height;
    const sticky = document.querySelector(".top").offsetHeight + 2 * this.height;
    if (top < scrollY + sticky) scrollTo(0, top - sticky);
    else if (top + 2 * this.height > scrollY + innerHeight) scrollTo(0, top + 2 * this.height - innerHeight);
    this.render(false);
    this.shown.get(this.key(this.items[index]))?.querySelector("a, button")?.focus({ preventScroll: true });
  }
}
