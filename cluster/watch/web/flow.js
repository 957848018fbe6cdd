// The flow from tables over decoders to sinks, drawn as SVG. What does not fit as a box of its own is a square in a field.

import { compact, each, health, MARKS, plural, seconds, set, stateOf, svg, text } from "./dom.js";

const BOXES = 12;
const ROW = 52;
const BOX = { height: 42, width: 250 };
const CELL = 13;
const TALL = 116;

// Draws `status` into `parent`; `open` is called with the name of a table that is asked for.
export function flow(parent, status, open) {
  const drawing = parent.querySelector("svg") ?? parent.appendChild(frame());
  const width = Math.max(760, parent.clientWidth);
  const shown = chosen(status.tables);
  const rest = status.tables.filter((table) => !shown.includes(table));
  const columns = Math.floor((BOX.width - 24) / CELL);
  const field = rest.length ? 34 + Math.ceil(rest.length / columns) * CELL : 0;
  const left = shown.length * ROW + (field ? field + 8 : 0);
  const height = Math.max(left, status.sinks.length * ROW, 170);
  set(drawing, {
    viewBox: `0 0 ${width} ${height}`, height,
    "aria-label": `${plural(status.tables.length, "table")} over ${plural(status.decoders.running, "decoder")} to `
      + `${plural(status.sinks.length, "sink")}; the lists below say the same in words`,
  });
  const middle = { x: width / 2 - 90, width: 180 };
  const places = shown.map((table, index) => ({ part: table, y: (height - left) / 2 + index * ROW + (ROW - BOX.height) / 2 }));
  const right = width - BOX.width - 1;
  const ends = status.sinks.map((sink, index) => ({
    part: sink, y: (height - status.sinks.length * ROW) / 2 + index * ROW + (ROW - BOX.height) / 2,
  }));
  const fieldAt = (height - left) / 2 + shown.length * ROW + 6;
  pool(drawing.querySelector(".pool"), status.decoders, middle, height);
  each(drawing.querySelector(".tables"), places, (place) => place.part.name, () => box(open), (node, place) =>
    draw(node, place.part, 1, place.y, [
      `${compact(place.part.records_per_second)}/s`,
      place.part.lag_seconds >= 1 ? `lag ${seconds(place.part.lag_seconds)}` : null,
      place.part.pending ? `${compact(place.part.pending)} pending` : null,
      place.part.restarts ? plural(place.part.restarts, "restart") : null,
      place.part.dead_letters ? `${compact(place.part.dead_letters)} dead` : null,
    ]));
  each(drawing.querySelector(".sinks"), ends, (place) => place.part.name, () => box(null), (node, place) =>
    draw(node, place.part, right, place.y, [
      `${compact(place.part.records_per_second)}/s`,
      place.part.kind,
      place.part.circuit && place.part.circuit !== "closed" ? `circuit ${place.part.circuit}` : null,
      place.part.restarts ? plural(place.part.restarts, "restart") : null,
    ]));
  crowd(drawing.querySelector(".crowd"), rest, fieldAt, field, columns, open);
  // Where the lines meet the pool: spread over its side.
  const side = (index, number) => height / 2 + ((index + 0.5) / number - 0.5) * Math.min(TALL - 24, 14 * number);
  const sources = places.length + (rest.length ? 1 : 0);
  const lines = [
    ...places.map((place, index) => ({
      key: `t${place.part.name}`, from: [1 + BOX.width, place.y + BOX.height / 2], to: [middle.x, side(index, sources)],
      rate: place.part.records_per_second, health: health(place.part),
    })),
    ...(rest.length ? [{
      key: "rest", from: [1 + BOX.width, fieldAt + field / 2], to: [middle.x, side(sources - 1, sources)], rate: sum(rest),
      health: "good",
    }] : []),
    ...ends.map((place, index) => ({
      key: `s${place.part.name}`, from: [middle.x + middle.width, side(index, ends.length)],
      to: [right, place.y + BOX.height / 2], rate: place.part.records_per_second, health: health(place.part),
    })),
  ];
  each(drawing.querySelector(".lines"), lines, (line) => line.key, () => svg("g", {}, svg("path", { class: "bed" }), svg("path", { class: "stream" })),
    (node, line) => {
      const bend = (line.to[0] - line.from[0]) / 2;
      const d = `M${line.from}C${line.from[0] + bend},${line.from[1]} ${line.to[0] - bend},${line.to[1]} ${line.to}`;
      const thick = 2 + 1.8 * Math.log10(1 + line.rate);
      set(node, { class: `${line.health} ${line.rate > 0 ? "moving" : ""}` });
      set(node.children[0], { d, "stroke-width": thick });
      set(node.children[1], { d, "stroke-width": Math.max(1.5, thick * 0.45) });
    });
}

const sum = (tables) => tables.reduce((total, table) => total + table.records_per_second, 0);

// The tables that get a box: those in trouble, then those with the most records; in the order of the file.
function chosen(tables) {
  if (tables.length <= BOXES) return tables;
  const rank = { bad: 0, warn: 1, good: 2 };
  const best = [...tables].sort((a, b) => rank[health(a)] - rank[health(b)] || b.received - a.received);
  const some = new Set(best.slice(0, BOXES - 1));
  return tables.filter((table) => some.has(table));
}

function frame() {
  return svg("svg", { role: "group", class: "flow" },
    ...["lines", "pool", "tables", "crowd", "sinks"].map((name) => svg("g", { class: name })));
}

function box(open) {
  const node = svg("g", {}, svg("rect", { rx: 9, width: BOX.width, height: BOX.height }),
    svg("text", { class: "mark", x: 13, y: 18 }), svg("text", { class: "name", x: 30, y: 18 }),
    svg("text", { class: "facts", x: 30, y: 34 }), svg("title"));
  if (open) button(node, () => open(node.dataset.key));
  return node;
}

function button(node, act) {
  set(node, { role: "button", tabindex: 0 });
  node.addEventListener("click", act);
  node.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); }
  });
}

function draw(node, part, x, y, facts) {
  const state = health(part);
  const words = state === "good" ? facts : [part.failed ? `failed, ${stateOf(part)}` : stateOf(part), ...facts.slice(1)];
  set(node, { class: `box ${state}`, transform: `translate(${x},${y})`, "data-state": part.state });
  text(node.querySelector(".mark"), MARKS[state]);
  text(node.querySelector(".name"), clip(part.name, 27));
  text(node.querySelector(".facts"), clip(words.filter(Boolean).join(" · "), 36));
  text(node.querySelector("title"), `${part.name}: ${part.state}${part.problem ? `: ${part.problem}` : ""}`);
}

const clip = (value, length) => (value.length > length ? `${value.slice(0, length - 1)}…` : value);

// The tables without a box.
function crowd(group, tables, top, height, columns, open) {
  each(group, tables.length ? [0] : [], () => "field",
    () => svg("g", {}, svg("rect", { rx: 9, x: 1, width: BOX.width, class: "panel" }), svg("text", { class: "name", x: 14 }), svg("g")),
    (node) => {
      const [panel, label, cells] = node.children;
      set(panel, { y: top, height });
      set(label, { y: top + 19 });
      text(label, `${plural(tables.length, "more table")}, ${compact(sum(tables))}/s`);
      each(cells, tables, (table) => table.name, () => {
        const cell = svg("rect", { width: CELL - 3, height: CELL - 3, rx: 2.5 }, svg("title"));
        cell.addEventListener("click", () => open(cell.dataset.key));
        return cell;
      }, (cell, table) => {
        const index = tables.indexOf(table);
        set(cell, {
          class: `cell ${health(table)} ${table.records_per_second > 0 ? "moving" : ""}`,
          x: 14 + (index % columns) * CELL, y: top + 28 + Math.floor(index / columns) * CELL,
        });
        text(cell.firstChild, `${table.name}: ${table.state}, ${compact(table.records_per_second)}/s`);
      });
    });
}

// The decoders: a bar each, as high as it is busy, or squares when there are many.
function pool(group, decoders, { x, width }, height) {
  each(group, [0], () => "pool",
    () => svg("g", {}, svg("rect", { rx: 12, class: "panel" }), svg("text", { class: "name", "text-anchor": "middle" }),
      svg("text", { class: "facts", "text-anchor": "middle" }), svg("g")),
    (node) => {
      const [panel, label, facts, cells] = node.children;
      const short = decoders.running < decoders.wanted;
      const top = (height - TALL) / 2;
      set(panel, { x, y: top, width, height: TALL });
      set(node, { class: short ? "warn" : "good" });
      for (const each of [label, facts]) set(each, { x: x + width / 2 });
      set(label, { y: top + 22 });
      set(facts, { y: top + TALL - 14 });
      text(label, `${decoders.running} of ${plural(decoders.wanted, "decoder")}`);
      text(facts, Number.isFinite(decoders.busy) ? `busy ${Math.round(decoders.busy * 100)} %`
        : `${compact(decoders.members.reduce((total, member) => total + member.records_per_second, 0))}/s`);
      const members = decoders.members.slice(0, 48);
      const [cell, columns] = members.length > 8 ? [CELL, 12] : [19, 8];
      const size = Math.min(columns, members.length);
      each(cells, members, (member) => member.name, () => svg("rect", { rx: 3 }, svg("title")), (square, member) => {
        const index = members.indexOf(member);
        set(square, {
          width: cell - 3, height: cell - 3, class: `cell ${health(member)} ${member.records_per_second > 0 ? "moving" : ""}`,
          x: x + width / 2 - (size * cell - 3) / 2 + (index % columns) * cell,
          y: top + TALL / 2 - (Math.ceil(members.length / columns) * cell) / 2 + Math.floor(index / columns) * cell,
        });
        text(square.firstChild, `decoder ${member.name}: ${member.state}, ${compact(member.records_per_second)}/s`);
      });
    });
}
