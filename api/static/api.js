// Questions to the node. Every one carries `as_of` while the page stands in the past.

const AGAIN_MS = 500;

export const when = { asOf: null };

export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export async function ask(path, parameters = {}, signal = undefined) {
  return (await page(path, parameters, signal)).rows;
}

// What is about the whole log or this process: asked as of now, wherever the page stands.
export async function askNow(path, parameters = {}, signal = undefined) {
  return (await page(path, parameters, signal, null)).rows;
}

// One page of a list: its rows, and the address of the next one where there is one.
export async function page(path, parameters = {}, signal = undefined, asked = when.asOf) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== null && value !== undefined) query.set(name, value);
  if (asked !== null) query.set("as_of", new Date(asked).toISOString());
  const address = query.size ? `${path}${path.includes("?") ? "&" : "?"}${query}` : path;
  const answer = await once(address, signal).catch(() => null) ?? await again(address, signal);
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    const detail = typeof problem.detail === "string" ? problem.detail : `The node answered ${answer.status}.`;
    throw new Refusal(answer.status, detail);
  }
  // A node that knows no past would answer with the present: that must not stand under another time.
  if (asked !== null && !answer.headers.has("x-log-position")) throw new Refusal(501, "This node does not answer about the past.");
  return { rows: await answer.json(), next: nextOf(answer.headers) };
}

const once = (address, signal) => fetch(address, { signal, headers: { Accept: "application/json" } });

// A laptop that wakes, a network that changes: the second try is a moment later.
async function again(address, signal) {
  await new Promise((done) => setTimeout(done, signal?.aborted ? 0 : AGAIN_MS));
  try {
    return await once(address, signal);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The node does not answer.");
  }
}

function nextOf(headers) {
  const link = /<([^>]+)>\s*;\s*rel="?next"?/.exec(headers.get("link") || "");
  if (!link) return null;
  const address = new URL(link[1], location.href);
  address.searchParams.delete("as_of"); // page() sets it again
  return address.origin === location.origin ? address.pathname + address.search : null;
}
