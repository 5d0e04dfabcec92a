/* What is kept in the browser. Pages may forbid it, and whatever is there may be broken or somebody else's. */

/** A value of `localStorage` or `sessionStorage`; an empty object where there is none. */
export function load(area, key) {
  try {
    return Object(JSON.parse(window[area].getItem(key)));
  } catch {
    return {};
  }
}

/** Keeps a value, as long as the page may. `null` removes it. */
export function save(area, key, value) {
  try {
    if (value === null) window[area].removeItem(key);
    else window[area].setItem(key, JSON.stringify(value));
  } catch { /* forbidden, or full */ }
}
