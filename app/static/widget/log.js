/* What was said, as one reads it: messages, below them own posts without an answer, and between them quiet notes. */
import { button, make, number } from "./elements.js";
import { MAX_SHOWN } from "./room.js";
import { nodesOf } from "./text.js";

const PAUSE = 300; // seconds after which somebody who goes on writing is named again
const MAX_NOTES = 20; // joins and leaves that one line remembers
const SHOWN_NOTES = 3;

export class Log {
  rows = new Map(); // of messages, by id
  pending = new Map(); // rows of own posts, by nonce
  people = new Map(); // authors by the name that they share, in the order in which they came
  stuck = true; // to the end, unless the reader scrolled up
  actions = []; // functions of a message's data, which return [key, what to do] for its buttons

  constructor(panel) {
    Object.assign(this, { panel, room: panel.room, say: panel.say });
    const { say } = this;
    this.element = make("div", "log", { role: "log", tabindex: 0, "aria-label": say("messages"), "data-empty": say("empty") });
    this.element.onscroll = () => {
      if (!this.element.isConnected) return;
      this.top = this.element.scrollTop;
      this.stuck = this.element.scrollHeight - this.top - this.element.clientHeight < 40;
      panel.see();
    };
    this.element.addEventListener("key", (event) => this.move(event));
    this.element.addEventListener("focusin", ({ target }) => this.aim(target.closest(".message")));
    new ResizeObserver(() => this.scroll()).observe(this.element);
    this.time(Date.now() / 1000); // makes the format, which takes a while, before there are messages
  }

  /** To the end, or where it was. */
  scroll(stuck = this.stuck) {
    if (!this.element.isConnected) return;
    this.stuck = stuck;
    this.element.scrollTop = stuck ? this.element.scrollHeight : this.top;
  }

  /** History is no news to screen readers. */
  hush() {
    this.element.setAttribute("aria-live", "off");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.element.setAttribute("aria-live", "polite"), 1000);
  }

  /** Everything anew. */
  fill() {
    this.rows.clear();
    this.people.clear();
    this.divider = null;
    this.element.replaceChildren(...this.pending.values());
    this.append(this.room.messages.values());
    for (const nonce of this.room.posts.posts.keys()) this.showPost(nonce);
  }

  /** New messages, in one insert. */
  append(messages) {
    const fragment = document.createDocumentFragment();
    let before = this.lastRow();
    for (const data of messages) {
      if (data.seq > this.panel.since && !this.divider && !this.room.isOwn(data)) {
        before = this.divider = make("div", "since", { role: "separator" }, this.say("since"));
        fragment.append(before);
      }
      const row = this.render(data);
      this.rows.set(data.id, row);
      group(before, row);
      fragment.append(before = row);
    }
    this.element.insertBefore(fragment, this.firstPost());
    group(before, before?.nextSibling);
    this.prune();
    this.aimLast();
    this.scroll();
  }

  /** What was new has been seen. */
  clearSince() {
    this.divider?.remove();
    this.divider = null;
    this.panel.since = Infinity;
  }

  firstPost() {
    return this.pending.values().next().value ?? null;
  }

  lastRow() {
    const post = this.firstPost();
    return post ? post.previousSibling : this.element.lastChild;
  }

  prune() {
    for (const [id, row] of this.rows) {
      if (this.rows.size <= MAX_SHOWN) break;
      this.rows.delete(id);
      row.remove();
    }
    const [first] = this.rows.values();
    while (first && this.element.firstChild !== first) this.element.firstChild.remove(); // notes go with their messages
  }

  remove(id) {
    const row = this.rows.get(id);
    if (!row) return;
    const { previousSibling: before, nextSibling: after } = row;
    row.remove();
    this.rows.delete(id);
    group(before, after);
    this.aimLast();
  }

  /** An own post that was written, sent, refused, or is done. */
  showPost(nonce) {
    const old = this.pending.get(nonce), post = this.room.posts.posts.get(nonce);
    if (!post) {
      old?.remove();
      this.pending.delete(nonce);
      return;
    }
    const { text, time, failed, why, final } = post;
    const row = this.render({ text, timestamp: time, own: true }, this.say(failed ? "failed" : "sending"));
    row.classList.add("waiting", failed ? "failed" : "sending");
    if (why || failed) row.append(make("small", "state", {}, this.panel.explain(why ?? { code: "ended" })));
    if (failed) {
      if (!final) row.lastChild.append(button("action", () => this.panel.retry(nonce), this.say("retry")));
      row.lastChild.append(button("action", () => this.panel.edit(nonce), this.say("edit")));
    }
    this.pending.set(nonce, row);
    if (old) old.replaceWith(row);
    else this.element.append(row);
    group(row.previousSibling, row);
    this.scroll();
  }

  /** Who came and went, in one quiet line between two messages. */
  note(text) {
    let line = this.lastRow();
    if (!line?.notes) {
      line = make("small", "note", { "aria-live": "off" });
      line.notes = [];
      this.element.insertBefore(line, this.firstPost());
    }
    line.notes = [...line.notes, text].slice(-MAX_NOTES);
    line.textContent = (line.notes.length > SHOWN_NOTES ? "… " : "") + line.notes.slice(-SHOWN_NOTES).join(" · ");
    this.scroll();
  }

  render(data, time = this.time(data.timestamp)) {
    const { username, role, author, text, content } = data, own = data.own ?? this.room.isOwn(data), name = this.nameOf(data);
    const meta = make("div", "meta", {}, make("bdi", "name", {}, own ? this.say("you") : name));
    if (role === "owner") meta.append(make("span", "owner", {}, this.say("owner")));
    const words = make("div", "text", { dir: "auto" }, ...nodesOf(String(text ?? content), this.say));
    const row = make("div", own ? "message own" : "message", own ? { "aria-live": "off" } : {}, meta,
      make("div", "bubble", {}, words, make("span", "time", {}, time)));
    row.data = { ...data, own, who: own ? "" : String(author ?? username) };
    if (!own) row.style.setProperty("--hue", hueOf(row.data.who));
    if (data.id) this.equip(row);
    return row;
  }

  /** Somebody's name; "another ada" where it was somebody else's before. */
  nameOf({ username, role, author }) {
    const name = String(username), key = name.toLowerCase(), known = this.people.get(key) ?? [];
    if (role === "owner" || author === undefined) return name;
    if (!known.includes(author)) this.people.set(key, [...known, author]);
    return this.people.get(key)[0] === author ? name : this.say("another", { name });
  }

  time(timestamp) {
    const when = new Date(1000 * number(timestamp, 0)), today = when.toDateString() === new Date().toDateString();
    return (today ? this.clock : this.calendar).format(when);
  }

  get clock() {
    return format(this.panel.host, { timeStyle: "short" });
  }

  get calendar() {
    return format(this.panel.host, { dateStyle: "medium", timeStyle: "short" });
  }

  /* The buttons of messages */

  equip(row) {
    const all = this.actions.flatMap((actions) => actions(row.data));
    if (!all.length) return;
    const name = row.data.username;
    row.append(make("div", "tools", { "aria-live": "off" }, ...all.map(([key, act]) => {
      const element = button(key, () => act(row.data), this.say(key));
      element.tabIndex = -1;
      element.setAttribute("aria-label", this.say(`${key}_of`, { name }));
      element.setAttribute("aria-keyshortcuts", "ArrowUp ArrowDown");
      return element;
    })));
  }

  /** The Tab key comes to the buttons of one message, the arrow keys go to those of the others. */
  aim(row) {
    if (!row?.querySelector(".tools")) return;
    const turn = (of, index) => of?.querySelectorAll(".tools button").forEach((one) => { one.tabIndex = index; });
    turn(this.aimed, -1);
    turn(this.aimed = row, 0);
  }

  aimLast() {
    if (!this.aimed?.isConnected || !(this.panel.dialog || this.aimed.matches(":focus-within"))) this.aim(this.beside(null, "previousSibling"));
  }

  move(event) {
    const way = { ArrowUp: "previousSibling", ArrowDown: "nextSibling" }[event.detail.key], tools = event.target.closest(".tools");
    if (!way || !tools) return;
    event.detail.preventDefault();
    const to = this.beside(tools.parentElement, way);
    (to?.querySelector(`.tools .${event.target.className}`) ?? to?.querySelector(".tools button"))?.focus();
  }

  /** The next row that has buttons, or the one before; of none: the last one. */
  beside(row, way) {
    let to = row ? row[way] : this.element.lastChild;
    while (to && !to.querySelector(".tools")) to = to[way];
    return to;
  }
}

/** Somebody who goes on writing is not named again. */
function group(before, row) {
  const a = before?.data, b = row?.data;
  row?.classList.toggle("follows", Boolean(a && b) && a.own === b.own && a.who === b.who && b.timestamp - a.timestamp < PAUSE);
}

function hueOf(text) {
  let hue = 0;
  for (const letter of text) hue = (31 * hue + letter.codePointAt(0)) % 360;
  return hue;
}

const formats = new Map();

/** A format for times in the page's language. */
function format(host, options) {
  const { lang } = host.closest("[lang]") ?? document.documentElement, key = lang + options.dateStyle;
  if (!formats.has(key)) {
    try {
      formats.set(key, new Intl.DateTimeFormat(lang || undefined, options));
    } catch {
      formats.set(key, new Intl.DateTimeFormat(undefined, options)); // the page's language is none
    }
  }
  return formats.get(key);
}
