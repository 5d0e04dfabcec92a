/*
 * The chat widget: a button in a page's corner, or its <portfolio-chat> elements. Nothing becomes HTML.
 * Connection and Posts are app/client/client.py and app/client/pending_posts.py again.
 */
(() => {
"use strict";
if (customElements.get("portfolio-chat")) return;

const SCRIPT = document.currentScript;

const FIRST_DELAY = 0.5, MAX_DELAY = 30, FULL_DELAY = 5, FIRST_TIMEOUT = 20, PROBE_TIMEOUT = 3; // seconds
const WINDOW = 16; // sent posts without an answer
const MAX_SHOWN = 500;
const PHONE = "(width < 480px)";

// Attributes and `PortfolioChat.strings` replace them, and refusals by their codes.
const STRINGS = {
  __proto__: null,
  title: "Chat",
  greeting: "Pick a name and say hello. Everybody can read what you write.",
  open_chat: "Open chat",
  close_chat: "Close chat",
  unread: "{count} unread",
  here: "{count} here",
  owner_here: "The owner is here",
  owner_away: "The owner usually answers later",
  your_name: "Your name",
  join: "Join",
  sign_in: "Sign in as owner",
  as_name: "as {name} (change)",
  messages: "Messages",
  empty: "Nobody has written yet. Say hello!",
  write: "Write a message",
  send: "Send",
  you: "You",
  owner: "owner",
  user_joined: "{name} joined",
  user_left: "{name} left",
  news: "New messages: {count}",
  remaining: "{count} left",
  excess: "{count} too many",
  sending: "Sending…",
  failed: "Not sent",
  retry: "Retry",
  edit: "Edit",
  connecting: "Connecting…",
  offline: "You are offline. What you write is sent later.",
  lost: "The connection is lost. Trying again in {seconds} s.",
  restarting: "The server restarts. Trying again in {seconds} s.",
  server_full: "The room is full. Trying again in {seconds} s.",
  ended: "The connection was ended.",
  flood: "The connection was ended: too much at once.",
  banned: "You are banned from this chat.",
  invalid_username: "A name has up to 50 of A-Z, a-z, 0-9, - and _.",
  rate_limited: "That was too fast. Trying again in {seconds} s.",
  slow: "Slow mode: a message every {seconds} s.",
  paused: "Only the owner can write now.",
  slow_mode: "Slow mode. Trying again in {seconds} s.",
  unavailable: "Nothing can be sent or received for now.",
};

const STYLE = `
:host { display: block; height: 32rem; color-scheme: light dark }
:host([corner]), dialog { position: fixed; inset-block: auto 20px; inset-inline: auto 20px }
:host([corner]) { height: auto; z-index: 2147483000 }
:host([hidden]), [hidden] { display: none !important }
* { box-sizing: border-box; margin: 0 }
.root {
  all: initial; display: block; color-scheme: inherit; font: medium/1.45 var(--chat-font, system-ui, sans-serif); overflow-wrap: anywhere;
  --accent: var(--chat-accent, #4f46e5); --surface: var(--chat-surface, light-dark(#fff, #17171c)); --soft: var(--chat-soft, light-dark(#f1f1f5, #27272f));
  --text: var(--chat-text, light-dark(#112, #eef)); --quiet: var(--chat-quiet, light-dark(#556, #aab)); --line: var(--chat-line, light-dark(#dde, #334));
  --alarm: light-dark(#b22, #fba); height: 100%; color: var(--text);
  /* Black or white: y is luminance. */
  --on-accent: color(from var(--accent) xyz-d65 calc((.179 - y) * 9999) calc((.179 - y) * 9999) calc((.179 - y) * 9999));
}
button, input, textarea { font: inherit; color: inherit; border: 0; border-radius: 20px }
button { padding: .125em .5em; background: none; cursor: pointer }
button:hover { text-decoration: underline }
svg { display: block; width: 1.4em; fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round }
.button, .go, .own .bubble, .owner { background: var(--accent); color: var(--on-accent) }
.button { padding: 1em; border-radius: 50%; box-shadow: 0 4px 16px #0003 }
.badge { position: absolute; inset: -4px -4px auto auto; background: var(--alarm); color: var(--surface) }
dialog[open], section, .join, .message { display: flex; flex-direction: column }
.panel { padding: 0; overflow: hidden; border: 1px solid var(--line); border-radius: var(--chat-radius, 16px); background: var(--surface); color: inherit }
section { height: 100% }
dialog { width: 384px; height: 620px; max-height: calc(100dvh - 40px); box-shadow: 0 12px 40px #0003 }
.header, .send, .under, .meta { display: flex; align-items: center; gap: .5em }
.header { min-height: 3.5em; padding-inline: 1em; border-block-end: 1px solid var(--line) }
.titles, .log, .join, textarea { flex: 1; min-width: 0 }
small { display: block; text-align: match-parent }
.title { font-size: 1em }
.title, .me { overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.badge, .meta, .new, .status, .under, label, .error, small { font-size: .8125em }
.time, .under, .close, .log:empty, small { color: var(--quiet); unicode-bidi: plaintext }
.count:not(:empty)::before { content: "● "; color: #295 }
.status:not(:empty) { padding: .5em 1em; background: var(--soft) }
.action { text-decoration: underline; white-space: nowrap }
.log { overflow: hidden auto; overscroll-behavior: contain; padding: .25em 1em 1em; outline-offset: -3px }
.log:empty { display: grid; place-items: center }
.log:empty::before { content: attr(data-empty) }
.message { align-items: start; margin-block-start: .75em; padding-inline-end: 2em }
.own { align-items: end; padding-inline: 2em 0 }
.follows { margin-block-start: .25em }
.meta { padding: 0 .75em .125em }
.own .meta, .follows .meta { position: absolute; clip-path: inset(50%) }
.name { font-weight: 600; color: oklch(from var(--quiet) l .12 var(--hue)) }
.badge, .owner { padding: 0 .5em; border-radius: 1em }
.bubble { display: flex; flex-wrap: wrap; column-gap: .5em; max-width: 100%; padding: .5em .75em; border-radius: 14px; background: var(--soft); font-size: .95em }
.failed .bubble { outline: 2px solid var(--alarm) }
.text { min-width: 0; white-space: pre-wrap }
a, .own .time { color: inherit }
.time { margin-inline-start: auto; align-self: end; font-size: .8em }
.failed .state, .over, .error { color: var(--alarm) }
.note { margin-block-start: .75em; text-align: center }
.state { margin-block-start: .5em }
.foot { position: relative; padding: .75em; border-block-start: 1px solid var(--line) }
.new { position: absolute; inset: auto 0 calc(100% + .75em); width: fit-content; margin: auto; padding: .5em 1em; background: var(--text); color: var(--surface) }
.send { align-items: end }
.input { padding: .5em 1em; border: 1px solid var(--quiet); background: var(--surface); resize: none; field-sizing: content; max-height: 8em }
.go, .close { padding: .55em }
:disabled, [readonly] { opacity: .5 }
.rule:not(:empty) { padding: .5em }
.join { overflow: auto; gap: .5em; padding: 1.5em }
.greeting { margin-block: auto 1em; text-align: center }
.error { min-height: 3em; margin-block-end: auto }
@media ${PHONE} {
  dialog { inset: var(--top) 0 auto; width: 100%; max-width: 100%; height: var(--height); max-height: none; border: 0; border-radius: 0 }
}
`;

function make(tag, part, attributes = {}, ...children) {
  const element = /svg|path/.test(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries({ class: part, part, ...attributes })) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function button(part, act, ...children) {
  const element = make("button", part, { type: "button" }, ...children);
  element.onclick = act;
  return element;
}

const icon = (d) => make("svg", "icon", { viewBox: "0 0 24 24" }, make("path", "", { d }));

/** A number, whatever a frame holds. */
const number = (value, otherwise) => value > 0 && value < 1e11 ? value : otherwise;

function linked(text) {
  return text.split(/(https?:\/\/[^\s<>"]*[^\s<>".,:;!?')\]])/i).map((part, index) =>
    index % 2 && URL.canParse(part) ? make("a", "link", { href: part, target: "_blank", rel: "noopener noreferrer nofollow" }, part) : part);
}

/** A name and its token, for all widgets of a server. */
class Visitor extends EventTarget {
  static known = {};

  constructor(server) {
    super();
    const key = this.key = `portfolio-chat ${server}`;
    try {
      this.owner = server === origin && sessionStorage[key]; // owner.js put it there
      this.take(localStorage[key]);
    } catch { /* no storage here */ }
  }

  take(stored) {
    if (!stored || stored === this.stored) return;
    Object.assign(this, JSON.parse(stored), { stored });
    this.dispatchEvent(new Event("change"));
  }

  keep(name, token) {
    this.take(JSON.stringify({ name, token }));
    try {
      localStorage[this.key] = this.stored;
    } catch { /* no storage here */ }
  }
}

/** Own posts without an answer, and which may be sent now. */
class Posts {
  texts = new Map(); // by nonce

  constructor(send) {
    this.send = send;
    this.hold();
  }

  add(nonce, text) {
    this.texts.set(nonce, text);
    this.flush();
  }

  hold(window = 0) {
    clearTimeout(this.timer);
    this.timer = 0;
    this.sent = new Set();
    this.window = window;
    this.flush();
  }

  flush() {
    for (const [nonce, content] of this.texts) {
      if (this.timer || this.sent.size >= this.window) return;
      if (this.sent.has(nonce)) continue;
      this.sent.add(nonce);
      this.send({ type: "message", content, nonce });
    }
  }

  acknowledge(nonce) {
    if (!this.texts.delete(nonce)) return;
    if (this.sent.delete(nonce)) this.window = Math.min(this.window + 1, WINDOW);
    this.flush();
  }

  postpone(seconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.hold(1), 1000 * seconds);
  }
}

/** Stays in the room until the close code says not to. Tells `on`. */
class Connection {
  posts = new Posts((frame) => this.send(frame));
  attempt = 0;

  constructor(server, visitor, on) {
    Object.assign(this, { server, visitor, on });
  }

  /** `wish`: another name, once the server agrees. */
  start(wish = this.wish) {
    this.leave();
    this.wish = wish;
    this.name = wish ?? this.visitor.name;
    const url = new URL("ws/chat", this.server);
    url.search = new URLSearchParams({ username: this.name, ...this.epoch && { epoch: this.epoch, since: this.seq } });
    const { token } = this.visitor; // a ban may follow it
    this.enter("connecting");
    this.watch(this.timeout = FIRST_TIMEOUT);
    try {
      const socket = this.socket = new WebSocket(url, token ? ["chat.v1", `bearer.${token}`] : "chat.v1");
      socket.onmessage = ({ data }) => this.hear(data);
      socket.onclose = ({ code }) => this.end(code);
    } catch {
      this.end(1006); // https pages may not open http rooms
    }
  }

  /** Does not wait for the server's answer. */
  leave(state = "ended") {
    clearTimeout(this.timer);
    clearTimeout(this.watchdog);
    this.posts.hold();
    if (this.socket) this.socket.onmessage = this.socket.onclose = null;
    this.socket?.close(1000);
    this.socket = this.refusal = null;
    this.state = state;
  }

  /** For a page that was left, and that the browser may keep. */
  suspend() {
    if (/ing|online/.test(this.state)) this.leave("suspended");
  }

  resume() {
    if (this.state === "suspended") this.start();
  }

  /** The tab or the network woke. */
  wake() {
    if (this.state === "waiting" && !this.full) this.start();
    this.send({ type: "ping" });
    if (this.state === "online") this.watch(Math.min(PROBE_TIMEOUT, this.timeout));
  }

  end(code) {
    const { refusal } = this;
    this.leave();
    if (/^(100[089]|4[5-9]..)$/.test(code)) {
      this.wish = null;
      return this.enter("ended", code, refusal);
    }
    this.full = code === 1013;
    // Full jitter: not all at once.
    const seconds = Math.random() * Math.min(MAX_DELAY, FIRST_DELAY * 2 ** this.attempt++)
      + number(refusal?.data.retry_after, this.full ? FULL_DELAY : 0);
    this.timer = setTimeout(() => this.start(), 1000 * seconds);
    this.enter("waiting", code, refusal, Math.ceil(seconds));
  }

  enter(state, ...why) {
    this.state = state;
    this.on.show(state, ...why);
  }

  watch(seconds = this.timeout) {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => this.end(1006), 1000 * seconds);
  }

  send(frame) {
    if (this.socket?.readyState === 1) this.socket.send(JSON.stringify(frame));
  }

  hear(text) {
    this.watch();
    try {
      const frame = JSON.parse(text);
      const { type, data } = frame;
      if (type === "ping") this.send({ type: "pong" });
      if (type === "history" && !frame.recovered) this.epoch = this.seq = null; // until the session tells
      if (/^(history|message|hidden)$/.test(type)) [data].flat().forEach((message) => this.count(message));
      if (type === "session") this.begin(data);
      this.refusal = null; // only the last frame ends the connection
      if (type === "error") this.refuse(frame);
      else this.on[`on_${type}`]?.(frame);
    } catch (error) {
      console.warn("Not a chat frame:", error);
    }
  }

  begin({ username: name, token, epoch, seq, heartbeat_interval: beat }) {
    Object.assign(this, { wish: null, name, epoch, seq, attempt: 0 });
    this.watch(this.timeout = 2 * number(beat, FIRST_TIMEOUT));
    this.visitor.keep(name, token);
    this.enter("online");
    this.posts.hold(WINDOW);
  }

  /** Old messages come again where an answer was lost. */
  count({ nonce, seq }) {
    if (seq > this.seq) this.seq = seq;
    this.posts.acknowledge(nonce); // under any name: nobody else knows it
  }

  refuse(frame) {
    const { nonce, code, retry_after } = frame.data;
    const text = this.posts.texts.get(nonce);
    const seconds = /^(unavailable|rate_limited|slow_mode)$/.test(code) ? number(retry_after, 1) : 0;
    if (!text) this.refusal = frame;
    else if (seconds) this.posts.postpone(seconds);
    else this.posts.acknowledge(nonce);
    this.on.on_error(frame, text, seconds);
  }
}

/** Messages, and below them own posts without an answer. */
class Log {
  messages = new Map();
  posts = new Map();
  stuck = true; // to the end, unless the reader scrolled up

  constructor(view) {
    this.view = view;
    const log = this.element = make("div", "log", { role: "log", tabindex: 0, "aria-label": view.say("messages"), "data-empty": view.say("empty") });
    log.onscroll = () => {
      this.stuck = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      view.see();
    };
    new ResizeObserver(() => this.follow(this.stuck)).observe(log);
  }

  follow(stuck) {
    this.stuck = stuck;
    if (stuck) this.element.scrollTop = this.element.scrollHeight;
  }

  /** History is no news to screen readers. */
  quiet() {
    this.element.ariaLive = "off";
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.element.ariaLive = "polite", 1000);
  }

  clear() {
    this.element.replaceChildren(...this.posts.values());
    this.messages = new Map();
  }

  hide(id) {
    this.messages.get(id)?.remove();
    this.messages.delete(id);
    this.group();
  }

  post(nonce, data, state, ...why) {
    const element = this.render(data, true, this.view.say(state));
    element.classList.add("waiting", state);
    element.append(make("small", "state", {}, ...why));
    const end = this.posts.get(nonce)?.nextSibling ?? null;
    this.drop(nonce);
    this.posts.set(nonce, element);
    this.insert(element, end);
  }

  drop(nonce) {
    this.posts.get(nonce)?.remove();
    this.posts.delete(nonce);
  }

  add(data, own) {
    this.drop(data.nonce);
    if (this.messages.has(data.id)) return false;
    const element = this.render(data, own);
    this.messages.set(data.id, element);
    this.insert(element);
    if (this.messages.size > MAX_SHOWN) this.hide(this.messages.keys().next().value);
    return true;
  }

  note(text) {
    this.insert(make("small", "note", { "aria-live": "off" }, text));
  }

  insert(element, end = this.element.querySelector(".waiting")) {
    this.element.insertBefore(element, end);
    this.group();
    this.follow(this.stuck);
  }

  /** Who goes on writing is not named again. */
  group() {
    let before = {};
    for (const { classList, data = {} } of this.element.children) {
      classList.toggle("follows", data.username === before.username && data.timestamp - before.timestamp < 300);
      before = data;
    }
  }

  render(data, own, time = this.time(data.timestamp)) {
    const { username, role, text, content } = data;
    const meta = make("div", "meta", {}, make("bdi", "name", {}, own ? this.view.say("you") : username));
    if (role === "owner") meta.append(make("span", "owner", {}, this.view.say("owner")));
    const words = make("div", "text", { dir: "auto" }, ...linked(String(text ?? content)));
    const bubble = make("div", "bubble", {}, words, make("span", "time", {}, time));
    const element = make("div", own ? "message own" : "message", own ? { "aria-live": "off" } : {}, meta, bubble);
    element.data = data;
    element.style.setProperty("--hue", 47 * parseInt(username, 36) % 360);
    return element;
  }

  time(timestamp) {
    const when = new Date(1000 * number(timestamp, 0));
    try {
      const today = when.toDateString() === new Date().toDateString();
      return when.toLocaleString(this.view.host.closest("[lang]").lang, today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" });
    } catch {
      return when.toLocaleString(); // the page's language is none
    }
  }
}

class View {
  unread = new Set();

  constructor(host) {
    this.host = host;
    this.corner = host.hasAttribute("corner");
    const server = new URL(host.getAttribute("server") ?? SCRIPT?.src ?? "", document.baseURI);
    this.visitor = Visitor.known[server.origin] ??= new Visitor(server.origin);
    this.connection = new Connection(server, this.visitor, this);
    this.log = new Log(this);
    this.build();
  }

  say(key, values = {}) {
    const text = this.host.getAttribute(key) ?? window.PortfolioChat?.strings?.[key] ?? STRINGS[key] ?? "";
    return text.replace(/{(\w+)}/g, (_, name) => values[name]);
  }

  build() {
    this.root = make("div", "root", {}, this.makePanel());
    this.badge = make("span", "badge", { hidden: "" });
    this.button = button("button", () => this.host.open = true, icon("M4 5h16v11H9l-5 4Z"), this.badge);
    if (this.corner) this.root.prepend(this.button);
    // Keys typed here are not for the page.
    this.root.onkeydown = this.root.onkeyup = (event) => event.stopPropagation();
    const shadow = this.host.attachShadow({ mode: "open" });
    shadow.append(this.root);
    const sheet = new CSSStyleSheet(); // which CSP lets pass
    sheet.replaceSync(STYLE);
    shadow.adoptedStyleSheets = [sheet];
    this.root.style.setProperty("--chat-accent", this.host.getAttribute("accent"));
    this.askName(!this.visitor.name);
  }

  makePanel() {
    const title = this.say("title");
    this.status = make("div", "status", { role: "status" });
    // Else the host's title would show.
    this.panel = make(this.corner ? "dialog" : "section", "panel", { "aria-label": title, title: "" });
    this.people = make("small", "count");
    this.presence = make("small", "presence");
    this.header = make("div", "header", {}, make("div", "titles", {}, make("h2", "title", {}, title), this.presence), this.people);
    this.panel.append(this.header, this.status, this.makeJoin(), this.log.element, this.makeFoot());
    if (!this.corner) return this.panel;
    const close = button("close", () => this.host.open = false, icon("m6 6 12 12M18 6 6 18"));
    close.ariaLabel = this.say("close_chat");
    this.header.append(close);
    this.panel.onkeydown = ({ key, isComposing }) => {
      if (key === "Escape" && !isComposing) close.click();
    };
    this.panel.oncancel = () => close.click();
    return this.panel;
  }

  makeJoin() {
    this.name = make("input", "input", { id: "name", autocomplete: "nickname", maxlength: 50, "aria-describedby": "error" });
    this.error = make("p", "error", { id: "error", role: "alert" });
    this.join = make("form", "join", {},
      make("p", "greeting", {}, this.say("greeting")),
      make("label", "label", { for: "name" }, this.say("your_name")),
      this.name, make("button", "go", {}, this.say("join")), this.error);
    this.join.onsubmit = (event) => this.pickName(event);
    if (this.connection.server.origin === origin) this.join.append(button("under", () => this.signIn(), this.say("sign_in")));
    return this.join;
  }

  makeFoot() {
    this.news = button("new", () => {
      this.log.follow(true);
      this.see();
      this.input.focus();
    });
    this.input = make("textarea", "input", { rows: 1, enterkeyhint: "send", dir: "auto", placeholder: this.say("write") });
    this.input.oninput = () => this.measure();
    this.input.onkeydown = (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) this.post(event);
    };
    this.sending = button("go", (event) => this.post(event), icon("M12 19V5m-6 6 6-6 6 6"));
    this.sending.ariaLabel = this.say("send");
    this.me = button("me", () => this.askName(true));
    this.counter = make("span", "counter", { role: "status" });
    this.rule = make("small", "rule", { role: "status" });
    return this.foot = make("div", "foot", {}, this.news, this.rule,
      make("div", "send", {}, this.input, this.sending),
      make("div", "under", {}, this.me, this.counter));
  }

  connect() {
    const { signal } = this.listening = new AbortController();
    const listen = (target, type, act) => target.addEventListener(type, act, { signal });
    listen(window, "online", () => this.connection.wake());
    listen(window, "offline", () => this.connection.wake());
    listen(window, "pagehide", () => this.connection.suspend());
    listen(window, "pageshow", () => this.connection.resume());
    listen(document, "freeze", () => this.connection.suspend());
    listen(document, "resume", () => this.connection.resume());
    listen(document, "visibilitychange", () => document.hidden || this.see() || this.connection.wake());
    listen(window, "storage", ({ key, newValue }) => key === this.visitor.key && this.visitor.take(newValue));
    listen(this.visitor, "change", () => this.follow());
    listen(visualViewport, "resize", () => this.fit());
    listen(visualViewport, "scroll", () => this.fit());
    if (this.visitor.owner) this.signIn();
    else if (this.visitor.name) this.connection.start();
    this.toggle(this.host.open);
    this.see();
  }

  disconnect() {
    this.listening.abort();
    this.connection.leave();
    this.unread.clear();
    this.see();
  }

  /** On the chat's own origin: other pages could read the token. */
  signIn() {
    import(new URL("owner.js", this.connection.server)).then(
      ({ signIn }) => signIn(this, make, button, STRINGS), () => {
        if (!this.connection.state && this.visitor.name) this.connection.start();
        this.tell(this.say("unavailable"));
      });
  }

  /** Another widget or tab has a name now, or an owner. */
  follow() {
    const { state, name, wish } = this.connection;
    if (this.visitor.owner) this.signIn();
    else if (!wish && (state === "ended" && !this.join.hidden || name !== this.visitor.name)) this.connection.start();
  }

  toggle(open, focus) {
    if (!this.corner || open === this.panel.open) return;
    this.button.hidden = open;
    if (!open) this.panel.close();
    else if (matchMedia(PHONE).matches) this.panel.showModal();
    else this.panel.open = true; // show() would move the focus
    this.fit();
    this.see();
    if (focus) this.focus(open);
    this.emit("open", { open });
  }

  focus(open) {
    (open ? this.join.hidden ? this.input : this.name : this.button).focus();
  }

  /** Leaves room for the keyboard. */
  fit() {
    const { height, offsetTop, scale } = visualViewport;
    if (scale > 1.01) return; // pinched, not covered
    this.panel.style.setProperty("--height", `${height}px`);
    this.panel.style.setProperty("--top", `${offsetTop}px`);
  }

  see() {
    if ((!this.corner || this.panel.open) && !document.hidden && this.log.stuck) this.unread.clear();
    const count = [...this.unread].filter((id) => this.log.messages.has(id)).length;
    this.news.hidden = !count || this.log.stuck;
    if (count === this.shown) return;
    if (count || this.shown) document.title = (count ? `(${count}) ` : "") + document.title.replace(/^\(\d+\) /, "");
    this.shown = count;
    this.news.textContent = this.say("news", { count });
    this.badge.hidden = !count;
    this.badge.textContent = count;
    this.button.ariaLabel = this.say("open_chat") + (count ? `, ${this.say("unread", { count })}` : "");
  }

  askName(asked, why = "") {
    const focused = this.host.shadowRoot?.activeElement, moved = asked === this.join.hidden;
    this.join.hidden = !asked;
    this.log.element.hidden = this.foot.hidden = asked;
    this.error.textContent = why;
    this.name.ariaInvalid = !!why;
    if (moved) this.name.value = this.connection.name ?? "";
    if (focused && (moved || why)) this.focus(true);
  }

  pickName(event) {
    event.preventDefault();
    const name = this.name.value.trim().replace(/\s+/g, "-");
    if (!/^[\w-]{1,50}$/.test(name)) return this.askName(true, this.say("invalid_username"));
    const same = name === this.visitor.name;
    if (same && this.connection.state === "online") return this.askName(false);
    this.who = "";
    this.giveUp(this.say("ended"));
    this.connection.start(same ? null : name);
  }

  on_session({ data }) {
    const { username: name } = data;
    this.limit = number(data.max_message_length, Infinity);
    this.me.textContent = this.say("as_name", { name });
    if (name !== this.who) this.askName(false); // one may be typing in it
    this.who = name;
    this.on_room({ data });
  }

  on_room({ data: { paused, slow_mode: seconds, owner_online } }) {
    const { posts } = this.connection;
    if (posts.timer) posts.hold(1);
    this.presence.textContent = this.say(owner_online ? "owner_here" : "owner_away");
    this.rule.textContent = paused ? this.say("paused") : seconds > 0 ? this.say("slow", { seconds }) : "";
    this.input.readOnly = paused && !this.visitor.owner;
    this.measure();
  }

  measure() {
    const { input, limit = Infinity, counter } = this;
    const left = limit - [...input.value].length, near = left <= Math.min(100, limit / 5);
    counter.textContent = near ? this.say(left < 0 ? "excess" : "remaining", { count: Math.abs(left) }) : "";
    counter.classList.toggle("over", left < 0);
    this.sending.disabled = left < 0 || input.readOnly || !input.value.trim();
  }

  write(text) {
    this.input.value = text;
    this.measure();
    this.input.focus();
  }

  post(event) {
    event.preventDefault();
    if (this.sending.disabled) return;
    // Not every page has crypto.randomUUID.
    this.send(crypto.getRandomValues(new Uint32Array(4)).join("-"), this.input.value);
    this.write("");
  }

  /** Also again: a nonce is stored once. */
  send(nonce, text) {
    this.showPost(nonce, text, "sending");
    this.connection.posts.add(nonce, text);
    this.log.follow(true);
    this.input.focus();
    if (this.connection.state === "ended") this.connection.start();
  }

  showPost(nonce, text, state, ...why) {
    this.log.post(nonce, { username: this.connection.name, text, timestamp: Date.now() / 1000 }, state, ...why);
  }

  fail(nonce, text, why) {
    const retry = button("action", () => this.send(nonce, text), this.say("retry"));
    const edit = button("action", () => {
      this.log.drop(nonce);
      this.write(text);
    }, this.say("edit"));
    this.showPost(nonce, text, "failed", why, retry, edit);
  }

  giveUp(why) {
    const { texts } = this.connection.posts;
    texts.forEach((text, nonce) => this.fail(nonce, text, why));
    texts.clear();
  }

  on_history({ data: frame, recovered, hidden = [] }) {
    const known = this.visited && this.log.messages;
    this.visited = true;
    this.log.quiet();
    if (!recovered) this.log.clear();
    hidden.forEach((id) => this.log.hide(id));
    for (const data of frame.slice(-MAX_SHOWN)) this.on_message({ data }, known?.has(data.id) === false);
    this.see();
  }

  on_message({ data }, news = true) {
    const own = data.username === this.connection.name;
    if (!this.log.add(data, own) || !news) return;
    this.tell("");
    if (!own) this.unread.add(data.id);
    this.see();
    this.emit("message", { ...data, text: data.text ?? data.content, own });
  }

  on_hidden({ data: { id, nonce } }) {
    this.log.hide(id);
    this.log.drop(nonce);
    this.see();
  }

  on_user_count({ data }) {
    this.people.textContent = this.say("here", data);
  }

  on_system({ data: { event, user: name } }) {
    if (event in STRINGS) this.log.note(this.say(event, { name }));
  }

  /** `text`: the refused post, `seconds`: until it goes again. */
  on_error({ message, data: { code, nonce, retry_after } }, text, seconds) {
    const why = this.say(code, { seconds: Math.ceil(seconds || retry_after) }) || String(message);
    if (!text) this.tell(why);
    else if (seconds) this.showPost(nonce, text, "sending", why);
    else this.fail(nonce, text, why);
  }

  show(state, code, refusal, seconds) {
    const known = { 1012: "restarting", 1013: "server_full", 4500: "banned", 4501: "flood" };
    const key = refusal?.data.code ?? known[code] ?? (state === "ended" ? state : navigator.onLine ? "lost" : "offline");
    const why = this.say(key, { seconds }) || String(refusal?.message ?? "");
    clearTimeout(this.timer);
    if (state === "online") this.tell("");
    else if (state === "connecting") this.timer = setTimeout(() => this.tell(this.say("connecting")), 600);
    else this.tell(why);
    if (state === "ended") this.on_room({ data: {} });
    if (state !== "online") this.people.textContent = this.presence.textContent = "";
    this.emit("status", { status: state, text: this.status.textContent });
    if (state !== "ended") return;
    this.giveUp(why);
    if (!/username/.test(key)) return;
    this.tell("");
    this.askName(true, why);
  }

  tell(text) {
    this.status.textContent = text;
  }

  emit(type, detail) {
    this.host.dispatchEvent(new CustomEvent(`chat:${type}`, { detail, bubbles: true, composed: true }));
  }
}

customElements.define("portfolio-chat", class extends HTMLElement {
  static observedAttributes = ["open"];

  get open() {
    return this.hasAttribute("open");
  }

  set open(open) {
    this.toggleAttribute("open", open);
  }

  connectedCallback() {
    const { open } = this; // set before this file came
    delete this.open;
    this.open = open;
    this.view ??= new View(this);
    this.view.connect();
  }

  disconnectedCallback() {
    this.view.disconnect();
  }

  attributeChangedCallback() {
    this.view?.toggle(this.open, true);
  }
});

function addButton() {
  if (!document.querySelector("portfolio-chat")) document.body.append(make("portfolio-chat", "", { corner: "" }));
}

if (document.readyState === "loading") addEventListener("DOMContentLoaded", addButton);
else addButton();
})();
