// Several jobs in one chart.
import { h, fill, text } from "./dom.js";
import { get, jobPath, repeat, Refused } from "./api.js";
import { allJobs, watchJobs } from "./rows.js";
import { Chart, palette, smooth } from "./chart.js";
import uPlot from "uplot";
import * as f from "./format.js";

const most = 8;
const metrics = { loss: "Loss", eval_loss: "Eval loss", learning_rate: "Learning rate", grad_norm: "Gradient norm", tokens_per_second: "Tokens per second", mfu: "Model FLOP utilisation" };

export function comparePage(main) {
  document.title = "Compare · Trainer";
  const query = new URLSearchParams(location.search);
  const asked = [...new Set((query.get("jobs") ?? "").split(",").filter(Boolean))], jobs = asked.slice(0, most);
  const found = new Map();
  let chart = null, over = false, trouble = false;
  const metric = h("select", { "aria-label": "Metric", onchange: () => { keep(); draw(); } }, Object.entries(metrics).map(([name, label]) => h("option", { value: name, selected: name === query.get("metric") }, label)));
  const smoothing = h("input", { type: "range", id: "smoothing", min: 0, max: 0.99, step: 0.01, value: Number(localStorage.getItem("smoothing") ?? 0.6), oninput: () => draw() });
  const add_ = h("input", { type: "text", id: "add", list: "jobs", placeholder: "Add a job …", "aria-label": "Add a job", autocomplete: "off", spellcheck: "false", onchange: () => add() });
  const options = h("datalist", { id: "jobs" }), note = h("p.note", { role: "status" });
  const place = h("div.charts.single", null), body = h("tbody", null);
  const table = h("div.panel", null, h("div.scroll", { tabindex: 0, role: "region", "aria-label": "Compared jobs" }, h("table.wide-cells", null, h("thead", null, h("tr", null,
    ["Job", "State", "Steps", "Last", "Lowest", "At step", ""].map((label, i) => h("th", { scope: "col", class: i > 1 && i < 6 ? "num" : null }, label || h("span.hidden", null, "Remove"))))), body)));
  const empty = h("div.empty", null, h("h2", null, "Compare jobs"), h("p", null, "Add up to eight jobs, or choose them in the list of jobs."));
  fill(main, h("div.page", null, h("div.page-head", null, h("h1", null, "Compare")),
    h("div.tools", null, add_, options, metric, h("label.check", { for: "smoothing" }, "Smoothing", smoothing), h("div.tools-end", null, note)), place, table, empty));

  if (asked.length > most) text(note, `Of ${asked.length} jobs the first ${most} are compared.`);

  function keep() {
    const kept = new URLSearchParams();
    if (jobs.length) kept.set("jobs", jobs.join(","));
    if (metric.value !== "loss") kept.set("metric", metric.value);
    history.replaceState(null, "", kept.size ? `/compare?${kept.toString().replaceAll("%2C", ",")}` : "/compare");
  }

  async function add() {
    const id = add_.value.trim();
    if (!id || jobs.includes(id)) return;
    if (jobs.length >= most) { text(note, `At most ${most} jobs at once.`); return; }
    try {
      const job = await get(jobPath(id));
      if (!jobs.includes(job.id)) jobs.push(job.id);
      add_.value = "";
      keep();
      await load();
    } catch (error) { text(note, error.message); }
  }

  async function load() {
    const problems = await Promise.all(jobs.map(async id => {
      try {
        const [job, series] = await Promise.all([get(jobPath(id)), get(`${jobPath(id)}/series?points=1000`)]);
        found.set(id, { job, series });
        return null;
      } catch (error) {
        // Gone, or of a project that this one may not see; any other trouble passes.
        if (!over && error instanceof Refused && (error.status === 404 || error.status === 403)) { text(note, error.message); drop(id); return null; }
        return error.message;
      }
    }));
    if (over) return;
    const problem = problems.find(Boolean);
    if (problem) text(note, problem); else if (trouble) text(note, "");
    trouble = Boolean(problem);
    draw();
  }

  function drop(id) {
    const at = jobs.indexOf(id);
    if (at >= 0) jobs.splice(at, 1);
    found.delete(id);
    keep();
  }

  function draw() {
    const shown = jobs.filter(id => found.has(id)), factor = Number(smoothing.value), colours = palette();
    empty.hidden = shown.length > 0;
    table.hidden = place.hidden = shown.length === 0;
    const columns = shown.map(id => {
      const { series } = found.get(id), values = series.metrics.find(each => each.name === metric.value)?.mean ?? series.steps.map(() => null);
      return [series.steps, metric.value === "eval_loss" ? values : smooth(values, factor)];
    });
    const key = shown.join() + metric.value;
    if (!chart || chart.key !== key) {
      chart?.end();
      chart = new Chart({ title: metrics[metric.value], height: 380, lines: shown.map((id, i) => ({ label: id, colour: colours[i], points: metric.value === "eval_loss" })) });
      chart.key = key;
      fill(place, chart.element);
    }
    if (shown.length > 0) chart.set(uPlot.join(columns));
    fill(body, shown.map((id, i) => {
      const { job, series } = found.get(id), each = series.metrics.find(one => one.name === metric.value), values = each?.low ?? each?.mean ?? [];
      const known = values.map((value, at) => [value, at]).filter(([value]) => value !== null);
      const low = known.reduce((best, one) => best === null || one[0] < best[0] ? one : best, null);
      const swatch = h("span.swatch", { "aria-hidden": "true" });
      swatch.style.background = colours[i];
      return h("tr", null, h("th", { scope: "row" }, swatch, h("a", { href: `/jobs/${encodeURIComponent(id)}` }, id)), h("td", null, h("span.state", { "data-state": job.status }, f.states[job.status])),
        h("td.num", null, `${f.integer(job.step)} / ${f.integer(job.steps)}`), h("td.num", null, f.number(each?.mean.findLast(value => value !== null))),
        h("td.num", null, f.number(low?.[0])), h("td.num", null, low ? f.integer(series.steps[low[1]]) : f.none),
        h("td.num", null, h("button.quiet.small", { type: "button", "aria-label": `Remove ${id}`, onclick: () => { drop(id); draw(); } }, "Remove")));
    }));
  }

  const recolour = () => { if (chart) chart.key = null; draw(); };
  document.addEventListener("theme", recolour);
  const unwatch = watchJobs(() => {
    const wanted = [...allJobs().keys()].slice(0, 500);
    if (options.childElementCount !== wanted.length) fill(options, wanted.map(id => h("option", { value: id })));
  });
  const tick = repeat(5, async () => { if (found.size === 0 || jobs.some(id => !found.has(id)) || [...found.values()].some(({ job }) => !f.hasEnded(job))) await load(); });
  return () => { over = true; unwatch(); tick(); chart?.end(); document.removeEventListener("theme", recolour); };
}
