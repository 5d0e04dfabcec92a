/*
 * Own posts without an answer, and which of them may be sent now. They outlive a reload, and none is stored twice: it
 * keeps its nonce. app/client/pending_posts.py is the same in Python.
 */
import { load, save } from "./storage.js";

const WINDOW = 16; // posts that are under way at once

export class PendingPosts {
  posts = new Map(); // by nonce: { text, time, failed, why, final }, in the order in which they were written
  sent = new Set(); // nonces that were sent on this connection
  window = 0; // how many may be under way; 0 while there is no connection
  resumes = 0; // milliseconds since 1970: nothing is sent before

  /** `on`: `send(frame)`, `onPost(nonce)`. `key`: where posts are kept in the tab's storage. */
  constructor(key, on) {
    Object.assign(this, { key, on });
    for (const [nonce, text, time, failed, why, final] of Object.values(load("sessionStorage", key).posts ?? {}).filter(Array.isArray)) {
      this.posts.set(String(nonce), { text: String(text), time, failed, why, final });
    }
  }

  get waiting() {
    return [...this.posts.values()].some(({ failed }) => !failed);
  }

  add(text) {
    const nonce = crypto.getRandomValues(new Uint32Array(4)).join("-"); // not every page has crypto.randomUUID
    this.change(nonce, { text, time: Date.now() / 1000 });
    return nonce;
  }

  /** What happened to a post; undefined: it is done. */
  change(nonce, post) {
    this.sent.delete(nonce);
    if (post) this.posts.set(nonce, post);
    else if (!this.posts.delete(nonce)) return;
    const posts = [...this.posts].map(([key, { text, time, failed, why, final }]) => [key, text, time, failed, why, final]);
    save("sessionStorage", this.key, { ...load("sessionStorage", this.key), posts });
    this.on.onPost(nonce);
    this.flush();
  }

  /** A new connection: everything goes again. In slow mode one after the other. */
  open(slow) {
    this.sent.clear();
    this.window = slow ? 1 : WINDOW;
    this.flush();
  }

  close() {
    clearTimeout(this.timer);
    this.window = 0;
    this.sent.clear();
  }

  flush() {
    clearTimeout(this.timer);
    const wait = this.resumes - Date.now();
    if (wait > 0 && this.window) {
      this.timer = setTimeout(() => this.flush(), wait);
      return;
    }
    for (const [nonce, { text, failed }] of this.posts) {
      if (this.sent.size >= this.window) return;
      if (failed || this.sent.has(nonce)) continue;
      this.sent.add(nonce);
      this.on.send({ type: "message", content: text, nonce });
    }
  }

  acknowledge(nonce) {
    if (this.sent.has(nonce)) this.window = Math.min(this.window + 1, WINDOW);
    if (this.posts.has(nonce)) this.change(nonce);
  }

  /** The server takes nothing for so long. */
  postpone(nonce, seconds, why) {
    this.resumes = Date.now() + 1000 * seconds;
    this.window = Math.min(this.window, 1);
    this.sent.clear();
    this.change(nonce, { ...this.posts.get(nonce), why });
  }

  /** Slow mode or a pause has ended. */
  hurry() {
    this.resumes = 0;
    this.flush();
  }

  /** `final`: the same text can never pass. */
  fail(nonce, why, final = false) {
    this.change(nonce, { ...this.posts.get(nonce), failed: true, why, final });
  }

  failAll(why) {
    for (const [nonce, { failed }] of this.posts) if (!failed) this.fail(nonce, why);
  }
}
