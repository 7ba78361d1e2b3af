// Every job in brief, kept up to date from one stream for whichever page shows them.
import { stream } from "./api.js";

const jobs = new Map();
const watchers = new Set();
let feed = null, position = "", whole = false, due = null;

/** Calls back soon after changes, at most once a frame. Returns what ends it. */
export function watchJobs(changed) {
  watchers.add(changed);
  feed ??= stream(() => `/v1/jobs${position ? `?after=${position}` : ""}`, {
    rows: (data, id) => take(data, id),
    whole: (data, id) => { whole = true; take(data, id); },
  });
  if (jobs.size || whole) announce();
  return () => {
    watchers.delete(changed);
    if (watchers.size === 0) { feed.close(); feed = null; }
  };
}

export const allJobs = () => jobs;
export const isWhole = () => whole;

function take(data, id) {
  if (data.anew) jobs.clear();
  for (const row of data.rows) jobs.set(row.id, row);
  position = id;
  announce();
}

function announce() {
  due ??= setTimeout(() => { due = null; for (const changed of watchers) changed(); }, 30);
}
