/* Where one writes: the message, and, for as long as one has none, the name. */
import { button, icon, make } from "./elements.js";
import { suggestName } from "./names.js";
import { load } from "./storage.js";

export class Composer {
  constructor(panel) {
    Object.assign(this, { panel, room: panel.room, say: panel.say });
    const { say } = this;
    this.news = button("new", () => panel.readOn());
    this.input = make("textarea", "input", { rows: 1, enterkeyhint: "send", dir: "auto", placeholder: say("write"), "aria-label": say("write") });
    const { draft } = load("sessionStorage", `${this.room.key} page`);
    if (typeof draft === "string") this.input.value = draft;
    this.input.oninput = () => {
      this.room.remember({ draft: this.input.value });
      this.measure();
    };
    this.input.addEventListener("key", ({ detail: { shiftKey } }) => { this.shift = shiftKey; });
    // Comes when Enter would break the line, and never when it confirms what an input method suggests.
    this.input.addEventListener("beforeinput", (event) => {
      if (!/^insert(LineBreak|Paragraph)$/.test(event.inputType) || this.shift) return;
      event.preventDefault();
      this.post();
    });
    this.sending = button("go", () => this.post(), icon("M12 19V5m-6 6 6-6 6 6"));
    this.sending.setAttribute("aria-label", say("send"));
    this.me = button("me", () => this.askName(true));
    this.counter = make("span", "counter", { role: "status" });
    this.rule = make("small", "rule", { role: "status" });
    this.under = make("div", "under", {}, this.me, this.counter);
    this.element = make("div", "foot", {}, this.news, this.rule, this.makeJoin(),
      make("div", "send", {}, this.input, this.sending), this.under);
  }

  makeJoin() {
    const { say } = this, suggestion = suggestName();
    this.name = make("input", "input", { id: "name", autocomplete: "nickname", maxlength: 50, "aria-describedby": "error" });
    this.error = make("p", "error", { id: "error", role: "alert" });
    const take = button("suggestion", () => {
      this.name.value = suggestion;
      this.pickName();
    }, say("suggest", { name: suggestion }));
    this.joining = make("button", "go", {}, say("join"));
    this.form = make("form", "join", {}, make("p", "greeting", {}, say("greeting")), make("label", "label", { for: "name" }, say("your_name")),
      make("div", "pick", {}, this.name, this.joining), this.error, make("div", "under", {}, take));
    this.form.onsubmit = (event) => {
      event.preventDefault();
      this.pickName();
    };
    if (new URL(this.room.server).origin === origin) {
      this.form.lastChild.append(button("sign-in", () => this.panel.askOwner(), say("sign_in")));
    }
    return this.form;
  }

  /** Shows or hides the line for the name. `why`: what is wrong with it. */
  askName(asked, why = "") {
    const moved = asked === this.form.hidden, focused = this.element.contains(this.panel.focused);
    this.form.hidden = !asked;
    this.me.hidden = asked;
    this.error.textContent = why;
    this.name.setAttribute("aria-invalid", String(Boolean(why)));
    if (moved && asked) this.name.value = this.room.owner ? "" : this.room.visitor.name ?? "";
    if (why || moved && focused) this.focus();
    this.panel.log.scroll();
  }

  focus() {
    (this.form.hidden ? this.input : this.name).focus();
  }

  /** Takes the name that was typed. Returns false where it can't be one. */
  pickName() {
    const { room } = this, name = this.name.value.trim().replace(/\s+/g, "-");
    if (!/^[\w-]{1,50}$/.test(name)) {
      this.askName(true, this.say(name ? "invalid_username" : "no_name"));
      return false;
    }
    if (room.wish === name && room.connection.state === "connecting") return true; // pressed twice
    if (name === room.visitor.name && room.isOnline) this.askName(false);
    else room.join(name);
    return true;
  }

  /** Sends what was written, and takes the name that was typed above it. */
  post() {
    if (this.sending.disabled || !this.form.hidden && !this.pickName()) return;
    const text = this.input.value;
    this.write("");
    this.room.posts.add(text);
    this.panel.log.scroll(true);
    if (this.form.hidden) this.room.comeBack();
  }

  write(text) {
    this.input.value = text;
    this.room.remember({ draft: text });
    this.measure();
    this.input.focus();
  }

  /** How much may still be written, and whether at all. */
  measure() {
    const { input, counter, room } = this, { limit = Infinity, rules } = room;
    const left = limit - [...input.value].length, near = left <= Math.min(100, limit / 5);
    counter.textContent = near ? this.say(left < 0 ? "excess" : "remaining", { count: Math.abs(left) }) : "";
    counter.classList.toggle("over", left < 0);
    input.readOnly = Boolean(rules.paused && !room.owner);
    this.rule.textContent = rules.paused ? this.say("paused") : rules.slow_mode > 0 ? this.say("slow", { seconds: rules.slow_mode }) : "";
    this.sending.disabled = left < 0 || input.readOnly || !input.value.trim();
    if (CSS.supports("field-sizing", "content")) return;
    input.style.height = "auto";
    input.style.height = `${input.scrollHeight + 2}px`;
  }
}
