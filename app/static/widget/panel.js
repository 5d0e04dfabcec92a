/*
 * The chat as one sees it: a title, a line that says what is wrong, the log, and where one writes. widget.js makes one
 * for each of its launchers. What happens in the room comes as calls of `on…`.
 */
import { Composer } from "./composer.js";
import { Dialog } from "./dialog.js";
import { button, icon, make } from "./elements.js";
import { Log } from "./log.js";
import { Room } from "./room.js";
import { say } from "./strings.js";
import { STYLE } from "./style.js";

const PHONE = "(max-width: 479px)";
const NEWS = 10_000; // milliseconds for which it is shown that something was done

/** Keys that are pressed in a chat are not the page's. They go on as events "key", which do not leave the chat. */
function keep(event) {
  const [inner] = event.composedPath();
  if (event.target.localName !== "portfolio-chat" || inner === event.target) return;
  event.stopImmediatePropagation();
  if (event.type === "keydown") inner.dispatchEvent(new CustomEvent("key", { bubbles: true, detail: event }));
}

for (const type of ["keydown", "keypress", "keyup"]) addEventListener(type, keep, true);

export class Panel {
  isOpen = false;
  since = Infinity; // messages after this one are marked as new

  constructor(launcher) {
    const { root, corner, server, key } = launcher;
    Object.assign(this, { launcher, root, corner, say: (...text) => say(this.host, ...text) });
    this.room = Room.of(server, key);
    this.status = make("div", "status", { role: "status" });
    this.log = new Log(this);
    this.composer = new Composer(this);
    this.element = this.make();
    launcher.dress(STYLE);
    root.append(this.element);
    root.addEventListener("key", ({ detail }) => {
      if (detail.key === "Escape" && !detail.isComposing && !this.dialog && this.corner) this.host.open = false;
    });
    this.log.actions.push(({ id, own, role }) => own && id && role !== "owner" ? [["delete", (data) => this.askDelete(data)]] : []);
    addEventListener("popstate", (event) => this.goBack(event), true);
    const fit = () => this.fit();
    window.visualViewport?.addEventListener("resize", fit);
    window.visualViewport?.addEventListener("scroll", fit);
    document.addEventListener("visibilitychange", () => this.see());
  }

  make() {
    const title = this.say("title");
    this.people = make("small", "count");
    this.presence = make("small", "presence");
    this.header = make("div", "header", {}, make("div", "titles", {}, make("h2", "title", {}, title), this.presence), this.people);
    // A title of its own, or the element's would show.
    const element = make(this.corner ? "dialog" : "section", "panel", { "aria-label": title, title: "" },
      this.header, this.status, this.log.element, this.composer.element);
    if (!this.corner) return element;
    const close = button("close", () => { this.host.open = false; }, icon("m6 6 12 12M18 6 6 18"));
    close.setAttribute("aria-label", this.say("close_chat"));
    this.header.append(close);
    element.oncancel = (event) => {
      event.preventDefault();
      close.click();
    };
    return element;
  }

  get host() {
    return this.launcher.host;
  }

  /** The focused element in the chat. */
  get focused() {
    return this.host.shadowRoot.activeElement;
  }

  /** Whether somebody could see it. */
  get isShown() {
    return this.host.isConnected && (!this.corner || this.isOpen);
  }

  /* Opening and closing */

  /** The chat is on the page, again or for the first time. */
  attach() {
    if (!this.room.listeners.has(this)) {
      this.room.listeners.add(this);
      this.onIdentity();
      this.onRoom();
    }
    if (this.isOpen && this.element.open && matchMedia(PHONE).matches) { // it has left the top layer with its element
      this.element.open = false;
      this.element.showModal();
    }
    if (!this.corner || this.isOpen || this.room.posts.waiting) this.room.enter();
    this.log.scroll();
    this.see();
  }

  /** The chat was taken out of the page, and did not come back. */
  leave() {
    this.room.listeners.delete(this);
    if (![...this.room.listeners].some(({ host }) => host?.isConnected)) this.room.leave();
  }

  toggle(open, focus) {
    this.isOpen = open;
    this.room.remember({ open });
    const phone = matchMedia(PHONE).matches;
    if (!open) this.element.close();
    else if (phone) this.element.showModal();
    else this.element.open = true; // show() would move the focus
    document.documentElement.style.overflow = open && phone ? "hidden" : ""; // the page behind it stays where it is
    if (open && phone && !history.state?.portfolioChat) history.pushState({ ...history.state, portfolioChat: true }, "");
    else if (!open && history.state?.portfolioChat) {
      this.leaving = true;
      history.back();
    }
    if (!open) this.log.clearSince();
    else if (this.room.unread) this.onHistory();
    if (open) this.room.enter();
    this.fit();
    this.log.scroll();
    this.see();
    if (!focus) return;
    if (open) this.composer.focus();
    else this.launcher.button.focus();
  }

  /** On a phone, Back closes the chat. The page has not changed, and its router need not hear of it. */
  goBack(event) {
    if (!this.corner || history.state?.portfolioChat) return;
    if (this.isOpen && matchMedia(PHONE).matches) this.host.open = false;
    else if (!this.leaving) return;
    this.leaving = false;
    event.stopImmediatePropagation();
  }

  /** Leaves room for a phone's keyboard. */
  fit() {
    const { height, offsetTop, scale } = window.visualViewport ?? { height: innerHeight, offsetTop: 0 };
    if (scale > 1.01) return; // pinched, not covered
    this.element.style.setProperty("--height", `${height}px`);
    this.element.style.setProperty("--top", `${offsetTop}px`);
  }

  /* Reading */

  /** What is in sight was read. */
  see() {
    if (this.isShown && !document.hidden && this.log.stuck) this.room.markRead();
    this.onUnread();
  }

  /** To the end, from further up. */
  readOn() {
    this.log.scroll(true);
    this.see();
    this.composer.input.focus();
  }

  onUnread() {
    const { unread } = this.room;
    this.launcher.showUnread(unread);
    this.composer.news.hidden = !unread || this.log.stuck;
    this.composer.news.textContent = this.say("news", { count: unread });
  }

  /* What the room says */

  onHistory(fresh) {
    this.log.hush();
    if (fresh) return this.log.append(fresh);
    const { read, epoch } = this.room;
    if (this.since === Infinity && read.epoch === epoch) this.since = read.seq;
    this.log.fill();
    return this.see();
  }

  onMessage(data) {
    this.log.append([data]);
    this.tell("");
    this.see();
  }

  onNews(data) {
    this.emit("message", { ...data, text: data.text ?? data.content, own: this.room.isOwn(data) });
  }

  onDeleted(id) {
    this.log.remove(id);
  }

  onPost(nonce) {
    this.log.showPost(nonce);
  }

  onNote(event, name) {
    if (/^user_(joined|left)$/.test(event)) this.log.note(this.say(event, { name }));
  }

  onRoom() {
    const { users, owner_online: here } = this.room.rules;
    this.people.textContent = users === undefined ? "" : this.say("here", { count: users });
    this.presence.textContent = here === undefined ? "" : this.say(here ? "owner_here" : "owner_away");
    this.composer.measure();
  }

  onIdentity() {
    this.log.fill();
    if (this.room.owner) this.askOwner();
    this.composer.askName(!this.room.name);
  }

  onRefusal(why) {
    this.tell(this.explain(why));
  }

  onReachable(reachable) {
    if (!reachable) this.tell(this.say("not_reachable"));
    else if (this.status.textContent === this.say("not_reachable")) this.tell("");
  }

  onState(state, why) {
    clearTimeout(this.timer);
    const { room } = this, name = why.code.includes("username"), words = this.explain(why);
    if (state === "online") {
      if (!room.owner) this.composer.me.textContent = this.say("as_name", { name: room.ownName });
      this.composer.askName(false);
    }
    if (state === "connecting") this.timer = setTimeout(() => this.tell(this.say("connecting")), 600);
    else this.tell(state === "online" || name ? "" : words);
    if (state === "waiting" || state === "ended") {
      room.rules = {};
      this.onRoom();
    }
    if (state === "ended" && name) this.composer.askName(true, words);
    this.emit("status", { status: state, text: this.status.textContent });
  }

  /* Saying */

  /** A refusal in words: `code` names a text, else the server's own `message` is it. */
  explain({ code, message, seconds }) {
    return this.say(code, { seconds: Math.ceil(seconds) }) || String(message ?? "");
  }

  /** Above the messages. `passing`: for a while. */
  tell(text, passing = false) {
    this.status.textContent = text;
    if (passing) setTimeout(() => this.status.textContent === text && this.tell(""), NEWS);
  }

  emit(type, detail) {
    this.host.dispatchEvent(new CustomEvent(`chat:${type}`, { detail, bubbles: true, composed: true }));
  }

  /* Doing */

  retry(nonce) {
    const { posts } = this.room, { text, time } = posts.posts.get(nonce);
    posts.change(nonce, { text, time });
    this.room.comeBack();
    this.composer.input.focus();
  }

  edit(nonce) {
    const { text } = this.room.posts.posts.get(nonce);
    this.room.posts.change(nonce);
    this.composer.write(text);
  }

  askDelete({ id, text, content }) {
    const all = make("input", "tick", { type: "checkbox" });
    const act = async () => {
      await this.room.call("DELETE", all.checked ? "messages/mine" : `messages/${encodeURIComponent(id)}`);
      this.room.delete({ id }); // the frame may be on its way
      return this.say("is_deleted");
    };
    const quote = make("p", "quote", { dir: "auto", tabindex: 0 }, String(text ?? content));
    const fields = [quote, make("label", "check", {}, all, this.say("delete_all"))];
    new Dialog(this, { heading: this.say("delete_this"), fields, label: this.say("delete"), act });
  }

  /** Loads the owner's tools. */
  askOwner() {
    import("./owner.js").then(({ signIn }) => signIn(this), () => {
      this.tell(this.say("unavailable"));
      if (this.room.owner) this.room.signIn(null);
    });
  }
}
