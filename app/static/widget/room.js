/*
 * The room of one server, as this page knows it: what was said, who one is, what is under way, what was read. All chats
 * of a page that show the same room share it, and its one connection.
 */
import { Connection } from "./connection.js";
import { number } from "./elements.js";
import { PendingPosts } from "./posts.js";
import { load, save } from "./storage.js";

export const MAX_SHOWN = 500; // messages that are kept on the page
const LOOK = 15_000; // milliseconds between two looks at a room that one has not joined
const TIMEOUT = 10_000; // milliseconds for an answer over HTTP
const FINAL = /^(blocked_content|empty_message|message_too_long|nonce_reused)$/; // the same text can never pass
const TOKEN = /^[\w.~-]+$/; // what a subprotocol may hold
const LATER = /^(rate_limited|slow_mode|unavailable)$/;

const REASONS = { 1012: "restarting", 1013: "server_full", 4500: "banned", 4501: "flood" }; // by close codes

const rooms = new Map();

/** Who one was: `name`, `token`, `author`. */
function loadVisitor(key) {
  const { name, token, author } = load("localStorage", key);
  return /^[\w-]{1,50}$/.test(name ?? "") && TOKEN.test(token) ? { name: String(name), token, author } : {};
}

/** An error frame as a reason, which `Panel.explain` puts into words. */
function refused({ message, data }) {
  return { code: String(data.code), message: String(message), seconds: number(data.retry_after, undefined) };
}

/** What the server refused over HTTP. `key`: of the sentence for it; else `message` is the sentence. */
export class Refusal extends Error {
  constructor({ key, message, status, seconds }) {
    super(message);
    Object.assign(this, { key, status, seconds });
  }
}

export class Room {
  /** The one room of this page for a server. `key`: of what is kept in the browser. */
  static of(server, key) {
    if (!rooms.has(key)) rooms.set(key, new Room(server, key));
    return rooms.get(key);
  }

  listeners = new Set(); // of `onHistory`, `onMessage`, `onDeleted`, `onPost`, `onNote`, `onRoom`, `onIdentity`, …
  messages = new Map(); // by id, in the order of `seq`: what the server said of each
  rules = {}; // paused, slow_mode, owner_online, users; empty while none are known
  epoch = null;
  seq = 0;

  constructor(server, key) {
    Object.assign(this, { server, key });
    this.visitor = loadVisitor(key);
    this.read = load("localStorage", `${key} read`); // epoch, seq
    this.restoreOwner();
    this.posts = new PendingPosts(`${key} page`, {
      send: (frame) => this.connection.send(frame),
      onPost: (nonce) => this.emit("onPost", nonce),
    });
    this.connection = new Connection(server, this);
    const { connection } = this;
    addEventListener("online", () => connection.wake());
    addEventListener("offline", () => connection.wake());
    addEventListener("pagehide", () => connection.suspend());
    addEventListener("pageshow", () => this.return());
    document.addEventListener("freeze", () => connection.suspend());
    document.addEventListener("resume", () => this.return());
    document.addEventListener("visibilitychange", () => document.hidden || (connection.wake(), this.look()));
    addEventListener("storage", (event) => this.follow(event));
  }

  emit(event, ...values) {
    for (const listener of [...this.listeners]) listener[event]?.(...values);
  }

  /* Who one is */

  get name() {
    return this.owner ? "owner" : this.wish ?? this.visitor.name;
  }

  get isOnline() {
    return this.connection.state === "online";
  }

  isOwn({ role, author }) {
    return this.owner ? role === "owner" : role !== "owner" && author !== undefined && author === this.visitor.author;
  }

  credentials() {
    return { name: this.name, token: this.owner ?? this.visitor.token };
  }

  /** Up to where everything is known. */
  place() {
    return this.epoch ? { epoch: this.epoch, since: this.seq } : {};
  }

  /** Takes a name. It is kept once the server agrees. */
  join(name) {
    if (this.visitor.name && name !== this.visitor.name) this.posts.failAll(); // they may be stored, under the other name
    this.wish = name;
    this.connection.start();
  }

  /** As the owner; null: as the visitor again. Only on pages of the server's own origin: others could read the token. */
  signIn(token) {
    this.posts.failAll();
    this.owner = token;
    save("sessionStorage", this.key, token && { token });
    this.connection.leave("");
    this.emit("onIdentity");
    this.enter();
  }

  restoreOwner() {
    const { token } = load("sessionStorage", this.key);
    this.owner = new URL(this.server).origin === origin && TOKEN.test(token ?? "") ? token : null;
  }

  /** Another tab has taken a name, or read something. */
  follow({ key, newValue }) {
    if (!newValue) return;
    if (key === `${this.key} read`) {
      this.read = load("localStorage", key);
      this.emit("onUnread");
    } else if (key === this.key) {
      const { name, author } = this.visitor;
      this.visitor = loadVisitor(key);
      if (this.owner || this.wish) return;
      if (author !== this.visitor.author) this.emit("onIdentity");
      if (name !== this.visitor.name || this.connection.state === "ended") this.connection.start();
    }
  }

  /* The connection */

  /** Joins, where one has a name and is not in the room yet. */
  enter() {
    if (this.name && ["", "left"].includes(this.connection.state)) this.connection.start();
    else this.look();
  }

  /** Somebody wants to be here, whatever ended the connection. */
  comeBack() {
    if (!this.isOnline && !/connecting|waiting/.test(this.connection.state)) this.connection.start();
  }

  leave() {
    if (!/ended/.test(this.connection.state)) this.connection.leave("left");
    this.posts.close();
  }

  /** The page is shown again. The owner may have signed out on another page of this tab. */
  return() {
    const { owner } = this;
    this.restoreOwner();
    if (owner !== this.owner) this.emit("onIdentity");
    this.connection.resume();
    this.look();
  }

  /** `code`, `refusal`, `seconds`: why the connection ended, and when it is tried again. */
  onState(state, code, refusal, seconds) {
    const key = REASONS[code] ?? (state === "ended" ? "ended" : navigator.onLine ? "lost" : "offline");
    const why = refusal ? { ...refused(refusal), ...seconds && { seconds } } : { code: key, seconds };
    if (state !== "online") this.posts.close();
    if (state === "waiting" && !this.epoch) this.explain();
    if (state === "ended") {
      this.wish = undefined;
      if (!why.code.includes("username")) this.posts.failAll(why); // else they wait for another name
    }
    this.emit("onState", state, this.why = why);
  }

  onJoined(history, session) {
    const { username, role, token, author } = session;
    const { author: before } = this.visitor;
    this.wish = undefined;
    this.ownName = username;
    this.limit = number(session.max_message_length, Infinity);
    if (role !== "owner") save("localStorage", this.key, this.visitor = { name: username, token, author });
    if (history.recovered) this.recover(history);
    else this.replace(history.data, session);
    Object.assign(this, { epoch: session.epoch, seq: session.seq });
    if (author !== before) this.emit("onIdentity");
    this.onRoom(session);
    this.posts.open(session.slow_mode > 0 && role !== "owner");
  }

  onFrame(frame) {
    const { type, data } = frame;
    if (type === "message") this.take(data);
    else if (type === "hidden") this.delete(data);
    else if (type === "room") this.onRoom(data);
    else if (type === "user_count") this.onRoom({ users: data.count });
    else if (type === "system") this.emit("onNote", data.event, data.user);
    else if (type === "error") this.onError(frame);
  }

  onRoom({ paused, slow_mode, owner_online, users }) {
    const before = this.rules;
    this.rules = users === undefined ? { ...before, paused, slow_mode, owner_online } : { ...before, users };
    if (before.slow_mode && !slow_mode && users === undefined) this.posts.hurry();
    this.emit("onRoom");
  }

  onError(frame) {
    const { nonce, code } = frame.data, why = refused(frame);
    if (!this.posts.posts.has(nonce)) this.emit("onRefusal", why);
    else if (LATER.test(code)) this.posts.postpone(nonce, why.seconds ?? 1, why);
    else this.posts.fail(nonce, why, FINAL.test(code));
  }

  /* What was said */

  /** Messages that came while away, in one piece. */
  recover({ data, hidden = [] }) {
    for (const id of hidden) this.delete({ id });
    const fresh = data.filter((message) => this.keep(message));
    if (fresh.length) this.emit("onHistory", fresh);
    this.emit("onUnread");
    for (const message of fresh) this.emit("onNews", message);
  }

  /** A history that does not go on from what is known. */
  replace(data, { epoch, seq }) {
    const known = this.epoch !== null && this.messages;
    this.messages = new Map();
    Object.assign(this, { epoch, seq });
    for (const message of data.slice(-MAX_SHOWN)) this.keep(message);
    if (this.read.epoch !== epoch) this.markRead(epoch, Math.max(0, ...data.map(({ seq }) => number(seq, 0))));
    this.emit("onHistory");
    this.emit("onUnread");
    if (known) for (const message of this.messages.values()) if (!known.has(message.id)) this.emit("onNews", message);
  }

  /** Keeps a message. Returns false where it is known. */
  keep(message) {
    if (this.messages.has(message.id)) {
      this.posts.acknowledge(message.nonce);
      return false;
    }
    this.messages.set(message.id, message);
    if (message.seq > this.seq) this.seq = message.seq;
    if (this.messages.size > MAX_SHOWN) this.messages.delete(this.messages.keys().next().value);
    this.posts.acknowledge(message.nonce);
    return true;
  }

  take(message) {
    if (!this.keep(message)) return;
    this.emit("onMessage", message);
    this.emit("onUnread");
    this.emit("onNews", message);
  }

  delete({ id, nonce }) {
    this.messages.delete(id);
    this.posts.acknowledge(nonce);
    this.emit("onDeleted", id);
    this.emit("onUnread");
  }

  /* What was read */

  get unread() {
    if (this.read.epoch !== this.epoch) return 0;
    return [...this.messages.values()].filter((message) => message.seq > this.read.seq && !this.isOwn(message)).length;
  }

  /** Everything up to here was seen, in this tab or another one. */
  markRead(epoch = this.epoch, seq = this.seq) {
    if (!epoch || this.read.epoch === epoch && this.read.seq >= seq) return;
    save("localStorage", `${this.key} read`, this.read = { epoch, seq });
    this.emit("onUnread");
  }

  /** Keeps something for the next page of this tab: the draft, and whether the chat is open. */
  remember(what) {
    save("sessionStorage", `${this.key} page`, { ...load("sessionStorage", `${this.key} page`), ...what });
  }

  /* Looking before one joins, and other requests */

  /** Asks what a newcomer would see, as long as the chat is open and one has not joined. */
  async look() {
    clearTimeout(this.looking);
    const shown = [...this.listeners].some(({ isShown }) => isShown);
    if (!shown || document.hidden || /connecting|online|waiting/.test(this.connection.state)) return;
    this.looking = setTimeout(() => this.look(), LOOK);
    try {
      const history = await this.call("GET", "history", undefined, null);
      if (/connecting|online/.test(this.connection.state)) return;
      const same = history.epoch === this.epoch && history.seq === this.seq && history.data.length === this.messages.size;
      if (!same || !history.data.every(({ id }) => this.messages.has(id))) this.replace(history.data, history);
      this.rules = { ...this.rules, users: history.active_users };
      this.onRoom(history);
      this.emit("onReachable", true);
    } catch {
      this.explain();
      this.emit("onReachable", false);
    }
  }

  /** Says in the console why nothing works, where it is that the server does not know this page. Visitors can't mend that. */
  async explain() {
    if (this.explained || new URL(this.server).origin === origin) return;
    this.explained = true;
    const ask = (options) => fetch(new URL("health", this.server), options).then(() => true, () => false);
    if (!await ask({}) && await ask({ mode: "no-cors" })) {
      console.error(`portfolio-chat: the chat server does not let this page in. Add ${origin} to its CORS_ORIGINS.`);
    }
  }

  /** A request to the server's API. Raises Refusal. `token`: null for none. */
  async call(method, path, body, token = this.owner ?? this.visitor.token) {
    const headers = { ...token && { Authorization: `Bearer ${token}` }, ...body && { "Content-Type": "application/json" } };
    const aborting = new AbortController(), timer = setTimeout(() => aborting.abort(), TIMEOUT);
    const careful = { credentials: "omit", redirect: "error", cache: token ? "no-store" : "default", signal: aborting.signal };
    let answer, data;
    try {
      answer = await fetch(new URL(`api/${path}`, this.server), { method, headers, body: body && JSON.stringify(body), ...careful });
      data = await answer.json().catch(() => null); // a proxy may answer with a page
    } catch {
      throw new Refusal({ key: "unreachable" });
    } finally {
      clearTimeout(timer);
    }
    const { status } = answer, seconds = Math.ceil(data?.error?.retry_after);
    if (answer.ok && data) return data;
    if (status === 401) throw new Refusal({ key: "wrong_token", status });
    if (status === 429 && seconds) throw new Refusal({ key: "too_often", status, seconds });
    throw new Refusal(data?.error?.message ? { message: data.error.message, status } : { key: "odd_answer", status });
  }
}
