// Questions before something is done, and words about how it went.
import { h, fill } from "./dom.js";

/** Resolves with null when declined, else with the value of the field ("" of an optional one without any), or true. */
export function confirm({ title, text, action, danger = false, field = null }) {
  return new Promise(resolve => {
    const input = field && h("input", { type: field.type ?? "number", id: "dialog-field", min: field.min, max: field.max, step: 1, value: field.value, required: !field.optional, placeholder: field.optional ? "none" : null });
    const dialog = h("dialog", { "aria-labelledby": "dialog-title" },
      h("form", { method: "dialog" },
        h("h2", { id: "dialog-title" }, title),
        text && h("p", null, text),
        input && h("div.field", null, h("label", { for: "dialog-field" }, field.label), input),
        h("div.buttons", null,
          h("button", { type: "button", autofocus: danger && !input, onclick: () => dialog.close("") }, "Keep as it is"),
          h(danger ? "button.danger" : "button.primary", { value: "yes", autofocus: !danger && !input }, action))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes" ? (!input ? true : input.type !== "number" || input.value === "" ? input.value.trim() : Number(input.value)) : null);
    });
    document.body.append(dialog);
    dialog.showModal();
    input?.select();
  });
}

/** A line at the foot of the page for a while; screen readers hear it. */
export function tell(message, isProblem = false) {
  let place = document.getElementById("told");
  if (!place) {
    place = h("div", { id: "told", role: "status", "aria-live": "polite" });
    document.body.append(place);
  }
  const line = h(isProblem ? "p.told.problem" : "p.told", null, message);
  fill(place, line);
  setTimeout(() => line.remove(), isProblem ? 8000 : 4000);
}

/**
 * A menu at a button: items() are { label, run, danger }, at least one. Returns what brings the open menu up to date with what items()
 * are now; the focus stays at its item as long as there is one.
 */
export function menu(button, items) {
  const list = h("div.menu", { role: "menu", popover: "auto", "aria-label": button.getAttribute("aria-label") });
  const labels = () => [...list.children].map(entry => entry.textContent);
  list.addEventListener("keydown", event => {
    const entries = [...list.children], at = entries.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: entries.length - 1 }[event.key];
    if (to !== undefined) { entries[(to + entries.length) % entries.length].focus(); event.preventDefault(); }
    if (event.key === "Tab") list.hidePopover();
  });
  list.addEventListener("toggle", event => {
    if (event.newState === "closed") {
      list.remove();
      button.setAttribute("aria-expanded", "false");
      if (document.activeElement === document.body) button.focus();
    }
  });
  document.body.append(list);
  button.setAttribute("aria-expanded", "true");
  list.showPopover();
  refresh();
  return refresh;

  function refresh() {
    const now = items();
    if (!list.isConnected || now.map(item => item.label).join() === labels().join()) return;
    const focused = list.contains(document.activeElement) ? document.activeElement.textContent : now[0].label;
    fill(list, now.map(item => h(item.danger ? "button.danger-text" : "button", {
      type: "button", role: "menuitem", tabindex: -1, onclick: () => { list.hidePopover(); item.run(); },
    }, item.label)));
    list.children[Math.max(0, labels().indexOf(focused))].focus();
    const at = button.getBoundingClientRect();
    list.style.top = `${Math.max(4, Math.min(at.bottom + 4, innerHeight - list.offsetHeight - 4))}px`;
    list.style.left = `${Math.max(4, Math.min(at.right - list.offsetWidth, innerWidth - list.offsetWidth - 4))}px`;
  }
}
