// Makes and updates elements. Text goes in as text only: names of tables come from elsewhere.

const SVG = "http://www.w3.org/2000/svg";

export const at = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  set(node, attributes);
  node.append(...children);
  return node;
}

export function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }
  return node;
}

export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
  return node;
}

// Has `parent` hold one child per item, in order, and keeps those that are there: focus and animations go on.
export function each(parent, items, key, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = old.get(name);
    old.delete(name);
    if (!child) {
      child = make(item);
      child.dataset.key = name;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update?.(child, item);
  }
  for (const child of old.values()) child.remove();
}

// -- words for numbers -----------------------------------------------------------------------------------------

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en-GB", { notation: "compact", maximumSignificantDigits: 3 });

export const count = (value) => whole.format(value);
export const compact = (value) => (value < 10000 ? whole.format(value) : short.format(value));

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export function seconds(value) {
  if (value === 0) return "0 s";
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  if (value < 172800) return `${Math.round(value / 3600)} h`;
  return `${Math.round(value / 86400)} days`;
}

export const clock = (time) => new Date(time * 1000).toLocaleTimeString("en-GB");
export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

// -- states ----------------------------------------------------------------------------------------------------

const GOOD = new Set(["up", "receiving", "done", "running", "ready", "open", "closed"]);
const BAD = new Set(["down", "parked", "aborted", "frozen", "dropped", "failed", "stopped"]);

// "good", "warn" or "bad": a colour, and a mark for those who do not tell colours apart.
export function health(part) {
  if (part.failed || BAD.has(part.state)) return "bad";
  if (part.paused) return "warn";
  return GOOD.has(part.state) ? "good" : "warn";
}
export const stateOf = (part) => (part.paused ? `${part.state}, paused` : part.state);
export const MARKS = { good: "●", warn: "▲", bad: "✕" };
