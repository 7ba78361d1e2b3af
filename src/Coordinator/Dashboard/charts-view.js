// The curves of one job. The coordinator thins them out; what comes live is added until it is worth asking again.
import { h, fill, text } from "./dom.js";
import { get, jobPath } from "./api.js";
import { Chart, smooth, colour } from "./chart.js";
import * as f from "./format.js";

const points = 800;
/** In this order; what else a worker reports follows by its own name. */
const known = {
  learning_rate: { title: "Learning rate", format: value => value === null || value === undefined ? f.none : value.toExponential(2) },
  grad_norm: { title: "Gradient norm", band: true },
  tokens_per_second: { title: "Tokens per second", band: true },
  mfu: { title: "Model FLOP utilisation", format: value => value === null || value === undefined ? f.none : `${(value * 100).toFixed(1)} %` },
};
const left = new Set(["loss", "eval_loss", "tokens"]);

export function chartsView(now, change) {
  const settings = { byTime: false, log: false, smoothing: Number(localStorage.getItem("smoothing") ?? 0.6) };
  let series = null, zoom = null, asked = 0, live = 0, timer = null, over = false, seenAttempts = "", seconds = 0;
  const charts = new Map();
  const place = h("div.charts", null), note = h("p.note", { role: "status" });
  const smoothing = h("input", { type: "range", id: "smoothing", min: 0, max: 0.99, step: 0.01, value: settings.smoothing, oninput: () => { settings.smoothing = Number(smoothing.value); localStorage.setItem("smoothing", smoothing.value); draw(); } });
  const axis = h("div.switch", { role: "group", "aria-label": "Horizontal axis" }, ["Step", "Time"].map(label =>
    h("button", { type: "button", "aria-pressed": label === "Step", onclick: event => {
      settings.byTime = label === "Time";
      for (const each of axis.children) each.setAttribute("aria-pressed", String(each === event.target));
      for (const chart of charts.values()) { chart.plot?.destroy(); chart.plot = null; }
      draw();
    } }, label)));
  const log = h("input", { type: "checkbox", id: "log", onchange: () => { settings.log = log.checked; const chart = charts.get("loss"); if (chart) { chart.log = log.checked; chart.rebuild(); } } });
  const whole = h("button.small", { type: "button", hidden: true, onclick: () => choose(null) }, "Whole run");
  const element = h("div.curves", null,
    h("div.tools", null, axis, h("label.check", { for: "smoothing" }, "Smoothing", smoothing), h("label.check", { for: "log" }, log, "Log loss"), whole, h("div.tools-end", null, note)), place);

  async function load() {
    const mine = ++asked;
    const query = new URLSearchParams({ points });
    if (zoom) { query.set("from", Math.max(0, Math.floor(zoom[0]))); query.set("to", Math.ceil(zoom[1])); }
    const found = await get(`${jobPath(now.job().id)}/series?${query}`).catch(error => { text(note, error.message); return null; });
    if (mine !== asked || over || !found) return;
    series = found;
    live = 0;
    for (const metric of series.metrics) { metric.low ??= metric.mean.slice(); metric.high ??= metric.mean.slice(); }
    draw();
    now.readTo(series.last);
  }

  function add(line) {
    if (line === null) { clearTimeout(timer); timer = setTimeout(load, 500); return; }
    // An attempt began, and its first step says where its mark stands.
    if (line.seconds < seconds) { clearTimeout(timer); timer = setTimeout(load, 500); }
    seconds = line.seconds;
    if (!series || zoom) return;
    const last = series.steps.at(-1);
    if (last !== undefined && line.step <= last) return;
    series.total++;
    series.last = line.step;
    if (series.first === 0) series.first = line.step;
    series.steps.push(line.step);
    series.times.push(Date.parse(line.time) / 1000);
    for (const [name, value] of Object.entries(line)) {
      if (name === "step" || name === "seconds" || typeof value !== "number") continue;
      let metric = series.metrics.find(each => each.name === name);
      if (!metric) series.metrics.push(metric = { name, mean: [], low: [], high: [] });
      for (const column of [metric.mean, metric.low, metric.high]) { while (column.length < series.steps.length - 1) column.push(null); column.push(value); }
    }
    for (const metric of series.metrics) for (const column of [metric.mean, metric.low, metric.high]) while (column.length < series.steps.length) column.push(null);
    // Thinned out anew once the live part outweighs the rest.
    if (++live > points) { live = 0; load(); } else soon();
  }

  let frame = null;
  // Some times a second are enough for an eye; what is said in words is told at once.
  const soon = () => { frame ??= setTimeout(() => { frame = null; if (!over) draw(); }, 250); };

  function choose(from, to) {
    if (from !== null && settings.byTime) [from, to] = [stepAt(from), stepAt(to)];
    zoom = from === null ? null : [from, to];
    whole.hidden = zoom === null;
    load();
  }
  const stepAt = time => series.steps[Math.max(0, series.times.findIndex(each => each >= time))] ?? series.last;

  function draw() {
    if (!series) return;
    const metric = name => series.metrics.find(each => each.name === name);
    const x = settings.byTime ? series.times : series.steps;
    const columns = each => [each.high, each.low];
    if (series.total === 0) {
      fill(place, h("div.empty.small", null, h("h2", null, f.hasEnded(now.job()) ? "No metrics" : "No metrics yet"), h("p", null, f.hasEnded(now.job()) ? "The job ended before it reported a step." : "Curves appear with the first step.")));
      charts.clear();
      text(note, "");
      return;
    }
    if (charts.size === 0) fill(place);
    const loss = metric("loss"), evaluation = metric("eval_loss");
    if (loss) {
      put("loss", () => new Chart({
        title: "Loss", height: 260, zoomed: choose, marks, byTime: () => settings.byTime, log: settings.log,
        lines: [
          { label: "train", faint: true, band: true, quiet: false, colour: colour("--c1") }, { label: "smoothed", colour: colour("--c1") },
          { label: "eval", points: true, colour: colour("--c2") },
        ],
      }), [x, loss.mean, smooth(loss.mean, settings.smoothing), evaluation?.mean ?? x.map(() => null), ...columns(loss)]);
    }
    const names = [...Object.keys(known).filter(name => metric(name)), ...series.metrics.map(each => each.name).filter(name => !known[name] && !left.has(name))];
    for (const name of names) {
      const each = metric(name), kind = known[name] ?? { title: name.replaceAll("_", " ").replace(/^./, letter => letter.toUpperCase()), band: true };
      if (each.mean.every(value => value === null)) continue;
      put(name, () => {
        const chart = new Chart({ title: kind.title, height: 150, zoomed: choose, marks, byTime: () => settings.byTime, lines: [{ label: kind.title.toLowerCase(), band: kind.band, colour: colour("--c1") }] });
        chart.format = kind.format;
        return chart;
      }, [x, each.mean, ...(kind.band ? columns(each) : [])]);
    }
    text(note, `${f.integer(series.total)} ${series.total === 1 ? "step" : "steps"}${series.bucket > 1 ? ` · a point is ${f.integer(series.bucket)} steps, the band their extremes` : ""}${zoom ? ` · steps ${f.integer(series.steps[0])} to ${f.integer(series.steps.at(-1))}` : ""}`);
  }

  function put(name, make, data) {
    let chart = charts.get(name);
    if (!chart) {
      charts.set(name, chart = make());
      place.append(chart.element);
      if (name === "loss") chart.element.classList.add("wide");
    }
    chart.set(data);
  }

  /** Attempts on the axis: by the first step that each reported, or by the time at which it began. */
  function marks() {
    const attempts = now.job().attempts;
    if (settings.byTime) {
      return attempts.slice(1).map(each => ({ at: Date.parse(each.started_at) / 1000, label: `attempt ${each.attempt}` }))
        .concat(attempts.filter(each => each.ended_at && isFailure(each)).map(each => ({ at: Date.parse(each.ended_at) / 1000, label: "", bad: true })));
    }
    return (series?.starts ?? []).map(start => {
      const attempt = attempts.findLast(each => Date.parse(each.started_at) / 1000 <= start.time);
      return { at: start.step, label: attempt ? `attempt ${attempt.attempt}` : "resumed" };
    });
  }

  const recolour = () => { for (const chart of charts.values()) { chart.end(); chart.element.remove(); } charts.clear(); draw(); };
  document.addEventListener("theme", recolour);
  const ended = now.onMetrics(add);
  now.restart = load;
  // A job that ends or goes on has other marks.
  change(() => {
    const attempts = now.job().attempts.map(each => `${each.attempt}${each.ended_at}`).join();
    if (attempts !== seenAttempts) { seenAttempts = attempts; soon(); }
  });
  return {
    element, shown: load,
    end: () => { over = true; ended(); clearTimeout(timer); clearTimeout(frame); document.removeEventListener("theme", recolour); now.restart = null; for (const chart of charts.values()) chart.end(); },
  };
}

const isFailure = attempt => attempt.ending && !/^(succeeded|cancelled|paused|stopped to go on)/.test(attempt.ending);
