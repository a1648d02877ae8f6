// What a stranger judges a checkpoint by: the signed note, the bundle, the command; and a first look at a bundle here.

import { askNow } from "./api.js";
import { h, put } from "./dom.js";
import { count } from "./format.js";
import { judge } from "./verify.js";

// The section of one checkpoint. It is about the whole log, so it is asked as of now wherever the page stands.
export function evidence(checkpointId) {
  const place = h("div", null, h("p", { class: "soft" }, "The node is asked for its signed note."));
  askNow(`/reports/checkpoints/${encodeURIComponent(checkpointId)}/evidence`)
    .then((noted) => put(place, facts(checkpointId, noted), dropped()))
    .catch((error) => put(place, h("p", { class: "soft" }, error.message), dropped()));
  return [h("h2", null, "Evidence"), place];
}

function facts(checkpointId, noted) {
  const [origin, , root] = noted.note.split("\n");
  const signers = noted.note.split("\n").filter((line) => line.startsWith("— ")).map((line) => line.split(" ")[1]);
  const fact = (term, ...value) => [h("dt", null, term), h("dd", null, value)];
  const address = `/reports/checkpoints/${encodeURIComponent(checkpointId)}/bundle`;
  return h("dl", { class: "facts" },
    fact("Tree", `${count(noted.leaves)} appends of the log`),
    fact("Root", h("span", { class: "mono" }, root)),
    fact("Note", h("details", { class: "note" }, h("summary", null, `${origin}, signed by ${signers.join(", ")}`), h("pre", { class: "mono" }, noted.note))),
    fact("Bundle", noted.bundle_from
      ? `holds answers that are hidden until ${noted.bundle_from} in event time; it is given out then`
      : [h("a", { href: address }, `${checkpointId}.bundle`), " · all that the payout depends on"]),
    fact("To judge it anywhere, offline", h("code", { class: "mono" }, `coordinator verify ${checkpointId}.bundle`)));
}

// A bundle that is dropped is looked at in this browser; nothing of it is sent.
function dropped() {
  const told = h("div", { role: "status" });
  const look = async (file) => {
    put(told, h("p", { class: "soft" }, `${file.name}: read`));
    const lines = h("ol", { class: "judged" });
    put(told, lines);
    const say = (step, good, words) => lines.append(h("li", { class: good === null ? "soft" : good ? "good" : "bad" }, h("strong", null, `${good === null ? "–" : good ? "✓" : "✗"} ${step}: `), words));
    try {
      await judge(file, say);
    } catch (error) {
      say("bundle", false, error.message);
    }
  };
  const chosen = h("input", { type: "file", onchange: (event) => event.target.files[0] && look(event.target.files[0]) });
  const area = h("div", { class: "drop", ondragover: (event) => event.preventDefault(), ondrop: (event) => { event.preventDefault(); if (event.dataTransfer.files[0]) look(event.dataTransfer.files[0]); } },
    h("label", null, "Check a bundle in this browser: drop it here, or ", chosen),
    h("p", { class: "soft" }, "Checked here: the hashes, the tree, the signature, that nothing is missing, and that the shares sum. The contract's scores, and earlier payouts, are left to the command: they need its code."));
  return [area, told];
}
