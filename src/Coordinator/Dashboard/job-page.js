// One job: what it does, how it came to that, and everything that it left.
import { h, fill, text, attribute, svg, icons } from "./dom.js";
import { get, stream, jobPath, repeat, Refused } from "./api.js";
import { actionsOf } from "./actions.js";
import { chartsView } from "./charts-view.js";
import { logView } from "./log-view.js";
import { checkpointsView, samplesView, configView } from "./job-views.js";
import * as f from "./format.js";

const tabs = { overview: "Overview", logs: "Logs", checkpoints: "Checkpoints", samples: "Samples", config: "Configuration" };

const refusals = { 403: "No such job", 404: "No such job", 409: "More than one job" };

export async function jobPage(main, { navigate }) {
  const name = decoded(location.pathname.slice("/jobs/".length));
  const over = new AbortController();
  let job;
  try {
    job = await get(jobPath(name), over.signal);
  } catch (error) {
    const heading = error instanceof Refused && refusals[error.status];
    if (!heading) throw error;
    document.title = `${heading} · Trainer`;
    fill(main, h("div.page", null, h("div.empty", null, h("h1", null, heading), h("p", null, error.message), h("p", null, h("a", { href: "/" }, "All jobs")))));
    return () => {};
  }
  const events = [...job.history];
  const changed = new Set();
  const now = { job: () => job, navigate };
  let view = null, tab = "";

  const state = h("span.state", null), reason = h("p.reason", { role: "status" }), actions = h("div.actions", null);
  const facts = h("dl.facts", null), fill_ = h("span.fill", null), share = h("span.share", null);
  const tabList = h("div.tabs", { role: "tablist", "aria-label": "Parts of the job" });
  const panel = h("div.tab-panel", { role: "tabpanel", id: "panel", tabindex: -1 });
  const buttons = Object.fromEntries(Object.entries(tabs).map(([key, label]) => {
    const button = h("button", { type: "button", role: "tab", id: `tab-${key}`, "aria-controls": "panel", onclick: () => open(key) }, label);
    tabList.append(button);
    return [key, button];
  }));
  tabList.addEventListener("keydown", event => {
    const keys = Object.keys(tabs), at = keys.indexOf(tab), to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: keys.length - 1 }[event.key];
    if (to !== undefined) { const next = keys[(to + keys.length) % keys.length]; open(next); buttons[next].focus(); event.preventDefault(); }
  });

  fill(main, h("div.page", null,
    h("p.crumb", null, h("a", { href: "/" }, "Jobs"), " / ", job.project),
    h("div.page-head.job-head", null, h("h1", null, job.id), state, actions),
    reason,
    h("div.progress-line", null, h("span.track.large", { role: "progressbar", "aria-label": "Progress", "aria-valuemin": 0, "aria-valuemax": 100 }, fill_), share),
    facts, tabList, panel));

  function show() {
    document.title = `${job.id} · ${f.states[job.status]} · Trainer`;
    attribute(state, "data-state", job.status);
    text(state, f.states[job.status] + (job.phase && job.phase !== "training" ? ` · ${job.phase}` : ""));
    const why = job.status !== job.reason ? job.reason ?? job.message ?? "" : job.message ?? "";
    text(reason, why);
    const done = job.steps > 0 ? Math.min(1, job.step / job.steps) : job.status === "succeeded" ? 1 : 0;
    fill_.style.width = `${(done * 100).toFixed(2)}%`;
    attribute(fill_.parentNode, "aria-valuenow", Math.round(done * 100));
    text(share, job.steps > 0 ? `step ${f.integer(job.step)} of ${f.integer(job.steps)} · ${f.percent(done)}` : job.step > 0 ? `step ${f.integer(job.step)}` : job.status === "succeeded" ? "done"
      : job.last_checkpoint_step ? `goes on after step ${f.integer(job.last_checkpoint_step)}` : "not started");
    const last = job.attempts.at(-1);
    const spent = f.slotSeconds({ ...job, attempt_started_at: last && !last.ended_at ? last.started_at : null });
    showFacts([
      ["Loss", f.number(job.loss)], ["Eval loss", f.number(job.eval_loss)], ["Tokens/s", f.number(f.isLive(job) ? job.tokens_per_second : null)],
      ["ETA", f.duration(job.eta_seconds)], ["Slot-hours", f.hours(spent)], ["Attempt", job.attempt || f.none],
      ["Checkpoint", job.last_checkpoint_step === null ? f.none : `step ${f.integer(job.last_checkpoint_step)}`],
      ["Ranks", String(job.ranks)], ["Pool", job.pool], ["Priority", String(job.priority)],
      ["Submitted", f.when(job.submitted_at), f.moment(job.submitted_at)],
      job.ended_at ? ["Ended", f.when(job.ended_at), f.moment(job.ended_at)] : ["Started", f.when(job.started_at), f.moment(job.started_at)],
    ]);
    const able = actionsOf(job), key = able.map(action => action.name).join();
    if (actions.dataset.key !== key) {
      actions.dataset.key = key;
      fill(actions, h("a.button", { href: `/compare?jobs=${encodeURIComponent(job.id)}` }, "Compare"),
        able.map(action => h(action.danger ? "button.danger-text" : "button", { type: "button", onclick: action.run }, action.label)));
    }
    for (const each of changed) each();
  }

  const cells = new Map();
  function showFacts(list) {
    for (const [label, value, whole] of list) {
      if (!cells.has(label)) {
        const other = { Ended: "Started", Started: "Ended" }[label];
        cells.get(other)?.parentNode.remove();
        cells.delete(other);
        const cell = h("dd", null);
        cells.set(label, cell);
        facts.append(h("div", null, h("dt", null, label), cell));
      }
      text(cells.get(label), value);
      attribute(cells.get(label), "title", whole);
    }
  }

  function open(key, replace = false) {
    if (tab === key) return;
    view?.end();
    changed.clear();
    tab = key;
    for (const [each, button] of Object.entries(buttons)) {
      attribute(button, "aria-selected", each === key);
      button.tabIndex = each === key ? 0 : -1;
    }
    attribute(panel, "aria-labelledby", `tab-${key}`);
    if (!replace) history.replaceState(null, "", `${location.pathname}${key === "overview" ? "" : `?tab=${key}`}`);
    const change = each => changed.add(each);
    view = key === "overview" ? overview(now, events, change)
      : key === "logs" ? logView(now.job, change)
      : key === "checkpoints" ? checkpointsView(now.job, change)
      : key === "samples" ? samplesView(now.job, change)
      : configView(now.job, change);
    fill(panel, view.element);
    view.shown?.();
    show();
  }

  let position = `${events.at(-1)?.sequence ?? 0}`;
  const metrics = new Set();
  now.onMetrics = each => { metrics.add(each); return () => metrics.delete(each); };
  // Where the charts read to; the stream goes on from there.
  let step = null;
  now.readTo = value => { if (step === null) { step = value; start(); } };
  let feed = null;
  function start() {
    feed ??= stream(() => `${jobPath(job.id)}/stream?after=${position}&step=${step}`, {
      event: entry => { events.push(entry); position = String(entry.sequence); for (const each of changed) each(); },
      metrics: line => {
        step = line.step;
        for (const each of metrics) each(line);
        if (line.step >= job.step) { job.step = line.step; job.loss = line.loss; }
        show();
      },
      status: next => {
        const again = next.attempt !== job.attempt;
        // What an attempt trains again has steps that were told before.
        if (again) { step = 0; for (const each of metrics) each(null); feed.close(); feed = null; }
        // The state is as old as the last heartbeat; a line of the metrics may have told more.
        const newer = !again && job.step > next.step ? { step: job.step, loss: job.loss } : {};
        job = { ...next, ...newer, history: job.history };
        show();
        // Where charts are shown, they say from where on the stream is to go on.
        if (again) { step = null; if (now.restart) now.restart(); else now.readTo(Math.max(job.step, job.last_checkpoint_step ?? 0)); }
      },
    }, () => f.hasEnded(job));
  }

  const asked = new URLSearchParams(location.search).get("tab");
  open(Object.hasOwn(tabs, asked) ? asked : "overview", true);
  if (tab !== "overview") now.readTo(job.step);
  // An ended job tells nothing more, but a person may resume it.
  const tick = repeat(3, async () => {
    if (f.hasEnded(job) || job.status === "paused") {
      const next = await get(jobPath(job.id), over.signal);
      const resumed = f.hasEnded(job) && !f.hasEnded(next);
      const seen = events.at(-1)?.sequence ?? 0;
      for (const entry of next.history) if (entry.sequence > seen) { events.push(entry); position = String(entry.sequence); }
      job = next;
      if (resumed) { feed?.close(); feed = null; step ??= job.step; start(); }
    }
    show();
  });
  return () => { over.abort(); tick(); feed?.close(); view?.end(); };
}

/** Charts, ranks, and what happened. */
function overview(now, events, change) {
  const charts = chartsView(now, change);
  const ranks = h("tbody", null), ranksPanel = h("section.panel", { "aria-labelledby": "ranks-title" }, h("h2", { id: "ranks-title" }, "Ranks"),
    h("div.scroll", { tabindex: 0, role: "region", "aria-label": "Ranks" }, h("table.ranks", null, h("thead", null, h("tr", null, ["Rank", "Doing", "Memory", "Busy"].map(label => h("th", { scope: "col" }, label)))), ranks)));
  const list = h("ol.events", null), eventsPanel = h("section.panel", { "aria-labelledby": "events-title" }, h("h2", { id: "events-title" }, "Events"), list);
  let shown = 0;

  function showEvents() {
    for (; shown < events.length; shown++) {
      const { at, text: words } = events[shown];
      list.prepend(h("li", { "data-kind": kindOf(words) }, h("time", { datetime: at, title: f.moment(at) }, f.timeOfDay(at)), h("span", null, words)));
    }
    while (list.childElementCount > 300) list.lastElementChild.remove();
  }

  const tick = repeat(2, async () => {
    const job = now.job();
    if (f.hasEnded(job) && ranks.childElementCount > 0 && ranks.dataset.attempt === String(job.attempt)) return;
    const found = await get(`${jobPath(job.id)}/ranks`);
    ranks.dataset.attempt = String(found.attempt);
    fill(ranks, found.ranks.length === 0 ? h("tr", null, h("td.muted", { colspan: 4 }, "No attempt has run yet.")) : found.ranks.map(rank => h("tr", null,
      h("th", { scope: "row" }, String(rank.rank), h("span.under", { title: rank.node }, rank.node)),
      h("td", null, rank.alive ? h("span", null, rank.phase ?? "starting", rank.activity ? h("span.under", { title: rank.activity }, rank.activity) : null) : h("span.muted", null, rank.ending ?? "not running")),
      h("td", null, rank.use ? meter(rank.use.memory_bytes / rank.use.memory_limit_bytes, f.bytes(rank.use.memory_bytes), `of ${f.bytes(rank.use.memory_limit_bytes)}`) : f.none),
      h("td", null, rank.use ? meter(Math.min(1, rank.use.busy), f.percent(rank.use.busy)) : f.none))));
  });
  change(showEvents);
  showEvents();
  return {
    element: h("div.overview", null, charts.element, h("div.side", null, ranksPanel, eventsPanel)),
    shown: charts.shown,
    end: () => { tick(); charts.end(); },
  };
}

/** As it stands when it is no address. */
function decoded(part) {
  try { return decodeURIComponent(part); } catch { return part; }
}

/** A share as a bar over its figure. */
export function meter(share, label, title) {
  const fill_ = h("span.fill", null);
  fill_.style.width = `${(Math.min(1, Math.max(0, share)) * 100).toFixed(1)}%`;
  return h("span.meter", { title }, h("span.track", { "aria-hidden": "true" }, fill_), h("span", null, label));
}

function kindOf(words) {
  return /^succeeded|answers again|^over:|^resumed/.test(words) ? "good" : /failed|ended:|killed|does not answer|lost|hang|damaged|locked or slow/.test(words) ? "bad" : "plain";
}
