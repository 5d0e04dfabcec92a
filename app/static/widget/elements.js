/* How elements are made. Text becomes text nodes, never HTML. */

export function make(tag, part, attributes = {}, ...children) {
  const svg = tag === "svg" || tag === "path";
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries({ class: part, part, ...attributes })) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function button(part, act, ...children) {
  const element = make("button", part, { type: "button" }, ...children);
  element.onclick = act;
  return element;
}

export function icon(d) {
  return make("svg", "icon", { viewBox: "0 0 24 24", "aria-hidden": "true" }, make("path", "", { d }));
}

/** A number from a frame, which may hold anything. */
export function number(value, otherwise) {
  return value > 0 && value < 1e11 ? value : otherwise;
}
