// What a person may do to jobs, each after a question.
import { post, jobPath } from "./api.js";
import { confirm, tell } from "./dialog.js";
import { hasEnded } from "./format.js";

const kinds = {
  pause: {
    label: "Pause", past: "is asked to pause", can: job => !hasEnded(job) && job.status !== "paused" && job.status !== "stopping",
    text: "It saves a checkpoint and gives its slots back until it is resumed.", run: job => post(`${jobPath(job.id)}/pause`),
  },
  resume: {
    label: "Resume", past: "goes on", can: job => job.status === "paused" || job.status === "cancelled" || job.status === "stopping",
    text: "It goes on from its newest good checkpoint once there is room. One that is stopping stops first.", run: job => post(`${jobPath(job.id)}/resume`),
  },
  retry: {
    label: "Retry", past: "tries again", can: job => job.status === "failed",
    text: "It goes on from its newest good checkpoint, with new retry budgets.", run: job => post(`${jobPath(job.id)}/resume`),
  },
  priority: {
    label: "Priority …", title: "Priority of", past: "has a new priority", can: job => !hasEnded(job), action: "Set priority",
    text: "Larger runs earlier. A waiting job gains a point for each five minutes.",
    field: job => ({ label: "Priority, −1000 to 1000", min: -1000, max: 1000, value: job.priority ?? 0 }),
    run: (job, value) => post(`${jobPath(job.id)}/priority`, { priority: value }),
  },
  cancel: {
    label: "Cancel …", title: "Cancel", past: "is cancelled", action: "Cancel job", danger: true, can: job => !hasEnded(job),
    text: "It saves a last checkpoint and ends. It can be resumed later.", run: job => post(`${jobPath(job.id)}/cancel`),
  },
};

/** Those that fit the job's state. */
export const actionsOf = job => Object.entries(kinds).filter(([, kind]) => kind.can(job))
  .map(([name, kind]) => ({ name, label: kind.label, danger: kind.danger, run: () => perform(name, [job]) }));

/** Asks once for all of them. */
export async function perform(name, jobs) {
  const kind = kinds[name];
  const able = jobs.filter(kind.can);
  if (able.length === 0) {
    tell(`None of the chosen jobs can do that now.`, true);
    return;
  }
  const what = able.length === 1 ? able[0].id : `${able.length} jobs`;
  const answer = await confirm({
    title: `${kind.title ?? kind.label} ${what}?`,
    text: kind.text + (able.length < jobs.length ? ` ${jobs.length - able.length} of the chosen jobs are in no state for it and stay as they are.` : ""),
    action: able.length > 1 && kind.action === "Cancel job" ? `Cancel ${able.length} jobs` : kind.action ?? kind.label,
    danger: kind.danger, field: kind.field?.(able[0]),
  });
  if (answer === null) return;
  const done = await Promise.allSettled(able.map(job => kind.run(job, answer)));
  const problem = done.find(each => each.status === "rejected");
  tell(problem ? problem.reason.message : `${what} ${able.length === 1 ? kind.past : kind.past.replace(/^is /, "are ").replace(/^goes/, "go").replace(/^tries/, "try").replace(/^has/, "have")}.`, Boolean(problem));
}
