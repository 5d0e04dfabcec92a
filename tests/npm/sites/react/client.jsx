import { hydrateRoot } from "react-dom/client";
import { App } from "./app.jsx";

const [, site, page] = location.pathname.split("/").slice(-3);
window.problems = [];
hydrateRoot(document, <App title={page === "one" ? "One" : "Two"} element={site === "element"} />, {
  onRecoverableError: (error) => window.problems.push(String(error)),
});
