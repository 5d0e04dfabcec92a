/* A question in a dialog of its own, above the chat: a heading, fields, and one thing that can be done. */
import { button, make } from "./elements.js";

export class Dialog {
  /** `act`: what to do; returns what to tell then. `part`: how its button looks. `why`: what is wrong already. */
  constructor(panel, { heading, fields = [], label, part = "alarm", act, why = "", cancel = panel.say("cancel"), onClose }) {
    Object.assign(this, { panel, turn: Promise.resolve() });
    this.before = panel.focused;
    this.aiming = this.before?.closest(".tools");
    this.error = make("p", "error", { role: "alert" });
    const row = make("div", "choices", {}, button("cancel", () => this.element.close(), cancel), make("button", part, {}, label));
    this.title = make("h3", "heading", { id: "heading" }, heading);
    const form = make("form", "", { method: "dialog" }, this.title, ...fields, this.error, row);
    this.element = make("dialog", "ask", { "aria-labelledby": "heading" }, form);
    form.onsubmit = (event) => {
      event.preventDefault();
      this.attempt(act, true);
    };
    this.element.onclose = () => {
      this.element.remove();
      if (panel.dialog !== this) return; // another one has followed
      panel.dialog = null;
      onClose?.();
      this.returnFocus();
    };
    panel.dialog?.element.close();
    panel.dialog = this;
    panel.root.append(this.element);
    this.element.showModal();
    this.error.textContent = why;
  }

  returnFocus() {
    const { log, composer } = this.panel, { before } = this;
    if (before?.isConnected && before.offsetParent) before.focus();
    else (this.aiming && log.aimed?.isConnected && log.aimed.querySelector(".tools button") || composer).focus();
  }

  /** One thing after the other. What is refused is said in the dialog, while it is open. `last`: closes it. */
  attempt(act, last = false) {
    const { element, error, panel } = this;
    this.turn = this.turn.then(async () => {
      if (!element.open) return; // pressed twice
      error.textContent = "";
      element.setAttribute("aria-busy", "true");
      try {
        const news = await act();
        if (last) element.close(); // first, because nothing below a dialog is read out
        if (news) panel.tell(news, true);
      } catch (refusal) {
        const words = refusal.key ? panel.say(refusal.key, refusal) : refusal.message;
        if (panel.onRefused?.(refusal)) return;
        if (element.open) error.textContent = words;
        else panel.tell(words, true);
      } finally {
        element.removeAttribute("aria-busy");
      }
    });
  }
}
