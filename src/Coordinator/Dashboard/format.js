// Numbers and times as people read them.
const integers = new Intl.NumberFormat("en");
const dates = new Intl.DateTimeFormat("en-GB", { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" });
const days = new Intl.DateTimeFormat("en-GB", { month: "short", day: "numeric" });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const none = "–";

export const integer = value => value === null || value === undefined ? none : integers.format(value);

/** Four figures or so. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return none;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6) return `${(value / 1e6).toPrecision(4)}M`;
  if (size >= 1000) return integers.format(Math.round(value));
  if (size < 1e-3) return value.toExponential(2);
  return value.toPrecision(4);
}

/** Of things a second. */
export const rate = value => value === 0 ? "0" : value < 0.01 ? "<0.01" : value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : integers.format(Math.round(value));

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return none;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${String(Math.floor(whole % 3600 / 60)).padStart(2, "0")} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole % 86400 / 3600)} h`;
}

export function ago(time) {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  if (seconds < 5) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

export const moment = time => time ? dates.format(new Date(time)) : none;

/** As short as it can be; the whole belongs into a title. */
export function when(time) {
  if (!time) return none;
  const at = new Date(time);
  return at.toDateString() === new Date().toDateString() ? clock.format(at) : `${days.format(at)}, ${clock.format(at).slice(0, 5)}`;
}
export const timeOfDay = time => clock.format(new Date(time));

export function hours(seconds) {
  const value = seconds / 3600;
  return value === 0 ? "0" : value < 0.01 ? "<0.01" : value < 10 ? value.toFixed(2) : value < 1000 ? value.toFixed(1) : integers.format(Math.round(value));
}

export function bytes(value) {
  if (value === null || value === undefined) return none;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit++; }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

export const percent = share => `${Math.round(share * 100)} %`;

/** Slots times hours, of the attempt that goes on too. */
export const slotSeconds = job => (job.slot_seconds ?? 0)
  + (job.attempt_started_at ? Math.max(0, Date.now() - Date.parse(job.attempt_started_at)) / 1000 * (job.ranks ?? 1) : 0);

export const states = {
  queued: "Queued", starting: "Starting", running: "Running", retrying: "Retrying", stopping: "Stopping",
  paused: "Paused", succeeded: "Succeeded", failed: "Failed", cancelled: "Cancelled",
};
export const hasEnded = job => job.status === "succeeded" || job.status === "failed" || job.status === "cancelled";
export const isLive = job => job.status === "running" || job.status === "starting" || job.status === "stopping";
