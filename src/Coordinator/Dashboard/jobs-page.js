// Every job in one list: what it does, what it waits for, what may be done to it.
import { h, add, fill, text, attribute, svg, icons } from "./dom.js";
import { allJobs, isWhole, watchJobs } from "./rows.js";
import { WindowList } from "./window-list.js";
import { actionsOf, perform } from "./actions.js";
import { menu } from "./dialog.js";
import { repeat } from "./api.js";
import * as f from "./format.js";

const groups = {
  all: ["All", () => true],
  running: ["Running", f.isLive],
  waiting: ["Waiting", job => job.status === "queued" || job.status === "retrying"],
  paused: ["Paused", job => job.status === "paused"],
  succeeded: ["Succeeded", job => job.status === "succeeded"],
  failed: ["Failed", job => job.status === "failed"],
  cancelled: ["Cancelled", job => job.status === "cancelled"],
};

const rank = { running: 0, starting: 0, stopping: 0, retrying: 1, queued: 2, paused: 3, failed: 4, succeeded: 4, cancelled: 4 };
const newest = (a, b) => a.submitted_at < b.submitted_at ? 1 : a.submitted_at > b.submitted_at ? -1 : a.id < b.id ? -1 : 1;
const orders = {
  active: ["Active first", (a, b) => rank[a.status] - rank[b.status]
    || (a.status === "queued" && b.status === "queued" ? (a.position ?? 1e9) - (b.position ?? 1e9) : 0) || newest(a, b)],
  newest: ["Newest first", newest],
  priority: ["Priority", (a, b) => (b.priority ?? 0) - (a.priority ?? 0) || newest(a, b)],
  hours: ["Slot-hours", (a, b) => f.slotSeconds(b) - f.slotSeconds(a) || newest(a, b)],
  loss: ["Loss", (a, b) => (a.loss ?? Infinity) - (b.loss ?? Infinity) || newest(a, b)],
};

const pageOf = id => `/jobs/${encodeURIComponent(id)}`;

export function jobsPage(main, { navigate }) {
  document.title = "Jobs · Trainer";
  const query = new URLSearchParams(location.search);
  const view = {
    group: Object.hasOwn(groups, query.get("state")) ? query.get("state") : "all", search: query.get("q") ?? "", project: query.get("project") ?? "",
    pool: query.get("pool") ?? "", order: Object.hasOwn(orders, query.get("order")) ? query.get("order") : "active",
  };
  const chosen = new Set();
  let refreshMenu = () => {};

  const chips = h("div.chips", { role: "group", "aria-label": "State" });
  const buttons = Object.fromEntries(Object.entries(groups).map(([name, [label]]) => {
    const count = h("span.count", null);
    const button = h("button", { type: "button", "data-group": name, onclick: () => change({ group: name }) }, label, count);
    chips.append(button);
    return [name, { button, count }];
  }));
  const search = h("input", { type: "search", id: "search", placeholder: "Search jobs  ( / )", "aria-label": "Search by name, id, reason or project", value: view.search, autocomplete: "off", spellcheck: "false", oninput: () => change({ search: search.value }) });
  const project = h("select", { "aria-label": "Project", onchange: () => change({ project: project.value }) });
  const pool = h("select", { "aria-label": "Pool", onchange: () => change({ pool: pool.value }) });
  const order = h("select", { "aria-label": "Order", onchange: () => change({ order: order.value }) },
    Object.entries(orders).map(([name, [label]]) => h("option", { value: name, selected: name === view.order }, label)));
  const found = h("span.found", { role: "status", "aria-live": "polite" });
  const selection = h("div.selection", { hidden: true, role: "group", "aria-label": "Chosen jobs" });
  const body = h("div.rows", { role: "rowgroup" });
  const empty = h("div.empty", { hidden: true });
  const table = h("div.table.jobs", { role: "table", "aria-label": "Jobs" },
    h("div.head", { role: "rowgroup" }, h("div.row", { role: "row", "aria-rowindex": 1 },
      [["", "c-check"], ["Job", "c-job"], ["State", "c-state"], ["Progress", "c-progress"], ["Loss", "c-loss num"], ["ETA", "c-eta num"], ["Slot-h", "c-hours num"], ["Priority", "c-priority num"], ["Submitted", "c-time num"], ["", "c-more"]]
        .map(([label, kind]) => h("span", { role: "columnheader", class: kind, title: label === "Slot-h" ? "Hours times slots: a slot is a GPU, or a CPU slot" : null },
          label || h("span.hidden", null, kind === "c-check" ? "Choose" : "Actions"))))),
    body);

  fill(main,
    h("div.page", null,
      h("div.page-head", null, h("h1", null, "Jobs"), found),
      h("div.tools", null, chips, h("div.tools-end", null, project, pool, order, h("div.search", null, svg(icons.search), search))),
      selection, table, empty));

  const list = new WindowList({ body, over: 3, height: () => matchMedia("(max-width: 760px)").matches ? 92 : 54, key: job => job.id, make: makeRow, update: updateRow });

  function change(what) {
    Object.assign(view, what);
    const kept = new URLSearchParams();
    if (view.group !== "all") kept.set("state", view.group);
    if (view.search) kept.set("q", view.search);
    if (view.project) kept.set("project", view.project);
    if (view.pool) kept.set("pool", view.pool);
    if (view.order !== "active") kept.set("order", view.order);
    history.replaceState(null, "", kept.size ? `/?${kept}` : "/");
    show();
  }

  function show() {
    const words = view.search.toLowerCase().split(/\s+/).filter(Boolean);
    const all = [...allJobs().values()];
    const within = all.filter(job => (!view.project || job.project === view.project) && (!view.pool || job.pool === view.pool)
      && words.every(word => job.id.includes(word) || job.name.includes(word) || job.project.includes(word) || (job.reason ?? "").toLowerCase().includes(word)));
    for (const [name, [, fits]] of Object.entries(groups)) {
      const { button, count } = buttons[name];
      const number = within.filter(fits).length;
      text(count, isWhole() || number ? f.integer(number) : "");
      attribute(button, "aria-pressed", view.group === name);
      button.classList.toggle("none", number === 0 && name !== "all");
    }
    choices(project, "All projects", new Set(all.map(job => job.project)), view.project);
    choices(pool, "All pools", new Set(all.map(job => job.pool)), view.pool);
    const items = within.filter(groups[view.group][1]).sort(orders[view.order][1]);
    for (const id of chosen) if (!allJobs().has(id)) chosen.delete(id);
    attribute(table, "aria-rowcount", items.length + 1);
    list.set(items);
    text(found, !isWhole() && all.length === 0 ? "Loading …" : items.length === all.length ? `${f.integer(all.length)} ${all.length === 1 ? "job" : "jobs"}` : `${f.integer(items.length)} of ${f.integer(all.length)}`);
    table.hidden = isWhole() && items.length === 0;
    empty.hidden = !table.hidden;
    if (!empty.hidden) {
      fill(empty, all.length === 0
        ? [h("h2", null, "No jobs yet"), h("p", null, "Submit one from a shell:"), h("pre", null, "trainer submit configs/demo.yaml")]
        : [h("h2", null, "No job fits"), h("p", null, "Nothing matches the search and filters."), h("button", { type: "button", onclick: () => { search.value = ""; change({ group: "all", search: "", project: "", pool: "" }); } }, "Show all jobs")]);
    }
    showSelection();
    refreshMenu();
  }

  function choices(select, label, names, value) {
    const wanted = ["", ...[...names].sort()];
    if (select.childElementCount !== wanted.length) {
      fill(select, wanted.map(name => h("option", { value: name, selected: name === value }, name || label)));
    }
    select.hidden = names.size < 2;
  }

  function showSelection() {
    const jobs = [...chosen].map(id => allJobs().get(id)).filter(Boolean);
    const key = jobs.map(job => `${job.id}${job.status}`).join();
    if (selection.dataset.key === key) return;
    selection.dataset.key = key;
    selection.hidden = jobs.length === 0;
    if (jobs.length === 0) return;
    fill(selection, h("strong", null, `${jobs.length} chosen`),
      h("button", { type: "button", disabled: jobs.length > 8, onclick: () => navigate(`/compare?jobs=${jobs.map(job => job.id).join(",")}`) }, "Compare"),
      ["pause", "resume", "retry", "priority", "cancel"].filter(name => jobs.some(job => actionsOf(job).some(action => action.name === name)))
        .map(name => h("button", { type: "button", onclick: () => perform(name, jobs) }, name[0].toUpperCase() + name.slice(1))),
      h("button.quiet", { type: "button", onclick: () => { chosen.clear(); show(); } }, "Clear"));
  }

  /** Of no job yet: updateRow makes it one's. */
  function makeRow() {
    const row = h("div.row", { role: "row" });
    const parts = {
      check: h("input", { type: "checkbox", onchange: event => { event.target.checked ? chosen.add(row.job) : chosen.delete(row.job); showSelection(); } }),
      link: h("a.name", null),
      under: h("span.under", null), state: h("span.state", null), reason: h("span.under", null),
      bar: h("span.fill", null), step: h("span", null), phase: h("span.under", null),
      loss: h("span", null), evaluation: h("span.under", null), eta: h("span", null), speed: h("span.under", null), hours: h("span", null), priority: h("span", null), time: h("span", null),
      more: h("button.quiet.icon", { type: "button", "aria-haspopup": "menu", "aria-expanded": "false", onclick: () => {
        const id = row.job;
        refreshMenu = menu(parts.more, () => [{ label: "Open", run: () => navigate(pageOf(id)) }, ...allJobs().has(id) ? actionsOf(allJobs().get(id)) : []]);
      } }, svg(icons.more)),
    };
    const cell = (kind, ...children) => h("span", { role: "cell", class: kind }, children);
    add(row, [
      cell("c-check", parts.check), cell("c-job", parts.link, parts.under), cell("c-state", parts.state, parts.reason),
      cell("c-progress", h("span.bar-line", null, h("span.track", { "aria-hidden": "true" }, parts.bar), parts.step), parts.phase),
      cell("c-loss num", parts.loss, parts.evaluation), cell("c-eta num", parts.eta, parts.speed), cell("c-hours num", parts.hours),
      cell("c-priority num", parts.priority), cell("c-time num", parts.time), cell("c-more", parts.more)]);
    row.parts = parts;
    return row;
  }

  function updateRow(row, job, index) {
    const p = row.parts;
    if (row.job !== job.id) {
      row.job = job.id;
      text(p.link, job.id);
      p.link.href = pageOf(job.id);
      attribute(p.check, "aria-label", `Choose ${job.id}`);
      attribute(p.more, "aria-label", `Actions for ${job.id}`);
      attribute(p.time, "title", f.moment(job.submitted_at));
    }
    attribute(row, "aria-rowindex", index + 2);
    if (p.check.checked !== chosen.has(job.id)) p.check.checked = chosen.has(job.id);
    text(p.under, [job.project === "default" ? null : job.project, job.pool === "default" ? null : `pool ${job.pool}`, `${job.ranks ?? 1} ${(job.ranks ?? 1) === 1 ? "rank" : "ranks"}`, job.attempt > 1 ? `attempt ${job.attempt}` : null].filter(Boolean).join(" · "));
    attribute(p.state, "data-state", job.status);
    text(p.state, f.states[job.status] + (job.status === "queued" && job.position ? ` · ${f.integer(job.position)}` : ""));
    const reason = job.reason && job.reason !== job.status ? job.reason : "";
    text(p.reason, reason);
    attribute(p.reason, "title", reason || null);
    const share = job.steps > 0 ? Math.min(1, (job.step ?? 0) / job.steps) : job.status === "succeeded" ? 1 : 0;
    const width = `${(share * 100).toFixed(1)}%`;
    if (p.bar.style.width !== width) p.bar.style.width = width;
    text(p.step, job.steps > 0 ? `${f.integer(job.step ?? 0)} / ${f.integer(job.steps)}` : job.step ? f.integer(job.step) : f.none);
    text(p.phase, job.phase && job.phase !== "training" ? job.phase : "");
    text(p.loss, f.number(job.loss));
    text(p.evaluation, job.eval_loss === undefined ? "" : `eval ${f.number(job.eval_loss)}`);
    text(p.eta, job.eta_seconds === undefined ? f.none : f.duration(job.eta_seconds));
    text(p.speed, job.tokens_per_second === undefined ? "" : `${f.number(job.tokens_per_second)} tok/s`);
    text(p.hours, f.hours(f.slotSeconds(job)));
    text(p.priority, String(job.priority ?? 0));
    text(p.time, f.ago(job.submitted_at));
  }

  function onKey(event) {
    if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      search.focus();
    }
  }

  document.addEventListener("keydown", onKey);
  const unwatch = watchJobs(show);
  const tick = repeat(5, () => list.render());
  show();
  return () => { unwatch(); tick(); list.end(); document.removeEventListener("keydown", onKey); };
}
