// Judges a bundle in the browser: hashes, tree, signature, completeness, sums. What needs the contract's code is left to
// `coordinator verify`. It reads bytes and says a line for each step: say(step, true | false | null, words), null for
// what this browser cannot do. The first step that does not hold ends it.

import { members } from "./zip.js";

const TOPICS = ["feeds", "inputs", "models", "predictions", "scores", "snapshots", "checkpoints"];
const FRAME_BYTES = 20;
const HASH_BYTES = 32;
const WIDTH = 256;
const WHOLE_TOPICS = ["models", "checkpoints"];
const WHOLE = 1_000_000_000;
const text = new TextDecoder("utf-8", { fatal: true });
const bytesOf = (words) => new TextEncoder().encode(words);

class Broken extends Error {
  constructor(step, words) {
    super(words);
    this.step = step;
  }
}

const broken = (step, words) => { throw new Broken(step, words); };

export async function judge(file, say) {
  try {
    await steps(file, say);
  } catch (error) {
    say(error instanceof Broken ? error.step : "bundle", false, error.message);
  }
}

async function steps(file, say) {
  const bundle = await members(file);
  const manifest = JSON.parse(text.decode(bundle.get("manifest.json") ?? broken("bundle", "manifest.json is missing")));
  if (manifest.format !== "coordinator-bundle/1") broken("bundle", `its format is ${String(manifest.format).slice(0, 60)}; this page reads coordinator-bundle/1`);
  say("bundle", true, `${bundle.size} members about ${manifest.checkpoint_id} of ${manifest.crunch_id}`);
  const note = parseNote(text.decode(bundle.get("note") ?? broken("note", "the note is missing")));
  if (note.origin !== `coordinator/${manifest.crunch_id}`) broken("note", `it is about ${note.origin}, the bundle about crunch ${manifest.crunch_id}`);
  const signed = await signedBy(note, manifest.key);
  if (signed === false) broken("note", "it is not signed by the key in the bundle");
  say("note", signed, signed === null ? "this browser has no Ed25519: the signature is not checked" : "signed by the key in the bundle; compare it with the node's own");
  const cut = manifest.cut ?? null;
  const leaf = await tree(bundle, note, cut?.batch.size ?? 0);
  say("tree", true, `${note.size} leaves give the root of the note`);
  const log = await appends(bundle, manifest, leaf, note);
  const rotated = await rotations(log.get("checkpoints"));
  if (rotated.has(manifest.key)) broken("note", "the key in the bundle was rotated to another, and signs nothing more");
  say("log", true, `all ${note.size - (cut?.batch.size ?? 0)} appends are those of the tree, and no number is missing`);
  if (cut) say("beginning", true, `after ${cut.batch.checkpoint_ids.at(-1)}; what is left out of before is the word of who made the bundle`);
  const answers = await largeAnswers(bundle);
  if (answers) say("answers", true, `${answers} large answers beside the log have the hashes that they are called by`);
  say("completeness", true, rounds(log, cut !== null));
  say("emission", true, await emission(bundle, manifest, log));
  say("scores", null, "left to the command: they need the contract's code");
}

// Answers that are too large for the log lie beside it; the log has their hash, which is their name here.
async function largeAnswers(bundle) {
  const names = [...bundle.keys()].filter((name) => name.startsWith("blob/"));
  for (const name of names) {
    if (`blob/${hex(await sha256(bundle.get(name)))}` !== name) broken("answers", `${name} holds something else`);
  }
  return names.length;
}

// --- the note -------------------------------------------------------------------------------------------------

function parseNote(words) {
  const end = words.indexOf("\n\n");
  const [origin, size, root] = words.slice(0, end).split("\n");
  if (end < 0 || !/^[1-9][0-9]{0,14}$/.test(size ?? "")) broken("note", "it is no checkpoint of a tree");
  const signatures = words.slice(end + 2).split("\n").filter(Boolean).map((line) => {
    const parts = /^— (\S+) (\S+)$/.exec(line) ?? broken("note", "a signature cannot be read");
    return { name: parts[1], content: fromBase64(parts[2]) };
  });
  return { origin, size: Number(size), root: fromBase64(root ?? ""), signed: bytesOf(words.slice(0, end + 1)), signatures };
}

async function keyOf(written) {
  const parts = /^([^+]+)\+([0-9a-f]{8})\+(.+)$/.exec(written) ?? broken("note", "the bundle names no public key");
  const key = fromBase64(parts[3]);
  if (key.length !== 1 + HASH_BYTES || key[0] !== 1) broken("note", "the key in the bundle is no Ed25519 key");
  const id = (await sha256(bytesOf(`${parts[1]}\n`), key)).slice(0, 4);
  const imported = await crypto.subtle.importKey("raw", key.slice(1), { name: "Ed25519" }, false, ["verify"]).catch(() => null);
  return { name: parts[1], id, imported };
}

async function signedBy(note, written) {
  const { name: signer, id, imported } = await keyOf(written);
  if (imported === null) return null;
  for (const { name, content } of note.signatures) {
    if (name === signer && content.length === 68 && same(content.slice(0, 4), id)
      && await crypto.subtle.verify("Ed25519", imported, content.slice(4), note.signed)) return true;
  }
  return false;
}

// The keys that were rotated to another, each rotation signed by both (streams/signing/rotation.py).
async function rotations(events) {
  const rotated = new Set();
  for (const { kind, data } of events) {
    if (kind !== "EvidenceKeyRotated") continue;
    const statement = bytesOf(`coordinator key rotation\n${data.old_key}\n${data.new_key}\n`);
    for (const [written, signature] of [[data.old_key, data.old_signature], [data.new_key, data.new_signature]]) {
      const { imported } = await keyOf(written);
      if (imported && !(await crypto.subtle.verify("Ed25519", imported, fromBase64(signature), statement))) broken("log", `a key did not sign the rotation to ${data.new_key}`);
    }
    rotated.add(data.old_key);
  }
  return rotated;
}

// --- the tree -------------------------------------------------------------------------------------------------

// (index) => the hash of a leaf from `first` on: each tile has the hashes of those below it, and they give the note's root.
async function tree(bundle, note, first) {
  if (first < 0 || first >= note.size || (note.size - first) / WIDTH > bundle.size + 1) broken("tree", `the bundle has not the hashes of ${note.size - first} leaves`);
  const known = new Set();
  const tileAt = (level, index, count) => {
    const width = Math.min(WIDTH, count - index * WIDTH);
    const path = `tile/${level}/${grouped(index)}${width < WIDTH ? `.p/${width}` : ""}`;
    const tile = bundle.get(path) ?? broken("tree", `${path} is missing`);
    if (tile.length !== width * HASH_BYTES) broken("tree", `${path} has ${tile.length} bytes`);
    known.add(path);
    return tile;
  };
  const leaves = new Map();
  let below = new Map();
  let last = null;
  for (let level = 0; Math.floor(note.size / WIDTH ** level); level++) {
    const count = Math.floor(note.size / WIDTH ** level);
    const tiles = new Map();
    for (let i = Math.floor(first / WIDTH ** (level + 1)); i * WIDTH < count; i++) tiles.set(i, tileAt(level, i, count));
    for (const [index, hash] of below) {
      if (!same(hash, hashIn(tiles.get(Math.floor(index / WIDTH)), index % WIDTH))) broken("tree", `the tiles of level ${level} are not the hashes of those below them`);
    }
    const complete = [...tiles].filter(([, tile]) => tile.length === WIDTH * HASH_BYTES);
    below = new Map(await Promise.all(complete.map(async ([index, tile]) => [index, await folded(hashesIn(tile))])));
    // What no tile above has: it stands at the right edge, behind the complete subtrees of all levels above.
    const edge = count % WIDTH ? hashesIn(tiles.get(Math.floor(count / WIDTH))) : [];
    last = await folded([...edge, ...(last ? [last] : [])]);
    if (level === 0) for (const [index, tile] of tiles) leaves.set(index, tile);
  }
  if (!same(last, note.root)) broken("tree", "the tiles do not give the root of the note");
  for (const name of bundle.keys()) if (name.startsWith("tile/") && !known.has(name)) broken("tree", `${name} is not of this tree`);
  return (index) => hashIn(leaves.get(Math.floor(index / WIDTH)) ?? broken("bundle", `leaf ${index} is not in the bundle`), index % WIDTH);
}

const hashIn = (tile, place) => tile.subarray(place * HASH_BYTES, (place + 1) * HASH_BYTES);
const hashesIn = (tile) => Array.from({ length: tile.length / HASH_BYTES }, (_, place) => hashIn(tile, place));
const nodeHash = (left, right) => sha256(new Uint8Array([1]), left, right);

// The root over hashes of subtrees. An odd last one goes up as it is: so RFC 9162 splits at the largest power of two.
async function folded(hashes) {
  while (hashes.length > 1) {
    const pairs = [];
    for (let i = 0; i + 1 < hashes.length; i += 2) pairs.push(nodeHash(hashes[i], hashes[i + 1]));
    if (hashes.length % 2) pairs.push(hashes.at(-1));
    hashes = await Promise.all(pairs);
  }
  return hashes[0] ?? null;
}

// Whether a leaf is at an index of the note's tree: RFC 9162, 2.1.3.2.
async function includes(leaf, index, note, siblings) {
  let [node, last, hash] = [index, note.size - 1, leaf];
  const half = (number) => Math.floor(number / 2);
  for (const sibling of hashesIn(siblings)) {
    if (last === 0) return false;
    if (node % 2 || node === last) {
      hash = await nodeHash(sibling, hash);
      while (!(node % 2) && node) [node, last] = [half(node), half(last)];
    } else {
      hash = await nodeHash(hash, sibling);
    }
    [node, last] = [half(node), half(last)];
  }
  return last === 0 && same(hash, note.root);
}

const grouped = (index) => {
  let path = String(index % 1000).padStart(3, "0");
  for (index = Math.floor(index / 1000); index; index = Math.floor(index / 1000)) path = `x${String(index % 1000).padStart(3, "0")}/${path}`;
  return path;
};

// --- the log --------------------------------------------------------------------------------------------------

// Topic -> its events; every append was seen to be the leaf that the note commits to, in the order of its numbers. Those
// from before a cut have their own way to the root.
async function appends(bundle, manifest, leaf, note) {
  const log = new Map();
  const cut = manifest.cut ?? null;
  let seen = 0;
  for (const topic of TOPICS) {
    const frames = [...framesOf(topic, bundle.get(`log/${topic}`) ?? broken("log", `log/${topic} is missing`))];
    const earlier = cut?.earlier[topic] ?? [];
    const due = manifest.batches.flatMap(({ runs }) => Array.from({ length: runs[topic][2] }, (_, i) => runs[topic][0] + i));
    if (earlier.length + due.length !== frames.length) broken("log", `${topic} has ${frames.length} appends, the note commits to ${earlier.length + due.length}`);
    const checks = await Promise.all(frames.map(async ({ first, offset, record }, i) => {
      const hash = await sha256(new Uint8Array([0]), await sha256(bytesOf(`${topic} ${first} ${offset}\n`), record));
      return i < earlier.length ? includes(hash, earlier[i][0], note, fromBase64(earlier[i][1])) : same(hash, leaf(due[i - earlier.length]));
    }));
    checks.forEach((is, i) => { if (!is) broken("log", `append ${i + 1} of ${topic} is not the one that the note commits to`); });
    log.set(topic, eventsOf(topic, frames, cut && !WHOLE_TOPICS.includes(topic) ? cut.begins[topic] ?? 1 : 1));
    seen += due.length;
  }
  if (seen !== note.size - (cut?.batch.size ?? 0)) broken("log", `${seen} appends, the note commits to ${note.size - (cut?.batch.size ?? 0)}`);
  return log;
}

function* framesOf(topic, member) {
  const view = new DataView(member.buffer, member.byteOffset, member.byteLength);
  for (let at = 0; at < member.length;) {
    if (at + FRAME_BYTES > member.length) broken("log", `log/${topic} is cut`);
    const length = view.getUint32(at + 16);
    const end = at + FRAME_BYTES + length;
    if (end > member.length) broken("log", `log/${topic} is cut`);
    yield { first: view.getBigUint64(at), offset: view.getBigUint64(at + 8), record: member.subarray(at + FRAME_BYTES, end) };
    at = end;
  }
}

// The numbers before `completeFrom` may have holes.
function eventsOf(topic, frames, completeFrom) {
  const events = [];
  let [seq, part, parts] = [0, 0, 0];
  for (const { record } of frames) {
    const append = JSON.parse(text.decode(record));
    const [number, count] = append.part;
    const goesOn = part < parts ? append.seq === seq && number === part + 1 && count === parts : number === 1 && (append.seq === seq + 1 || (append.seq > seq && append.seq <= completeFrom));
    if (!goesOn) broken("log", `${topic}: decision ${append.seq}, part ${number} stands behind decision ${seq}, part ${part}`);
    [seq, part, parts] = [append.seq, number, count];
    events.push(...append.events);
  }
  if (part < parts) broken("log", `${topic} ends within decision ${seq}`);
  return events;
}

// --- completeness ---------------------------------------------------------------------------------------------

// Everybody who was asked has one answer or a reason in every scope of a round that is complete, and one ending where it
// is scored. After a cut, rounds that were opened before it are left to the command.
function rounds(log, isCut) {
  const rosters = new Map();
  const answered = new Map();
  const complete = new Set();
  for (const { kind, data } of log.get("predictions")) {
    if (kind === "RoundOpened") rosters.set(data.input_id, { models: data.roster.map((one) => one.model_id), scopes: data.scope_keys });
    if (kind === "RoundAnswered") complete.add(data.input_id);
    if (kind !== "ScopeAnswered") continue;
    const key = `${data.input_id} ${data.scope_key}`;
    answered.set(key, [...(answered.get(key) ?? []), ...data.models]);
  }
  let statuses = 0;
  for (const id of complete) {
    if (isCut && !rosters.has(id)) continue;
    const { models, scopes } = rosters.get(id) ?? broken("completeness", `round ${id} was answered and never opened`);
    for (const scope of scopes) {
      const said = answered.get(`${id} ${scope}`) ?? [];
      if (said.length !== models.length || new Set(said).size !== models.length || said.some((i) => i >= models.length)) {
        broken("completeness", `round ${id}, ${scope}: ${models.length} were asked, ${said.length} have an answer or a reason`);
      }
      statuses += said.length;
    }
  }
  let scored = 0;
  for (const { kind, data } of log.get("scores")) {
    if (kind !== "RoundScored") continue;
    // A posted question is scored once, for all rounds in which it was asked or answered by hand.
    const asked = data.input_id.startsWith("inp/questions/") ? [...rosters].filter(([id]) => id.split("~")[0] === data.input_id) : rosters.has(data.input_id) ? [[data.input_id, rosters.get(data.input_id)]] : [];
    if (!asked.length && isCut) continue;
    if (!asked.length) broken("completeness", `round ${data.input_id} was scored and never opened`);
    const models = [...new Set(asked.flatMap(([, one]) => one.models))];
    if (data.models.length !== models.length || data.models.some((one) => !models.includes(one))) {
      broken("completeness", `round ${data.input_id}, ${data.scope_key}: not everybody who was asked has an ending`);
    }
    scored += data.models.length;
  }
  let until = null;
  for (const { kind, data } of log.get("checkpoints")) {
    if (kind !== "CheckpointOpened" && kind !== "CheckpointWithheld") continue;
    const { period_start: start, period_end: end } = kind === "CheckpointOpened" ? data : data.checkpoint;
    if (end <= start) broken("completeness", `a period ends at ${end}, before it begins`);
    if (until !== null && start < until && end > until) broken("completeness", `two periods overlap at ${start}`);
    until = Math.max(until ?? end, end);
  }
  return `${complete.size} rounds with ${statuses} answers or reasons, ${scored} endings: everybody asked has one`;
}

// --- the emission ---------------------------------------------------------------------------------------------

async function emission(bundle, manifest, log) {
  const made = log.get("checkpoints").flatMap(({ kind, data }) => (kind === "CheckpointOpened" ? [data] : kind === "CheckpointWithheld" ? [data.checkpoint] : []))
    .findLast((one) => one.checkpoint_id === manifest.checkpoint_id) ?? broken("emission", `the log has no checkpoint ${manifest.checkpoint_id}`);
  const member = bundle.get("payout/emission.json") ?? broken("emission", "payout/emission.json is missing");
  if (hex(await sha256(member)) !== made.emission_sha256) broken("emission", "payout/emission.json is not the emission of the log");
  if (stable(JSON.parse(text.decode(member))) !== stable(made.emission)) broken("emission", "the emission of the log is not the one that was hashed");
  const shown = JSON.parse(text.decode(bundle.get("payout/checkpoint.json") ?? broken("emission", "payout/checkpoint.json is missing")));
  if (Object.entries(made).some(([name, value]) => stable(shown[name]) !== stable(value))) broken("emission", "payout/checkpoint.json is not the checkpoint of the log");
  const rewards = made.emission.cruncher_rewards;
  const sum = rewards.reduce((total, one) => total + one.reward_pct, 0);
  const left = made.payout?.retained_is === "left" || made.payout?.retained_is === "withheld" ? made.payout.retained_frac64 : 0;
  if (rewards.length && sum + left !== WHOLE) broken("emission", `the shares sum to ${sum + left}, not to ${WHOLE}`);
  if (rewards.some((one) => !made.ranking[one.cruncher_index])) broken("emission", "a share is nobody's");
  return `${rewards.length} shares sum to ${sum.toLocaleString("en")}${left ? `, ${left.toLocaleString("en")} are retained` : ", exactly"}`;
}

const stable = (value) => JSON.stringify(value, (_, one) => (one && typeof one === "object" && !Array.isArray(one) ? Object.fromEntries(Object.entries(one).sort(([a], [b]) => (a < b ? -1 : 1))) : one));

// --- bytes ----------------------------------------------------------------------------------------------------

async function sha256(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, one) => sum + one.length, 0));
  let at = 0;
  for (const one of parts) { whole.set(one, at); at += one.length; }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
}

const same = (one, other) => one.length === other.length && one.every((byte, i) => byte === other[i]);
const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

function fromBase64(words) {
  try {
    return Uint8Array.from(atob(words), (letter) => letter.charCodeAt(0));
  } catch {
    return broken("note", "what should be base64 is not");
  }
}
