/* The look of the chat, on top of widget.js's. No rule needs a browser newer than 2022, but for decoration. */

export const STYLE = `
button, input, textarea, select { font: inherit; color: inherit; border: 0; border-radius: 20px }
.root button { padding: .125em .5em; background: none; cursor: pointer }
.root button:hover { text-decoration: underline }
.root :focus-visible { outline: 2px solid var(--accent); outline-offset: 1px }
.root .button { padding: 16px; background: var(--accent) }
.root .go { padding: .55em; background: var(--accent); text-decoration: none }
.own .bubble, .owner, .go { background: var(--accent); color: var(--on-accent) }
dialog[open], section, .join, .message { display: flex; flex-direction: column }
.panel {
  padding: 0; overflow: hidden; border: 1px solid var(--line); border-radius: var(--chat-radius, 16px);
  background: var(--surface); color: inherit;
}
section { height: 100% }
.panel[open] {
  position: fixed; top: auto; left: auto; right: 20px; bottom: 20px; inset-inline: auto 20px; width: 384px; max-width: calc(100% - 40px);
  height: 620px; max-height: calc(100vh - 40px); max-height: calc(100dvh - 40px); box-shadow: 0 12px 40px var(--shade);
}
.panel::backdrop { background: none }
.header, .send, .under, .meta, .pick { display: flex; align-items: center; gap: .5em }
.header { flex: none; min-height: 3.5em; padding-inline: 1em .5em; border-bottom: 1px solid var(--line) }
.titles, .log, .input { flex: 1; min-width: 0 }
small { display: block; text-align: start; text-align: match-parent }
.title { font-size: 1em; font-weight: 600; line-height: 1.3 }
.title, .me { overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.meta, .new, .status, .under, .label, .error, .greeting, small { font-size: .8125em }
.time, .under, .close, .log:empty, .greeting, small { color: var(--quiet); unicode-bidi: plaintext }
.count { white-space: nowrap }
.count:last-child { padding-inline-end: .5em }
.count:not(:empty)::before { content: "● "; color: #2a9d5c }
.root .close { padding: .5em }
.status:not(:empty) { flex: none; padding: .5em 1em; background: var(--soft) }
.root .action { text-decoration: underline; white-space: nowrap }
.log { min-height: 3em; overflow: hidden auto; overscroll-behavior: contain; contain: content; padding: .25em 1em 1em }
.root .log:focus-visible { outline-offset: -3px }
.log:empty { display: grid; place-items: center; text-align: center }
.log:empty::before { content: attr(data-empty) }
.message { position: relative; align-items: flex-start; margin-top: .75em; padding-inline-end: 2em }
.own { align-items: flex-end; padding-inline: 2em 0 }
.follows { margin-top: .25em }
.meta { padding: 0 .75em .125em }
.own .meta, .follows .meta { position: absolute; clip-path: inset(50%) }
.name { font-weight: 600; color: hsl(var(--hue), 60%, 25%) }
.dark .name { color: hsl(var(--hue), 70%, 76%) }
.owner { padding: 0 .5em; border-radius: 1em }
.bubble {
  display: flex; flex-wrap: wrap; column-gap: .5em; max-width: 100%; padding: .5em .75em; border-radius: 14px;
  background: var(--soft); font-size: .95em;
}
.failed .bubble { outline: 2px solid var(--alarm) }
.sending .bubble { opacity: .75 }
.text { min-width: 0; white-space: pre-wrap }
a, .own .time { color: inherit }
.time { margin-inline-start: auto; align-self: flex-end; font-size: .75em }
.code { font: .875em/1.5 ui-monospace, monospace }
.text > .code { padding: .1em .3em; border-radius: 4px; background: #8883 }
.block { position: relative; margin: .25em 0; white-space: normal }
.pre { overflow-x: auto; padding: .5em .75em; border-radius: 8px; background: #8883; white-space: pre }
.root .copy { font-size: .75em; text-decoration: underline }
.failed .state, .over, .error { color: var(--alarm) }
.note, .since { margin-top: .75em; text-align: center }
.note { font-size: .75em }
.since { display: flex; align-items: center; gap: .75em; color: var(--alarm); font-size: .75em; font-weight: 600 }
.since::before, .since::after { content: ""; flex: 1; border-top: 1px solid }
.state { margin-top: .5em }
.foot { flex: none; position: relative; padding: .75em; border-top: 1px solid var(--line) }
.root .new {
  position: absolute; bottom: calc(100% + .75em); left: 0; right: 0; width: fit-content; margin: auto; padding: .5em 1em;
  background: var(--text); color: var(--surface);
}
.send { align-items: flex-end }
.input { padding: .5em 1em; border: 1px solid var(--quiet); background: var(--surface); resize: none; max-height: 8em; field-sizing: content }
:disabled, [readonly] { opacity: .5 }
.rule:not(:empty) { padding: .25em .5em .5em }
.under { justify-content: space-between; padding-top: .25em }
.join { gap: .4em; padding-bottom: .6em }
.root .pick .go { padding: .55em 1em }
.error:empty { display: none }
.root .suggestion, .root .sign-in { padding: .25em .5em; text-decoration: underline }
.ask {
  position: fixed; top: 0; left: 0; right: 0; margin: 10vh auto auto; width: 23rem; max-width: calc(100% - 2rem); height: fit-content;
  max-height: 85vh; padding: 1.25em; overflow: auto; border: 1px solid var(--line); border-radius: var(--chat-radius, 16px);
  background: var(--surface); color: var(--text);
}
.ask::backdrop { background: #0006 }
.ask form { display: flex; flex-direction: column; gap: .75em }
.heading { font-size: 1.0625em; outline: none }
.quote { max-height: 6em; overflow: auto; padding: .5em .75em; border-radius: 14px; background: var(--soft); font-size: .95em; white-space: pre-wrap }
.check { display: flex; align-items: flex-start; gap: .5em; font-size: .95em }
.tick { flex: none; width: 1.1em; height: 1.1em; margin-top: .15em; accent-color: var(--accent) }
.choices { display: flex; flex-wrap: wrap; justify-content: flex-end; gap: .5em }
.root .choices button { padding: .5em 1em; border: 1px solid var(--quiet) }
.root .choices .go { border-color: var(--accent) }
.root .choices .alarm { border-color: var(--alarm); background: var(--alarm); color: var(--surface) }
.tools { display: flex; gap: .25em; margin-top: .125em; font-size: .8125em; color: var(--quiet) }
@media (hover: hover) {
  .tools {
    position: absolute; inset-block: auto .25em; inset-inline: auto 0; margin: 0; border: 1px solid var(--line); border-radius: 1em;
    background: var(--surface); opacity: 0;
  }
  .own .tools { inset-inline: 0 auto }
  .message:hover .tools, .tools:focus-within { opacity: 1 }
}
@media (hover: none) { .root .tools button { min-height: 2em } }
@media (max-height: 440px) { .greeting, .label { position: absolute; clip-path: inset(50%) } }
@media (max-width: 479px) {
  .panel[open] {
    top: var(--top); left: 0; right: 0; bottom: auto; width: 100%; max-width: none; height: var(--height); max-height: none;
    border: 0; border-radius: 0;
  }
  .foot { padding-bottom: calc(.75em + env(safe-area-inset-bottom, 0px)) }
}
`;
