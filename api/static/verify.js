// Judges a bundle in the browser: hashes, tree, signature, completeness, sums. What needs the contract's code is left to
// `coordinator verify`. It reads bytes and says a line for each step: say(step, true | false | null, words), null for
// what this browser cannot do. The first step that does not hold ends it.

import { members } from "./zip.js";

const TOPICS = ["feeds", "inputs", "models", "predictions", "scores", "snapshots", "checkpoints"];
const FRAME_BYTES = 20;
const HASH_BYTES = 32;
const WIDTH = 256;
const TILE_HEIGHT = 8;
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
  const hashes = await tree(bundle, note);
  say("tree", true, `${note.size} leaves give the root of the note`);
  const log = await appends(bundle, manifest, hashes, note.size);
  say("log", true, `all ${note.size} appends are those of the tree, and no number is missing`);
  say("completeness", true, rounds(log));
  say("emission", true, await emission(bundle, manifest, log));
  say("scores", null, "left to the command: they need the contract's code");
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

async function signedBy(note, written) {
  const parts = /^([^+]+)\+([0-9a-f]{8})\+(.+)$/.exec(written) ?? broken("note", "the bundle names no public key");
  const key = fromBase64(parts[3]);
  if (key.length !== 1 + HASH_BYTES || key[0] !== 1) broken("note", "the key in the bundle is no Ed25519 key");
  const id = (await sha256(bytesOf(`${parts[1]}\n`), key)).slice(0, 4);
  const imported = await crypto.subtle.importKey("raw", key.slice(1), { name: "Ed25519" }, false, ["verify"]).catch(() => null);
  if (imported === null) return null;
  for (const { name, content } of note.signatures) {
    if (name === parts[1] && content.length === 68 && same(content.slice(0, 4), id)
      && await crypto.subtle.verify("Ed25519", imported, content.slice(4), note.signed)) return true;
  }
  return false;
}

// --- the tree -------------------------------------------------------------------------------------------------

// The hash of each leaf, as the tiles have them: their root is the note's, and the tiles above are made of them.
async function tree(bundle, note) {
  const known = new Set();
  const tilesOf = (level, count) => {
    const hashes = new Uint8Array(count * HASH_BYTES);
    for (let i = 0; i * WIDTH < count; i++) {
      const width = Math.min(WIDTH, count - i * WIDTH);
      const path = `tile/${level}/${grouped(i)}${width < WIDTH ? `.p/${width}` : ""}`;
      const tile = bundle.get(path) ?? broken("tree", `${path} is missing`);
      if (tile.length !== width * HASH_BYTES) broken("tree", `${path} has ${tile.length} bytes`);
      known.add(path);
      hashes.set(tile, i * WIDTH * HASH_BYTES);
    }
    return hashes;
  };
  const hashes = tilesOf(0, note.size);
  let level = Array.from({ length: note.size }, (_, i) => hashes.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES));
  for (let height = 1; level.length > 1; height++) {
    const above = [];
    for (let i = 0; i + 1 < level.length; i += 2) above.push(sha256(new Uint8Array([1]), level[i], level[i + 1]));
    // An odd last hash goes up as it is: so RFC 9162 splits at the largest power of two.
    if (level.length % 2) above.push(level.at(-1));
    level = await Promise.all(above);
    const complete = Math.floor(note.size / 2 ** height);
    if (height % TILE_HEIGHT === 0 && complete) {
      const stored = tilesOf(height / TILE_HEIGHT, complete);
      if (level.slice(0, complete).some((hash, i) => !same(hash, stored.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES)))) {
        broken("tree", `the tiles of level ${height / TILE_HEIGHT} are not the hashes of those below them`);
      }
    }
  }
  if (!same(level[0], note.root)) broken("tree", "the tiles do not give the root of the note");
  for (const name of bundle.keys()) if (name.startsWith("tile/") && !known.has(name)) broken("tree", `${name} is not of this tree`);
  return hashes;
}

const grouped = (index) => {
  let path = String(index % 1000).padStart(3, "0");
  for (index = Math.floor(index / 1000); index; index = Math.floor(index / 1000)) path = `x${String(index % 1000).padStart(3, "0")}/${path}`;
  return path;
};

// --- the log --------------------------------------------------------------------------------------------------

// Topic -> its events; every append was seen to be the leaf that the note commits to, in the order of its numbers.
async function appends(bundle, manifest, hashes, size) {
  const log = new Map();
  let seen = 0;
  for (const topic of TOPICS) {
    const frames = [...framesOf(topic, bundle.get(`log/${topic}`) ?? broken("log", `log/${topic} is missing`))];
    const due = manifest.batches.flatMap(({ runs }) => Array.from({ length: runs[topic][2] }, (_, i) => runs[topic][0] + i));
    if (due.length !== frames.length) broken("log", `${topic} has ${frames.length} appends, the note commits to ${due.length}`);
    const leaves = await Promise.all(frames.map(async ({ first, offset, record }) =>
      sha256(new Uint8Array([0]), await sha256(bytesOf(`${topic} ${first} ${offset}\n`), record))));
    leaves.forEach((leaf, i) => {
      const at = due[i] * HASH_BYTES;
      if (!same(leaf, hashes.subarray(at, at + HASH_BYTES))) broken("log", `append ${i + 1} of ${topic} is not the one that the note commits to`);
    });
    log.set(topic, eventsOf(topic, frames));
    seen += frames.length;
  }
  if (seen !== size) broken("log", `${seen} appends, the note commits to ${size}`);
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

function eventsOf(topic, frames) {
  const events = [];
  let [seq, part, parts] = [0, 0, 0];
  for (const { record } of frames) {
    const append = JSON.parse(text.decode(record));
    const [number, count] = append.part;
    const goesOn = part < parts ? append.seq === seq && number === part + 1 && count === parts : append.seq === seq + 1 && number === 1;
    if (!goesOn) broken("log", `${topic}: decision ${append.seq}, part ${number} stands behind decision ${seq}, part ${part}`);
    [seq, part, parts] = [append.seq, number, count];
    events.push(...append.events);
  }
  if (part < parts) broken("log", `${topic} ends within decision ${seq}`);
  return events;
}

// --- completeness ---------------------------------------------------------------------------------------------

// Everybody who was asked has one answer or a reason in every scope of a round that is complete, and one ending where it
// is scored.
function rounds(log) {
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
    const { models } = rosters.get(data.input_id) ?? broken("completeness", `round ${data.input_id} was scored and never opened`);
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
