/*
 * The chat's button in a corner of the page, and the <portfolio-chat> element.
 *
 * The chat itself is in widget/, next to this file on the server, and is loaded when it is opened. Until then nothing is
 * asked of the server, but for what is new, where the visitor has a name. It keeps to the JavaScript of 2018, so
 * that an older browser can say that it is too old. It works inside bundles, too.
 */
(function () {
"use strict";
if (!window.customElements || customElements.get("portfolio-chat")) return;

const GRACE = 5000; // milliseconds for which a connection outlives its element
const PEEK = 60000; // milliseconds between two looks at what is new
const THEMES = ["class", "data-theme", "data-bs-theme"]; // where pages say that they are dark

const STRINGS = {
  open_chat: "Open chat",
  unread: "{count} unread",
  too_old: "This browser is too old for the chat.",
  not_loaded: "The chat can't be reached now. Try again later.",
};

const STYLE = `
:host { display: block; position: relative; height: 32rem }
:host([corner]) {
  position: fixed; inset: auto; bottom: calc(20px + env(safe-area-inset-bottom, 0px)); inset-inline-end: 20px;
  z-index: 2147483000; width: auto; height: auto;
  margin: 0; padding: 0; border: 0; overflow: visible; background: none;
}
:host([hidden]), [hidden] { display: none !important }
@media print { :host { display: none !important } }
* { box-sizing: border-box; margin: 0 }
.root {
  all: initial; display: block; height: 100%; overflow-wrap: anywhere; color-scheme: light;
  font: medium/1.45 var(--chat-font, system-ui, sans-serif);
  --accent: var(--chat-accent, #4f46e5); --surface: var(--chat-surface, #fff); --soft: var(--chat-soft, #f1f1f5);
  --text: var(--chat-text, #16161d); --quiet: var(--chat-quiet, #5a5a68); --line: var(--chat-line, #dedee6);
  --alarm: #b42318; --shade: #0003; --on-accent: #fff; color: var(--text);
}
.root.dark {
  color-scheme: dark; --surface: var(--chat-surface, #17171c); --soft: var(--chat-soft, #27272f);
  --text: var(--chat-text, #ececf2); --quiet: var(--chat-quiet, #a9a9b7); --line: var(--chat-line, #373741);
  --alarm: #ffb4ab; --shade: #0009;
}
/* Black or white: y is the accent's luminance. */
@supports (color: color(from red xyz-d65 x y z)) {
  .root { --on-accent: color(from var(--accent) xyz-d65 calc((.179 - y) * 9999) calc((.179 - y) * 9999) calc((.179 - y) * 9999)) }
}
.button {
  position: relative; padding: 16px; border: 0; border-radius: 50%; font: inherit; cursor: pointer;
  background: var(--accent); color: var(--on-accent); box-shadow: 0 4px 16px var(--shade);
}
.button:focus-visible { outline: 3px solid var(--accent); outline-offset: 3px }
.icon { display: block; width: 1.4em; fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round }
.badge {
  position: absolute; inset: -4px -4px auto auto; padding: 0 .5em; border-radius: 1em; font-size: 13px; background: var(--alarm); color: var(--surface);
}
.notice {
  width: max-content; max-width: 16em; margin-bottom: 12px; padding: .5em 1em; border: 1px solid var(--line);
  border-radius: 12px; background: var(--surface);
}
`;

/** The chat server's directory: an address with a `/` at its end. Undefined where nothing names it. */
function findServer() {
  const script = document.currentScript;
  const named = [script, document.querySelector("script[data-server]")].find((one) => one && one.dataset.server);
  if (named) return directory(named.dataset.server);
  const file = /https?:[^\s()]*\/widget\.js/;
  // A module has no currentScript; the trace of an error names the file that it is from.
  const found = file.exec(script ? script.src : "") || file.exec(new Error().stack);
  return found ? new URL(".", found[0]).href : undefined;
}

function directory(address) {
  return new URL(address, document.baseURI).href.replace(/\/*([?#].*)?$/, "/");
}

const SERVER = findServer();

/** A value that the browser keeps, or `{}`. */
function stored(storage, key) {
  try {
    return Object(JSON.parse(window[storage].getItem(key)));
  } catch (error) {
    return {};
  }
}

function make(tag, part, attributes) {
  const svg = tag === "svg" || tag === "path";
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  const all = Object.assign({ class: part, part: part }, attributes);
  Object.keys(all).forEach((name) => element.setAttribute(name, all[name]));
  for (let index = 3; index < arguments.length; index++) element.append(arguments[index]);
  return element;
}

/** As the page's root or body says, else by its `color-scheme` and the visitor's system. */
function isDark(host) {
  for (const element of [document.documentElement, document.body]) {
    const words = THEMES.map((name) => element.getAttribute(name)).join(" ");
    const word = /(?:^|\s)(dark|light)(?=\s|$)/.exec(words);
    if (word) return word[1] === "dark";
  }
  const meta = document.querySelector("meta[name=color-scheme]");
  let scheme = getComputedStyle(host).colorScheme;
  if (!scheme || scheme === "normal") scheme = meta ? meta.content : "light";
  return scheme.includes("dark") && (!scheme.includes("light") || matchMedia("(prefers-color-scheme: dark)").matches);
}

/** What a <portfolio-chat> element shows. It outlives its element, and goes on in the next one. */
class Launcher {
  constructor(server, corner) {
    this.server = server;
    this.corner = corner;
    this.key = "portfolio-chat " + server.replace(/\/$/, ""); // of what is kept in the browser
    this.sheets = [];
    this.root = make("div", "root", { "data-lenis-prevent": "" }); // smooth scrolling leaves it alone
    this.dress(STYLE);
    this.notice = make("div", "notice", { role: "alert", hidden: "" });
    this.root.append(this.notice);
    this.badge = make("span", "badge", { hidden: "" });
    this.button = make("button", "button", { type: "button", "aria-haspopup": "dialog", "aria-expanded": "false" },
      make("svg", "icon", { viewBox: "0 0 24 24" }, make("path", "", { d: "M4 5h16v11H9l-5 4Z" })), this.badge);
    this.button.onclick = () => { this.host.open = true; };
    if (corner) this.root.append(this.button);
  }

  /** Adds a style sheet, past a Content-Security-Policy where the browser can. */
  dress(css) {
    try {
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(css);
      this.sheets.push(sheet);
      if (this.host) this.host.shadowRoot.adoptedStyleSheets = this.sheets;
    } catch (error) {
      const style = document.createElement("style");
      style.textContent = css;
      this.root.append(style);
    }
  }

  attach(host) {
    clearTimeout(this.timer);
    this.ready = false; // what opens it now is not the visitor
    this.host = host;
    host.launcher = this;
    const shadow = host.shadowRoot || host.attachShadow({ mode: "open" });
    shadow.adoptedStyleSheets = this.sheets;
    shadow.append(this.root);
    if (host.hasAttribute("accent")) this.root.style.setProperty("--chat-accent", host.getAttribute("accent"));
    if (this.corner && host.showPopover) {
      host.popover = "manual"; // the top layer: no style of the page's moves it
      host.showPopover();
    }
    this.paint();
    this.showUnread(this.unread || 0);
    const kept = stored("sessionStorage", this.key + " page");
    if (this.isOpen === undefined) this.isOpen = kept.open; // on an earlier page
    if (this.corner && typeof this.isOpen === "boolean") host.open = this.isOpen;
    if (this.panel) this.panel.attach();
    if (!this.corner || host.open || (kept.posts || []).length) this.load();
    this.toggle(host.open);
    this.ready = true;
    this.peek();
  }

  detach() {
    idle.add(this);
    this.timer = setTimeout(() => this.panel && this.panel.leave(), GRACE);
  }

  paint() {
    this.root.classList.toggle("dark", isDark(this.host));
  }

  say(key, values) {
    const settings = window.PortfolioChat || {};
    const text = [this.host.getAttribute(key), (settings.strings || {})[key], STRINGS[key]].find((one) => typeof one === "string");
    return (text || "").replace(/{(\w+)}/g, (_, name) => values[name]);
  }

  load() {
    const url = (SERVER || this.server) + "widget/panel.js";
    if (!this.loading) this.loading = import(url).then((module) => {
      this.notice.hidden = true;
      this.panel = new module.Panel(this);
      if (this.host.isConnected) this.panel.attach();
      this.toggle(this.host.open, this.asked);
    }).catch((error) => {
      console.error("portfolio-chat:", error);
      this.loading = null; // the next click tries again
      this.host.open = this.button.hidden = false;
      this.notice.textContent = this.say(error instanceof SyntaxError ? "too_old" : "not_loaded");
      this.notice.hidden = false;
    });
  }

  /** Opens or closes the chat in the corner. `focus`: it was done on this page, and not by its HTML. */
  toggle(open, focus) {
    if (!this.corner) return;
    if (focus) this.asked = true;
    this.isOpen = open;
    if (open) this.load();
    if (open && !focus) this.button.hidden = true;
    if (!this.panel || !this.host.isConnected || this.panel.isOpen === open) return;
    this.button.hidden = open;
    this.button.setAttribute("aria-expanded", String(open));
    this.paint();
    this.panel.toggle(open, focus);
    this.host.dispatchEvent(new CustomEvent("chat:open", { detail: { open: open }, bubbles: true, composed: true }));
  }

  showUnread(count) {
    this.badge.hidden = !count;
    this.badge.textContent = count;
    this.button.setAttribute("aria-label", this.say("open_chat") + (count ? ", " + this.say("unread", { count: count }) : ""));
    if (count || this.unread) document.title = (count ? "(" + count + ") " : "") + document.title.replace(/^\(\d+\) /, "");
    this.unread = count;
  }

  /** Asks what is new, for a visitor who has been here before, as long as the chat itself is not loaded. */
  peek() {
    clearTimeout(this.peeking);
    const known = stored("localStorage", this.key), read = stored("localStorage", this.key + " read");
    if (this.loading || !known.name || !read.epoch || document.hidden || !this.host.isConnected) return;
    this.peeking = setTimeout(() => this.peek(), PEEK);
    fetch(this.server + "api/history").then((answer) => answer.json()).then((history) => {
      if (this.loading || history.epoch !== read.epoch) return;
      this.showUnread(history.data.filter((one) => one.seq > read.seq && one.author !== known.author).length);
    }).catch(() => { /* next time */ });
  }
}

const idle = new Set(); // launchers without an element, for the next one

class PortfolioChat extends HTMLElement {
  static get observedAttributes() {
    return ["open"];
  }

  get open() {
    return this.hasAttribute("open");
  }

  set open(open) {
    if (open !== this.open) this.toggleAttribute("open", Boolean(open));
  }

  connectedCallback() {
    const open = this.open;
    delete this.open; // as it was set before this file came
    this.open = open;
    const server = this.hasAttribute("server") ? directory(this.getAttribute("server")) : SERVER;
    if (!server) {
      console.error('portfolio-chat: which server? Add data-server="https://…" to the script, or server="https://…" to the element.');
      return;
    }
    // Later, because some pages put in the next element before they take the last one out.
    queueMicrotask(() => this.isConnected && this.settle(server, this.hasAttribute("corner")));
    ensureButton();
  }

  settle(server, corner) {
    const own = this.launcher && (this.launcher.host === this || idle.has(this.launcher)) && this.launcher;
    const other = [...idle].find((one) => one.server === server && one.corner === corner);
    const launcher = own || other || new Launcher(server, corner);
    idle.delete(launcher);
    launcher.attach(this);
  }

  disconnectedCallback() {
    if (this.launcher && this.launcher.host === this) this.launcher.detach();
    setTimeout(ensureButton);
  }

  attributeChangedCallback() {
    if (this.launcher && this.launcher.ready && this.launcher.host === this) this.launcher.toggle(this.open, true);
  }
}

let button;

/** Where the page has no chat of its own there is a button, outside of <body>, which pages swap. */
function ensureButton() {
  const all = [...document.querySelectorAll("portfolio-chat")];
  if (button && all.some((one) => one !== button)) button.remove();
  if (all.length || !SERVER) return;
  button = button || make("portfolio-chat", "", { corner: "" });
  document.documentElement.append(button);
}

function everywhere(act) {
  document.querySelectorAll("portfolio-chat").forEach((host) => host.launcher && act(host.launcher));
}

function begin() {
  customElements.define("portfolio-chat", PortfolioChat);
  ensureButton();
  const paint = () => {
    for (const element of [document.documentElement, document.body]) {
      observer.observe(element, { childList: true, attributeFilter: THEMES.concat("style") });
    }
    everywhere((launcher) => launcher.paint());
  };
  const observer = new MutationObserver(paint);
  matchMedia("(prefers-color-scheme: dark)").onchange = paint;
  paint();
  document.addEventListener("visibilitychange", () => everywhere((launcher) => launcher.peek()));
}

if (document.readyState === "loading") addEventListener("DOMContentLoaded", begin);
else begin();
})();
