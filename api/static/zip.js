// The members of a bundle, which is a ZIP archive: bounded, and with the names of the format alone.

const FILE_BYTES_MAX = 512 * 1024 ** 2;
const UNPACKED_BYTES_MAX = 2 * 1024 ** 3;
const RATIO_MAX = 200;
const MEMBERS_MAX = 200_000;
const NAME = /^(manifest\.json|note|payout\/[a-z0-9_-]{1,40}\.(json|csv|jsonl)|tile\/(\d|[1-5]\d|6[0-3])\/(x\d{3}\/){0,5}\d{3}(\.p\/\d{1,3})?|log\/[a-z]{1,20}|blob\/[0-9a-f]{64})$/;
const END = 0x06054b50;
const CENTRAL = 0x02014b50;
const LOCAL = 0x04034b50;
const DEFLATED = 8;
const WIDE = 0xffffffff;

// Name -> bytes. Throws an Error with words for what is no bundle.
export async function members(file) {
  if (file.size > FILE_BYTES_MAX) throw new Error(`${file.size} bytes are more than a page should read; use the command`);
  const whole = new Uint8Array(await file.arrayBuffer());
  const view = new DataView(whole.buffer);
  const found = new Map();
  let unpacked = 0;
  for (const entry of directory(whole, view)) {
    if (found.has(entry.name)) throw new Error(`${entry.name} is there twice`);
    unpacked += entry.size;
    if (unpacked > UNPACKED_BYTES_MAX) throw new Error("unpacked it would be larger than a page should hold; use the command");
    found.set(entry.name, await content(whole, view, entry));
  }
  return found;
}

function* directory(whole, view) {
  let end = whole.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== END) end--;
  if (end < 0) throw new Error("it is no ZIP archive");
  const count = view.getUint16(end + 10, true);
  let at = view.getUint32(end + 16, true);
  if (count > MEMBERS_MAX || at === WIDE) throw new Error("it is larger than a page should read; use the command");
  for (let i = 0; i < count; i++) {
    if (at + 46 > whole.length || view.getUint32(at, true) !== CENTRAL) throw new Error("its directory is damaged");
    const [flags, method] = [view.getUint16(at + 8, true), view.getUint16(at + 10, true)];
    const [crc, packed, size] = [view.getUint32(at + 16, true), view.getUint32(at + 20, true), view.getUint32(at + 24, true)];
    const [names, extra, remark] = [view.getUint16(at + 28, true), view.getUint16(at + 30, true), view.getUint16(at + 32, true)];
    const name = new TextDecoder().decode(whole.subarray(at + 46, at + 46 + names));
    if (!NAME.test(name)) throw new Error(`it holds ${name.slice(0, 60)}, which no bundle has`);
    if (flags & 1 || ![0, DEFLATED].includes(method)) throw new Error(`${name} is packed in a way that bundles are not`);
    if (size === WIDE || packed === WIDE) throw new Error(`${name} is larger than a page should read; use the command`);
    if (size > Math.max(packed, 100) * RATIO_MAX) throw new Error(`${name} unpacks from ${packed} to ${size} bytes: refused as a bomb`);
    yield { name, method, crc, packed, size, start: view.getUint32(at + 42, true) };
    at += 46 + names + extra + remark;
  }
}

async function content(whole, view, { name, method, crc, packed, size, start }) {
  if (start + 30 > whole.length || view.getUint32(start, true) !== LOCAL) throw new Error(`${name} is not where the directory says`);
  const from = start + 30 + view.getUint16(start + 26, true) + view.getUint16(start + 28, true);
  const raw = whole.subarray(from, from + packed);
  const bytes = method === DEFLATED ? await inflated(raw, size, name) : raw;
  if (bytes.length !== size) throw new Error(`${name} has ${bytes.length} bytes, not ${size}`);
  if (crc32(bytes) !== crc) throw new Error(`${name} is damaged`);
  return bytes;
}

async function inflated(raw, size, name) {
  const reader = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  const bytes = new Uint8Array(size);
  let at = 0;
  for (;;) {
    const { done, value } = await reader.read().catch(() => { throw new Error(`${name} is damaged`); });
    if (done) return bytes.subarray(0, at);
    if (at + value.length > size) throw new Error(`${name} unpacks to more than it says`);
    bytes.set(value, at);
    at += value.length;
  }
}

const TABLE = Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

function crc32(bytes) {
  let crc = WIDE;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ WIDE) >>> 0;
}
