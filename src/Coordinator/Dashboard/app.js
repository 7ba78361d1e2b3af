// The shell: which page is shown, who is signed in, light or dark.
import { fill, h, svg, icons, attribute, text } from "./dom.js";
import { get, ask, onConnection } from "./api.js";
import { jobsPage } from "./jobs-page.js";
import { jobPage } from "./job-page.js";
import { comparePage } from "./compare-page.js";
import { clusterPage } from "./cluster-page.js";

const main = document.getElementById("main");
let session = null, end = null, turn = 0;

async function show(focus) {
  const mine = ++turn;
  end?.();
  end = null;
  const path = location.pathname;
  const [page, nav] = path.startsWith("/jobs/") ? [jobPage, "jobs"] : path === "/compare" ? [comparePage, "compare"] : path === "/cluster" ? [clusterPage, "cluster"] : path === "/" ? [jobsPage, "jobs"] : [nothing, ""];
  for (const link of document.querySelectorAll("[data-nav]")) attribute(link, "aria-current", link.dataset.nav === nav ? "page" : null);
  try {
    const ended = await page(main, { navigate, session });
    if (mine === turn) end = ended; else ended?.();
  } catch (error) {
    if (mine !== turn) return;
    fill(main, h("div.page", null, h("div.empty", null, h("h1", null, "That did not work"), h("p", null, error.message),
      h("button", { type: "button", onclick: () => show() }, "Try again"))));
  }
  if (focus) { main.focus({ preventScroll: true }); scrollTo(0, 0); }
}

function nothing(main) {
  document.title = "No such page · Trainer";
  fill(main, h("div.page", null, h("div.empty", null, h("h1", null, "No such page"), h("p", null, "There is nothing at this address."), h("p", null, h("a", { href: "/" }, "All jobs")))));
}

function navigate(to) {
  history.pushState(null, "", to);
  show(true);
}

document.addEventListener("click", event => {
  const link = event.target.closest("a[href]");
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || link.hasAttribute("download")) return;
  const to = new URL(link.href);
  const isPage = to.origin === location.origin && (/^\/(cluster|compare)?$/.test(to.pathname) || to.pathname.startsWith("/jobs/"));
  if (!isPage || to.hash) return;
  event.preventDefault();
  navigate(to.pathname + to.search);
});
addEventListener("popstate", () => show(true));
// Such a link may be opened in a tab that shows the dashboard already.
addEventListener("hashchange", redeem);

const themes = { system: ["as the system", icons.system], light: ["light", icons.sun], dark: ["dark", icons.moon] };
const theme = document.getElementById("theme");
function showTheme() {
  const chosen = localStorage.getItem("theme") ?? "system";
  const [label, icon] = themes[chosen] ?? themes.system;
  if (chosen === "system") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = chosen;
  attribute(theme, "aria-label", `Theme: ${label}`);
  attribute(theme, "title", `Theme: ${label}`);
  fill(theme, svg(icon));
  document.dispatchEvent(new Event("theme"));
}
theme.addEventListener("click", () => {
  const names = Object.keys(themes), chosen = localStorage.getItem("theme") ?? "system";
  localStorage.setItem("theme", names[(names.indexOf(chosen) + 1) % names.length]);
  showTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("theme")));

onConnection(state => {
  const element = document.getElementById("connection");
  attribute(element, "data-state", state);
  text(element, state === "live" ? "Live" : state === "waiting" ? "Reconnecting …" : "");
});

/** A link with a code is for whoever opens it, also when somebody else is signed in. */
function redeem() {
  const hasCode = location.hash.startsWith("#code=");
  if (hasCode) location.replace(`/sign-in${location.hash}`);
  return hasCode;
}

async function begin() {
  showTheme();
  if (redeem()) return;
  // The page is painted before anybody is asked anything.
  session = await get("/session");
  text(document.getElementById("who"), session.project ? `project ${session.project}` : "all projects");
  const out = document.getElementById("sign-out");
  out.hidden = session.expires_at === null;
  out.addEventListener("click", async () => {
    await ask("/session", { method: "DELETE" }).catch(() => {});
    location.replace("/sign-in");
  });
  await show(false);
}
begin().catch(error => fill(main, h("div.page", null, h("div.empty", null, h("h1", null, "That did not work"), h("p", null, error.message), h("button", { type: "button", onclick: () => location.reload() }, "Try again")))));
