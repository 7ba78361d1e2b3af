// Lines of a terminal: colours become classes, every other control sequence goes, and no line is endless.

const longest = 2000;
// Sequences that begin with ESC [, ESC ] … (BEL or ESC \), ESC P/X/^/_ … ESC \, other two-character ones, and lone control characters.
const controls = /\x1b\[([0-9;:?<=>]*)[ -/]*([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[PX^_][^\x1b]*(?:\x1b\\)?|\x1b[ -/]*[0-~]?|[\x00-\x08\x0b-\x1f\x7f-\x9f]/g;
// Signs that turn the direction of text around, so that it reads as something else. Not those that only part words: some scripts need them.
const turns = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** [{ text, classes }], with a note when the line was cut here, or before by so many characters. */
export function parts(line, cut = 0) {
  const found = [];
  let classes = "", last = 0;
  if (line.length > longest) {
    cut += line.length - longest;
    line = line.slice(0, longest);
  }
  const put = piece => { if (piece) found.push({ text: piece.replace(turns, "\ufffd"), classes }); };
  for (const match of line.matchAll(controls)) {
    put(line.slice(last, match.index));
    last = match.index + match[0].length;
    if (match[2] === "m") classes = style(match[1], classes);
  }
  put(line.slice(last));
  if (cut > 0) found.push({ text: ` … ${cut.toLocaleString("en")} more characters`, classes: "cut" });
  return found;
}

// Most text has none of it.
const suspicious = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/;
export const plain = line => suspicious.test(line) ? line.replace(controls, "").replace(turns, "\ufffd") : line;

/** Bold and the sixteen colours of the foreground. */
function style(codes, before) {
  const set = new Set(before.split(" ").filter(Boolean));
  const without = kind => { for (const name of set) if (name.startsWith(kind)) set.delete(name); };
  const numbers = codes.split(/[;:]/).map(Number);
  for (let i = 0; i < numbers.length; i++) {
    const code = numbers[i];
    if (code === 0) set.clear();
    else if (code === 1) set.add("bold");
    else if (code === 22) set.delete("bold");
    else if (code === 39) without("fg");
    else if (code === 38 || code === 48) i += numbers[i + 1] === 5 ? 2 : 4;
    else if ((code >= 30 && code <= 37) || (code >= 90 && code <= 97)) { without("fg"); set.add(`fg${code % 10}${code >= 90 ? " bright" : ""}`.split(" ")[0]); }
  }
  return [...set].join(" ");
}
