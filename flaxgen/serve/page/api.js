// Asks the server: JSON, and server-sent events; what goes wrong becomes a Trouble, whose kind the page has words for.
import { askKey, bearer } from "./key.js";

export class Trouble extends Error {
  constructor(kind, { detail = "", wait = 0, values = {} } = {}) {
    super(detail || kind);
    Object.assign(this, { kind, detail, wait, values });
  }
}

const KINDS = { 401: "key", 404: "missing", 408: "late", 429: "busy", 502: "network", 503: "stopping", 504: "late" };

function kindOf(status, code) {
  if (code === "timeout") return "late";
  return KINDS[status] ?? (status >= 500 ? "server" : "refused");
}

async function refusal(response) {
  let error = null;
  try {
    error = (await response.json()).error;
  } catch {
    // A proxy in between may answer in HTML; its status says enough.
  }
  const detail = typeof error?.message === "string" ? error.message : "";
  const wait = Math.min(Number(response.headers.get("Retry-After")) || 0, 600);
  return new Trouble(kindOf(response.status, error?.code), { detail, wait });
}

// The response to a GET, or to a POST where there is a body. A 401 asks for the key and tries again.
async function ask(path, { body, signal } = {}) {
  for (;;) {
    const headers = bearer();
    if (body) headers["Content-Type"] = "application/json";
    let response;
    try {
      const sent = body ? { method: "POST", body: JSON.stringify(body) } : {};
      response = await fetch(path, { ...sent, headers, signal, credentials: "omit" });
    } catch (error) {
      throw error.name === "AbortError" ? error : new Trouble("network");
    }
    if (response.status !== 401) return response;
    if (!(await askKey(headers.Authorization))) throw new Trouble("key");
    signal?.throwIfAborted();
  }
}

export async function json(path, options = {}) {
  const response = await ask(path, options);
  if (!response.ok && !options.any) throw await refusal(response);
  try {
    return await response.json();
  } catch (error) {
    throw error.name === "AbortError" ? error : new Trouble("broken");
  }
}

// The events of a stream, up to [DONE]; one that ends without, or holds no JSON, is broken.
export async function* events(path, body, signal) {
  const response = await ask(path, { body, signal });
  if (!response.ok) throw await refusal(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let whole = false;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Trouble("broken");
      const blocks = (rest + value.replaceAll("\r", "")).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
        whole = data === "[DONE]";
        if (whole) return;
        if (data) yield parsed(data);
      }
    }
  } catch (error) {
    throw error.name === "AbortError" || error instanceof Trouble ? error : new Trouble(error instanceof TypeError ? "network" : "broken");
  } finally {
    if (!whole) reader.cancel().catch(() => {}); // else the server closes it
  }
}

function parsed(data) {
  let found;
  try {
    found = JSON.parse(data);
  } catch {
    throw new Trouble("broken");
  }
  if (!found?.error) return found;
  const { code, message = "" } = found.error;
  throw new Trouble(kindOf(code === "draining" ? 503 : 500, code), { detail: String(message) });
}
