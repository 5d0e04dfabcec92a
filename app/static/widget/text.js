/* What a message's text becomes: links, `code`, and blocks of code between lines of ```. Nothing else of Markdown. */
import { button, make } from "./elements.js";

// A fenced block, another run of backticks, code in a line, or an address, which ends where something is invisible, or
// turns the direction around.
const SPECIAL = /(^|\n)```[^\n`]*\n([^]*?)\n?```(?=\n|$)\n?|`{2,}|`([^`\n]+)`(?!`)|(https?:\/\/[^\s<>"`\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]+)/gi;
const PAIRS = { ")": "(", "]": "[", "}": "{" };

/** Nodes that show a text. `say`: for the button that copies a block. */
export function nodesOf(text, say) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(SPECIAL)) {
    const [whole, before, block, code, address] = match;
    let { length } = whole, node;
    if (block !== undefined) node = blockOf(block, say);
    else if (code !== undefined) node = make("code", "code", {}, code);
    else if (address !== undefined) {
      const url = trimmed(address);
      length = url.length;
      node = linkOf(url);
    }
    if (!node) continue;
    nodes.push(text.slice(end, match.index), node);
    end = match.index + length;
  }
  nodes.push(text.slice(end));
  return nodes;
}

/** An address without what ends the sentence around it: a closing bracket belongs to it if it was opened in it. */
function trimmed(address) {
  for (;;) {
    const last = address.at(-1), opening = PAIRS[last];
    const closes = opening && address.split(opening).length >= address.split(last).length;
    if (closes || !/[.,:;!?'*_~|)\]}]/.test(last)) return address;
    address = address.slice(0, -1);
  }
}

/** A link; undefined where the address is none, or names a user, which is how addresses pretend to be other ones. */
function linkOf(address) {
  try {
    const { username, password } = new URL(address);
    if (username || password) return undefined;
  } catch {
    return undefined;
  }
  return make("a", "link", { href: address, target: "_blank", rel: "noopener noreferrer nofollow" }, address);
}

function blockOf(text, say) {
  const copy = button("copy", () => navigator.clipboard?.writeText(text).then(() => {
    copy.textContent = say("copied");
  }, () => getSelection().selectAllChildren(code)), say("copy"));
  const code = make("code", "code", {}, text);
  return make("div", "block", {}, make("pre", "pre", { tabindex: 0, dir: "ltr" }, code), copy);
}
