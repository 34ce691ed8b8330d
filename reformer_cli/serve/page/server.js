// All that is said to the server and heard from it. What goes wrong becomes one sentence (Trouble).

export const AWAY = "The program behind this page does not answer. Your text is safe in this browser. Start “reformer serve” again to go on.";

export class Trouble extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** Events "away" and "back": whether the server answers. */
export const connection = new EventTarget();
let away = false;
let askToken = async () => null;
let asking = null; // one question, however many answers wait for it
let token = readToken();

export function onTokenWanted(ask) {
  askToken = ask;
}

/** A link may carry the token behind its #: it is taken out of the address bar at once. */
function readToken() {
  const given = /^#token=(.+)$/.exec(location.hash);
  if (given) history.replaceState(null, "", location.pathname);
  try {
    if (given) sessionStorage.setItem("reformer.token", decodeURIComponent(given[1]));
    return sessionStorage.getItem("reformer.token");
  } catch {
    return given ? decodeURIComponent(given[1]) : null;
  }
}

export function hasToken() {
  return token !== null;
}

function turn(now) {
  if (away === now) return;
  away = now;
  connection.dispatchEvent(new CustomEvent(away ? "away" : "back", { detail: AWAY }));
  if (away) look();
}

/** Until it answers again. */
async function look() {
  while (away) {
    await new Promise((done) => setTimeout(done, 3000));
    if (document.hidden) continue;
    try {
      turn(!(await fetch("health", { cache: "no-store" })).ok);
    } catch {
      // still away
    }
  }
}

/** A response that is fine. body: sent as JSON, by POST. Throws Trouble; AbortError where `signal` ends it. */
export async function ask(path, { body, signal } = {}) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    const method = body === undefined ? "GET" : "POST";
    response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body), cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    turn(true);
    throw new Trouble(AWAY);
  }
  turn(false);
  if (response.ok) return response;
  if (response.status === 401) {
    asking ??= askToken(token !== null).finally(() => (asking = null));
    const given = await asking;
    if (!given) throw new Trouble("This server wants its token before it writes.", 401);
    token = given;
    try {
      sessionStorage.setItem("reformer.token", token);
    } catch {
      // asked again next time
    }
    return ask(path, { body, signal });
  }
  throw new Trouble(await reason(response), response.status);
}

async function reason(response) {
  if (response.status === 429) {
    const wait = Number(response.headers.get("Retry-After")) || 0;
    return `Others are writing just now, and there is no free place. Try again ${wait ? `in ${wait} s` : "in a moment"}.`;
  }
  try {
    const { error } = await response.json();
    if (typeof error?.message === "string") return error.message;
  } catch {
    // not JSON: the number must do
  }
  return `The server could not do that (${response.status}).`;
}

export async function json(path, options) {
  return (await ask(path, options)).json();
}

/** The data of server-sent events, one string each. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value.replaceAll("\r", "")).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const lines = part.split("\n").filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    turn(true);
    throw new Trouble(AWAY);
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** A continuation as it is written: {text}. */
export async function* completion(body, signal) {
  const response = await ask("v1/completions", { body: { ...body, stream: true }, signal });
  let finished = false;
  for await (const data of events(response)) {
    if (data === "[DONE]") return;
    const said = JSON.parse(data);
    if (said.error) throw new Trouble(String(said.error.message));
    for (const choice of said.choices ?? []) {
      finished ||= choice.finish_reason != null;
      yield { text: String(choice.text ?? "") };
    }
  }
  if (!finished) {
    turn(true);
    throw new Trouble(AWAY);
  }
}
