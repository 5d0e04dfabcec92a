/*
 * The owner's tools in the chat widget: hide, ban, pause, slow down. widget.js loads this file when the owner signs in,
 * and on pages of the chat's own origin alone.
 * The token is kept in memory and in this tab's sessionStorage. It goes nowhere but to the chat's server, in a header.
 */

const STRINGS = {
  token: "Owner's token",
  token_hint: "OWNER_TOKEN, from the settings of the server. It is kept until you sign out or close this tab.",
  wrong_token: "This is not the owner's token.",
  old_token: "The owner's token is another one now. Sign in again.",
  as_owner: "as {name}",
  cancel: "Cancel",
  close: "Close",
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
  hurried: "That was too often. Try again in {seconds} s.",
  unreachable: "The server can't be reached. Try again.",
  odd_answer: "The server could not do it (status {status}). Try again.",
};
const BANS = [3600, 86400, ""]; // seconds, "": for good
const SLOW = [0, 10, 30, 60, 300]; // seconds
const TIMEOUT = 10_000; // milliseconds for an answer
const NEWS = 10_000; // milliseconds for which it is shown that something was done

const STYLE = `
.ask { inset: 0; margin: 10dvh auto auto; width: min(23rem, 100% - 2rem); height: fit-content; max-height: 85dvh; padding: 1.25em; overflow: auto; border: 1px solid var(--line); border-radius: var(--chat-radius, 16px); background: var(--surface); color: var(--text) }
.ask::backdrop { background: #0006 }
.ask form, .fields { display: flex; flex-direction: column; gap: .75em }
.heading { font-size: 1.0625em; outline: none }
.subheading { margin-block-start: .5em; font-size: .8125em; color: var(--quiet) }
.quote { max-height: 6em; overflow: auto; padding: .5em .75em; border-radius: 14px; background: var(--soft); font-size: .95em; white-space: pre-wrap }
.ask .error { min-height: 0; margin: 0 }
.ask .error:empty { display: none }
select { font: inherit; color: inherit; border-radius: 20px }
span.me { padding-inline: .5em }
.field { display: flex; flex-direction: column; gap: .25em }
.check { display: flex; align-items: start; gap: .5em; font-size: .95em }
.tick { flex: none; width: 1.1em; height: 1.1em; margin-block-start: .15em; accent-color: var(--accent) }
.choices { display: flex; flex-wrap: wrap; justify-content: end; gap: .5em }
.choices button, .plain, .lift { padding: .5em 1em; border: 1px solid var(--quiet) }
.choices .go { border-color: var(--accent) }
.choices .alarm { border-color: var(--alarm); background: var(--alarm); color: var(--surface) }
.bans { display: flex; flex-direction: column; gap: .5em; max-height: 9em; overflow: auto; padding: 0; list-style: none; font-size: .95em }
.bans:empty { display: none }
.banned { display: flex; align-items: center; justify-content: space-between; gap: .5em }
.lift { flex: none; padding: .125em .75em; font-size: .8125em }
.manage { padding: .5em; color: var(--quiet) }
.message { position: relative }
.tools { display: flex; gap: .25em; margin-block-start: .125em; font-size: .8125em; color: var(--quiet) }
@media (hover: hover) {
  .tools { position: absolute; inset-block: auto .25em; inset-inline: auto 0; margin: 0; border: 1px solid var(--line); border-radius: 1em; background: var(--surface); opacity: 0 }
  .own .tools { inset-inline: 0 auto }
  .message:hover .tools, .tools:focus-within { opacity: 1 }
  .message:hover .bubble, .message:has(.tools :focus-visible) .bubble { outline: 1px solid var(--quiet) }
}
@media (hover: none) {
  .tools button { min-height: 2em }
}
`;

const GEAR = "M4 7h9m4 0h3M4 17h3m4 0h9M15 4v6M9 14v6";
const all = new Set(); // the tools of each widget where the owner is signed in
let make, button, sheet;

/** Called by a widget: asks for the token, or brings the tools, where another widget or an earlier page has it. */
export function signIn(view, ...kit) {
  let strings;
  [make, button, strings] = kit;
  for (const key of Object.keys(STRINGS)) strings[key] ??= STRINGS[key];
  if (new URL(import.meta.url).origin !== origin) return; // scripts of this page would not be the chat's own
  const tools = view.tools ??= new Tools(view);
  if (view.visitor.owner) tools.enter();
  else if (!tools.dialog) tools.askToken();
}

/** Everywhere on the page; visitors are again who they were. */
function signOut(visitor) {
  visitor.owner = null;
  try {
    sessionStorage.removeItem(visitor.key);
  } catch { /* no storage here */ }
  for (const tools of all) if (tools.view.visitor === visitor) tools.leave();
}

/** What the server did not do; the message is for people. */
class Refusal extends Error {
  constructor(words, status) {
    super(words);
    this.status = status;
  }
}

/** In one widget. */
class Tools {
  /** What the widget is told is heard here first. */
  ears = {
    on_history: ({ data }) => {
      const own = data.findLast(({ role }) => role === "owner");
      if (own) this.view.connection.name = own.username; // the session frame comes too late to know own messages
    },
    on_room: ({ data }) => {
      this.room = data;
      this.showRoom?.();
    },
    show: (state, code, refusal) => {
      if (refusal?.data.code === "invalid_token") queueMicrotask(() => this.lose());
    },
  };

  turn = Promise.resolve();

  constructor(view) {
    this.view = view;
    this.say = (key, values) => view.say(key, values);
  }

  async call(method, path, body, token = this.view.visitor.owner) {
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
    const careful = { credentials: "omit", redirect: "error", cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) };
    let answer;
    try {
      const url = new URL(`api/${path}`, this.view.connection.server);
      answer = await fetch(url, { method, headers, body: body && JSON.stringify(body), ...careful });
    } catch {
      throw new Refusal(this.say("unreachable"));
    }
    const { status } = answer;
    const data = await answer.json().catch(() => null); // of a proxy, it may be a page
    if (answer.ok && data) return data;
    if (status === 401) throw new Refusal(this.say("wrong_token"), status);
    const seconds = Math.ceil(data?.error?.retry_after);
    if (status === 429 && seconds) throw new Refusal(this.say("hurried", { seconds }), status);
    throw new Refusal(data?.error?.message ?? this.say("odd_answer", { status }), status);
  }

  /** Shows the dialog for the token. `why`: it is asked for again. */
  askToken(why) {
    const field = make("input", "input", { id: "token", type: "password", autocomplete: "current-password", "aria-describedby": "hint" });
    const user = make("input", "", { autocomplete: "username", value: "owner", hidden: "" }); // for password managers
    const hint = make("small", "hint", { id: "hint" }, this.say("token_hint"));
    const label = make("label", "label", { for: "token" }, this.say("token"));
    const check = async () => {
      const token = field.value.trim(), { dialog } = this;
      field.focus();
      try {
        if (!/^[\w.~-]{32,256}$/.test(token)) throw new Refusal(this.say("wrong_token"), 401);
        await this.call("GET", "bans", null, token);
      } catch (refusal) {
        if (refusal.status === 401) field.value = "";
        throw refusal;
      }
      field.value = "";
      if (dialog.open) this.keep(token); // else it was cancelled
    };
    this.ask(this.say("sign_in"), [user, make("div", "field", {}, label, field, hint)], { go: [this.say("sign_in"), check] }, why);
  }

  keep(token) {
    const { visitor } = this.view;
    visitor.owner = token;
    try {
      sessionStorage[visitor.key] = token;
    } catch { /* for as long as this page is open */ }
    this.enter();
    visitor.dispatchEvent(new Event("change")); // other widgets of this page follow
  }

  /** From now on this widget is the owner's. Safe to call again. */
  enter() {
    const { view } = this, { connection, host, visitor } = view;
    if (all.has(this)) {
      if (host.isConnected && connection.state === "ended") connection.start();
      return;
    }
    all.add(this);
    this.me = make("span", "me");
    view.me.hidden = true;
    view.me.after(this.me);
    this.manage = button("manage", () => this.askRoom(), make("svg", "icon", { viewBox: "0 0 24 24" }, make("path", "", { d: GEAR })));
    Object.assign(this.manage, { ariaLabel: this.say("room"), ariaHasPopup: "dialog" });
    view.people.after(this.manage);
    view.askName(false);
    this.dress();
    this.listen();
    const keep = (name) => this.me.textContent = this.say("as_owner", { name });
    this.reconnect({ name: "owner", token: visitor.owner, keep });
  }

  leave() {
    const { view } = this, { name } = view.visitor;
    const focused = view.host.shadowRoot.activeElement;
    all.delete(this);
    this.stop();
    this.dialog?.close();
    for (const element of [this.me, this.manage, ...view.root.querySelectorAll(".tools")]) element.remove();
    view.me.hidden = false;
    view.who = "";
    this.reconnect(view.visitor);
    if (!name) view.askName(true);
    if (focused) view.focus(true);
  }

  /** As somebody else. The messages come anew, because other ones are one's own now. */
  reconnect(visitor) {
    const { view } = this, { connection } = view;
    view.giveUp(this.say("ended"));
    Object.assign(connection, { visitor, name: visitor.name, epoch: null, wish: null });
    if (!view.host.isConnected) return;
    if (visitor.name) return connection.start(null);
    connection.end(1000);
    view.tell("");
  }

  dress() {
    const { shadowRoot } = this.view.host;
    if (!sheet) (sheet = new CSSStyleSheet()).replaceSync(STYLE);
    if (!shadowRoot.adoptedStyleSheets.includes(sheet)) shadowRoot.adoptedStyleSheets.push(sheet);
  }

  /** To what the widget is told, and to what happens among the messages. */
  listen() {
    const { view } = this, { element: log } = view.log;
    for (const [name, hear] of Object.entries(this.ears)) {
      view[name] = (...told) => {
        hear(...told);
        Object.getPrototypeOf(view)[name].apply(view, told);
      };
    }
    const observer = new MutationObserver(() => this.equip());
    observer.observe(log, { childList: true });
    const listening = new AbortController(), { signal } = listening;
    log.addEventListener("keydown", (event) => this.move(event), { signal });
    log.addEventListener("focusin", ({ target }) => this.aim(target.closest(".message")), { signal });
    this.stop = () => {
      for (const name of Object.keys(this.ears)) delete view[name];
      observer.disconnect();
      listening.abort();
    };
    this.equip();
  }

  /** The token was changed on the server. */
  lose() {
    if (!all.has(this)) return;
    signOut(this.view.visitor);
    this.askToken(this.say("old_token"));
  }

  /** Gives each message its buttons. The last one's are in the tab order. */
  equip() {
    const { log } = this.view;
    const messages = [...log.element.children].filter(({ data }) => data?.id);
    for (const message of messages) if (!message.querySelector(".tools")) message.append(this.makeTools(message));
    if (!this.aimed?.isConnected || !(this.dialog || this.aimed.matches(":focus-within"))) this.aim(messages.at(-1));
    log.follow(log.stuck);
  }

  makeTools({ data }) {
    const { username: name, role } = data;
    const act = (key, start) => {
      const element = button(key, start, this.say(key));
      Object.assign(element, { tabIndex: -1, ariaLabel: this.say(`${key}_of`, { name }) });
      element.setAttribute("aria-keyshortcuts", "ArrowUp ArrowDown");
      return element;
    };
    const tools = make("div", "tools", { "aria-live": "off" }, act("hide", () => this.askHide(data)));
    if (role !== "owner") tools.append(act("ban", () => this.askBan(name)));
    return tools;
  }

  /** The Tab key comes to the buttons of one message. */
  aim(message) {
    if (!message?.querySelector(".tools")) return;
    const turn = (element, to) => element?.querySelectorAll(".tools button").forEach((one) => one.tabIndex = to);
    turn(this.aimed, -1);
    turn(this.aimed = message, 0);
  }

  /** The arrow keys go from message to message. */
  move(event) {
    const ways = { ArrowUp: "previousElementSibling", ArrowDown: "nextElementSibling" };
    const way = ways[event.key], from = event.target.closest(".tools");
    if (!way || !from) return;
    event.preventDefault();
    const to = this.beside(from.parentElement, way);
    (to?.querySelector(`.${event.target.className}`) ?? to?.querySelector(".tools button"))?.focus();
  }

  /** The next message that has buttons, or the one before. */
  beside(message, way) {
    let to = message?.[way];
    while (to && !to.querySelector(".tools")) to = to[way];
    return to;
  }

  askHide({ id, username: name, text, content }) {
    const { log } = this.view;
    const hide = async () => {
      const gone = log.messages.get(id);
      const next = this.beside(gone, "nextElementSibling") ?? this.beside(gone, "previousElementSibling");
      await this.call("DELETE", `messages/${encodeURIComponent(id)}`);
      log.hide(id); // the frame may be on its way
      this.aim(next); // where the focus goes
      return this.say("is_hidden");
    };
    const quote = make("p", "quote", { dir: "auto", tabindex: 0 }, String(text ?? content));
    this.ask(this.say("hide_this", { name }), [quote], { alarm: [this.say("hide"), hide] });
  }

  askBan(name) {
    const options = BANS.map((seconds) => make("option", "", { value: seconds }, this.say(`ban_${seconds}`)));
    const [time, address, messages] = [
      make("select", "input", { id: "time" }, ...options),
      make("input", "tick", { type: "checkbox" }),
      make("input", "tick", { type: "checkbox" }),
    ];
    const ban = async () => {
      const limit = time.value && { seconds: Number(time.value) };
      const done = await this.call("PUT", `bans/${encodeURIComponent(name)}`, { ...limit, address: address.checked });
      try {
        if (messages.checked) await this.call("DELETE", `messages?${new URLSearchParams({ username: name })}`);
      } catch ({ message: why, status }) {
        throw new Refusal(this.say("not_hidden", { name, why }), status);
      }
      return this.say(address.checked && !done.address ? "no_address" : "is_banned", { name });
    };
    const fields = [
      make("div", "field", {}, make("label", "label", { for: "time" }, this.say("ban_for")), time),
      make("label", "check", {}, address, this.say("ban_address")),
      make("label", "check", {}, messages, this.say("ban_hide", { name })),
    ];
    this.ask(this.say("ban_of", { name }), fields, { alarm: [this.say("ban"), ban] });
  }

  /** Pause, slow mode and bans, as they are, and signing out. */
  askRoom() {
    let waiting = 0; // changes; until they are done the fields are ahead of the room
    const change = (what) => {
      waiting++;
      this.attempt(async () => {
        try {
          this.room = await this.call("PATCH", "room", what);
        } finally {
          waiting--;
          this.showRoom?.();
        }
      });
    };
    const pause = button("plain", () => change({ paused: !this.room?.paused }));
    const slow = make("select", "input", { id: "slow" });
    slow.onchange = () => change({ slow_mode: Number(slow.value) });
    const none = make("small", "no_bans"), list = make("ul", "bans", { "aria-labelledby": "bans" });
    const count = () => none.textContent = list.children.length ? "" : this.say("no_bans");
    const fields = [
      pause,
      make("div", "field", {}, make("label", "label", { for: "slow" }, this.say("slow_down")), slow),
      make("h4", "subheading", { id: "bans" }, this.say("bans")),
      none,
      list,
    ];
    const out = () => signOut(this.view.visitor);
    this.ask(this.say("room"), fields, { plain: [this.say("sign_out"), out] }, "", this.say("close"));
    this.showRoom = () => {
      const { paused, slow_mode: seconds = 0 } = this.room ?? {};
      pause.textContent = this.say(paused ? "resume" : "pause");
      for (const value of [...SLOW, seconds]) {
        if ([...slow.options].some((option) => option.value === String(value))) continue;
        slow.append(make("option", "", { value }, this.say(value ? "slow_seconds" : "slow_off", { seconds: value })));
      }
      if (!waiting) slow.value = seconds;
    };
    this.showRoom();
    const title = this.dialog.querySelector(".heading");
    title.tabIndex = -1;
    title.focus(); // a key that is still held down must change nothing
    this.attempt(async () => {
      if (!this.room || this.view.connection.state !== "online") this.room = await this.call("GET", "room");
      this.showRoom?.();
      const { bans } = await this.call("GET", "bans");
      list.replaceChildren(...bans.map((ban) => this.makeBan(ban, count)));
      count();
    });
  }

  /** One in the list of bans. `lifted`: what to do when it is gone. */
  makeBan({ username: name, until, address }, lifted) {
    const time = until ? this.say("until", { time: this.view.log.time(until) }) : this.say("for_good");
    const how = make("small", "", {}, address ? this.say("and_address", { time }) : time);
    const words = make("span", "", {}, make("bdi", "", {}, name), how);
    const lift = button("lift", () => this.attempt(async () => {
      await this.call("DELETE", `bans/${encodeURIComponent(name)}`);
      const next = entry.nextElementSibling ?? entry.previousElementSibling;
      entry.remove();
      lifted();
      (next?.querySelector("button") ?? this.dialog.querySelector("button")).focus();
    }), this.say("lift"));
    lift.ariaLabel = this.say("lift_of", { name });
    const entry = make("li", "banned", {}, words, lift);
    return entry;
  }

  /** A dialog: a heading, fields, and what can be done, by its class: [label, what to do]. `why`: what is wrong. */
  ask(heading, fields, choices, why = "", cancel = this.say("cancel")) {
    this.dress();
    const { root, host } = this.view, before = host.shadowRoot.activeElement, aiming = before?.closest(".tools");
    this.error = make("p", "error", { role: "alert" });
    const end = button("cancel", () => dialog.close(), cancel);
    const [[part, [label, act]]] = Object.entries(choices);
    const row = make("div", "choices", {}, end, make("button", part, {}, label));
    const title = make("h3", "heading", { id: "heading" }, heading);
    const form = make("form", "", { method: "dialog" }, title, ...fields, this.error, row);
    const dialog = this.dialog = make("dialog", "ask", { "aria-labelledby": "heading" }, form);
    form.onsubmit = (event) => {
      event.preventDefault();
      this.attempt(act, dialog);
    };
    dialog.onclose = () => {
      dialog.remove();
      if (this.dialog !== dialog) return; // another one has followed
      this.dialog = this.showRoom = null;
      if (before?.checkVisibility()) before.focus();
      else (aiming && this.aimed?.isConnected && this.aimed.querySelector(".tools button") || this.view.input).focus();
    };
    root.append(dialog);
    dialog.showModal();
    this.error.textContent = why;
  }

  /** One thing after the other. `last`: the dialog that it closes. What is refused is said in the dialog. */
  attempt(act, last) {
    const { dialog, error } = this;
    this.turn = this.turn.then(async () => {
      if (!dialog.open) return; // pressed twice
      error.textContent = "";
      dialog.ariaBusy = "true";
      try {
        const news = await act();
        last?.close(); // first, because nothing below a dialog is read out
        if (news) this.tell(news);
      } catch (refusal) {
        if (refusal.status === 401 && all.has(this)) this.lose();
        else if (dialog.open) error.textContent = refusal.message;
        else this.tell(refusal.message);
      } finally {
        dialog.ariaBusy = null;
      }
    });
  }

  /** Above the messages, for a while. */
  tell(news) {
    const { view } = this;
    view.tell(news);
    setTimeout(() => view.status.textContent === news && view.tell(""), NEWS);
  }
}
