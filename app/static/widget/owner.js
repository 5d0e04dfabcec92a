/*
 * The owner's tools: hide, ban, pause, slow down. Loaded when the owner signs in, and only on pages of the chat's own
 * origin: the scripts of any other page could read the token. It is kept in memory and in this tab's sessionStorage, and
 * goes nowhere but to the chat's server, in a header.
 */
import { Dialog } from "./dialog.js";
import { button, icon, make } from "./elements.js";
import { Refusal } from "./room.js";
import { STRINGS } from "./strings.js";
import { STYLE } from "./owner-style.js";

const TEXTS = {
  token: "Owner's token",
  token_hint: "OWNER_TOKEN, from the settings of the server. It is kept until you sign out or close this tab.",
  no_owner: "This is not the owner's token.",
  old_token: "The owner's token is another one now. Sign in again.",
  as_owner: "as {name}",
  hide: "Hide",
  hide_of: "Hide the message of {name}",
  hide_this: "Hide this message of {name} from everybody, for good?",
  is_hidden: "The message is hidden.",
  ban: "Ban",
  ban_of: "Ban {name}",
  ban_for: "For how long",
  ban_3600: "An hour",
  ban_86400: "A day",
  ban_: "For good",
  ban_address: "Their address, too, and whoever shares it",
  ban_hide: "Hide all messages of {name}",
  is_banned: "{name} is banned.",
  no_address: "{name} is banned, but not the address: it is not known, or may be many people's.",
  not_hidden: "{name} is banned, but the messages are still there. {why}",
  room: "The room",
  pause: "Pause the room",
  resume: "Open the room again",
  slow_down: "Slow mode",
  slow_off: "Off",
  slow_seconds: "{seconds} s between messages",
  bans: "Banned",
  no_bans: "Nobody is banned.",
  until: "until {time}",
  for_good: "for good",
  and_address: "{time}, and the address",
  lift: "Lift",
  lift_of: "Lift the ban of {name}",
  sign_out: "Sign out",
};
const BANS = [3600, 86400, ""]; // seconds, "": for good
const SLOW = [0, 10, 30, 60, 300]; // seconds
const SLIDERS = "M4 7h9m4 0h3M4 17h3m4 0h9M15 4v6M9 14v6";

for (const [key, text] of Object.entries(TEXTS)) STRINGS[key] ??= text;

/** Asks for the token, or brings the tools, where another chat or an earlier page has it. Safe to call again. */
export function signIn(panel) {
  if (new URL(import.meta.url).origin !== origin) return;
  const tools = panel.tools ??= new Tools(panel);
  if (panel.room.owner) tools.enter();
  else if (!panel.dialog) tools.askToken();
}

/** In one chat of the page. The room calls its `on…`, as it does the panel's. */
class Tools {
  constructor(panel) {
    Object.assign(this, { panel, room: panel.room, say: panel.say });
    this.actions = ({ id, role, username }) => id ? [
      ["hide", (data) => this.askHide(data)],
      ...role === "owner" ? [] : [["ban", () => this.askBan(username)]],
    ] : [];
  }

  enter() {
    const { panel, room } = this;
    if (this.manage) return;
    this.manage = button("manage", () => this.askRoom(), icon(SLIDERS));
    this.manage.setAttribute("aria-label", this.say("room"));
    this.manage.setAttribute("aria-haspopup", "dialog");
    panel.people.after(this.manage);
    if (!panel.hasOwnerStyle) panel.launcher.dress(STYLE);
    panel.hasOwnerStyle = true;
    panel.log.actions.push(this.actions);
    panel.onRefused = (refusal) => refusal.status === 401 && this.lose();
    room.listeners.add(this);
    panel.log.fill();
    panel.composer.me.disabled = true;
    panel.composer.askName(false);
    this.onState(room.connection.state, room.why);
  }

  leave() {
    const { panel } = this;
    if (!this.manage) return;
    this.room.listeners.delete(this);
    panel.onRefused = null;
    panel.log.actions = panel.log.actions.filter((actions) => actions !== this.actions);
    this.manage.remove();
    this.manage = null;
    panel.composer.me.disabled = false;
    panel.dialog?.element.close();
    panel.log.fill();
  }

  onIdentity() {
    if (!this.room.owner) this.leave();
  }

  onRoom() {
    this.showRoom?.();
  }

  onState(state, why) {
    if (state === "online") this.panel.composer.me.textContent = this.say("as_owner", { name: this.room.ownName });
    if (why?.code === "invalid_token") this.lose();
  }

  /** The token was changed on the server. */
  lose() {
    if (!this.room.owner) return false;
    this.room.signIn(null);
    this.askToken(this.say("old_token"));
    return true;
  }

  /** `why`: it is asked for again. */
  askToken(why = "") {
    const field = make("input", "input", { id: "token", type: "password", autocomplete: "current-password", "aria-describedby": "hint" });
    const user = make("input", "", { autocomplete: "username", value: "owner", hidden: "" }); // for password managers
    const hint = make("small", "hint", { id: "hint" }, this.say("token_hint"));
    const label = make("label", "label", { for: "token" }, this.say("token"));
    const act = async () => {
      const token = field.value.trim();
      field.focus();
      try {
        if (!/^[\w.~-]{32,256}$/.test(token)) throw new Refusal({ status: 401 });
        await this.room.call("GET", "bans", undefined, token);
      } catch (refusal) {
        if (refusal.status !== 401) throw refusal;
        field.value = "";
        throw new Refusal({ key: "no_owner" });
      }
      field.value = "";
      if (dialog.element.open) this.room.signIn(token); // else it was cancelled
    };
    const fields = [user, make("div", "field", {}, label, field, hint)];
    const dialog = new Dialog(this.panel, { heading: this.say("sign_in"), fields, label: this.say("sign_in"), part: "go", act, why });
  }

  askHide({ id, username: name, text, content }) {
    const { log } = this.panel;
    const act = async () => {
      const row = log.rows.get(id);
      const next = row && (log.beside(row, "nextSibling") ?? log.beside(row, "previousSibling"));
      await this.room.call("DELETE", `messages/${encodeURIComponent(id)}`);
      this.room.delete({ id }); // the frame may be on its way
      log.aim(next); // where the focus goes
      return this.say("is_hidden");
    };
    const quote = make("p", "quote", { dir: "auto", tabindex: 0 }, String(text ?? content));
    new Dialog(this.panel, { heading: this.say("hide_this", { name }), fields: [quote], label: this.say("hide"), act });
  }

  askBan(name) {
    const options = BANS.map((seconds) => make("option", "", { value: seconds }, this.say(`ban_${seconds}`)));
    const time = make("select", "input", { id: "time" }, ...options);
    const address = make("input", "tick", { type: "checkbox" }), messages = make("input", "tick", { type: "checkbox" });
    const act = async () => {
      const limit = time.value && { seconds: Number(time.value) };
      const done = await this.room.call("PUT", `bans/${encodeURIComponent(name)}`, { ...limit, address: address.checked });
      try {
        if (messages.checked) await this.room.call("DELETE", `messages?${new URLSearchParams({ username: name })}`);
      } catch (refusal) {
        const why = refusal.key ? this.say(refusal.key, refusal) : refusal.message;
        throw new Refusal({ message: this.say("not_hidden", { name, why }), status: refusal.status });
      }
      return this.say(address.checked && !done.address ? "no_address" : "is_banned", { name });
    };
    const fields = [
      make("div", "field", {}, make("label", "label", { for: "time" }, this.say("ban_for")), time),
      make("label", "check", {}, address, this.say("ban_address")),
      make("label", "check", {}, messages, this.say("ban_hide", { name })),
    ];
    new Dialog(this.panel, { heading: this.say("ban_of", { name }), fields, label: this.say("ban"), act });
  }

  /** Pause, slow mode and bans, as they are, and signing out. */
  askRoom() {
    const { room } = this;
    let waiting = 0; // changes; until they are done the fields are ahead of the room
    const change = (what) => {
      waiting++;
      dialog.attempt(async () => {
        try {
          room.onRoom(await room.call("PATCH", "room", what));
        } finally {
          waiting--;
          this.showRoom?.();
        }
      });
    };
    const pause = button("plain", () => change({ paused: !room.rules.paused }));
    const slow = make("select", "input", { id: "slow" });
    slow.onchange = () => change({ slow_mode: Number(slow.value) });
    const none = make("small", "no_bans"), list = make("ul", "bans", { "aria-labelledby": "bans" });
    const count = () => { none.textContent = list.children.length ? "" : this.say("no_bans"); };
    const fields = [
      pause,
      make("div", "field", {}, make("label", "label", { for: "slow" }, this.say("slow_down")), slow),
      make("h4", "subheading", { id: "bans" }, this.say("bans")),
      none,
      list,
    ];
    const dialog = new Dialog(this.panel, {
      heading: this.say("room"), fields, label: this.say("sign_out"), part: "plain", cancel: this.say("close"),
      act: () => room.signIn(null),
      onClose: () => { this.showRoom = null; },
    });
    this.showRoom = () => {
      const { paused, slow_mode: seconds = 0 } = room.rules;
      pause.textContent = this.say(paused ? "resume" : "pause");
      for (const value of [...SLOW, seconds]) {
        if ([...slow.options].some((option) => option.value === String(value))) continue;
        slow.append(make("option", "", { value }, this.say(value ? "slow_seconds" : "slow_off", { seconds: value })));
      }
      if (!waiting) slow.value = seconds;
    };
    this.showRoom();
    dialog.title.tabIndex = -1;
    dialog.title.focus(); // a key that is still held down must change nothing
    dialog.attempt(async () => {
      if (!room.isOnline) room.onRoom(await room.call("GET", "room"));
      const { bans } = await room.call("GET", "bans");
      list.replaceChildren(...bans.map((ban) => this.makeBan(dialog, ban, count)));
      count();
    });
  }

  /** One in the list of bans. `lifted`: what to do when it is gone. */
  makeBan(dialog, { username: name, until, address }, lifted) {
    const time = until ? this.say("until", { time: this.panel.log.time(until) }) : this.say("for_good");
    const how = make("small", "", {}, address ? this.say("and_address", { time }) : time);
    const lift = button("lift", () => dialog.attempt(async () => {
      await this.room.call("DELETE", `bans/${encodeURIComponent(name)}`);
      const next = entry.nextElementSibling ?? entry.previousElementSibling;
      entry.remove();
      lifted();
      (next?.querySelector("button") ?? dialog.element.querySelector("button")).focus();
    }), this.say("lift"));
    lift.setAttribute("aria-label", this.say("lift_of", { name }));
    const entry = make("li", "banned", {}, make("span", "", {}, make("bdi", "", {}, name), how), lift);
    return entry;
  }
}
