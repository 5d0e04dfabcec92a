import { mkdirSync, writeFileSync } from "node:fs";
import { renderToString } from "react-dom/server";
import { App } from "./app.jsx";

const out = process.argv[2];
for (const site of ["button", "element"]) {
  mkdirSync(`${out}/${site}`, { recursive: true });
  for (const title of ["One", "Two"]) {
    writeFileSync(`${out}/${site}/${title.toLowerCase()}.html`, `<!doctype html>${renderToString(<App title={title} element={site === "element"} />)}`);
  }
}
