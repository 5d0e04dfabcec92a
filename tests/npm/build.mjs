/* Builds the sites that carry the widget in tests, into node_modules/.sites. */
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { build as buildAstro } from "astro";
import { build } from "esbuild";

const out = "node_modules/.sites";
rmSync(out, { recursive: true, force: true });
process.env.ASTRO_TELEMETRY_DISABLED = "1";

const modules = [
  ["turbo", "@hotwired/turbo/dist/turbo.es2017-esm.js"],
  ["htmx2", "htmx2/dist/htmx.js"],
  ["htmx4", "htmx.org/dist/htmx.js"],
];
const attributes = { htmx2: 'hx-boost="true"', htmx4: 'hx-boost:inherited="true"' };
const byHand = `addEventListener("click", async (event) => {
  if (event.target.id !== "other") return;
  event.preventDefault();
  const page = new DOMParser().parseFromString(await (await fetch(event.target.href)).text(), "text/html");
  history.pushState({}, "", event.target.href);
  document.title = page.title;
  document.body.replaceWith(document.adoptNode(page.body));
});`;

function page(name, title, element) {
  const script = { hand: `<script>${byHand}</script>`, plain: "" }[name] ?? `<script type="module" src="/library.js"></script>`;
  const other = title === "One" ? "two" : "one";
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>${title}</title>${script}
<script src="http://chat.invalid/widget.js" defer></script></head>
<body ${attributes[name] ?? ""}><h1>${title}</h1><a id="other" href="${other}">Other</a>
${element ? "<portfolio-chat></portfolio-chat>" : ""}</body></html>`;
}

for (const [name, file] of [...modules, ["hand"], ["plain"]]) {
  for (const site of ["button", "element"]) {
    mkdirSync(`${out}/${name}/${site}`, { recursive: true });
    for (const title of ["One", "Two"]) {
      writeFileSync(`${out}/${name}/${site}/${title.toLowerCase()}.html`, page(name, title, site === "element"));
    }
  }
  if (file) cpSync(`node_modules/${file}`, `${out}/${name}/library.js`);
}

await buildAstro({ root: "sites/astro", outDir: `../../${out}/astro`, logLevel: "warn" });

const common = { bundle: true, jsx: "automatic", define: { "process.env.NODE_ENV": '"development"' }, logLevel: "warning" };
await build({ ...common, entryPoints: ["sites/react/client.jsx"], outfile: `${out}/react/client.js` });
await build({ ...common, entryPoints: ["sites/react/server.jsx"], outfile: `${out}/server.cjs`, platform: "node" });
execFileSync("node", [`${out}/server.cjs`, `${out}/react`]);
