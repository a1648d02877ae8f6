// What is seen, as a file for a spreadsheet.

import { h } from "./dom.js";

// A text that begins like a formula would be run by a spreadsheet: models and crunchers choose their own names.
const FORMULA = /^[=+\-@\t\r]/;

export function csv(rows) {
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = typeof value === "string" ? value : JSON.stringify(value);
  const safe = FORMULA.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

// A button that hands over `rows()`: an array of cells for each line, the header first. `name` is a text, or makes one.
export function downloadButton(name, rows) {
  const download = () => {
    const address = URL.createObjectURL(new Blob([csv(rows())], { type: "text/csv;charset=utf-8" }));
    const link = h("a", { href: address, download: `${typeof name === "function" ? name() : name}.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  };
  return h("button", { type: "button", class: "download", title: "Download what is shown, as CSV", onclick: download }, "CSV");
}
