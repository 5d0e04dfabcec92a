/* The look of the owner's tools. */

export const STYLE = `
.field { display: flex; flex-direction: column; gap: .25em }
.subheading { margin-top: .5em; font-size: .8125em; color: var(--quiet) }
.root .plain, .root .lift { padding: .5em 1em; border: 1px solid var(--quiet) }
.bans { display: flex; flex-direction: column; gap: .5em; max-height: 9em; overflow: auto; padding: 0; list-style: none; font-size: .95em }
.bans:empty { display: none }
.banned { display: flex; align-items: center; justify-content: space-between; gap: .5em }
.root .lift { flex: none; padding: .125em .75em; font-size: .8125em }
.root .manage { padding: .5em; color: var(--quiet) }
.me:disabled { opacity: 1; cursor: auto }
@media (hover: hover) {
  .message:hover .bubble { outline: 1px solid var(--quiet) }
}
`;
