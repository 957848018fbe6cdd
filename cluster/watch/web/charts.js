// Lines over the last hour, drawn as SVG.

import { each, el, set, svg, text, clock } from "./dom.js";

const HEIGHT = 150;
const LEFT = 46;
const BOTTOM = 20;
const TOP = 8;

// Seconds that a chart may show: as little as there is to show.
const SPANS = [300, 900, 1800, 3600];

// `lines`: [{name, kind, values}]; `show` makes words of a value; `marks`: [{time, title}].
export function chart(parent, { title, lines, times, gap, show, top = null, marks = [] }) {
  const figure = parent.querySelector("figure") ?? parent.appendChild(frame());
  const [caption, drawing] = [figure.querySelector("figcaption"), figure.querySelector("svg")];
  const width = Math.max(240, figure.clientWidth);
  const now = times.length ? times[times.length - 1] : Date.now() / 1000;
  const high = nice(top ?? Math.max(0, ...lines.flatMap((line) => line.values.filter(Number.isFinite))));
  const span = SPANS.find((each) => each >= now - (times[0] ?? now)) ?? SPANS.at(-1);
  const x = (time) => LEFT + ((time - now + span) / span) * (width - LEFT - 8);
  const y = (value) => TOP + (1 - value / high) * (HEIGHT - TOP - BOTTOM);
  set(drawing, { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT });
  text(caption.querySelector("strong"), title);
  const last = (line) => line.values.findLast(Number.isFinite) ?? null;
  each(caption.querySelector("span"), lines, (line) => line.name, () => el("span", {}, el("i"), ""), (node, line) => {
    set(node, { class: `key ${line.kind}` });
    text(node.lastChild, ` ${line.name} ${last(line) === null ? "–" : show(last(line))}`);
  });
  set(drawing, {
    "aria-label": `${title} of the last ${span / 60} minutes; ` + lines.map((line) => {
      const known = line.values.filter(Number.isFinite);
      return known.length ? `${line.name}: now ${show(last(line))}, at most ${show(Math.max(...known))}` : line.name;
    }).join("; "),
  });
  const grid = [0, 0.5, 1].map((part) => part * high);
  each(drawing.querySelector(".grid"), grid, (value) => value, () => svg("g", {}, svg("line"), svg("text")), (node, value) => {
    set(node.children[0], { x1: LEFT, x2: width - 8, y1: y(value), y2: y(value) });
    set(node.children[1], { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" });
    text(node.children[1], show(value));
  });
  const ticks = [1, 0.8, 0.6, 0.4, 0.2, 0].map((part) => (part * span) / 60);
  each(drawing.querySelector(".ticks"), ticks, (tick) => tick, () => svg("text"), (node, tick) => {
    set(node, { x: x(now - tick * 60), y: HEIGHT - 5, "text-anchor": tick ? "middle" : "end" });
    text(node, tick ? `−${Math.round(tick)} min` : "now");
  });
  each(drawing.querySelector(".marks"), marks.filter((mark) => mark.time > now - span), (mark) => mark.time + mark.title,
    () => svg("line", {}, svg("title")), (node, mark) => {
      set(node, { x1: x(mark.time), x2: x(mark.time), y1: TOP, y2: HEIGHT - BOTTOM });
      text(node.firstChild, mark.title);
    });
  each(drawing.querySelector(".lines"), lines, (line) => line.name, () => svg("g", {}, svg("path", { class: "area" }), svg("path", { class: "line" })),
    (node, line) => {
      set(node, { class: line.kind });
      const runs = pieces(times, line.values, gap).map((run) => run.map(([time, value]) => [x(time), y(value)]));
      const path = (run) => run.map(([px, py]) => `${px.toFixed(1)},${py.toFixed(1)}`).join("L");
      set(node.children[0], {
        d: runs.map((run) => `M${run[0][0].toFixed(1)},${y(0)}L${path(run)}L${run.at(-1)[0].toFixed(1)},${y(0)}Z`).join(""),
      });
      set(node.children[1], { d: runs.map((run) => `M${path(run)}`).join("") });
    });
  figure.reading = { x, y, lines, times, show, width };
  read(figure);
}

function frame() {
  const drawing = svg("svg", { role: "img" },
    ...["grid", "ticks", "marks", "lines"].map((name) => svg("g", { class: name })),
    svg("g", { class: "reading", visibility: "hidden" }, svg("line"), svg("text")));
  const figure = el("figure", { class: "chart" }, el("figcaption", {}, el("strong"), el("span", { class: "keys" })), drawing);
  drawing.addEventListener("pointermove", (event) => { figure.at = event.offsetX; read(figure); });
  drawing.addEventListener("pointerleave", () => { figure.at = null; read(figure); });
  return figure;
}

// Shows the values under the pointer.
function read(figure) {
  const group = figure.querySelector(".reading");
  const { x, lines, times, show, width } = figure.reading;
  const position = figure.at ?? null;
  set(group, { visibility: position === null || !times.length ? "hidden" : "visible" });
  if (position === null || !times.length) return;
  let best = 0;
  times.forEach((time, index) => { if (Math.abs(x(time) - position) < Math.abs(x(times[best]) - position)) best = index; });
  const px = x(times[best]);
  set(group.children[0], { x1: px, x2: px, y1: TOP, y2: HEIGHT - BOTTOM });
  set(group.children[1], { x: px < width / 2 ? px + 6 : px - 6, y: TOP + 10, "text-anchor": px < width / 2 ? "start" : "end" });
  const values = lines.map((line) => `${line.name} ${line.values[best] === null ? "–" : show(line.values[best])}`);
  text(group.children[1], `${clock(times[best])}  ${values.join("  ")}`);
}

// The stretches without a hole, as lists of [time, value].
function pieces(times, values, gap) {
  const runs = [];
  let before = -Infinity;
  times.forEach((time, index) => {
    if (!Number.isFinite(values[index])) return;
    if (time - before > 3 * gap) runs.push([]);
    runs.at(-1).push([time, values[index]]);
    before = time;
  });
  return runs;
}

// The next of 1, 2, 5, 10, …
function nice(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((bound) => bound >= value * 0.999);
}
