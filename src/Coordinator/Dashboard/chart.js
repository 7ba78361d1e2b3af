// One chart: the mean of each bucket, the band of its extremes, a smoothed line, and marks where attempts went on.
import uPlot from "uplot";
import { h, fill, text } from "./dom.js";
import * as f from "./format.js";

/** Charts with one key move their cursors together. */
export const together = uPlot.sync("steps");

export const palette = () => ["--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c7", "--c8"].map(colour);
export const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Exponential moving average that does not lean on its first value and passes over gaps. */
export function smooth(values, factor) {
  let sum = 0, weight = 0;
  return values.map(value => {
    if (value === null) return null;
    sum = sum * factor + value * (1 - factor);
    weight = weight * factor + (1 - factor);
    return sum / weight;
  });
}

export class Chart {
  /** lines: { label, dash, points, band, faint }; zoomed(from, to) is told what is chosen by dragging, null for all. */
  constructor({ title, unit = "", lines, zoomed, height = 190, marks = () => [], byTime = () => false, log = false }) {
    Object.assign(this, { title, unit, lines, zoomed, chartHeight: height, marks, byTime, log, data: null });
    // The values under the cursor, or the newest, each with the colour of its line.
    this.place = h("span", null);
    this.values = lines.map(line => line.quiet ? null : h("span", null));
    this.swatches = lines.map(line => lines.length > 1 && !line.quiet ? h("span.swatch", null) : null);
    this.readout = h("span.readout", { "aria-hidden": "true" }, this.place, lines.map((_, i) => this.values[i] && h("span.value", null, this.swatches[i], this.values[i])));
    this.plotPlace = h("div.plot", null);
    this.summary = h("p.hidden", null);
    this.tablePlace = h("div.chart-table", { hidden: true, tabindex: 0, role: "region", "aria-label": `${title}, as a table` });
    this.tableButton = h("button.quiet.small", { type: "button", "aria-pressed": "false", onclick: () => this.showTable() }, "Table");
    this.element = h("figure.chart", { "aria-label": title },
      h("figcaption", null, h("span.chart-title", null, title), this.readout, this.tableButton), this.summary, this.plotPlace, this.tablePlace);
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.plotPlace);
  }

  /** data: uPlot's columns; extras: the columns of the bands follow the lines. */
  set(data) {
    this.data = data;
    if (!this.plot) this.build(); else this.plot.setData(data, !this.isZoomed);
    this.describe();
    if (!this.tablePlace.hidden) this.fillTable();
    this.show(null);
  }

  build() {
    if (this.plotPlace.clientWidth === 0) return;
    const ink = colour("--muted"), grid = colour("--grid"), colours = palette();
    const bands = [];
    const series = [{}];
    for (const [index, line] of this.lines.entries()) {
      const stroke = line.colour ?? colours[index % colours.length];
      if (this.swatches[index]) this.swatches[index].style.background = line.faint ? fade(stroke, 0.45) : stroke;
      series.push({
        label: line.label, stroke: line.faint ? fade(stroke, 0.45) : stroke, width: line.faint ? 1 : 1.75, dash: line.dash, spanGaps: true,
        points: line.points ? { show: true, size: 5, fill: stroke, stroke } : { show: false },
      });
    }
    for (const [index, line] of this.lines.entries()) {
      if (!line.band) continue;
      const stroke = line.colour ?? colours[index % colours.length];
      const high = series.push({ label: "", stroke: "transparent", width: 0, spanGaps: true, points: { show: false } }) - 1;
      const low = series.push({ label: "", stroke: "transparent", width: 0, spanGaps: true, points: { show: false } }) - 1;
      bands.push({ series: [high, low], fill: fade(stroke, 0.16) });
    }
    const self = this;
    const axis = { stroke: ink, font: "11px Inter, system-ui, sans-serif", ticks: { stroke: grid, width: 1, size: 4 } };
    this.plot = new uPlot({
      width: this.plotPlace.clientWidth, height: this.chartHeight, legend: { show: false }, padding: [10, 18, 0, 0], series, bands,
      scales: { x: { time: this.byTime() }, y: { distr: this.log ? 3 : 1, range: this.log ? undefined : (_, low, high) => range(low, high) } },
      axes: [
        { ...axis, grid: { show: false }, size: 28, space: 56, values: this.byTime() ? undefined : (_, splits) => splits.map(step => Number.isInteger(step) ? short(step) : "") },
        { ...axis, grid: { stroke: grid, width: 1 }, size: 52, space: 26, values: (_, splits) => splits.map(value => value === null ? "" : axisNumber(value, splits)) },
      ],
      cursor: { y: false, points: { size: 6, width: 1 }, drag: { x: true, y: false, setScale: false }, sync: { key: together.key, setSeries: false } },
      select: { show: true },
      hooks: {
        setCursor: [plot => self.show(plot.cursor.idx)],
        setSelect: [plot => {
          if (plot.select.width < 4) return;
          const from = plot.posToVal(plot.select.left, "x"), to = plot.posToVal(plot.select.left + plot.select.width, "x");
          plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          self.zoomed?.(from, to);
        }],
        draw: [plot => self.drawMarks(plot, ink)],
        ready: [plot => plot.over.addEventListener("dblclick", () => self.zoomed?.(null))],
      },
    }, this.data, this.plotPlace);
  }

  /** Attempts that went on: a dashed line, with its name where there is room. */
  drawMarks(plot, ink) {
    const context = plot.ctx, { left, top, width, height } = plot.bbox, ratio = devicePixelRatio;
    context.save();
    context.font = `${10 * ratio}px Inter, system-ui, sans-serif`;
    context.textBaseline = "top";
    context.textAlign = "left";
    const marks = this.marks().map(mark => ({ ...mark, x: plot.valToPos(mark.at, "x", true) })).filter(({ x }) => x >= left && x <= left + width).sort((a, b) => b.x - a.x);
    context.lineWidth = ratio;
    context.setLineDash([4 * ratio, 3 * ratio]);
    for (const { x, bad } of marks) {
      context.strokeStyle = colour(bad ? "--failed" : "--mark");
      context.beginPath();
      context.moveTo(x, top);
      context.lineTo(x, top + height);
      context.stroke();
    }
    // From the right, where the newest are: a label ends before the next mark; that of the last may stand left of its own, over others.
    let room = left + width;
    for (const { x, label } of this.chartHeight < 180 ? [] : marks.filter(mark => mark.label)) {
      const wide = context.measureText(label).width, fits = x + wide + 6 * ratio <= room, flips = !fits && room === left + width;
      if (fits || flips) {
        const from = flips ? x - wide - 4 * ratio : x + 4 * ratio;
        context.fillStyle = colour("--surface");
        context.fillRect(from - 2 * ratio, top, wide + 4 * ratio, 13 * ratio);
        context.fillStyle = ink;
        context.fillText(label, from, top + 2 * ratio);
      }
      room = Math.min(room, flips ? x - wide - 6 * ratio : x);
    }
    context.restore();
  }

  show(index) {
    if (!this.data) return;
    const isLast = index === null || index === undefined, at = isLast ? this.data[0].length - 1 : index;
    text(this.place, isLast || at < 0 ? "" : this.byTime() ? f.timeOfDay(this.data[0][at] * 1000) : `step ${f.integer(this.data[0][at])}`);
    for (const [number, line] of this.lines.entries()) {
      if (!this.values[number]) continue;
      const values = this.data[number + 1];
      let value = values?.[at];
      if (isLast || line.points) for (let i = at; i >= 0 && (value === null || value === undefined); i--) value = values?.[i];
      const known = value !== null && value !== undefined;
      text(this.values[number], known ? `${this.lines.length > 1 ? `${line.label} ` : ""}${(this.format ?? f.number)(value)}${this.unit}` : "");
      this.values[number].parentNode.hidden = !known;
    }
  }

  describe() {
    const values = (this.data[1] ?? []).filter(value => value !== null), steps = this.data[0];
    if (values.length === 0) { text(this.summary, `${this.title}: no values yet`); return; }
    const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b)), form = this.format ?? f.number;
    const where = this.byTime() ? `${f.moment(steps[0] * 1000)} to ${f.moment(steps.at(-1) * 1000)}` : `steps ${f.integer(steps[0])} to ${f.integer(steps.at(-1))}`;
    text(this.summary, `${this.title}, ${where}: from ${form(values[0])} to ${form(values.at(-1))}, lowest ${form(low)}, highest ${form(high)}.`);
  }

  showTable() {
    const shown = this.tablePlace.hidden;
    this.tablePlace.hidden = !shown;
    this.plotPlace.hidden = shown;
    this.tableButton.setAttribute("aria-pressed", String(shown));
    if (shown) this.fillTable();
  }

  /** Some forty rows over the whole length: what the picture shows, for who cannot see it. */
  fillTable() {
    const count = this.data[0].length, every = Math.max(1, Math.ceil(count / 40)), rows = [];
    for (let index = count - 1; index >= 0; index -= every) rows.push(index);
    fill(this.tablePlace, h("table", null, h("thead", null, h("tr", null, h("th", { scope: "col" }, this.byTime() ? "Time" : "Step"), this.lines.map(line => h("th", { scope: "col" }, line.label)))),
      h("tbody", null, rows.map(index => h("tr", null, h("th", { scope: "row" }, this.byTime() ? f.timeOfDay(this.data[0][index] * 1000) : f.integer(this.data[0][index])),
        this.lines.map((_, number) => h("td", null, (this.format ?? f.number)(this.data[number + 1]?.[index]))))))));
  }

  resize() {
    if (!this.plot) { if (this.data) { this.build(); } return; }
    const width = this.plotPlace.clientWidth;
    if (width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: this.chartHeight });
  }

  /** Colours or axes have changed. */
  rebuild() {
    this.plot?.destroy();
    this.plot = null;
    if (this.data) { this.build(); this.describe(); this.show(null); }
  }

  end() {
    this.observer.disconnect();
    this.plot?.destroy();
  }
}

const fade = (value, alpha) => `${value}${Math.round(alpha * 255).toString(16).padStart(2, "0")}`;

function range(low, high) {
  if (low === null || high === null) return [0, 1];
  const pad = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [low >= 0 && low - pad < 0 ? 0 : low - pad, high + pad];
}

const short = value => Math.abs(value) >= 1e6 ? `${+(value / 1e6).toFixed(2)}M` : Math.abs(value) >= 1e4 ? `${+(value / 1e3).toFixed(1)}k` : String(value);

function axisNumber(value, splits) {
  const step = Math.abs((splits[1] ?? 1) - (splits[0] ?? 0));
  if (value === 0) return "0";
  if (Math.abs(value) >= 1e4) return short(value);
  if (Math.abs(value) < 1e-3 || (step < 1e-4 && step > 0)) return value.toExponential(1);
  // As many places as the steps of the axis need: 0.25 needs two.
  let places = 0;
  while (places < 6 && Math.abs(step * 10 ** places - Math.round(step * 10 ** places)) > 1e-6) places++;
  return value.toFixed(places);
}
