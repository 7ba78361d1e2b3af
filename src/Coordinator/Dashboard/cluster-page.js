// Machines, who waits for them, and the grains that look after all of it.
import { h, fill, text } from "./dom.js";
import { get, post, ask, repeat } from "./api.js";
import { allJobs, watchJobs } from "./rows.js";
import { confirm, tell } from "./dialog.js";
import { meter } from "./job-page.js";
import * as f from "./format.js";

const stateKinds = { ready: "good", suspect: "warn", draining: "warn", drained: "gone", unreachable: "bad", lost: "bad" };

export function clusterPage(main, { session }) {
  document.title = "Cluster · Trainer";
  const isAdmin = session.role === "admin";
  const found = h("span.found", { role: "status" });
  const nodes = h("tbody", null), nodesEmpty = h("div.empty.small", { hidden: true }, h("h2", null, "No nodes"), h("p", null, "Start an agent on a machine:"), h("pre", null, "trainer worker --coordinator URL"));
  const nodesTable = table("Nodes", ["Node", "State", "Slots", "Kind", "Last heard", "Strikes", "Ranks", isAdmin ? "Drain" : null].filter(Boolean), nodes);
  const pools = h("div.cards", null), queue = h("tbody", null), queueNote = h("p.note", null);
  const queueTable = table("Queue", ["#", "Job", "Project", "Priority", "Ranks", "Waits for"], queue);
  let heard = null;
  const grains = h("tbody", null);
  const grainTable = table("Grains", ["Grain", "In memory", "Calls/s", "Mean", "p99", "Slowest", "Errors", "Calls"], grains, 1);
  const grainsPanel = h("section.panel", { hidden: !isAdmin, "aria-labelledby": "grains-title" }, h("div.panel-head", null, h("h2", { id: "grains-title" }, "Grains"),
    session.engine_page ? h("a", { href: session.engine_page }, "Orleans dashboard") : null), h("p.note", null, "Of the coordinator that answers; rates and latencies of the last minute."), grainTable);
  fill(main, h("div.page", null, h("div.page-head", null, h("h1", null, "Cluster"), found),
    h("section.panel", { "aria-labelledby": "nodes-title" }, h("h2", { id: "nodes-title" }, "Nodes"), nodesTable, nodesEmpty),
    h("div.pools", null, h("section", { "aria-labelledby": "pools-title" }, h("h2.hidden", { id: "pools-title" }, "Pools and quotas"), pools),
      h("section.panel", { "aria-labelledby": "queue-title" }, h("h2", { id: "queue-title" }, "Queue"), queueTable, queueNote)),
    grainsPanel));

  const rows = new Map();
  function showNodes(list) {
    const slots = list.reduce((sum, node) => sum + node.slots, 0);
    nodesTable.hidden = list.length === 0;
    nodesEmpty.hidden = list.length > 0;
    text(found, `${f.integer(list.length)} ${list.length === 1 ? "node" : "nodes"}, ${slots === 1 ? "1 slot" : `${f.integer(slots)} slots`}, ${f.integer(list.reduce((sum, node) => sum + node.used, 0))} busy`);
    for (const [name, row] of rows) if (!list.some(node => node.node === name)) { row.element.remove(); rows.delete(name); }
    for (const node of list) {
      let row = rows.get(node.node);
      if (!row) {
        row = { cells: Array.from({ length: 6 }, () => h("td", null)), button: isAdmin ? h("button.small", { type: "button", onclick: () => drain(row.node) }) : null };
        row.element = h("tr", null, h("th", { scope: "row" }, node.node, h("span.under", null, node.pool === "default" ? "" : `pool ${node.pool}`)), row.cells, isAdmin ? h("td", null, row.button) : null);
        rows.set(node.node, row);
        nodes.append(row.element);
      }
      row.node = node;
      const [state, used, kind, heard, strikes, ranks] = row.cells;
      fill(state, h("span.tag", { "data-kind": stateKinds[node.state] ?? "plain" }, node.state));
      fill(used, meter(node.slots ? node.used / node.slots : 0, `${node.used} of ${node.slots}`));
      text(kind, node.kind === "cuda" ? "GPU" : "CPU");
      text(heard, node.silent_seconds < 2 ? "now" : `${f.duration(node.silent_seconds)} ago`);
      fill(strikes, String(node.strikes), node.last_strike ? h("span.under", { title: node.last_strike }, node.last_strike) : null);
      fill(ranks, node.ranks.length === 0 ? h("span.muted", null, f.none) : node.ranks.slice(0, 8).flatMap((rank, i) => [i ? " " : null, h("a", { href: `/jobs/${encodeURIComponent(rank.job)}` }, `${rank.job}/${rank.rank}`)]), node.ranks.length > 8 ? ` and ${node.ranks.length - 8} more` : null);
      if (row.button) {
        const drained = node.state === "draining" || node.state === "drained";
        text(row.button, drained ? "Undrain" : "Drain …");
        row.button.setAttribute("aria-label", `${drained ? "Undrain" : "Drain"} ${node.node}`);
      }
    }
  }

  async function drain(node) {
    const drained = node.state === "draining" || node.state === "drained";
    const answer = await confirm(drained
      ? { title: `Take ${node.node} back into service?`, text: "It gets new ranks again.", action: "Undrain" }
      : { title: `Drain ${node.node}?`, text: `${node.used === 0 ? "Nothing runs there now." : `${node.used} ${node.used === 1 ? "rank goes" : "ranks go"} on elsewhere after a checkpoint.`} It gets no new ones until it is undrained.`, action: "Drain", danger: true });
    if (!answer) return;
    try {
      await post(`/v1/nodes/${encodeURIComponent(node.node)}/${drained ? "undrain" : "drain"}`);
      tell(`${node.node} is ${drained ? "in service again" : "being drained"}.`);
      await poll();
    } catch (error) { tell(error.message, true); }
  }

  function showPools(list) {
    fill(pools, list.map(pool => h("section.panel.card-panel", { "aria-label": `Pool ${pool.pool}` },
      h("div.panel-head", null, h("h2", null, `Pool ${pool.pool}`), h("span.note", null, `${pool.nodes} ${pool.nodes === 1 ? "node" : "nodes"}`),
        isAdmin ? h("button.quiet.small", { type: "button", "aria-label": `Set a quota in pool ${pool.pool}`, onclick: () => addQuota(pool) }, "Quota …") : null),
      meter(pool.slots ? (pool.slots - pool.free) / pool.slots : 0, `${pool.slots - pool.free} of ${pool.slots} slots in use`),
      h("dl.facts.compact", null, [["Running", pool.running], ["Waiting", pool.waiting], ["Free slots", pool.free]].map(([label, value]) => h("div", null, h("dt", null, label), h("dd", null, f.integer(value))))),
      pool.projects.length === 0 ? null : h("table", null, h("thead", null, h("tr", null, h("th", { scope: "col" }, "Project"), h("th.num", { scope: "col" }, "Slots"), h("th.num", { scope: "col" }, "Quota"), isAdmin ? h("th", { scope: "col" }, h("span.hidden", null, "Change")) : null)),
        h("tbody", null, pool.projects.map(use => h("tr", null, h("th", { scope: "row" }, use.project), h("td.num", null, String(use.used)), h("td.num", null, use.quota === null ? "none" : String(use.quota)),
          isAdmin ? h("td.num", null, h("button.quiet.small", { type: "button", "aria-label": `Set the quota of ${use.project}`, onclick: () => setQuota(pool, use) }, "Set …")) : null)))))));
  }

  /** Also of a project that has no jobs yet. */
  async function addQuota(pool) {
    const project = await confirm({ title: `A quota in pool ${pool.pool}`, text: "Whose slots shall be bounded?", action: "Next", field: { label: "Project", type: "text", value: "" } });
    if (project) await setQuota(pool, pool.projects.find(use => use.project === project) ?? { project, quota: null });
  }

  async function setQuota(pool, use) {
    const answer = await confirm({ title: `Quota of ${use.project} in pool ${pool.pool}`, text: "Slots that the project holds at once at most; empty for as many as there are.", action: "Set quota", field: { label: "Slots", min: 0, max: 1048576, value: use.quota ?? "", optional: true } });
    if (answer === null) return;
    try {
      await ask(`/v1/pools/${encodeURIComponent(pool.pool)}/quotas/${encodeURIComponent(use.project)}`, { method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ slots: answer === "" ? null : answer }) });
      tell(answer === "" ? `${use.project} has no quota.` : `The quota of ${use.project} is ${answer}.`);
      await poll();
    } catch (error) { tell(error.message, true); }
  }

  function showQueue() {
    const waiting = [...allJobs().values()].filter(job => job.status === "queued").sort((a, b) => (a.position ?? 1e9) - (b.position ?? 1e9) || (a.submitted_at < b.submitted_at ? -1 : 1));
    queueTable.hidden = waiting.length === 0;
    text(queueNote, waiting.length === 0 ? "Nobody waits." : waiting.length > 20 ? `and ${f.integer(waiting.length - 20)} more` : "");
    fill(queue, waiting.slice(0, 20).map(job => h("tr", null, h("td", null, job.position ? String(job.position) : f.none), h("th.clip", { scope: "row", title: job.id }, h("a", { href: `/jobs/${encodeURIComponent(job.id)}` }, job.id)),
      h("td", null, job.project), h("td", null, String(job.priority ?? 0)), h("td", null, String(job.ranks ?? 1)), h("td.clip", { title: job.reason }, job.reason ?? ""))));
  }

  function showGrains(list) {
    fill(grains, list.map(grain => h("tr", null, h("th", { scope: "row" }, grain.grain), [f.integer(grain.activations), f.rate(grain.calls_per_second), time(grain.mean_milliseconds), time(grain.p99_milliseconds), time(grain.max_milliseconds)]
      .map(value => h("td.num", null, value)), h("td.num", { class: grain.recent_errors > 0 ? "num bad" : "num" }, f.integer(grain.errors)), h("td.num", null, f.integer(grain.calls)))));
  }
  const time = value => value === null ? f.none : value < 1 ? `${Math.round(value * 1000)} µs` : value < 1000 ? `${value.toFixed(value < 10 ? 1 : 0)} ms` : `${(value / 1000).toFixed(1)} s`;

  async function poll() {
    const [nodeList, poolList, grainList] = await Promise.all([get("/v1/nodes"), get("/v1/pools"), isAdmin ? get("/v1/grains") : null]);
    heard = Date.now();
    showNodes(nodeList.nodes);
    showPools(poolList.pools);
    if (grainList) showGrains(grainList.grains);
  }

  const tick = repeat(2, () => poll().catch(error => {
    text(found, `${error.message}${heard ? ` This is how it was at ${f.timeOfDay(heard)}.` : ""}`);
    for (const row of rows.values()) text(row.cells[3], f.none);
  }));
  const unwatch = watchJobs(showQueue);
  showQueue();
  return () => { tick(); unwatch(); };
}

function table(label, columns, body, numbersFrom = Infinity) {
  return h("div.scroll", { tabindex: 0, role: "region", "aria-label": label }, h("table.wide-cells", null,
    h("thead", null, h("tr", null, columns.map((column, i) => h("th", { scope: "col", class: i >= numbersFrom ? "num" : null }, column)))), body));
}
