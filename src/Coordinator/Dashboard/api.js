// The coordinator's API: questions, and streams that come back by themselves.

export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

/** Nobody refused, because nobody answered. */
async function reach(path, options) {
  try { return await fetch(path, options); } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The coordinator does not answer.", { cause: error });
  }
}

/** Leaves for the page where one signs in. */
export function signIn() {
  location.replace(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
}

export async function ask(path, options = {}) {
  const response = await reach(path, { ...options, headers: { ...options.headers, "X-Trainer-Page": "1" } });
  if (response.status === 401) {
    signIn();
    throw new Refused(401, "you are signed out");
  }
  if (!response.ok) throw new Refused(response.status, (await response.json().catch(() => null))?.error ?? `the coordinator answered ${response.status}`);
  return response;
}

export const get = async (path, signal) => (await ask(path, { signal })).json();

export const post = async (path, body) => {
  const response = await ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: body === undefined ? undefined : JSON.stringify(body) });
  return response.status === 204 ? null : response.json();
};

export const jobPath = id => `/v1/jobs/${encodeURIComponent(id)}`;

// How the streams of this page are, for the indicator in the bar.
const open = new Map();
const listeners = new Set();
export function onConnection(listener) { listeners.add(listener); listener(connection()); }
function connection() {
  const all = [...open.values()];
  return all.length === 0 ? "idle" : all.includes("waiting") ? "waiting" : "live";
}
function mark(stream, state) {
  if (state === null) open.delete(stream); else open.set(stream, state);
  for (const listener of listeners) listener(connection());
}

/**
 * Server-sent events that resume by themselves: url() says where to go on. A page that nobody sees holds no connection (a browser
 * has few of them), and reads on when it is seen again.
 */
export function stream(url, handlers, ended) {
  const self = {};
  let source = null, timer = null, closed = false, pause = 500;

  function start() {
    clearTimeout(timer);
    if (closed || source || document.hidden) return;
    mark(self, "waiting");
    source = new EventSource(url());
    source.onopen = () => { pause = 500; mark(self, "live"); };
    source.onerror = () => {
      // The browser's own way back would not know where to go on after an error status.
      stop();
      if (ended?.()) { close(); return; }
      mark(self, "waiting");
      timer = setTimeout(again, pause);
      pause = Math.min(pause * 1.6, 5000);
    };
    for (const [kind, handler] of Object.entries(handlers)) {
      source.addEventListener(kind, event => handler(JSON.parse(event.data), event.lastEventId));
    }
  }
  async function again() {
    // Tells "not signed in" from "not there".
    const response = await fetch("/session").catch(() => null);
    if (response?.status === 401) signIn(); else start();
  }
  function stop() { source?.close(); source = null; }
  function seen() {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(() => { stop(); mark(self, null); }, 10_000); else start();
  }
  function close() {
    closed = true;
    clearTimeout(timer);
    stop();
    mark(self, null);
    document.removeEventListener("visibilitychange", seen);
  }
  document.addEventListener("visibilitychange", seen);
  start();
  return { close };
}

/** Calls again and again while the page is seen. Returns what ends it. */
export function repeat(seconds, action) {
  let timer = null, over = false;
  async function run() {
    clearTimeout(timer);
    if (over) return;
    if (!document.hidden) await Promise.resolve(action()).catch(() => {});
    if (!over) timer = setTimeout(run, seconds * 1000);
  }
  const seen = () => { if (!document.hidden) run(); };
  document.addEventListener("visibilitychange", seen);
  run();
  return () => { over = true; clearTimeout(timer); document.removeEventListener("visibilitychange", seen); };
}
