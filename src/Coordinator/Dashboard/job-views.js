// What a job left: checkpoints, samples, and what it was told to train.
import { h, fill, text, svg, icons } from "./dom.js";
import { get, ask, jobPath, repeat } from "./api.js";
import { parts } from "./ansi.js";
import { allJobs, watchJobs } from "./rows.js";
import * as f from "./format.js";

export function checkpointsView(job) {
  const body = h("tbody", null), store = h("p.note", null), removed = h("input", { type: "checkbox", id: "removed", onchange: () => show() });
  const empty = h("div.empty.small", { hidden: true }, h("h2", null, "No checkpoints"), h("p", null, "A job saves every checkpoint.every steps, and at its end."));
  const table = h("div.scroll", { tabindex: 0, role: "region", "aria-label": "Checkpoints", hidden: true }, h("table.wide-cells.keeps-last", null,
    h("thead", null, h("tr", null, ["Step", "State", "Attempt", "Committed", "Eval loss", "Size", ""].map((label, i) => h("th", { scope: "col", class: i === 4 || i === 5 ? "num" : null }, label || h("span.hidden", null, "Download"))))), body));
  let list = null;

  function show() {
    if (!list) return;
    const entries = list.checkpoints.filter(entry => removed.checked || entry.status !== "removed").reverse();
    empty.hidden = entries.length > 0;
    table.hidden = entries.length === 0;
    text(store, list.store ? `In ${list.store}` : "");
    fill(body, entries.map(entry => h("tr", null,
      h("th", { scope: "row" }, f.integer(entry.step)),
      h("td", null, h("span.tag", { "data-kind": entry.status === "quarantined" ? "bad" : entry.status === "removed" ? "gone" : entry.verified_at ? "good" : "plain" },
        entry.status === "committed" ? (entry.verified_at ? "verified" : "committed") : entry.status), entry.best ? h("span.tag", { "data-kind": "best" }, "best") : null,
        entry.reason ? h("span.under", null, entry.reason) : null),
      h("td", null, String(entry.attempt)), h("td", { title: f.moment(entry.committed_at) }, entry.committed_at ? f.ago(entry.committed_at) : f.none),
      h("td.num", null, f.number(entry.eval_loss)), h("td.num", null, f.bytes(entry.bytes)),
      h("td.num", null, entry.status === "committed"
        ? h("a.button.small", { href: `${jobPath(job().id)}/checkpoints/${entry.step}/archive`, download: "", "aria-label": `Download the checkpoint of step ${entry.step} as tar` }, svg(icons.down), "tar")
        : null))));
  }

  const tick = repeat(3, async () => {
    try { list = await get(`${jobPath(job().id)}/checkpoints`); show(); } catch (error) { text(store, error.message); }
  });
  return {
    element: h("section.panel", { "aria-label": "Checkpoints" }, h("div.tools", null, store, h("div.tools-end", null, h("label.check", { for: "removed" }, removed, "Also removed ones"))), table, empty),
    end: tick,
  };
}

const mostSamples = 16 << 20;

export function samplesView(job) {
  const samples = [];
  let offset = 0, attempt = -1, rest = "", chosen = null, decoder = new TextDecoder();
  const step = h("input", { type: "range", id: "step", min: 0, max: 0, value: 0, "aria-label": "Step", oninput: () => { chosen = Number(step.value) === steps().length - 1 ? null : steps()[Number(step.value)]; show(); } });
  const label = h("output", { for: "step" }), list = h("div.samples", null);
  const prompt = h("select", { "aria-label": "Prompt", onchange: () => show() });
  const controls = h("div.tools.samples-tools", { hidden: true }, step, label, h("div.tools-end", null, prompt));
  const empty = h("div.empty.small", { hidden: true }, h("h2", null, "No samples"), h("p", null, "Set samples.every and samples.prompts in the job file to see what the model says as it learns."));

  const steps = () => [...new Set(samples.map(sample => sample.step))].sort((a, b) => a - b);
  const prompts = () => [...new Set(samples.map(sample => sample.prompt))];

  function show() {
    const all = steps(), at = chosen === null ? all.length - 1 : Math.max(0, all.indexOf(chosen));
    controls.hidden = all.length === 0;
    empty.hidden = all.length > 0;
    if (all.length === 0) return fill(list);
    step.max = String(all.length - 1);
    step.value = String(at);
    text(label, `step ${f.integer(all[at])}`);
    step.setAttribute("aria-valuetext", `step ${all[at]}`);
    const names = prompts();
    if (prompt.childElementCount !== names.length + 1) fill(prompt, h("option", { value: "" }, "All prompts at this step"), names.map((name, i) => h("option", { value: i + 1 }, `All steps of: ${name.slice(0, 60)}`)));
    const only = names[Number(prompt.value) - 1];
    step.disabled = only !== undefined;
    const shown = only === undefined ? samples.filter(sample => sample.step === all[at]) : samples.filter(sample => sample.prompt === only).sort((a, b) => b.step - a.step);
    const key = shown.map(sample => sample.step).join() + only;
    if (list.dataset.key === key) return;
    list.dataset.key = key;
    fill(list, shown.slice(0, 200).map(sample => h("article.sample", null,
      h("h3", null, only === undefined ? "Prompt" : `Step ${f.integer(sample.step)}`), only === undefined ? h("p.prompt", null, lines(sample.prompt)) : null,
      h("h3", null, "Answer"), h("p.answer", null, sample.text === "" ? h("span.muted", null, "(nothing)") : lines(sample.text)))));
  }

  const lines = value => value.split("\n").flatMap((line, i) => [i ? h("br", null) : null, parts(line).map(part => h("span", { class: part.classes || null }, part.text))]);

  const tick = repeat(2, async () => {
    if (attempt !== job().attempt) { attempt = job().attempt; samples.length = 0; offset = 0; rest = ""; decoder = new TextDecoder(); list.dataset.key = ""; }
    while (attempt > 0 && offset < mostSamples) {
      const bytes = new Uint8Array(await (await ask(`${jobPath(job().id)}/attempts/${attempt}/ranks/0/samples?offset=${offset}`)).arrayBuffer());
      if (bytes.length === 0) break;
      offset += bytes.length;
      const whole = (rest + decoder.decode(bytes, { stream: true })).split("\n");
      rest = whole.pop();
      for (const line of whole) {
        try {
          const { step: at, prompt: asked, text: said } = JSON.parse(line);
          if (Number.isSafeInteger(at) && typeof asked === "string" && typeof said === "string") samples.push({ step: at, prompt: asked, text: said });
        } catch { /* Not a sample. */ }
      }
    }
    show();
  });
  return { element: h("section.panel", { "aria-label": "Samples" }, controls, list, empty), end: tick };
}

export function configView(job) {
  const body = h("tbody", null), other = h("input", { type: "text", list: "other-jobs", id: "other", placeholder: "Compare with job …", "aria-label": "Compare with another job", autocomplete: "off", spellcheck: "false", onchange: () => load() });
  const options = h("datalist", { id: "other-jobs" }), only = h("input", { type: "checkbox", id: "only", checked: true, onchange: () => show() });
  const onlyLabel = h("label.check", { for: "only", hidden: true }, only, "Differences only"), note = h("p.note", { role: "status" });
  const head = h("tr", null);
  let mine = null, theirs = null;

  async function load() {
    try {
      mine ??= flat(await get(`${jobPath(job().id)}/config`));
      theirs = other.value.trim() ? flat(await get(`${jobPath(other.value.trim())}/config`)) : null;
      show();
    } catch (error) {
      theirs = null;
      show();
      text(note, error.message);
    }
  }

  function show() {
    if (!mine) return;
    onlyLabel.hidden = theirs === null;
    fill(head, h("th", { scope: "col" }, "Key"), h("th", { scope: "col" }, job().id), theirs && h("th", { scope: "col" }, other.value.trim()));
    const keys = [...new Set([...mine.keys(), ...(theirs?.keys() ?? [])])].filter(key => !theirs || !only.checked || mine.get(key) !== theirs.get(key));
    const count = theirs ? [...new Set([...mine.keys(), ...theirs.keys()])].filter(key => mine.get(key) !== theirs.get(key)).length : 0;
    text(note, theirs ? `${count} ${count === 1 ? "key differs" : "keys differ"}` : "");
    fill(body, keys.map(key => h("tr", { class: theirs && mine.get(key) !== theirs.get(key) ? "differs" : null },
      h("th", { scope: "row" }, key), h("td", null, mine.get(key) ?? h("span.muted", null, "absent")), theirs && h("td", null, theirs.get(key) ?? h("span.muted", null, "absent")))));
  }

  const unwatch = watchJobs(() => {
    const wanted = [...allJobs().keys()].filter(id => id !== job().id).slice(0, 500);
    if (options.childElementCount !== wanted.length) fill(options, wanted.map(id => h("option", { value: id })));
  });
  load();
  return {
    element: h("section.panel", { "aria-label": "Configuration" }, h("div.tools", null, other, options, onlyLabel, h("div.tools-end", null, note)),
      h("div.scroll", { tabindex: 0, role: "region", "aria-label": "Keys and values" }, h("table.config", null, h("thead", null, head), body))),
    end: unwatch,
  };
}

/** "a.b[0].c" to value. */
function flat(value, prefix = "", found = new Map()) {
  if (Array.isArray(value)) {
    if (value.length === 0) found.set(prefix, "[]");
    value.forEach((each, i) => flat(each, `${prefix}[${i}]`, found));
  } else if (value !== null && typeof value === "object") {
    for (const [key, each] of Object.entries(value)) flat(each, prefix ? `${prefix}.${key}` : key, found);
  } else if (value !== null) {
    found.set(prefix, String(value));
  }
  return found;
}
