/*
 * The WebSocket: joins, answers pings, notices silence, and comes back with jitter until a close code says not to.
 * app/client/client.py is the same in Python.
 */
import { number } from "./elements.js";

const FIRST_DELAY = 0.5, MAX_DELAY = 30, FULL_DELAY = 5; // seconds before it tries again
const JOIN_TIMEOUT = 20, PROBE_TIMEOUT = 3; // seconds without an answer
const STABLE = 10; // seconds after which a connection counts as one that worked

export class Connection {
  state = ""; // then "connecting", "online", "waiting" (to try again), "suspended" (the page was left), "ended"
  attempt = 0;

  /** `on`: `credentials()`, `place()`, `onJoined(history, session)`, `onFrame(frame)`, `onState(state, …why)`. */
  constructor(server, on) {
    Object.assign(this, { server, on });
  }

  start() {
    this.leave("connecting");
    const { name, token } = this.on.credentials();
    const url = new URL("ws/chat", this.server);
    url.protocol = url.protocol.replace("http", "ws");
    url.search = new URLSearchParams({ username: name, ...this.on.place() });
    this.on.onState("connecting");
    this.watch(JOIN_TIMEOUT);
    try {
      const socket = this.socket = new WebSocket(url, token ? ["chat.v1", `bearer.${token}`] : "chat.v1");
      socket.onmessage = ({ data }) => this.hear(data);
      socket.onclose = ({ code }) => this.end(code);
    } catch {
      this.end(1006); // pages by https may not open rooms by http
    }
  }

  /** Closes, without waiting for the server's answer. */
  leave(state) {
    clearTimeout(this.timer);
    clearTimeout(this.watchdog);
    if (this.socket) this.socket.onmessage = this.socket.onclose = null;
    this.socket?.close(1000);
    this.socket = this.refusal = this.history = null;
    this.state = state;
  }

  /** For a page that was left, and that the browser may keep. */
  suspend() {
    if (/connecting|online|waiting/.test(this.state)) this.leave("suspended");
  }

  resume() {
    if (this.state === "suspended") this.start();
  }

  /** The page, the computer or the network woke up. */
  wake() {
    this.attempt = 0;
    if (this.state === "waiting" && !this.full) this.start();
    if (this.state !== "online") return;
    this.send({ type: "ping" });
    this.watch(Math.min(PROBE_TIMEOUT, this.timeout));
  }

  send(frame) {
    if (this.socket?.readyState === 1) this.socket.send(JSON.stringify(frame));
  }

  /** The connection counts as lost when nothing comes for so many seconds. */
  watch(seconds) {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => this.end(1006), 1000 * seconds);
  }

  end(code) {
    const { refusal } = this;
    if (this.state === "online" && performance.now() - this.since > 1000 * STABLE) this.attempt = 0;
    if (/^(100[089]|4[5-9]..)$/.test(code)) {
      this.leave("ended");
      return this.on.onState("ended", code, refusal);
    }
    this.leave("waiting");
    this.full = code === 1013;
    // Full jitter, so that not all come back at once.
    const seconds = Math.random() * Math.min(MAX_DELAY, FIRST_DELAY * 2 ** this.attempt++)
      + number(refusal?.data.retry_after, this.full ? FULL_DELAY : 0);
    this.timer = setTimeout(() => this.start(), 1000 * seconds);
    this.on.onState("waiting", code, refusal, Math.ceil(seconds));
  }

  hear(text) {
    if (this.state === "online") this.watch(this.timeout);
    try {
      const frame = JSON.parse(text);
      // Only the last frame before the end is the reason for it.
      this.refusal = frame.type === "error" && frame.data && !frame.data.nonce ? frame : null;
      if (frame.type === "ping") this.send({ type: "pong" });
      else if (frame.type === "history") this.history = frame; // who reads it is in the session frame, which follows
      else if (frame.type === "session") this.join(frame.data);
      else this.on.onFrame(frame);
    } catch (error) {
      console.warn("portfolio-chat: not a frame of the chat:", error);
    }
  }

  join(session) {
    this.since = performance.now();
    this.state = "online";
    this.watch(this.timeout = 2 * number(session.heartbeat_interval, JOIN_TIMEOUT));
    this.on.onJoined(this.history ?? { data: [], recovered: true }, session);
    this.on.onState("online");
  }
}
