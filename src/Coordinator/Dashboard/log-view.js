// The end of what a rank wrote: follows it, searches it, and goes back to its beginning piece by piece.
import { h, fill, text, attribute } from "./dom.js";
import { ask, jobPath } from "./api.js";
import { parts, plain } from "./ansi.js";
import { WindowList } from "./window-list.js";
import * as f from "./format.js";

const tail = 256 << 10, back = 512 << 10, mostLines = 50_000, mostPieces = 16, keptOfLine = 4096;
const streams = { stdout: "Output", stderr: "Errors", stacks: "Stacks of a hang" };

export function logView(job, change) {
  const choice = { attempt: job().attempt, rank: 0, stream: "stdout" };
  let log = null;
  const attempt = h("select", { "aria-label": "Attempt", onchange: () => { choice.attempt = Number(attempt.value); open(); } });
  const rank = h("select", { "aria-label": "Rank", onchange: () => { choice.rank = Number(rank.value); open(); } });
  const stream = h("select", { "aria-label": "Stream", onchange: () => { choice.stream = stream.value; open(); } },
    Object.entries(streams).map(([name, label]) => h("option", { value: name }, label)));
  const search = h("input", { type: "search", placeholder: "Search this log", "aria-label": "Search this log", autocomplete: "off", spellcheck: "false",
    oninput: () => find(), onkeydown: event => { if (event.key === "Enter") { event.preventDefault(); step(event.shiftKey ? -1 : 1); } } });
  const hits = h("span.found", { role: "status" });
  const follow = h("input", { type: "checkbox", id: "follow", checked: true, onchange: () => { if (follow.checked) toEnd(); } });
  const earlier = h("button.small", { type: "button", hidden: true, onclick: () => more() }, "Load earlier lines");
  const body = h("div.lines", null);
  const scroller = h("div.log", { tabindex: 0, role: "log", "aria-label": "Log", "aria-live": "off" }, body);
  const state = h("p.note", { role: "status" });
  const element = h("section.panel", { "aria-label": "Logs" },
    h("div.tools", null, attempt, rank, stream,
      h("div.tools-end", null, hits, search,
        h("button.small", { type: "button", onclick: () => step(-1), "aria-label": "Previous hit" }, "↑"), h("button.small", { type: "button", onclick: () => step(1), "aria-label": "Next hit" }, "↓"),
        h("label.check", { for: "follow" }, follow, "Follow"))),
    h("div.log-head", null, earlier, state), scroller);
  const list = new WindowList({
    body, scroller, height: 18, over: 20, key: (line, index) => index + (log?.shift ?? 0), make: () => h("div.line", null),
    update: (row, line, index) => {
      const hit = log.hits.has(index), current = log.current === index;
      if (row.line !== line || row.hit !== hit || row.current !== current) {
        fill(row, parts(line.text, line.cut).map(part => h("span", { class: part.classes || null }, part.text)));
        row.classList.toggle("hit", hit);
        row.classList.toggle("current", current);
        Object.assign(row, { line, hit, current });
      }
    },
  });
  scroller.addEventListener("scroll", () => {
    if (scroller.scrollTop + scroller.clientHeight < scroller.scrollHeight - 40 && follow.checked && !log?.jumping) follow.checked = false;
  }, { passive: true });

  const path = () => `${jobPath(job().id)}/attempts/${choice.attempt}/ranks/${choice.rank}/${choice.stream}`;

  function show() {
    const current = job(), attempts = Math.max(1, current.attempt);
    if (attempt.childElementCount !== attempts) {
      // Who looks at the newest attempt goes on to the next one.
      const newest = attempt.childElementCount === 0 || choice.attempt === attempt.childElementCount;
      fill(attempt, Array.from({ length: attempts }, (_, i) => h("option", { value: attempts - i }, `Attempt ${attempts - i}`)));
      if (newest && choice.attempt !== attempts) { choice.attempt = attempts; open(); }
      attempt.value = String(choice.attempt);
    }
    if (rank.childElementCount !== current.ranks) {
      fill(rank, Array.from({ length: current.ranks }, (_, i) => h("option", { value: i }, `Rank ${i}`)));
      rank.hidden = current.ranks < 2;
    }
  }

  async function open() {
    log?.abort.abort();
    const mine = log = { lines: [], first: 0, end: 0, partial: null, decoder: new TextDecoder(), abort: new AbortController(), hits: new Set(), current: -1, shift: 0, jumping: false };
    body.style.height = "0";
    list.shown.forEach(row => row.remove());
    list.shown.clear();
    text(state, "Loading …");
    try {
      const length = Number((await ask(`${path()}?offset=${Number.MAX_SAFE_INTEGER}`, { signal: mine.abort.signal })).headers.get("X-Length") ?? 0);
      mine.first = mine.end = Math.max(0, length - tail);
      mine.skip = mine.first > 0;
      let first = true;
      while (!mine.abort.signal.aborted) {
        const waits = !first && !document.hidden;
        const response = await ask(`${path()}?offset=${mine.end}&wait=${waits ? 20 : 0}`, { signal: mine.abort.signal });
        const bytes = new Uint8Array(await response.arrayBuffer());
        take(mine, bytes);
        if (bytes.length === 0) {
          first = false;
          if (document.hidden || (f.hasEnded(job()) && waits)) await pause(document.hidden ? 3000 : 10_000, mine.abort.signal);
        }
      }
    } catch (error) {
      if (mine.abort.signal.aborted) return;
      text(state, `${error.message}; trying again`);
      setTimeout(() => { if (log === mine) open(); }, 2000);
    }
  }

  function take(mine, bytes) {
    const begin = mine.end;
    mine.end += bytes.length;
    if (mine.skip && bytes.length > 0) {
      // The tail begins within a line, which is shown with what is before it.
      const end = bytes.indexOf(10);
      mine.first = begin + end + 1;
      bytes = bytes.subarray(end + 1);
      mine.skip = false;
    }
    const added = split(mine, mine.decoder.decode(bytes, { stream: true }));
    mine.lines.push(...added);
    if (mine.lines.length > mostLines) {
      const gone = mine.lines.length - mostLines;
      mine.lines.splice(0, gone);
      mine.shift += gone;
      mine.forgot = true;
    }
    render(mine);
  }

  /**
   * Whole lines; what follows the last one waits. Of an endless line only the beginning and the length are kept. A carriage return goes
   * back to the beginning, as progress bars do: what follows it takes the place of what was there.
   */
  function split(mine, added) {
    const lines = [];
    let start = 0;
    while (true) {
      const end = added.indexOf("\n", start), piece = added.slice(start, end < 0 ? undefined : end);
      mine.partial = extend(mine.partial, piece);
      if (end < 0) return lines;
      lines.push(mine.partial);
      mine.partial = null;
      start = end + 1;
    }
  }

  function extend(line, piece) {
    const written = piece.replace(/\r+$/, ""), back = written.lastIndexOf("\r");  // those at the end take nothing's place yet
    if (back >= 0) [line, piece] = [null, piece.slice(back + 1)];
    else if (written !== "" && line?.text.endsWith("\r")) line = null;
    if (!line) return piece === "" ? { text: "", cut: 0 } : { text: piece.slice(0, keptOfLine), cut: Math.max(0, piece.length - keptOfLine) };
    const room = Math.max(0, keptOfLine - line.text.length);
    return { text: line.text + piece.slice(0, room), cut: line.cut + Math.max(0, piece.length - room) };
  }

  /** What is before, from the beginning of a line on: one that is longer than a piece takes several. */
  async function more() {
    const mine = log, pieces = [];
    let from = mine.first, begin = 0;
    earlier.disabled = true;
    try {
      while (from > 0 && begin === 0 && pieces.length < mostPieces) {
        const start = Math.max(0, from - back);
        const piece = new Uint8Array(await (await ask(`${path()}?offset=${start}`, { signal: mine.abort.signal })).arrayBuffer()).subarray(0, from - start);
        // The line feed at the very end closes the last line; it does not open one.
        const feed = piece.subarray(0, pieces.length === 0 ? -1 : undefined).indexOf(10);
        begin = start === 0 ? 0 : feed + 1;
        pieces.unshift(piece);
        from = start;
      }
    } catch (error) {
      if (!mine.abort.signal.aborted) text(state, error.message);
      return;
    } finally { earlier.disabled = false; }
    pieces[0] = pieces[0].subarray(begin);
    const decoder = new TextDecoder(), before = { partial: null };
    const lines = pieces.flatMap(piece => split(before, decoder.decode(piece, { stream: true })));
    if (before.partial?.text) lines.push(before.partial);
    mine.first = from + begin;
    mine.lines.unshift(...lines);
    // Rows keep their elements: they are known by their place from where the reading began.
    mine.shift -= lines.length;
    const top = scroller.scrollTop;
    follow.checked = false;
    render(mine);
    scroller.scrollTop = top + lines.length * 18;
  }

  function render(mine) {
    if (log !== mine) return;
    const shown = mine.partial?.text ? [...mine.lines, mine.partial] : mine.lines;
    mine.shown = shown;
    earlier.hidden = mine.first === 0 || mine.forgot === true;
    text(state, shown.length === 0 ? "Nothing written yet." : `${f.integer(shown.length)} ${shown.length === 1 ? "line" : "lines"}${mine.first > 0 ? `, from byte ${f.integer(mine.first)} of ${f.integer(mine.end)}` : `, ${f.bytes(mine.end)}`}`);
    find(true);
    if (follow.checked) toEnd();
  }

  function find(quiet = false) {
    if (!log?.shown) return;
    const wanted = search.value.toLowerCase();
    log.hits = new Set();
    if (wanted) log.shown.forEach((line, index) => { if (plain(line.text).toLowerCase().includes(wanted)) log.hits.add(index); });
    const where = log.forgot ? ` in the last ${f.integer(log.shown.length)} lines` : log.first > 0 ? ` in the last ${f.bytes(log.end - log.first)}, which are loaded` : "";
    text(hits, wanted ? `${f.integer(log.hits.size)} ${log.hits.size === 1 ? "hit" : "hits"}${where}` : "");
    if (!quiet) { log.current = -1; if (wanted) step(1); }
    list.set(log.shown);
  }

  function step(by) {
    const all = [...log.hits];
    if (all.length === 0) return;
    const at = all.indexOf(log.current);
    log.current = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : (at + by + all.length) % all.length];
    follow.checked = false;
    scroller.scrollTop = log.current * 18 - scroller.clientHeight / 2;
    list.render();
  }

  function toEnd() {
    log.jumping = true;
    scroller.scrollTop = scroller.scrollHeight;
    list.render();
    requestAnimationFrame(() => { if (log) log.jumping = false; });
  }

  show();
  open();
  change(show);
  return { element, end: () => { log?.abort.abort(); log = null; list.end(); } };
}

const pause = (time, signal) => new Promise(resolve => { const timer = setTimeout(resolve, time); signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }); });
