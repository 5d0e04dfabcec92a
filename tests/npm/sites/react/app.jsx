/* A whole document that React renders and hydrates, as Next.js does, with links that change the page without a load. */
import { StrictMode, useState } from "react";

export function App({ title: first, element }) {
  const [title, setTitle] = useState(first);
  const other = title === "One" ? "Two" : "One";
  const go = (event) => {
    event.preventDefault();
    history.pushState({}, "", other.toLowerCase());
    setTitle(other);
  };
  return (
    <StrictMode>
      <html lang="en">
        <head>
          <meta charSet="utf-8" />
          <title>{title}</title>
          <script src="http://chat.invalid/widget.js" defer></script>
          <script src="/client.js" defer></script>
        </head>
        <body>
          <main key={title}>
            <h1>{title}</h1>
            <a id="other" href={other.toLowerCase()} onClick={go}>Other</a>
            {element && <portfolio-chat></portfolio-chat>}
          </main>
        </body>
      </html>
    </StrictMode>
  );
}
